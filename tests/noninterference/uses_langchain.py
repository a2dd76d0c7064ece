"""Every way of using models, tools and retrievers of LangChain, alone, in chains and in graphs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from noninterference.servers import Server
from noninterference.uses import FAULTS, Client, Options, Use

__all__ = ["CLIENT"]

ASKED = "What do tides do?"
MODEL, STREAM, TOOL, RETRIEVER = "model.invoke", "model.stream", "tool.invoke", "retriever.invoke"


class _Opened:
    """Everything of LangChain that is used here, called sync or async."""

    def __init__(self, model: Any, kind: str) -> None:
        from langchain_core.output_parsers import StrOutputParser
        from langchain_core.prompts import ChatPromptTemplate
        from langchain_core.tools import StructuredTool
        from langchain_scene import LocalStream, store

        self._is_async = kind == "async"
        self.model = model
        self.local = LocalStream()
        self.prompt = ChatPromptTemplate.from_template("What do {things} do?")
        self.chain = self.prompt | self.model | StrOutputParser()
        self.store = store()
        self.tool = StructuredTool.from_function(_weather)
        self.given = {"things": "tides"}

    @property
    def broken(self) -> Any:
        """A model that fails; a new one, because an exception keeps the frames of every time that it is raised."""
        from langchain_scene import LocalStream

        return LocalStream(error=ConnectionError("gone"), fails_after=2)

    def invoke(self, thing: Any, given: Any, **config: Any) -> Any:
        """The answer, or what is to be awaited for it; with the same ids of runs each time."""
        config = {"run_id": UUID(int=1), **config}
        return thing.ainvoke(given, config) if self._is_async else thing.invoke(given, config)

    def stream(self, thing: Any, given: Any, **more: Any) -> Any:
        """The chunks."""
        config = {"run_id": UUID(int=1)}
        return thing.astream(given, config, **more) if self._is_async else thing.stream(given, config, **more)

    def graph(self, **more: Any) -> Any:
        """A graph whose one node asks the model of this process."""
        from langgraph.graph import START, MessagesState, StateGraph

        async def node_async(state: Any) -> Any:
            return {"messages": [await self.local.ainvoke(state["messages"])]}

        def node(state: Any) -> Any:
            return {"messages": [self.local.invoke(state["messages"])]}

        graph = StateGraph(MessagesState)
        graph.add_node("ask", node_async if self._is_async else node)
        graph.add_edge(START, "ask")
        return graph.compile(**more)


def _weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}." if city else str(1 // 0)


class _Chunks:
    """The chunks of a stream; nothing is thrown into one that has not begun.

    Python raises that at the first line of whatever generator it is given, so a frame of LangChain's would be missing.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._has_begun = False

    def close(self) -> Any:
        """Leave it."""
        return self._stream.close()

    def throw(self, error: BaseException) -> Any:
        """Throw into it."""
        if not self._has_begun:
            raise error
        return self._stream.throw(error)

    def __iter__(self) -> _Chunks:
        return self

    def __next__(self) -> Any:
        self._has_begun = True
        return next(self._stream)


class _AsyncChunks(_Chunks):
    """The same of an asynchronous stream."""

    __iter__ = None  # type: ignore[assignment]
    close = None  # type: ignore[assignment]

    def aclose(self) -> Any:
        """Leave it."""
        return self._stream.aclose()

    async def athrow(self, error: BaseException) -> Any:
        """Throw into it."""
        if not self._has_begun:
            raise error
        return await self._stream.athrow(error)

    def __aiter__(self) -> _AsyncChunks:
        return self

    def __anext__(self) -> Any:
        self._has_begun = True
        return anext(self._stream)


def _chunks(stream: Any) -> Any:
    return _AsyncChunks(stream) if hasattr(stream, "__anext__") else _Chunks(stream)


MESSAGES = {"messages": [{"role": "user", "content": ASKED, "id": "question-1"}]}


@asynccontextmanager
async def _open(server: Server, options: Options) -> AsyncIterator[Any]:
    import openai
    from langchain_openai import ChatOpenAI

    http, http_async = openai.DefaultHttpxClient(verify=False), openai.DefaultAsyncHttpxClient(verify=False)
    model = ChatOpenAI(
        model="gpt-4o-mini",
        base_url=f"{server.origin}/v1",
        api_key="key",
        http_client=http,
        http_async_client=http_async,
        default_headers=dict(options.headers),
        timeout=options.timeout_s,
        max_retries=options.retries,
        stream_usage=True,
    )
    try:
        yield _Opened(model, options.kind)
    finally:
        http.close()
        await http_async.aclose()


USES = (
    Use(MODEL, lambda it: it.invoke(it.prompt | it.local, it.given), "without a client"),
    Use(MODEL, lambda it: it.invoke(it.model, ASKED)),
    Use(STREAM, lambda it: it.stream(it.model, ASKED), items=_chunks, first=1),
    Use(STREAM, lambda it: it.stream(it.chain, it.given), "in a chain", _chunks, first=1),
    Use(STREAM, lambda it: it.stream(it.local, ASKED), "without a client", _chunks),
    Use(MODEL, lambda it: it.invoke(it.prompt | it.broken, it.given), "that fails", fails=True),
    Use(STREAM, lambda it: it.stream(it.broken, ASKED), "that breaks", _chunks, fails=True),
    Use(MODEL, lambda it: it.invoke(it.graph(name="helper"), MESSAGES), "in a graph"),
    Use(STREAM, lambda it: it.stream(it.graph(), MESSAGES, stream_mode="values"), "in a graph", _chunks),
    Use(TOOL, lambda it: it.invoke(it.tool, {"city": "Paris"})),
    Use(TOOL, lambda it: it.invoke(it.tool, {"city": ""}), "that fails", fails=True),
    Use(RETRIEVER, lambda it: it.invoke(it.store.as_retriever(search_kwargs={"k": 1}), ASKED), seen=len),
)

CLIENT = Client(
    "langchain",
    "LangChainInstrumentor",
    ("langchain_openai", "langgraph"),
    _open,
    USES,
    provider="openai",
    faults=FAULTS,
)
