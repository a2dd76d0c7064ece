"""``stagelight doctor --app``: which client library is recorded, by whom, and what is missing."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Final, NamedTuple

from stagelight import settings
from stagelight.cli.doctor_wrappers import wrappers_in
from stagelight.cli.output import DIM, STRONG, WARN, Cell, Column, Content, Screen
from stagelight.instrumentations import Instrumentation, duplicates, installed

__all__ = ["Library", "libraries", "print_libraries", "unseen", "winner"]

_DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
_DISTRO: Final = "OTEL_PYTHON_DISTRO"
_OURS: Final = "stagelight"

_HTTP: Final = {"fastapi": "fastapi", "starlette": "starlette", "httpx": "httpx", "httpx2": "httpx"}
"""Libraries that the official instrumentations record, and the extra that brings them."""
_UNKNOWN_CLIENTS: Final = (
    "assemblyai", "cartesia", "cohere", "deepgram-sdk", "groq", "huggingface-hub", "litellm", "lancedb", "mistralai",
    "ollama", "pinecone", "pymilvus", "replicate", "together", "voyageai", "weaviate-client",
)  # fmt: skip
"""AI clients that nobody of ours records: known, so that their absence is said."""
_BY_CODE: Final = ("logfire", "openlit", "traceloop-sdk")
"""Packages that record calls of clients once a line of the application's code says so."""


class Library(NamedTuple):
    """One installed client library."""

    library: str
    version: str
    recorded_by: tuple[str, ...]
    """Instrumentations that record its calls, with the package each is from; empty for none."""
    missing: str = ""
    """What keeps it from being recorded, or from being recorded once; with the way out."""


def winner() -> str:
    """The distribution that ``opentelemetry-instrument`` would take; empty for OpenTelemetry's own."""
    names = [entry.name for entry in entry_points(group="opentelemetry_distro")]
    chosen = os.environ.get(_DISTRO, "").strip()
    if chosen:
        return chosen if chosen in names else ""
    return names[0] if names else ""


def libraries(module: str = "") -> list[Library]:
    """Every installed library that somebody records or could, by name.

    Args:
        module: the application's, which is imported to see what its code switches on; default no look at it.

    Raises:
        CannotImport: that is not possible.
    """
    known = list(installed())
    names = {*_HTTP, *_UNKNOWN_CLIENTS, *(library for one in known for library in one.libraries)}
    versions = {name: found for name in sorted(names) if (found := _version(name)) is not None}
    by_code = wrappers_in(module, versions) if module else {}
    return [_looked_at(name, found, known, by_code.get(name, ())) for name, found in versions.items()]


def unseen() -> Iterator[tuple[str, str]]:
    """Name and version of installed packages of which only the application's code says whether they record."""
    for name in _BY_CODE:
        found = _version(name)
        if found is not None:
            yield name, found


def _looked_at(name: str, found: str, known: Sequence[Instrumentation], by_code: Sequence[str]) -> Library:
    off = _switched_off()
    at_it = sorted((one for one in known if name in one.libraries), key=lambda one: not one.is_ours)
    supported = [one for one in at_it if _supports(one, name, found)]
    working = [one for one in supported if one.is_ours and not _is_off(one, off)]
    beside = [one for one in supported if not one.is_ours and not _is_off(one, off)]
    again = [one for one in beside if any(ours.counts for ours in working) and duplicates(one.package, name)]
    replaced = again if _is_our_distro() else []
    recording = tuple(f"{one.name} ({one.package} {one.version})" for one in (*working, *beside) if one not in replaced)
    packages = {f"{one.package} {one.version}" for one in (*working, *beside) if one not in replaced}
    in_code = [one for one in by_code if one not in packages]
    ours = [one.name for one in working if one.counts]
    if in_code and ours and duplicates(in_code[0], name):
        missing = (
            f"the code switches on {in_code[0]} for the same calls: they count twice, or without costs where it "
            f"silences others; take that out, or ours by {_DISABLED}={ours[0]}"
        )
    elif again and not replaced:
        missing = (
            f"{again[0].name} of {again[0].package} records the same calls, which counts them twice: "
            f"export {_DISTRO}={_OURS}, or switch one of them off by {_DISABLED}"
        )
    elif recording or in_code:
        missing = ""
    else:
        missing = _why_not(name, at_it, supported)
    return Library(name, found, (*recording, *(f"{one}, by the application's code" for one in in_code)), missing)


def _why_not(name: str, at_it: Sequence[Instrumentation], supported: Sequence[Instrumentation]) -> str:
    if at_it and not supported:
        return f"this version is not supported: {', '.join(at_it[0].supported)}"
    if supported:
        return f"switched off by {_DISABLED} or STAGELIGHT_INSTRUMENT"
    if name in _HTTP:
        return f"pip install 'stagelight[{_HTTP[name]}]'"
    return "no instrumentation: put stagelight.llm(...) or the verb that fits around its calls"


def _switched_off() -> Collection[str]:
    return {name.strip() for name in os.environ.get(_DISABLED, "").split(",") if name.strip()}


def _is_off(one: Instrumentation, off: Collection[str]) -> bool:
    return one.name in off or "*" in off or not settings.read()[0].instrument


def _is_our_distro() -> bool:
    return os.environ.get(_DISTRO, "").strip() in {"", _OURS}


def _supports(one: Instrumentation, name: str, found: str) -> bool:
    from packaging.requirements import Requirement

    versions = Requirement(one.supported[one.libraries.index(name)]).specifier
    return versions.contains(found, prereleases=True)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def print_libraries(found: Sequence[Library]) -> None:
    """Print the table."""
    screen = Screen()
    columns = [Column("library"), Column("version"), Column("recorded by", wrap=30), Column("missing", wrap=30)]
    screen.table(columns, [list(_line(one)) for one in found])
    screen.line("")


def _line(one: Library) -> Iterator[Content]:
    yield Cell(one.library, STRONG)
    yield one.version
    yield ", ".join(one.recorded_by) or Cell("nobody", DIM if re.search("pip install", one.missing) else WARN)
    yield Cell(one.missing, WARN if one.recorded_by else "")
