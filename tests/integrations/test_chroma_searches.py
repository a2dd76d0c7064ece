"""Searches and writes of Chroma's client: in memory, and sync and async against its own server."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromadb
import pytest
import stagelight
from chromadb.api.client import SharedSystemClient
from chromadb.api.models.AsyncCollection import AsyncCollection
from chromadb.api.models.Collection import Collection
from chromadb.config import Settings
from opentelemetry.trace import SpanKind, StatusCode
from stack.substitution import free_port
from stagelight import _guard
from stagelight.conventions import attributes as a
from stagelight.integrations import chromadb as integration
from stagelight.integrations.chromadb import ChromaInstrumentor
from stagelight.testing import Captured, Clock, capture

LIMIT_S = 120
IDS = ["1", "2", "3", "4"]
VECTORS = [[1.0, float(index)] for index in range(1, 5)]
METADATAS: list[Any] = [{"even": index % 2 == 0} for index in range(1, 5)]
NEAR = [[1.0, 1.0]]
OPERATIONS = ("query", "add", "upsert", "update")


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[ChromaInstrumentor]:
    """The client is instrumented."""
    instrumentor = ChromaInstrumentor()
    assert instrumentor.switch_on()
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of Chroma's own server."""
    free = free_port()
    folder = tmp_path_factory.mktemp("chroma")
    command = [Path(sys.executable).with_name("chroma"), "run", "--path", folder, "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--port", str(free)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=os.environ | {"ANONYMIZED_TELEMETRY": "False"},
    )
    until = time.monotonic() + LIMIT_S
    while True:
        with socket.socket() as reached:
            if reached.connect_ex(("127.0.0.1", free)) == 0:
                break
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    yield free
    process.terminate()
    process.wait(LIMIT_S)


@pytest.fixture(params=["memory", "http", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """Where the collection is."""
    return str(request.param)


@pytest.fixture
def where(kind: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The server's attributes, if there is one."""
    if kind == "memory":
        return {}
    return {a.SERVER_ADDRESS: "127.0.0.1", a.SERVER_PORT: request.getfixturevalue("port")}


def play(kind: str, where: dict[str, Any], script: Any, scenario: Any, **metadata: Any) -> tuple[Any, Captured]:
    """Run a scenario on a new collection with four vectors; what it saw, and what was recorded after the filling."""

    async def client() -> Any:
        # Clients of one address share their connection, whether sync or async.
        SharedSystemClient.clear_system_cache()
        settings = Settings(anonymized_telemetry=False)
        if kind == "memory":
            return chromadb.EphemeralClient(settings)
        make = chromadb.AsyncHttpClient if kind == "async" else chromadb.HttpClient
        return await script.now(make(host="127.0.0.1", port=where[a.SERVER_PORT], settings=settings))

    async def played() -> tuple[Any, Captured]:
        chroma = await client()
        space = metadata or {"hnsw:space": "cosine"}
        collection = await script.now(chroma.create_collection("docs", metadata=space, embedding_function=None))
        try:
            await script.now(collection.add(ids=IDS, embeddings=VECTORS, metadatas=METADATAS))
            with capture(clock=Clock()) as captured:
                seen = await scenario(collection)
            return seen, captured
        finally:
            await script.now(chroma.delete_collection("docs"))

    return asyncio.run(played())


def test_a_search(kind: str, where: dict[str, Any], script: Any) -> None:
    """A search is a retrieval with its results, and inside it the span of a database client."""

    async def scenario(collection: Any) -> None:
        await script.now(collection.query(query_embeddings=NEAR, n_results=3, where={"even": True}))

    _, captured = play(kind, where, script, scenario)
    database, retrieval = captured.spans

    assert (retrieval.name, retrieval.kind) == ("retrieval docs", SpanKind.CLIENT)
    assert retrieval.attributes == {
        a.STAGELIGHT_STAGE: "retrieval",
        a.GEN_AI_OPERATION_NAME: "retrieval",
        a.GEN_AI_PROVIDER_NAME: "chroma",
        a.GEN_AI_DATA_SOURCE_ID: "docs",
        a.GEN_AI_RETRIEVAL_TOP_K: 3,
        **where,
        a.STAGELIGHT_RETRIEVAL_MODE: "dense",
        a.STAGELIGHT_RETRIEVAL_FILTERED: True,
        a.STAGELIGHT_RETRIEVAL_COUNT: 2,
        a.STAGELIGHT_RETRIEVAL_EMPTY: False,
        a.STAGELIGHT_RETRIEVAL_METRIC: "cosine_distance",
        a.STAGELIGHT_RETRIEVAL_HIGHER_IS_BETTER: False,
        a.STAGELIGHT_RETRIEVAL_TOP_SCORE: pytest.approx(0.0513, abs=0.0001),
        a.STAGELIGHT_RETRIEVAL_MIN_SCORE: pytest.approx(0.0513, abs=0.0001),
        a.STAGELIGHT_RETRIEVAL_MARGIN: pytest.approx(0.0912, abs=0.0001),
        a.STAGELIGHT_OUTCOME: "completed",
    }
    assert (database.name, database.kind) == ("query docs", SpanKind.CLIENT)
    assert database.attributes == {
        a.DB_SYSTEM_NAME: "chroma",
        a.DB_OPERATION_NAME: "query",
        a.DB_COLLECTION_NAME: "docs",
        **where,
    }
    assert database.parent is not None
    assert database.parent.span_id == retrieval.context.span_id


@pytest.mark.parametrize(
    ("space", "metric", "best"), [("l2", "squared_euclid", 0), ("ip", "dot_distance", -4), ("", "squared_euclid", 0)]
)
def test_metric_and_scores(kind: str, where: dict[str, Any], script: Any, space: str, metric: str, best: float) -> None:
    """The metric is that of the collection's space; without one it is Chroma's own."""

    async def scenario(collection: Any) -> None:
        await script.now(collection.query(NEAR))

    chosen = {"hnsw:space": space} if space else {"about": "nothing"}
    attributes = play(kind, where, script, scenario, **chosen)[1].call("retrieval").attributes

    assert attributes[a.STAGELIGHT_RETRIEVAL_METRIC] == metric
    assert attributes[a.STAGELIGHT_RETRIEVAL_TOP_SCORE] == pytest.approx(best, abs=0.001)
    assert (attributes[a.GEN_AI_RETRIEVAL_TOP_K], attributes[a.STAGELIGHT_RETRIEVAL_COUNT]) == (10, 4)
    assert attributes[a.STAGELIGHT_RETRIEVAL_FILTERED] is False


def test_several_queries_and_nothing_found(kind: str, where: dict[str, Any], script: Any) -> None:
    """Several queries are one retrieval with all results and no scores; an empty result is told apart."""

    async def scenario(collection: Any) -> None:
        await script.now(collection.query(query_embeddings=NEAR * 2, n_results=2))
        await script.now(collection.query(query_embeddings=NEAR, where={"even": "never"}))
        await script.now(collection.query(query_embeddings=NEAR, include=["metadatas"]))

    _, captured = play(kind, where, script, scenario)

    assert [call.attributes[a.STAGELIGHT_RETRIEVAL_COUNT] for call in captured.calls] == [4, 0, 4]
    assert [call.attributes[a.STAGELIGHT_RETRIEVAL_EMPTY] for call in captured.calls] == [False, True, False]
    assert not any(a.STAGELIGHT_RETRIEVAL_TOP_SCORE in call.attributes for call in captured.calls)


def test_writes(kind: str, where: dict[str, Any], script: Any) -> None:
    """Adding, replacing and changing records are stores; reading them is nothing."""

    async def scenario(collection: Any) -> None:
        await script.now(collection.add(ids=["5"], embeddings=[[1.0, 5.0]]))
        await script.now(collection.upsert(ids=["5"], embeddings=[[1.0, 6.0]]))
        await script.now(collection.update(ids=["5"], metadatas=[{"even": False}]))
        await script.now(collection.get(ids=["5"]))

    _, captured = play(kind, where, script, scenario)
    names = [(span.name, (span.attributes or {}).get(a.DB_OPERATION_NAME)) for span in captured.spans]

    assert names == [
        ("add docs", "add"), ("store docs", None), ("upsert docs", "upsert"), ("store docs", None),
        ("update docs", "update"), ("store docs", None),
    ]  # fmt: skip


def test_a_failure(kind: str, where: dict[str, Any], script: Any) -> None:
    """Both spans fail with the class of the exception, which the caller gets."""

    async def scenario(collection: Any) -> type:
        try:
            await script.now(collection.query(query_embeddings=[[1.0, 2.0, 3.0]]))
        except (ValueError, chromadb.errors.ChromaError, RuntimeError) as error:
            return type(error)
        raise AssertionError

    kind_of_error, captured = play(kind, where, script, scenario)
    name = kind_of_error.__qualname__

    assert [str((span.attributes or {})[a.ERROR_TYPE]).rpartition(".")[2] for span in captured.spans] == [name] * 2
    assert [span.status.status_code for span in captured.spans] == [StatusCode.ERROR] * 2
    assert captured.call("retrieval").outcome == "error"


def test_a_manual_retrieval_is_one_call(kind: str, where: dict[str, Any], script: Any) -> None:
    """The client fills the retrieval it is called in; the database span is inside it."""

    async def scenario(collection: Any) -> None:
        with stagelight.turn("answer"), stagelight.retrieval(provider="chroma", source="library"):
            await script.now(collection.query(query_embeddings=NEAR))

    _, captured = play(kind, where, script, scenario)

    assert [span.name for span in captured.spans] == ["query docs", "retrieval library", "invoke_workflow answer"]
    assert captured.call("retrieval").attributes[a.STAGELIGHT_RETRIEVAL_COUNT] == 4


def test_two_searches_at_the_same_time(where: dict[str, Any], script: Any, kind: str) -> None:
    """Searches of two tasks stay in their turns."""

    async def one(collection: Any, name: str) -> None:
        with stagelight.turn(name):
            await script.now(collection.query(query_embeddings=NEAR))

    async def scenario(collection: Any) -> None:
        await asyncio.gather(one(collection, "first"), one(collection, "second"))

    _, captured = play(kind, where, script, scenario)

    assert [len(captured.turn(name).calls) for name in ("first", "second")] == [1, 1]


def test_results_are_the_clients_own(
    kind: str, where: dict[str, Any], script: Any, instrumented: ChromaInstrumentor
) -> None:
    """What the client returns and raises is equal with and without us."""

    async def scenario(collection: Any) -> list[Any]:
        found = await script.now(collection.query(query_embeddings=NEAR, n_results=2, include=["distances"]))
        seen = [type(found), found, await script.now(collection.add(ids=["9"], embeddings=[[1.0, 9.0]]))]
        try:
            await script.now(collection.query())
        except (ValueError, TypeError) as error:
            seen += [type(error), str(error), type(error.__cause__)]
        return seen

    observed, captured = play(kind, where, script, scenario)
    instrumented.uninstrument()
    alone, nothing = play(kind, where, script, scenario)

    assert observed == alone
    assert (len(captured.calls), nothing.spans) == (3, ())


def test_our_errors_stay_ours(kind: str, where: dict[str, Any], script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When reading a question or an answer fails inside us, the caller gets the client's result."""

    def broken(*_: Any) -> Any:
        raise LookupError("ours")

    async def scenario(collection: Any) -> int:
        return len((await script.now(collection.query(query_embeddings=NEAR)))["ids"][0])

    _guard.set_strict(False)
    for name in ("_found", "_asked"):
        monkeypatch.setattr(integration, name, broken)
        assert play(kind, where, script, scenario)[0] == 4
    assert _guard.errors()


def test_switching_on_and_off_restores_the_same_functions(instrumented: ChromaInstrumentor) -> None:
    """Afterwards the classes have the very functions they had."""
    places = [(owner, name) for owner in (Collection, AsyncCollection) for name in OPERATIONS]
    wrapped = [vars(owner)[name] for owner, name in places]
    instrumented.uninstrument()

    assert [vars(owner)[name] for owner, name in places] == [one.__wrapped__ for one in wrapped]
