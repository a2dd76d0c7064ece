"""A simulated provider, and clients of either kind that talk to it; a scenario is written once for both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from stagelight.integrations.openai import OpenAIInstrumentor
from stagelight.sim import Simulator
from stagelight.testing import Captured, Clock, capture

Scenario = Callable[[Any], Awaitable[Any]]


@dataclass
class Script:
    """The words a scenario is written in: each does the same with a sync and with an async client."""

    @staticmethod
    async def now(result: Any) -> Any:
        """The result of a call."""
        return await result if hasattr(result, "__await__") else result

    @staticmethod
    async def each(source: Any) -> AsyncIterator[Any]:
        """The items of a stream."""
        if hasattr(source, "__aiter__"):
            async for item in source:
                yield item
        else:
            for item in source:
                yield item

    @staticmethod
    async def next(source: Any) -> Any:
        """The next item of a stream."""
        return await source.__anext__() if hasattr(source, "__anext__") else next(source)

    @staticmethod
    @asynccontextmanager
    async def inside(block: Any) -> AsyncIterator[Any]:
        """A client's own block."""
        if hasattr(block, "__aenter__"):
            async with block as entered:
                yield entered
        else:
            with block as entered:
                yield entered


@dataclass
class World:
    """A simulator and one kind of client."""

    kind: str
    simulator: Simulator

    @property
    def host(self) -> str:
        """Address and port of the simulator."""
        return self.simulator.url.split("/")[2]

    @property
    def port(self) -> int:
        """Port of the simulator."""
        return int(self.host.rpartition(":")[2])

    def client(self, **options: Any) -> Any:
        """A client of this world's kind; close it."""
        import openai  # the environments of other clients do without it

        is_async = self.kind == "async"
        make = openai.AsyncOpenAI if is_async else openai.OpenAI
        # Reading the certificates takes longer than the whole rest of a test, and nothing here is encrypted.
        http = (openai.DefaultAsyncHttpxClient if is_async else openai.DefaultHttpxClient)(verify=False)
        usual = {"base_url": self.simulator.url, "api_key": "key", "max_retries": 0, "http_client": http}
        return make(**{**usual, **options})

    def play(self, scenario: Scenario, **options: Any) -> Any:
        """Run a scenario with a client of its own."""

        async def played() -> Any:
            client = self.client(**options)
            try:
                return await scenario(client)
            finally:
                await Script.now(client.close())

        return asyncio.run(played())

    def run(self, scenario: Scenario, *, clock: Clock | None = None, **options: Any) -> Captured:
        """What was recorded of a scenario."""
        with capture(provider_hosts={self.host: "openai"}, clock=clock) as captured:
            self.play(scenario, **options)
        return captured


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulator]:
    """A provider that answers at once."""
    with Simulator(seed=7, latency="instant") as running:
        yield running


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest, simulator: Simulator) -> World:
    """The simulator, by a sync and by an async client."""
    simulator.forget()
    return World(request.param, simulator)


@pytest.fixture
def script() -> type[Script]:
    """The words of a scenario."""
    return Script


@pytest.fixture
def recorded() -> Iterator[OpenAIInstrumentor]:
    """The OpenAI client is instrumented."""
    instrumentor = OpenAIInstrumentor()
    assert instrumentor.switch_on()
    yield instrumentor
    instrumentor.uninstrument()
