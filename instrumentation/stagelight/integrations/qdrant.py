"""The official ``qdrant-client``, 1.14 and later: searches and writes, sync and async, remote and local."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from stagelight._guard import quietly
from stagelight.facts import Request, Response, Retrieved
from stagelight.integrations._database import DatabaseCall
from stagelight.integrations._engine import Begin, around, around_async
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target, Wrapper
from stagelight.integrations._qdrant_queries import Scale, mode_of, scale_of
from stagelight.integrations._reading import count, part, text

__all__ = ["QdrantInstrumentor", "read"]

_SYSTEM: Final = "qdrant"
_DEFAULT_LIMIT: Final = 10  # the client's own, which it sends
_MOST_COLLECTIONS: Final = 256

Given = Mapping[str, Any]
"""Arguments by name."""

_QUERY = ("collection_name", "query", "using", "prefetch", "query_filter", "search_params", "limit")
_SEARCH = ("collection_name", "query_vector", "query_filter", "search_params", "limit")

_SEARCHES: Mapping[str, tuple[str, ...]] = {
    "query_points": _QUERY,
    "query_points_groups": ("collection_name", "group_by", "query", "using", "prefetch", "query_filter"),
    "search": _SEARCH,
    "search_groups": ("collection_name", "query_vector", "group_by", "query_filter", "search_params", "limit"),
    "recommend": ("collection_name", "positive", "negative", "query_filter", "search_params", "limit"),
    "discover": ("collection_name", "target", "context", "query_filter", "search_params", "limit"),
}
"""Searches and the order of their arguments; a version that lacks one is not asked for it."""

_BATCHES: Mapping[str, tuple[str, ...]] = {
    "query_batch_points": ("collection_name", "requests"),
    "search_batch": ("collection_name", "requests"),
}
_WRITES: Mapping[str, tuple[str, ...]] = {
    "upsert": ("collection_name", "points"),
    "upload_points": ("collection_name", "points"),
    "upload_collection": ("collection_name", "vectors"),
}


# what was asked


def _asked(operation: str, client: Any, given: Given) -> Request:
    remote = part(client, "_client")
    is_grpc = part(remote, "_prefer_grpc") is True
    return Request(
        provider=_SYSTEM,
        db_system=_SYSTEM,
        db_operation=operation,
        source=text(given.get("collection_name")),
        server_address=text(part(remote, "_host")),
        server_port=count(part(remote, "_grpc_port" if is_grpc else "_port")),
    )


def _search(operation: str, client: Any, given: Given) -> DatabaseCall:
    query = given.get("query", given.get("query_vector"))
    prefetch, using = given.get("prefetch"), given.get("using")
    filters = [given.get("query_filter"), *(part(one, "filter") for one in _listed(prefetch))]
    request = _asked(operation, client, given)._replace(
        top_k=count(given.get("limit", _DEFAULT_LIMIT)),
        mode=mode_of(query, prefetch),
        filtered=any(one is not None for one in filters),
    )
    scale = scale_of(query, using, _vectors_of(client, request.source or ""))
    return DatabaseCall("retrieval", request, lambda result: _found(result, scale))


def _search_batch(operation: str, client: Any, given: Given) -> DatabaseCall:
    queries = _listed(given.get("requests"))
    limits = {part(one, "limit") for one in queries}
    modes = {mode_of(_query_of(one), part(one, "prefetch")) for one in queries}
    request = _asked(operation, client, given)._replace(
        top_k=count(limits.pop()) if len(limits) == 1 else None,
        mode=modes.pop() if len(modes) == 1 else None,
        filtered=any(part(one, "filter") is not None for one in queries),
    )
    vectors = _vectors_of(client, request.source or "")
    alone = queries[0] if len(queries) == 1 else None
    scale = scale_of(_query_of(alone), part(alone, "using"), vectors)
    return DatabaseCall("retrieval", request, lambda results: _found_batch(results, scale))


def _write(operation: str, client: Any, given: Given) -> DatabaseCall:
    request = _asked(operation, client, given)
    # A store is named after what it works on; only a retrieval has a data source.
    return DatabaseCall("store", request._replace(name=request.source, source=None), lambda _: None)


def _query_of(request: Any) -> Any:
    query = part(request, "query")
    return part(request, "vector") if query is None else query


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


# what came back


def _points(result: Any) -> list[Any]:
    groups = part(result, "groups")
    if groups is not None:
        return [hit for group in groups for hit in group.hits]
    points = part(result, "points")
    return _listed(result if points is None else points)


def _found(result: Any, scale: Scale | None = None) -> Response:
    points = _points(result)
    scores = tuple(score for point in points if isinstance(score := part(point, "score"), int | float))
    metric, higher_is_better = (None, None) if scale is None else scale
    return Response(
        retrieved=Retrieved(count=len(points), scores=scores, metric=metric, higher_is_better=higher_is_better)
    )


def _found_batch(results: Any, scale: Scale | None) -> Response:
    answers = _listed(results)
    if len(answers) == 1:
        return _found(answers[0], scale)
    # Scores of several queries are no ranking, so only their number says something.
    return Response(retrieved=Retrieved(count=sum(len(_points(one)) for one in answers)))


def read(response: Any) -> Response | None:
    """The facts of a search's answer; ``None`` for anything else the client returns."""
    return _found(response) if part(response, "points") is not None or part(response, "groups") is not None else None


# what passes by about collections, so that the metric of scores is known without a request

_seen: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()


def _vectors_of(client: Any, collection: str) -> Any:
    """Vector parameters of a collection: the local client has them, of a remote one those seen passing by."""
    local = part(client, "_client")
    collections, aliases = part(local, "collections"), part(local, "aliases")
    if isinstance(collections, dict):
        name = aliases.get(collection, collection) if isinstance(aliases, dict) else collection
        return part(collections.get(name), "config", "vectors")
    return _seen.get(client, {}).get(collection)


def _remember(client: Any, collection: Any, vectors: Any) -> None:
    known = _seen.setdefault(client, {})
    if len(known) < _MOST_COLLECTIONS or collection in known:
        known[str(collection)] = vectors


def _created(client: Any, given: Given, _result: Any) -> None:
    _remember(client, given.get("collection_name"), given.get("vectors_config"))


def _described(client: Any, given: Given, result: Any) -> None:
    _remember(client, given.get("collection_name"), part(result, "config", "params", "vectors"))


def _deleted(client: Any, given: Given, _result: Any) -> None:
    _seen.get(client, {}).pop(str(given.get("collection_name")), None)


_PASSING: Mapping[str, Callable[[Any, Given, Any], None]] = {
    "create_collection": _created,
    "recreate_collection": _created,
    "get_collection": _described,
    "delete_collection": _deleted,
}


def _given(names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Given:
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _noting(note: Callable[[Any, Given, Any], None]) -> tuple[Wrapper, Wrapper]:
    names = ("collection_name", "vectors_config")

    def learn(client: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
        quietly("qdrant collection", lambda: note(client, _given(names, args, kwargs), result), None)
        return result

    def wrapper(wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return learn(client, args, kwargs, wrapped(*args, **kwargs))

    async def wrapper_async(
        wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return learn(client, args, kwargs, await wrapped(*args, **kwargs))

    return wrapper, wrapper_async


# the table


def _begin(make: Callable[[str, Any, Given], DatabaseCall], operation: str, names: tuple[str, ...]) -> Begin:
    return lambda client, args, kwargs: make(operation, client, _given(names, args, kwargs))


def _wrappers() -> Mapping[str, tuple[Wrapper, Wrapper]]:
    rows: dict[str, tuple[Wrapper, Wrapper]] = {name: _noting(note) for name, note in _PASSING.items()}
    for make, operations in ((_search, _SEARCHES), (_search_batch, _BATCHES), (_write, _WRITES)):
        for operation, names in operations.items():
            begin = _begin(make, operation, names)
            rows[operation] = (around(begin), around_async(begin))
    return rows


class QdrantInstrumentor(Instrumentor):
    """Records the calls of the official ``qdrant-client``."""

    distribution = "qdrant-client"
    supported = "qdrant-client >= 1.14, < 2"
    coverage = Coverage(
        title="Qdrant",
        calls={
            **dict.fromkeys((*_SEARCHES, *_BATCHES), "retrieval"),
            **dict.fromkeys(_WRITES, "store"),
        },
        ways="sync and async; remote (REST and gRPC) and local; `search...`, `recommend` and `discover` where the"
        " version has them",
        recorded=(
            "Collection, `top_k` (the client's own 10 where you give no limit), whether there is a filter, the number"
            " of results and their scores.",
            "The mode is what is searched with: `dense`, `sparse`, or `hybrid` where a query and its prefetches use"
            " both; it is absent for queries by a point's id.",
            "Metric and direction of the scores: the collection's distance for nearest neighbours, `dot` for sparse"
            " vectors, `rrf` or `dbsf` for a fusion. The distance is known for local collections, and for remote ones"
            " once this client has created or described the collection (`create_collection`, `get_collection`).",
            "Several queries of one batch are one retrieval with the number of all results.",
        ),
        not_recorded=(
            "The metric of a remote collection that this client never described: no request is made to find out.",
            "The metric of other scores (recommendation, discovery, formulas, multi-vectors). Scores without a metric"
            " are on the span only, in no histogram.",
            "Scores of several queries in one batch, which are no ranking.",
            "`recommend_batch`, `recommend_groups` and `discover_batch` of older versions; reading, counting, changing"
            " and deleting points; how many points are written.",
        ),
    )

    @property
    def targets(self) -> Sequence[Target]:
        clients = (
            ("qdrant_client.qdrant_client", "QdrantClient"),
            ("qdrant_client.async_qdrant_client", "AsyncQdrantClient"),
        )
        return tuple(
            Target(module, f"{kind}.{method}", sync, asynchronous)
            for module, kind in clients
            for method, (sync, asynchronous) in _wrappers().items()
        )
