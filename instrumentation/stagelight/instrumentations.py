"""Who instruments what in this environment: every installed instrumentation and the libraries it is for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, NamedTuple

__all__ = [
    "GROUP",
    "PREFIX",
    "Instrumentation",
    "duplicates",
    "installed",
    "libraries_of",
    "stands_for",
]

GROUP: Final = "opentelemetry_instrumentor"
PREFIX: Final = "stagelight-"
"""Beginning of the names of our own."""

_LIBRARY: Final = re.compile(r"[A-Za-z0-9][\w.-]*")
_MARKED: Final = re.compile(r"extra\s*==\s*['\"]instruments(-any)?['\"]")
_SHARED: Final = frozenset({"asyncpg", "boto3", "botocore", "psycopg", "sqlalchemy", "starlette", "fastapi"})
"""Libraries of whose calls only some are stages: general instrumentations of them stay on beside ours."""
_ABOVE: Final = {"langchain-core": ("langchain",)}
"""Libraries that do their calls through another one, and are recorded with it."""
_OF_MODELS: Final = re.compile(r"genai|openinference|bedrock")
"""Packages that record what ours record, whatever the library."""


class Instrumentation(NamedTuple):
    """One installed instrumentation."""

    entry: EntryPoint
    package: str
    version: str
    supported: tuple[str, ...]
    """The versions of each library that it records: ``openai >= 1.60, < 4``."""
    counts: bool = True
    """Whether it records calls; some of ours only take a request along, or look into a cache."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions whose calls it records."""
        return tuple(_normal(_LIBRARY.findall(one)[0]) for one in self.supported)

    @property
    def name(self) -> str:
        """As ``OTEL_PYTHON_DISABLED_INSTRUMENTATIONS`` knows it."""
        return self.entry.name

    @property
    def is_ours(self) -> bool:
        return self.name.startswith(PREFIX)


def installed() -> Iterator[Instrumentation]:
    """All instrumentations, in the order in which they are switched on."""
    yield from (_described(entry) for entry in entry_points(group=GROUP))


def libraries_of(names: Collection[str]) -> frozenset[str]:
    """Libraries that ours record.

    Args:
        names: of our instrumentations, without the prefix.
    """
    return frozenset(
        library
        for one in installed()
        if one.is_ours and one.counts and one.name.removeprefix(PREFIX) in names
        for library in one.libraries
    )


def stands_for(entry: EntryPoint, ours: Collection[str]) -> str | None:
    """The library for which one of ours already records what a foreign instrumentation would record again.

    Args:
        entry: of the foreign one.
        ours: libraries that ours record.
    """
    other = _described(entry)
    both = (library for library in other.libraries if library in ours)
    return next((library for library in both if duplicates(other.package, library)), None)


def duplicates(package: str, library: str) -> bool:
    """Whether the instrumentation in a foreign package records what ours of the same library records."""
    return library not in _SHARED or _OF_MODELS.search(package) is not None


def _described(entry: EntryPoint) -> Instrumentation:
    package = entry.dist
    if package is None:
        return Instrumentation(entry, "", "", ())
    if entry.name.startswith(PREFIX):
        own = _own(entry)
        above = _ABOVE.get(_normal(own.distribution), ())
        return Instrumentation(entry, package.name, package.version, (own.supported, *above), bool(own.coverage.calls))
    supported = [line.partition(";")[0].strip() for line in package.requires or () if _MARKED.search(line)]
    # One package may have an instrumentation per library: that of httpx has one for httpx2.
    named = [one for one in supported if _normal(_LIBRARY.findall(one)[0]) == _normal(entry.name)]
    return Instrumentation(entry, package.name, package.version, tuple(named or supported))


def _own(entry: EntryPoint) -> Any:
    """The class of one of ours; imports no library."""
    return entry.load()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
