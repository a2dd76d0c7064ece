"""Chroma's Python client: searches and writes of collections, sync and async, local and remote."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

from stagelight.facts import Request, Response
from stagelight.integrations._database import DatabaseCall, Scale, retrieved
from stagelight.integrations._engine import Begin, around, around_async
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target
from stagelight.integrations._reading import count, part, text

__all__ = ["ChromaInstrumentor", "read"]

_SYSTEM: Final = "chroma"
_DEFAULT_LIMIT: Final = 10  # the client's own, which it sends
_SEARCH: Final = "query"
_WRITES: Final = ("add", "upsert", "update")
_FILTERS: Final = ("where", "where_document", "ids")

_SCALES: Final[Mapping[str, Scale]] = {
    "l2": ("squared_euclid", False),
    "cosine": ("cosine_distance", False),
    "ip": ("dot_distance", False),  # 1 - dot
}
"""Chroma's spaces; its distances are lower for nearer vectors in all of them."""


# what was asked


@cache
def _names(kind: type, operation: str) -> tuple[str, ...]:
    """The arguments of an operation in order, which differs between versions."""
    return tuple(inspect.signature(getattr(kind, operation)).parameters)[1:]


def _given(operation: str, collection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
    if not args:
        return kwargs
    kind: Any = type(collection)
    return {**dict(zip(_names(kind, operation), args, strict=False)), **kwargs}


def _asked(operation: str, collection: Any) -> Request:
    remote = urlsplit(str(part(collection, "_client", "_api_url") or ""))
    return Request(
        provider=_SYSTEM,
        db_system=_SYSTEM,
        db_operation=operation,
        source=text(part(collection, "_model", "name")),
        server_address=remote.hostname,
        server_port=remote.port,
    )


def _search(collection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DatabaseCall:
    given = _given(_SEARCH, collection, args, kwargs)
    request = _asked(_SEARCH, collection)._replace(
        top_k=count(given.get("n_results", _DEFAULT_LIMIT)),
        mode="dense",
        filtered=any(given.get(name) is not None for name in _FILTERS),
    )
    scale = _scale(collection)
    return DatabaseCall("retrieval", request, lambda result: _found(result, scale))


def _write(operation: str) -> Begin:
    def begin(collection: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> DatabaseCall:
        request = _asked(operation, collection)
        # A store is named after what it works on; only a retrieval has a data source.
        return DatabaseCall("store", request._replace(name=request.source, source=None), lambda _: None)

    return begin


def _scale(collection: Any) -> Scale | None:
    """What the collection's distances are; before 1.0 its metadata says it, and the configuration a default only."""
    told = part(collection, "_model", "configuration_json")
    space = part(told, "hnsw", "space") or part(told, "spann", "space")
    space = space or part(collection, "_model", "metadata", "hnsw:space") or part(told, "hnsw_configuration", "space")
    return _SCALES.get(str(space))


# what came back


def _found(result: Any, scale: Scale | None) -> Response | None:
    ids = part(result, "ids")
    if not isinstance(ids, list):
        return None
    found = sum(len(one) for one in ids)
    if len(ids) != 1:  # scores of several queries are no ranking
        return retrieved(found, (), None)
    distances = part(result, "distances") or [[]]
    return retrieved(found, distances[0] or (), scale)


def read(_response: Any) -> Response | None:
    """Nothing: results are plain dictionaries, which do not say whose they are."""
    return None


class ChromaInstrumentor(Instrumentor):
    """Records the calls of collections of ``chromadb``."""

    distribution = "chromadb"
    supported = "chromadb >= 0.6.3, < 2"
    coverage = Coverage(
        title="Chroma",
        calls={"collection.query": "retrieval", **{f"collection.{name}": "store" for name in _WRITES}},
        ways="sync and async; in memory, persistent and remote",
        recorded=(
            "Collection, `top_k` (Chroma's own 10 where you give none), whether there is a filter (`where`,"
            " `where_document`, `ids`), the number of results and their scores.",
            "Metric and direction are those of the collection's configuration: `cosine_distance`, `squared_euclid` and"
            " `dot_distance` (1 - dot), all lower for nearer vectors.",
            "The embedding that `query_texts` and `add` compute runs inside the call.",
        ),
        not_recorded=(
            "Scores of several queries in one call, which are no ranking.",
            "`collection.search`, which only Chroma's distributed and hosted servers have.",
            "`get`, `peek`, `count` and `delete`, which search and write no vectors; how many records are written.",
        ),
    )

    @property
    def targets(self) -> Sequence[Target]:
        classes = (
            ("chromadb.api.models.Collection", "Collection"),
            ("chromadb.api.models.AsyncCollection", "AsyncCollection"),
        )
        begins: Mapping[str, Begin] = {_SEARCH: _search, **{name: _write(name) for name in _WRITES}}
        return tuple(
            Target(module, f"{kind}.{operation}", around(begin), around_async(begin))
            for module, kind in classes
            for operation, begin in begins.items()
        )
