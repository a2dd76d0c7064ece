"""Graphs of LangGraph: one turn each, whatever their nodes, branches, inner graphs and questions."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import langchain_scene as scene
import pytest
from integrations.langchain_chains import GIVEN, PROMPT, ran
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from stagelight.conventions import attributes as a
from stagelight.sim import Simulator

CLIENTS = ("openai",)
pytestmark = pytest.mark.usefixtures("langchain")


class State(TypedDict):
    """State of the graphs here."""

    said: Annotated[list[Any], lambda old, new: old + new]


def graph(model: Any, *, asks: bool = False) -> Any:
    """Two nodes that call the model, in parallel or after a question to the user, and a graph inside the graph."""

    async def call_async(_: State) -> Any:
        return {"said": [(await (PROMPT | model).ainvoke(GIVEN)).id]}

    def call(_: State) -> Any:
        return {"said": [(PROMPT | model).invoke(GIVEN).id]}

    def ask(_: State) -> Any:
        return {"said": [interrupt("Go on?")]}

    node = RunnableLambda(call, call_async)
    inner = StateGraph(State)
    inner.add_node("deep", node)
    inner.add_edge(START, "deep")
    whole = StateGraph(State)
    for name in ("left", "right"):
        whole.add_node(name, node)
        whole.add_edge("ask" if asks else START, name)
        whole.add_edge(name, "inner")
    whole.add_node("inner", inner.compile())
    whole.add_edge("inner", END)
    if asks:
        whole.add_node("ask", ask)
        whole.add_edge(START, "ask")
    return whole.compile(name="helper", checkpointer=InMemorySaver() if asks else None)


def test_a_graph(way: scene.Way, simulator: Simulator) -> None:
    """A graph is one turn with its name; nodes, branches and inner graphs are inside, without spans."""

    async def scenario(way: scene.Way, model: Any) -> Any:
        return await way.invoke(graph(model), {"said": []})

    captured, state = ran(way, simulator, scenario)

    assert len(set(state["said"])) == 3
    assert [call.name for call in captured.turn("helper").calls] == ["chat gpt-4o-mini"] * 3
    assert len(captured.spans) == 4


@pytest.mark.parametrize("mode", ["values", "updates", "messages"])
def test_a_streamed_graph(way: scene.Way, simulator: Simulator, mode: str) -> None:
    """In every mode the graph is one turn."""

    async def scenario(way: scene.Way, model: Any) -> Any:
        return await way.chunks(graph(model), {"said": []}, stream_mode=mode)

    captured, chunks = ran(way, simulator, scenario)
    turn = captured.turn("helper")

    assert chunks
    assert (turn.outcome, [call.outcome for call in turn.calls]) == ("completed", ["completed"] * 3)
    assert len(captured.spans) == 4


def test_a_graph_that_asks(way: scene.Way, simulator: Simulator) -> None:
    """An interrupt is no error; what runs after the answer is a turn of the same conversation."""
    config = {"configurable": {"thread_id": "t-1"}}

    async def scenario(way: scene.Way, model: Any) -> Any:
        asking = graph(model, asks=True)
        first = await way.invoke(asking, {"said": []}, config)
        return first, await way.invoke(asking, Command(resume="yes"), config)

    captured, (first, second) = ran(way, simulator, scenario)
    turn = captured.turn("helper")

    assert "__interrupt__" in first
    assert second["said"][0] == "yes"
    assert (turn.outcome, turn.attributes[a.GEN_AI_CONVERSATION_ID]) == ("completed", "t-1")
    assert len(turn.calls) == 3


def test_an_interrupt_after_a_stage(way: scene.Way, simulator: Simulator) -> None:
    """A turn that ends with a question to the user is completed."""

    async def scenario(way: scene.Way, model: Any) -> None:
        def call_and_ask(_: State) -> Any:
            (PROMPT | model).invoke(GIVEN)
            return {"said": [interrupt("Go on?")]}

        asking = StateGraph(State)
        asking.add_node("ask", call_and_ask)
        asking.add_edge(START, "ask")
        await way.invoke(asking.compile(checkpointer=InMemorySaver()), {"said": []}, {"configurable": {"thread_id": 1}})

    captured, _ = ran(way, simulator, scenario)

    assert (captured.turn("LangGraph").outcome, captured.turn("LangGraph").error_type) == ("completed", None)
