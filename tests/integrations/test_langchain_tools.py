"""Tools, agents and retrievers of LangChain and LangGraph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import langchain_scene as scene
import pytest
import stagelight
from integrations.langchain_models import alone
from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.tools import StructuredTool, ToolException
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from qdrant_client import QdrantClient, models
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.sim import Simulator
from stagelight.testing import Captured

CLIENTS = ("openai", "anthropic", "qdrant")
pytestmark = pytest.mark.usefixtures("langchain")

ASKED = {"messages": [("user", "What is the weather in Paris?")]}


def told(captured: Captured) -> str:
    """Everything that was recorded of the spans."""
    return repr([(span.name, dict(span.attributes or {}), span.events) for span in captured.spans])


# agents


def weather_tool(answer: Any) -> Any:
    """A tool that gives ``answer``, or raises it; sync and async."""

    def weather(city: str) -> str:
        """The weather in a city."""
        assert city == "Paris"
        if isinstance(answer, BaseException):
            raise answer
        return str(answer)

    async def weather_async(city: str) -> str:
        """The weather in a city."""
        return weather(city)

    return StructuredTool.from_function(weather, weather_async, name="weather")


def agent(model: Any, tools: list[Any], **more: Any) -> Any:
    """An agent of LangChain, or where there is none yet, of LangGraph."""
    try:
        from langchain.agents import create_agent
    except ImportError:
        from langgraph.prebuilt import create_react_agent as create_agent
    return create_agent(model, tools, name="helper", **more)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_an_agent(way: scene.Way, simulator: Simulator, provider: str, streamed: bool) -> None:
    """Two requests and one execution between them, each once, inside the graph's turn."""
    make = {"openai": scene.openai_model, "anthropic": scene.anthropic_model}[provider]

    async def scenario(way: scene.Way, model: Any) -> Any:
        helper = agent(model, [weather_tool("It is sunny in Paris.")])
        if streamed:
            return await way.chunks(helper, ASKED, stream_mode="messages")
        return await way.invoke(helper, ASKED)

    hosts = {scene.host_of(simulator): provider}
    captured, answer = scene.played(way, scenario, lambda: make(simulator, stream_usage=True), provider_hosts=hosts)
    turn = captured.turn("helper")
    first, tool, second = turn.calls

    assert answer
    assert [first.stage, tool.name, second.stage] == ["llm", "execute_tool weather", "llm"]
    assert [call.outcome for call in turn.calls] == ["completed"] * 3
    assert str(tool.attributes[a.GEN_AI_TOOL_CALL_ID])
    assert tool.attributes[a.GEN_AI_TOOL_TYPE] == "function"
    assert len(captured.ledger) == 2
    assert turn.cost == first.cost + second.cost
    assert {call.span.parent.span_id for call in turn.calls} == {turn.span.context.span_id}
    assert "sunny" not in told(captured)
    assert "Paris" not in told(captured)


def test_a_tool_that_asks_the_user(way: scene.Way, simulator: Simulator) -> None:
    """An interrupt inside a tool is no error: the execution did not finish, the second one after the answer did."""

    def weather(city: str) -> str:
        """The weather in a city."""
        return str(interrupt(f"Shall I look at {city}?"))

    config = {"configurable": {"thread_id": "t-2"}}

    async def scenario(way: scene.Way, model: Any) -> Any:
        helper = agent(model, [StructuredTool.from_function(weather)], checkpointer=InMemorySaver())
        first = await way.invoke(helper, ASKED, config)
        return first, await way.invoke(helper, Command(resume="It is sunny."), config)

    captured, (first, _) = scene.played(way, scenario, lambda: scene.openai_model(simulator))

    assert "__interrupt__" in first
    assert [(call.outcome, call.error_type) for call in captured.calls if call.stage == "tool"] == [
        ("cancelled", None),
        ("completed", None),
    ]
    assert [(turn.outcome, turn.attributes[a.GEN_AI_CONVERSATION_ID]) for turn in captured.turns] == [
        ("completed", "t-2")
    ] * 2


# tools


def test_a_tool_that_fails(way: scene.Way) -> None:
    """The tool's very error reaches the caller, and its class the span."""
    error = ZeroDivisionError("secret")

    async def scenario(way: scene.Way, tool: Any) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            await way.invoke(tool, {"city": "Paris"})
        assert caught.value is error

    captured, _ = alone(way, weather_tool(error), scenario)

    assert (captured.call("tool").outcome, captured.call("tool").error_type) == ("error", "ZeroDivisionError")
    assert "secret" not in told(captured)


def test_a_tool_whose_error_is_handled(way: scene.Way) -> None:
    """What the tool itself turns into an answer is one."""
    tool = weather_tool(ToolException("closed"))
    tool.handle_tool_error = True

    async def scenario(way: scene.Way, tool: Any) -> Any:
        return await way.invoke(tool, {"city": "Paris"})

    captured, answer = alone(way, tool, scenario)

    assert answer == "closed"
    assert captured.call("tool").outcome == "completed"


def test_a_tool_inside_a_tool(way: scene.Way) -> None:
    """Each is an execution of its own; a manual one of the same name around it is the same."""
    inner = weather_tool("sunny")

    def plan(city: str) -> str:
        """Plan a day."""
        return f"Go out: {inner.invoke({'city': city})}"

    async def scenario(way: scene.Way, tool: Any) -> None:
        await way.invoke(tool, {"city": "Paris"})
        with stagelight.tool("weather"):
            await way.invoke(inner, {"city": "Paris"})

    captured, _ = alone(way, StructuredTool.from_function(plan), scenario)
    inside, outside, manual = captured.calls

    assert [call.name for call in captured.calls] == [
        "execute_tool weather",
        "execute_tool plan",
        "execute_tool weather",
    ]
    assert inside.span.parent.span_id == outside.span.context.span_id
    assert manual.span.parent is None


def test_stages_inside_a_tool(way: scene.Way, simulator: Simulator) -> None:
    """What a tool calls is below it, in the turn of the chain that runs it."""

    async def scenario(way: scene.Way, model: Any) -> None:
        def ask(city: str) -> str:
            """Ask about a city."""
            return str(model.invoke(city).content)

        await way.invoke(StructuredTool.from_function(ask) | RunnableLambda(str), {"city": "Paris"})

    captured, _ = scene.played(way, scenario, lambda: scene.openai_model(simulator))
    (turn,) = captured.turns
    tool, call = turn.calls

    assert (tool.stage, call.stage) == ("tool", "llm")
    assert call.span.parent.span_id == tool.span.context.span_id


# retrievers


def test_a_retriever(way: scene.Way, simulator: Simulator) -> None:
    """A search in a store of LangChain's own, in a chain that answers with what it found."""

    async def scenario(way: scene.Way, model: Any) -> Any:
        prompt = ChatPromptTemplate.from_template("Documents: {found}. Question: {question}")
        found = scene.store().as_retriever(search_kwargs={"k": 2})
        chain = {"found": found, "question": RunnablePassthrough()} | prompt | model
        return await way.invoke(chain, "What does the moon do?")

    captured, _ = scene.played(way, scenario, lambda: scene.openai_model(simulator))
    search, llm = captured.turn("RunnableSequence").calls
    known = search.attributes

    assert (search.name, llm.stage) == ("retrieval InMemoryVectorStore", "llm")
    assert (known[a.GEN_AI_PROVIDER_NAME], known[a.GEN_AI_DATA_SOURCE_ID]) == ("inmemory", "InMemoryVectorStore")
    assert known[a.STAGELIGHT_RETRIEVAL_COUNT] == 2
    assert known[a.STAGELIGHT_RETRIEVAL_FILTERED] is False
    assert known[a.GEN_AI_RETRIEVAL_TOP_K] == 2
    assert "moon" not in told(captured)


class Found(BaseRetriever):
    """Finds what it is told to, or raises it."""

    found: Any

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        if isinstance(self.found, BaseException):
            raise self.found
        return list(self.found)


async def search(way: scene.Way, retriever: Any) -> Any:
    """Ask a retriever."""
    return await way.invoke(retriever, "moons")


def scores_of(captured: Captured) -> tuple[Any, Any]:
    """The best and the worst score."""
    known = captured.call("retrieval").attributes
    return known.get(a.STAGELIGHT_RETRIEVAL_TOP_SCORE), known.get(a.STAGELIGHT_RETRIEVAL_MIN_SCORE)


def test_scores_of_documents(way: scene.Way) -> None:
    """Where every document carries one."""
    scored = [Document("one", metadata={"relevance_score": 0.9}), Document("two", metadata={"relevance_score": 0.4})]
    half = [Document("one", metadata={"score": 0.9}), Document("two")]
    captured, found = alone(way, Found(found=scored, name="news"), search)
    without, _ = alone(way, Found(found=half), search)

    assert found == scored
    assert captured.call("retrieval").name == "retrieval news"
    assert scores_of(captured) == (0.9, 0.4)
    assert without.call("retrieval").name == "retrieval Found"
    assert scores_of(without) == (None, None)


def test_a_retriever_that_finds_nothing(way: scene.Way) -> None:
    """Nothing found is known, and no error."""
    captured, found = alone(way, Found(found=[]), search)

    assert found == []
    assert captured.call("retrieval").attributes[a.STAGELIGHT_RETRIEVAL_COUNT] == 0
    assert captured.call("retrieval").attributes[a.STAGELIGHT_RETRIEVAL_EMPTY] is True


def test_a_retriever_that_fails(way: scene.Way) -> None:
    """Its very error reaches the caller."""
    error = ConnectionError("secret")

    async def scenario(way: scene.Way, retriever: Any) -> None:
        with pytest.raises(ConnectionError) as caught:
            await way.invoke(retriever, "moons")
        assert caught.value is error

    captured, _ = alone(way, Found(found=error), scenario)

    assert (captured.call("retrieval").outcome, captured.call("retrieval").error_type) == ("error", "ConnectionError")
    assert "secret" not in told(captured)


class Qdrant(BaseRetriever):
    """Searches a local Qdrant, ``times`` times."""

    client: Any
    times: int = 1

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        found = [
            point
            for _ in range(self.times)
            for point in self.client.query_points("docs", query=[1.0, 0.0], limit=3).points
        ]
        return [Document(point.payload["text"]) for point in found]


@pytest.fixture
def qdrant() -> Iterator[QdrantClient]:
    """A collection with two points."""
    client = QdrantClient(":memory:")
    client.create_collection("docs", vectors_config=models.VectorParams(size=2, distance=models.Distance.COSINE))
    client.upsert(
        "docs",
        [
            models.PointStruct(id=1, vector=[1.0, 0.0], payload={"text": "tides"}),
            models.PointStruct(id=2, vector=[0.0, 1.0], payload={"text": "moons"}),
        ],
    )
    yield client
    client.close()


def test_a_retriever_over_a_recorded_database(way: scene.Way, qdrant: QdrantClient) -> None:
    """One retrieval, which knows what the database's client knows, with the client's span inside."""
    captured, found = alone(way, Qdrant(client=qdrant), search)
    call = captured.call("retrieval")
    database, outer = captured.spans

    assert len(found) == 2
    assert (call.name, database.name) == ("retrieval docs", "query_points docs")
    assert database.parent.span_id == outer.context.span_id
    assert call.attributes[a.GEN_AI_PROVIDER_NAME] == "qdrant"
    assert call.attributes[a.STAGELIGHT_RETRIEVAL_METRIC] == "cosine"
    assert scores_of(captured) == (1.0, 0.0)
    assert len(captured.metric(m.STAGELIGHT_RETRIEVAL_RESULTS)) == 1


def test_a_retriever_that_searches_twice(way: scene.Way, qdrant: QdrantClient) -> None:
    """The first search is the retriever's, the second one of its own inside."""
    captured, _ = alone(way, Qdrant(client=qdrant, times=2), search)

    assert [call.name for call in captured.calls] == ["retrieval docs", "retrieval docs"]
    assert sorted(span.name for span in captured.spans)[:2] == ["query_points docs"] * 2


def test_a_manual_retrieval_around_a_retriever(way: scene.Way) -> None:
    """It is that retrieval."""

    async def scenario(way: scene.Way, retriever: Any) -> None:
        with stagelight.retrieval(provider="acme", source="news"):
            await way.invoke(retriever, "moons")

    captured, _ = alone(way, Found(found=[Document("one")]), scenario)
    call = captured.call("retrieval")

    assert (call.name, call.attributes[a.GEN_AI_PROVIDER_NAME]) == ("retrieval news", "acme")
    assert call.attributes[a.STAGELIGHT_RETRIEVAL_COUNT] == 1
    assert len(captured.spans) == 1
