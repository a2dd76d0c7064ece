"""Searches and writes of the Qdrant client, local ones sync and async, and remote ones over HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import stagelight
from opentelemetry.trace import SpanKind, StatusCode
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.http.models import QueryResponse
from stagelight.conventions import attributes as a
from stagelight.integrations.qdrant import QdrantInstrumentor, read
from stagelight.testing import Captured, Clock, capture

NEAR, SPARSE = [1.0, 0.0], models.SparseVector(indices=[1], values=[1.0])
ONLY_EVEN = models.Filter(must=[models.FieldCondition(key="even", match=models.MatchValue(value=True))])
DENSE_FIRST = models.Prefetch(query=NEAR, using="cosine")
SPARSE_FIRST = models.Prefetch(query=SPARSE, using="s")
RRF = models.FusionQuery(fusion=models.Fusion.RRF)


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[QdrantInstrumentor]:
    """The client is instrumented."""
    instrumentor = QdrantInstrumentor()
    assert instrumentor.switch_on()
    yield instrumentor
    instrumentor.uninstrument()


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the two clients."""
    return str(request.param)


async def now(result: Any) -> Any:
    """The result of a call of either client."""
    return await result if hasattr(result, "__await__") else result


async def filled(client: Any) -> None:
    """Make a collection with a vector of each kind, and five points."""
    params = {
        name: models.VectorParams(size=2, distance=distance)
        for name, distance in [
            ("cosine", models.Distance.COSINE),
            ("dot", models.Distance.DOT),
            ("euclid", models.Distance.EUCLID),
            ("manhattan", models.Distance.MANHATTAN),
        ]
    }
    params["many"] = models.VectorParams(
        size=2,
        distance=models.Distance.COSINE,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
    )
    await now(
        client.create_collection(
            "docs", vectors_config=params, sparse_vectors_config={"s": models.SparseVectorParams()}
        )
    )
    point = {name: [1.0, 0.5] for name in ("cosine", "dot", "euclid", "manhattan")}
    points = [
        models.PointStruct(
            id=index,
            vector={**point, "s": models.SparseVector(indices=[1], values=[index + 1.0]), "many": [[1.0, index]]},
            payload={"even": index % 2 == 0, "shelf": f"shelf {index % 2}"},
        )
        for index in range(5)
    ]
    await now(client.upsert("docs", points))


def play(kind: str, scenario: Any) -> Captured:
    """What a scenario on a filled local client records, after the filling."""

    async def played() -> Captured:
        client = AsyncQdrantClient(":memory:") if kind == "async" else QdrantClient(":memory:")
        await filled(client)
        with capture(clock=Clock()) as captured:
            await scenario(client)
        await now(client.close())
        return captured

    return asyncio.run(played())


def test_a_search(kind: str) -> None:
    """A search is a retrieval with its results, and inside it the span of a database client."""

    async def scenario(client: Any) -> None:
        await now(client.query_points("docs", query=NEAR, using="cosine", limit=3, query_filter=ONLY_EVEN))

    captured = play(kind, scenario)
    database, retrieval = captured.spans
    scores = retrieval.attributes

    assert scores is not None
    assert (retrieval.name, retrieval.kind) == ("retrieval docs", SpanKind.CLIENT)
    assert scores == {
        a.STAGELIGHT_STAGE: "retrieval",
        a.GEN_AI_OPERATION_NAME: "retrieval",
        a.GEN_AI_PROVIDER_NAME: "qdrant",
        a.GEN_AI_DATA_SOURCE_ID: "docs",
        a.GEN_AI_RETRIEVAL_TOP_K: 3,
        a.STAGELIGHT_RETRIEVAL_MODE: "dense",
        a.STAGELIGHT_RETRIEVAL_FILTERED: True,
        a.STAGELIGHT_RETRIEVAL_COUNT: 3,
        a.STAGELIGHT_RETRIEVAL_EMPTY: False,
        a.STAGELIGHT_RETRIEVAL_METRIC: "cosine",
        a.STAGELIGHT_RETRIEVAL_HIGHER_IS_BETTER: True,
        a.STAGELIGHT_RETRIEVAL_TOP_SCORE: pytest.approx(0.894, abs=0.001),
        a.STAGELIGHT_RETRIEVAL_MIN_SCORE: pytest.approx(0.894, abs=0.001),
        a.STAGELIGHT_RETRIEVAL_MARGIN: pytest.approx(0.0),
        a.STAGELIGHT_OUTCOME: "completed",
    }
    assert (database.name, database.kind) == ("query_points docs", SpanKind.CLIENT)
    assert database.attributes == {
        a.DB_SYSTEM_NAME: "qdrant",
        a.DB_OPERATION_NAME: "query_points",
        a.DB_COLLECTION_NAME: "docs",
    }
    assert database.parent is not None
    assert database.parent.span_id == retrieval.context.span_id


QUERIES: list[tuple[dict[str, Any], str | None, tuple[str, bool] | None]] = [
    ({"query": NEAR, "using": "dot"}, "dense", ("dot", True)),
    ({"query": NEAR, "using": "euclid"}, "dense", ("euclid", False)),
    ({"query": NEAR, "using": "manhattan"}, "dense", ("manhattan", False)),
    ({"query": models.NearestQuery(nearest=NEAR), "using": "cosine"}, "dense", ("cosine", True)),
    ({"query": 1, "using": "cosine"}, None, ("cosine", True)),
    ({"query": [[1.0, 0.0]], "using": "many"}, "dense", None),
    ({"query": SPARSE, "using": "s"}, "sparse", ("dot", True)),
    (
        {"query": RRF, "prefetch": [DENSE_FIRST, SPARSE_FIRST]},
        "hybrid",
        ("rrf", True),
    ),
    ({"query": RRF, "prefetch": DENSE_FIRST}, "dense", ("rrf", True)),
    (
        {"query": NEAR, "using": "cosine", "prefetch": SPARSE_FIRST},
        "hybrid",
        ("cosine", True),
    ),
    ({"query": models.RecommendQuery(recommend=models.RecommendInput(positive=[1])), "using": "cosine"}, None, None),
    ({}, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("query", "mode", "scale"), QUERIES)
def test_mode_and_metric(query: dict[str, Any], mode: str | None, scale: tuple[str, bool] | None) -> None:
    """Mode and metric are what arguments and collection tell, and absent where they do not."""

    async def scenario(client: Any) -> None:
        client.query_points("docs", **query)

    attributes = play("sync", scenario).call("retrieval").attributes

    assert attributes.get(a.STAGELIGHT_RETRIEVAL_MODE) == mode
    assert (
        attributes.get(a.STAGELIGHT_RETRIEVAL_METRIC),
        attributes.get(a.STAGELIGHT_RETRIEVAL_HIGHER_IS_BETTER),
    ) == (scale or (None, None))
    assert attributes[a.GEN_AI_RETRIEVAL_TOP_K] == 10
    assert attributes[a.STAGELIGHT_RETRIEVAL_FILTERED] is False


def test_batches_and_groups(kind: str) -> None:
    """A batch is one retrieval with all its results; groups are counted by their hits."""

    async def scenario(client: Any) -> None:
        one = models.QueryRequest(query=NEAR, using="cosine", limit=2)
        await now(client.query_batch_points("docs", requests=[one, one]))
        await now(client.query_batch_points("docs", requests=[one]))
        await now(client.query_points_groups("docs", group_by="shelf", query=NEAR, using="cosine", group_size=2))

    calls = play(kind, scenario).calls

    assert [call.attributes[a.STAGELIGHT_RETRIEVAL_COUNT] for call in calls] == [4, 2, 4]
    assert [call.attributes.get(a.STAGELIGHT_RETRIEVAL_METRIC) for call in calls] == [None, "cosine", "cosine"]
    assert [call.attributes[a.STAGELIGHT_RETRIEVAL_MODE] for call in calls] == ["dense"] * 3


def test_an_empty_result(kind: str) -> None:
    """A search that finds nothing is told apart."""

    async def scenario(client: Any) -> None:
        await now(client.query_points("docs", query=NEAR, using="cosine", score_threshold=2.0))

    captured = play(kind, scenario)

    assert captured.call("retrieval").attributes[a.STAGELIGHT_RETRIEVAL_EMPTY] is True
    assert [
        point.attributes[a.STAGELIGHT_RETRIEVAL_EMPTY] for point in captured.metric("stagelight.retrieval.searches")
    ]


def test_writes(kind: str) -> None:
    """Writing points is a store; a generator of points is consumed by the client alone."""
    made: list[int] = []

    def points() -> Iterator[models.PointStruct]:
        for index in range(3):
            made.append(index)
            yield models.PointStruct(id=index, vector={"cosine": NEAR})

    async def scenario(client: Any) -> None:
        await now(client.upsert("docs", [models.PointStruct(id=9, vector={"cosine": NEAR})]))
        await now(client.upload_points("docs", points()))

    captured = play(kind, scenario)

    assert [span.name for span in captured.spans] == ["upsert docs", "store docs", "upload_points docs", "store docs"]
    assert captured.calls[0].attributes == {
        a.STAGELIGHT_STAGE: "store",
        a.GEN_AI_PROVIDER_NAME: "qdrant",
        a.STAGELIGHT_NAME: "docs",
        a.STAGELIGHT_OUTCOME: "completed",
    }
    assert made == [0, 1, 2]


def test_a_failure(kind: str) -> None:
    """Both spans fail with the class of the client's exception, which the caller gets."""

    async def scenario(client: Any) -> None:
        with pytest.raises(ValueError, match="not found"):
            await now(client.query_points("nothing", query=NEAR))

    captured = play(kind, scenario)

    assert [(span.attributes or {})[a.ERROR_TYPE] for span in captured.spans] == ["ValueError"] * 2
    assert [span.status.status_code for span in captured.spans] == [StatusCode.ERROR] * 2
    assert captured.call("retrieval").outcome == "error"


def test_a_manual_retrieval_is_one_call(kind: str) -> None:
    """The client fills the retrieval it is called in; the database span is inside it."""

    async def scenario(client: Any) -> None:
        with stagelight.turn("answer"), stagelight.retrieval(provider="qdrant", source="library"):
            await now(client.query_points("docs", query=NEAR, using="cosine"))

    captured = play(kind, scenario)

    assert [span.name for span in captured.spans] == [
        "query_points docs",
        "retrieval library",
        "invoke_workflow answer",
    ]
    assert captured.call("retrieval").attributes[a.STAGELIGHT_RETRIEVAL_COUNT] == 5


def test_two_searches_at_the_same_time() -> None:
    """Searches of two tasks stay in their turns."""

    async def one(client: Any, name: str) -> None:
        with stagelight.turn(name):
            await client.query_points("docs", query=NEAR, using="cosine")

    async def scenario(client: Any) -> None:
        await asyncio.gather(one(client, "first"), one(client, "second"))

    captured = play("async", scenario)

    assert [len(captured.turn(name).calls) for name in ("first", "second")] == [1, 1]


def test_results_are_the_clients_own(kind: str, instrumented: QdrantInstrumentor) -> None:
    """What the client returns is equal with and without us; scrolling is left alone."""
    results: list[Any] = []

    async def scenario(client: Any) -> None:
        results.append(await now(client.query_points("docs", query=NEAR, using="cosine", with_vectors=True)))
        results.append(await now(client.scroll("docs")))

    assert len(play(kind, scenario).calls) == 1
    instrumented.uninstrument()
    assert play(kind, scenario).calls == ()

    assert results[0] == results[2]
    assert results[1] == results[3]
    assert type(results[0]) is type(results[2])


def test_uninstrument_restores_the_same_functions(instrumented: QdrantInstrumentor) -> None:
    """Afterwards the classes have the very functions they had."""
    wrapped = {
        (owner, target.path.rpartition(".")[2])
        for target in instrumented.targets
        for owner in (QdrantClient, AsyncQdrantClient)
        if hasattr(vars(owner).get(target.path.rpartition(".")[2]), "__wrapped__")
    }
    originals = {(owner, name): vars(owner)[name].__wrapped__ for owner, name in wrapped}
    instrumented.uninstrument()

    assert len(wrapped) >= 18
    assert {(owner, name): vars(owner)[name] for owner, name in wrapped} == originals


def test_record_reads_an_answer() -> None:
    """A retrieval recorded by hand takes its results from the client's answer."""
    hits = [models.ScoredPoint(id=index, version=1, score=score) for index, score in enumerate([0.9, 0.4])]
    with capture(clock=Clock()) as captured, stagelight.retrieval(provider="qdrant", source="docs") as call:
        call.record(QueryResponse(points=hits))
    attributes = captured.call("retrieval").attributes

    assert (attributes[a.STAGELIGHT_RETRIEVAL_COUNT], attributes[a.STAGELIGHT_RETRIEVAL_TOP_SCORE]) == (2, 0.9)
    assert a.STAGELIGHT_RETRIEVAL_METRIC not in attributes
    assert read(models.CountResult(count=1)) is None


class _Server(BaseHTTPRequestHandler):
    """Answers like a Qdrant server, as far as these tests need one."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if "missing" in self.path:
            self._answer(404, {"status": {"error": "Not found"}, "time": 0.0})
        else:
            hits = [{"id": 1, "version": 1, "score": 0.5}]
            self._answer(200, {"result": {"points": hits}, "status": "ok", "time": 0.0})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer(200, {"result": True, "status": "ok", "time": 0.0})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    """Port of a server that speaks Qdrant's REST protocol."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_a_remote_server(kind: str, port: int) -> None:
    """A remote search has the server's address; its metric is known once the collection's distance has passed by."""

    async def scenario() -> None:
        make = AsyncQdrantClient if kind == "async" else QdrantClient
        client = make(url=f"http://127.0.0.1:{port}", check_compatibility=False)
        await now(client.query_points("docs", query=NEAR))
        await now(client.create_collection("docs", models.VectorParams(size=2, distance=models.Distance.COSINE)))
        await now(client.query_points("docs", query=NEAR))
        with pytest.raises(Exception, match="404"):
            await now(client.query_points("missing", query=NEAR))
        await now(client.close())

    with capture(clock=Clock()) as captured:
        asyncio.run(scenario())
    first, second, failed = captured.calls
    failed_database = captured.spans[-2]

    assert a.STAGELIGHT_RETRIEVAL_METRIC not in first.attributes
    assert second.attributes[a.STAGELIGHT_RETRIEVAL_METRIC] == "cosine"
    assert (second.attributes[a.SERVER_ADDRESS], second.attributes[a.SERVER_PORT]) == ("127.0.0.1", port)
    assert failed.outcome == "error"
    assert failed_database.attributes == {
        a.DB_SYSTEM_NAME: "qdrant",
        a.DB_OPERATION_NAME: "query_points",
        a.DB_COLLECTION_NAME: "missing",
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: port,
        a.ERROR_TYPE: failed.error_type,
        a.DB_RESPONSE_STATUS_CODE: "404",
    }
