"""LangChain for tests: models that talk to the simulator, one that no client serves, and either way of calling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import openai
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI
from stagelight.integrations.langchain import callback_handler
from stagelight.sim import Simulator
from stagelight.testing import Captured, capture

_INTEGRATIONS = {
    "langchain": "LangChainInstrumentor",
    "openai": "OpenAIInstrumentor",
    "anthropic": "AnthropicInstrumentor",
    "qdrant": "QdrantInstrumentor",
}
USAGE = {
    "input_tokens": 120,
    "output_tokens": 30,
    "total_tokens": 150,
    "input_token_details": {"cache_read": 100, "cache_creation": 8},
    "output_token_details": {"reasoning": 10},
}


@contextmanager
def recording(*integrations: str) -> Iterator[None]:
    """LangChain and the named clients are recorded; afterwards nothing of their runs is left."""
    callback_handler.cache_clear()  # whatever a test that failed has left
    with ExitStack() as stack:
        for name in ("langchain", *integrations):
            instrumentor = getattr(import_module(f"stagelight.integrations.{name}"), _INTEGRATIONS[name])()
            assert instrumentor.switch_on()
            stack.callback(instrumentor.uninstrument)
        yield
        assert callback_handler().unfinished == 0


def host_of(simulator: Simulator) -> str:
    """Address and port of a simulator."""
    return simulator.url.split("/")[2]


@dataclass(frozen=True)
class Way:
    """Calls anything of LangChain's sync or async."""

    kind: str

    async def invoke(self, runnable: Any, given: Any, config: Any = None) -> Any:
        """The answer."""
        return await runnable.ainvoke(given, config) if self.kind == "async" else runnable.invoke(given, config)

    async def batch(self, runnable: Any, given: list[Any]) -> list[Any]:
        """The answers."""
        found = await runnable.abatch(given) if self.kind == "async" else runnable.batch(given)
        return list(found)

    @asynccontextmanager
    async def stream(self, runnable: Any, given: Any, config: Any = None, **more: Any) -> AsyncIterator[Any]:
        """An asynchronous iterator of the chunks, closed by the block."""
        if self.kind == "async":
            chunks = runnable.astream(given, config, **more)
            try:
                yield chunks
            finally:
                await chunks.aclose()
                await settled()
        else:
            plain = runnable.stream(given, config, **more)
            try:
                yield _each(plain)
            finally:
                plain.close()

    async def chunks(self, runnable: Any, given: Any, config: Any = None, **more: Any) -> list[Any]:
        """All chunks."""
        async with self.stream(runnable, given, config, **more) as found:
            return [chunk async for chunk in found]


async def _each(plain: Iterator[Any]) -> AsyncIterator[Any]:
    for item in plain:
        yield item


async def settled() -> None:
    """The loop has closed the generators that were dropped."""
    async with asyncio.timeout(30):
        while callback_handler().unfinished:  # noqa: ASYNC110 - nothing tells of their end
            await asyncio.sleep(0)


Scenario = Callable[[Way, Any], Awaitable[Any]]


def played(way: Way, scenario: Scenario, make: Callable[[], Any], **settings: Any) -> tuple[Captured, Any]:
    """What was recorded of a scenario with a model of its own, and what the scenario returned."""

    async def play() -> Any:
        async with make() as model:
            return await scenario(way, model)

    with capture(**settings) as captured:
        result = asyncio.run(play())
    return captured, result


@asynccontextmanager
async def openai_model(simulator: Simulator, **options: Any) -> AsyncIterator[ChatOpenAI]:
    """A chat model over the OpenAI client, with connections of its own."""
    # Reading the certificates takes longer than a test, and nothing here is encrypted.
    http, http_async = openai.DefaultHttpxClient(verify=False), openai.DefaultAsyncHttpxClient(verify=False)
    usual = {"model": "gpt-4o-mini", "base_url": simulator.url, "api_key": "key", "max_retries": 0}
    try:
        yield ChatOpenAI(**{**usual, "http_client": http, "http_async_client": http_async, **options})
    finally:
        http.close()
        await http_async.aclose()


@asynccontextmanager
async def anthropic_model(simulator: Simulator, **options: Any) -> AsyncIterator[Any]:
    """A chat model over the Anthropic client; its connections are kept by the package and closed here."""
    from langchain_anthropic import ChatAnthropic, _client_utils

    usual = {"model": "claude-haiku-4-5", "base_url": simulator.origin, "api_key": "key", "max_retries": 0}
    model = ChatAnthropic(**{**usual, **options})
    try:
        yield model
    finally:
        model._client.close()
        await model._async_client.close()
        _client_utils._get_default_httpx_client.cache_clear()
        _client_utils._get_default_async_httpx_client.cache_clear()


class Local(BaseChatModel):
    """A model that works in this process; it says ``answer``, or raises ``error`` after ``fails_after`` chunks."""

    answer: str = "The tide comes in."
    usage: dict[str, Any] | None = USAGE
    error: BaseException | None = None
    fails_after: int = 0
    model: str = "tide-1"
    temperature: float = 0.5
    asked: int = 0

    @property
    def _llm_type(self) -> str:
        return "local"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {**super()._get_ls_params(stop=stop, **kwargs), "ls_provider": "mistralai"}

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        self.asked += 1
        if self.error is not None:
            raise self.error
        told = {"finish_reason": "stop", "model_name": "tide-1-0521"}
        message = AIMessage(self.answer, usage_metadata=self.usage, response_metadata=told, id="answer-1")
        return ChatResult(generations=[ChatGeneration(message=message)])


class LocalStream(Local):
    """The same, streamed word by word."""

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        words = self.answer.split(" ")
        for index, word in enumerate(words):
            if self.error is not None and index == self.fails_after:
                raise self.error
            last = index == len(words) - 1
            told = {"finish_reason": "length", "model_name": "tide-1-0521"} if last else {}
            yield ChatGenerationChunk(
                message=AIMessageChunk(
                    word, usage_metadata=self.usage if last else None, response_metadata=told, id="answer-1"
                )
            )


@asynccontextmanager
async def made(model: Any) -> AsyncIterator[Any]:
    """A model that there is already."""
    yield model


class Letters(Embeddings):
    """Vectors of a text, in this process: how often each of a few letters occurs in it."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Of several texts."""
        return [[text.count(letter) + 0.1 for letter in "aemt"] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Of one."""
        return self.embed_documents([text])[0]


def store() -> InMemoryVectorStore:
    """A vector store with three texts."""
    found = InMemoryVectorStore(Letters())
    found.add_texts(["The tide is the sea coming and going.", "The moon pulls.", "Meteors fall."], ids=["1", "2", "3"])
    return found
