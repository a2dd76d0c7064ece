"""Who instruments what in this environment: every installed instrumentation and the libraries it is for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, NamedTuple

__all__ = ["GROUP", "PREFIX", "Instrumentation", "installed", "libraries_of", "stands_for", "supported_by"]

GROUP: Final = "opentelemetry_instrumentor"
PREFIX: Final = "stagelight-"
"""Beginning of the names of our own."""

_LIBRARY: Final = re.compile(r"[A-Za-z0-9][\w.-]*")
_MARKED: Final = re.compile(r"extra\s*==\s*['\"]instruments(-any)?['\"]")
_SHARED: Final = frozenset({"asyncpg", "boto3", "botocore", "psycopg", "sqlalchemy", "starlette", "fastapi"})
"""Libraries of whose calls only some are stages: general instrumentations of them stay on beside ours."""
_OF_MODELS: Final = re.compile(r"genai|openinference|bedrock")
"""Packages that record what ours record, whatever the library."""


class Instrumentation(NamedTuple):
    """One installed instrumentation."""

    name: str
    """As ``OTEL_PYTHON_DISABLED_INSTRUMENTATIONS`` knows it."""
    package: str
    version: str
    libraries: tuple[str, ...]
    """Distributions whose calls it records."""

    @property
    def is_ours(self) -> bool:
        return self.name.startswith(PREFIX)


def installed() -> Iterator[Instrumentation]:
    """All instrumentations, in the order in which they are switched on."""
    yield from (_described(entry) for entry in entry_points(group=GROUP))


def supported_by(entry: EntryPoint) -> Any:
    """The class of one of ours: what it supports and covers. Imports no library."""
    return entry.load()


def libraries_of(names: Collection[str]) -> frozenset[str]:
    """Libraries that ours record.

    Args:
        names: of our instrumentations, without the prefix.
    """
    return frozenset(
        _normal(supported_by(entry).distribution)
        for entry in entry_points(group=GROUP)
        if entry.name.startswith(PREFIX) and entry.name.removeprefix(PREFIX) in names
    )


def stands_for(entry: EntryPoint, ours: Collection[str]) -> str | None:
    """The library for which one of ours already records what a foreign instrumentation would record again.

    Args:
        entry: of the foreign one.
        ours: libraries that ours record.
    """
    other = _described(entry)
    for library in other.libraries:
        if library in ours and (library not in _SHARED or _OF_MODELS.search(other.package)):
            return library
    return None


def _described(entry: EntryPoint) -> Instrumentation:
    package = entry.dist
    if package is None:
        return Instrumentation(entry.name, "", "", ())
    libraries: tuple[str, ...]
    if entry.name.startswith(PREFIX):
        libraries = (_normal(supported_by(entry).distribution),)
    else:
        libraries = tuple(
            _normal(found)
            for line in package.requires or ()
            if _MARKED.search(line)
            for found in _LIBRARY.findall(line)[:1]
        )
    if len(libraries) > 1 and _normal(entry.name) in libraries:
        libraries = (_normal(entry.name),)  # one package with an instrumentation per library
    return Instrumentation(entry.name, package.name, package.version, libraries)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
