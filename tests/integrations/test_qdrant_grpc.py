"""Searches and writes of the Qdrant client over gRPC: a server made of the client's own stubs and its local mode."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client import grpc as stubs
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.grpc import collections_service_pb2_grpc, points_service_pb2_grpc
from stagelight.conventions import attributes as a
from stagelight.integrations.qdrant import QdrantInstrumentor
from stagelight.testing import Captured, Clock, capture

NEAR = [1.0, 0.0]
ONLY_EVEN = models.Filter(must=[models.FieldCondition(key="even", match=models.MatchValue(value=True))])
POINTS = [
    models.PointStruct(id=index, vector=[1.0, float(index)], payload={"even": index % 2 == 0, "shelf": str(index % 2)})
    for index in range(5)
]


class Points(points_service_pb2_grpc.PointsServicer):  # type: ignore[misc]  # the stubs are not typed
    """The service for points, on a collection in memory."""

    def __init__(self, local: QdrantClient) -> None:
        self._local = local

    def Upsert(self, request: Any, _context: Any) -> Any:  # noqa: N802 - the stub's name
        """Write points."""
        points = [GrpcToRest.convert_point_struct(point) for point in request.points]
        self._local.upsert(request.collection_name, points)
        done = stubs.UpdateResult(operation_id=1, status=stubs.UpdateStatus.Completed)
        return stubs.PointsOperationResponse(result=done, time=0.0)

    def Query(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Search."""
        return stubs.QueryResponse(result=self._found(request, context), time=0.0)

    def QueryBatch(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Search several times."""
        found = [stubs.BatchResult(result=self._found(one, context)) for one in request.query_points]
        return stubs.QueryBatchResponse(result=found, time=0.0)

    def QueryGroups(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Search, with one group of all hits."""
        hits = self._found(request, context)
        group = stubs.PointGroup(id=stubs.GroupId(string_value="0"), hits=hits)
        return stubs.QueryGroupsResponse(result=stubs.GroupsResult(groups=[group]), time=0.0)

    def _found(self, request: Any, context: Any) -> list[Any]:
        if not self._local.collection_exists(request.collection_name):
            context.abort(grpc.StatusCode.NOT_FOUND, "no such collection")
        vector = list(request.query.nearest.dense.data)
        found = self._local.query_points(
            request.collection_name,
            query=vector,
            # Old clients cannot read a filter back: an empty ``should`` becomes one that nothing fulfils.
            query_filter=ONLY_EVEN if request.HasField("filter") else None,
            limit=request.limit or 10,
        )
        return [RestToGrpc.convert_scored_point(point) for point in found.points]


class Collections(collections_service_pb2_grpc.CollectionsServicer):  # type: ignore[misc]
    """The service for collections."""

    def __init__(self, local: QdrantClient) -> None:
        self._local = local

    def Create(self, request: Any, _context: Any) -> Any:  # noqa: N802
        """Make a collection, in place of one of the same name."""
        self._local.delete_collection(request.collection_name)
        config = GrpcToRest.convert_vectors_config(request.vectors_config)
        done = self._local.create_collection(request.collection_name, vectors_config=config)
        return stubs.CollectionOperationResponse(result=done, time=0.0)


@pytest.fixture
def ports() -> Iterator[tuple[int, list[Any]]]:
    """Port of a gRPC server, and every request that it got."""
    seen: list[Any] = []

    class Seen(grpc.ServerInterceptor):  # type: ignore[misc]
        def intercept_service(self, go_on: Any, details: Any) -> Any:
            metadata = sorted((key, value) for key, value in details.invocation_metadata if key != "user-agent")
            seen.append((details.method, metadata))
            return go_on(details)

    local = QdrantClient(":memory:")
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, interceptors=[Seen()])
        points_service_pb2_grpc.add_PointsServicer_to_server(Points(local), server)
        collections_service_pb2_grpc.add_CollectionsServicer_to_server(Collections(local), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield port, seen
        server.stop(None).wait(30)
    local.close()


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the two clients."""
    return str(request.param)


def play(kind: str, port: int, script: Any, scenario: Any) -> list[Any]:
    """Make a collection with points over gRPC, and run a scenario on it."""

    async def played() -> Any:
        make = AsyncQdrantClient if kind == "async" else QdrantClient
        client = make(host="127.0.0.1", grpc_port=port, prefer_grpc=True, check_compatibility=False, timeout=60)
        vectors = models.VectorParams(size=2, distance=models.Distance.COSINE)
        await script.now(client.create_collection("docs", vectors_config=vectors))
        await script.now(client.upsert("docs", POINTS))
        seen = await scenario(client)
        await script.now(client.close())
        return seen

    found: list[Any] = asyncio.run(played())
    return found


async def everything(client: Any, script: Any) -> list[Any]:
    """Search in every way; what the caller sees, as values that can be compared."""
    one = models.QueryRequest(query=NEAR, limit=2)
    seen = [
        await script.now(client.query_points("docs", query=NEAR, limit=3, query_filter=ONLY_EVEN)),
        await script.now(client.query_batch_points("docs", requests=[one, one])),
        await script.now(client.query_points_groups("docs", group_by="shelf", query=NEAR, limit=4)),
    ]
    try:
        await script.now(client.query_points("nothing", query=NEAR))
    except grpc.RpcError as error:
        seen.append((type(error), error.code(), error.details()))
    return seen


def observed(kind: str, port: int, script: Any) -> tuple[Captured, list[Any]]:
    """What is recorded of everything, and what the caller sees."""
    instrumentor = QdrantInstrumentor()
    assert instrumentor.switch_on()
    try:
        with capture(clock=Clock()) as captured:
            return captured, play(kind, port, script, lambda client: everything(client, script))
    finally:
        instrumentor.uninstrument()


def test_searches_and_writes(kind: str, ports: Any, script: Any) -> None:
    """Over gRPC a search has the facts that it has over HTTP, with the gRPC port and status."""
    captured, _ = observed(kind, ports[0], script)
    # The server's own collection in memory is observed, too: its calls have no server.
    ours = [call for call in captured.calls if call.attributes.get(a.SERVER_PORT) == ports[0]]
    stored, search, batch, groups, failed = ours
    (database,) = [
        span
        for span in captured.spans
        if span.parent is not None and span.parent.span_id == failed.span.context.span_id
    ]

    assert [call.name for call in ours] == ["store docs", *["retrieval docs"] * 3, "retrieval nothing"]
    assert stored.outcome == "completed"
    assert {name: value for name, value in search.attributes.items() if "retrieval" in name} == {
        a.GEN_AI_RETRIEVAL_TOP_K: 3,
        a.STAGELIGHT_RETRIEVAL_MODE: "dense",
        a.STAGELIGHT_RETRIEVAL_FILTERED: True,
        a.STAGELIGHT_RETRIEVAL_COUNT: 3,
        a.STAGELIGHT_RETRIEVAL_EMPTY: False,
        a.STAGELIGHT_RETRIEVAL_METRIC: "cosine",
        a.STAGELIGHT_RETRIEVAL_HIGHER_IS_BETTER: True,
        a.STAGELIGHT_RETRIEVAL_TOP_SCORE: pytest.approx(1.0),
        a.STAGELIGHT_RETRIEVAL_MIN_SCORE: pytest.approx(0.2425, abs=0.001),
        a.STAGELIGHT_RETRIEVAL_MARGIN: pytest.approx(0.5528, abs=0.001),
    }
    assert [call.attributes[a.STAGELIGHT_RETRIEVAL_COUNT] for call in (batch, groups)] == [4, 4]
    assert failed.outcome == "error"
    assert database.attributes == {
        a.DB_SYSTEM_NAME: "qdrant",
        a.DB_OPERATION_NAME: "query_points",
        a.DB_COLLECTION_NAME: "nothing",
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: ports[0],
        a.ERROR_TYPE: failed.error_type,
        a.DB_RESPONSE_STATUS_CODE: "NOT_FOUND",
    }


def test_the_caller_and_the_server_see_the_same(kind: str, ports: Any, script: Any) -> None:
    """Results, exceptions, methods and metadata are those of the client alone."""
    port, requests = ports
    _, with_us = observed(kind, port, script)
    sent, requests[:] = list(requests), []
    alone = play(kind, port, script, lambda client: everything(client, script))

    assert with_us == alone
    assert sent == requests
