"""Every way of searching with the Qdrant client and of writing: collections of a server, and of this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from noninterference.servers import Server
from noninterference.uses import Client, Options, Use, now

__all__ = ["CLIENT"]

NEAR = [1.0, 0.0]


@asynccontextmanager
async def _open(server: Server, options: Options) -> AsyncIterator[Any]:
    from qdrant_client import AsyncQdrantClient, QdrantClient, models

    make: Any = AsyncQdrantClient if options.kind == "async" else QdrantClient
    # Reading the certificates takes longer than a test, and nothing here is encrypted.
    remote = make(url=server.origin, check_compatibility=False, timeout=round(options.timeout_s), verify=False)
    local = make(":memory:")
    try:
        params = models.VectorParams(size=2, distance=models.Distance.COSINE)
        await now(local.create_collection("docs", params))
        await now(local.upsert("docs", _points()))
        yield SimpleNamespace(remote=remote, local=local)
    finally:
        await now(local.close())
        await now(remote.close())


def _points() -> list[Any]:
    from qdrant_client import models

    return [
        models.PointStruct(id=at, vector=[1.0, float(at)], payload={"even": at % 2 == 0, "shelf": f"shelf {at % 2}"})
        for at in range(5)
    ]


def _only_even() -> Any:
    from qdrant_client import models

    return models.Filter(must=[models.FieldCondition(key="even", match=models.MatchValue(value=True))])


def _query(client: Any) -> Any:
    return client.query_points("docs", query=NEAR, limit=3, query_filter=_only_even())


def _query_missing(client: Any) -> Any:
    return client.query_points("missing", query=NEAR)


def _groups(client: Any) -> Any:
    return client.query_points_groups("docs", group_by="shelf", query=NEAR, limit=2)


def _batch(client: Any) -> Any:
    from qdrant_client import models

    one = models.QueryRequest(query=NEAR, limit=2)
    return client.query_batch_points("docs", requests=[one, one])


def _search_batch(client: Any) -> Any:
    from qdrant_client import models

    one = models.SearchRequest(vector=NEAR, limit=2)
    return client.search_batch("docs", requests=[one, one])


def _discover(client: Any) -> Any:
    from qdrant_client import models

    return client.discover("docs", target=1, context=[models.ContextExamplePair(positive=2, negative=3)], limit=2)


def _upload(client: Any) -> Any:
    return client.upload_collection("docs", vectors=[NEAR, NEAR], ids=[7, 8])


CALLS: dict[str, Callable[[Any], Any]] = {
    "query_points": _query,
    "query_points_groups": _groups,
    "query_batch_points": _batch,
    "search": lambda client: client.search("docs", NEAR, limit=2),
    "search_groups": lambda client: client.search_groups("docs", NEAR, group_by="shelf", limit=2),
    "search_batch": _search_batch,
    "recommend": lambda client: client.recommend("docs", positive=[1], limit=2),
    "discover": _discover,
    "upsert": lambda client: client.upsert("docs", _points()),
    "upload_points": lambda client: client.upload_points("docs", _points()),
    "upload_collection": _upload,
}
"""How each is called; a version of the client lacks some."""


def _of(where: str, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda clients: call(getattr(clients, where))


def _uses(name: str, call: Callable[[Any], Any]) -> tuple[Use, ...]:
    needs = f"qdrant_client:QdrantClient.{name}"
    local = Use(name, _of("local", call), "in this process", needs=needs)
    return local, Use(name, _of("remote", call), needs=needs)


USES = (
    *(use for name, call in CALLS.items() for use in _uses(name, call)),
    Use("query_points", _of("remote", _query_missing), "refused", fails=True),
    Use("query_points", _of("local", _query_missing), "refused in this process", fails=True),
)

CLIENT = Client("qdrant", "QdrantInstrumentor", ("qdrant_client",), _open, USES, "qdrant")
