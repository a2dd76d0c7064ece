"""Turns of LangChain and LangGraph: the outermost chain or graph, when a stage runs inside and no turn is there."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
import uuid
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import langchain_scene as scene
import pytest
import stagelight
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import BaseTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from opentelemetry import context as otel_context
from stagelight.asgi import RequestMiddleware
from stagelight.conventions import attributes as a
from stagelight.integrations import _langchain_runs
from stagelight.integrations.langchain import LangChainInstrumentor, callback_handler
from stagelight.sim import Simulator
from stagelight.testing import Captured, capture

PROMPT = ChatPromptTemplate.from_template("What do {things} do?")
GIVEN = {"things": "tides"}


@pytest.fixture(autouse=True)
def recorded() -> Iterator[None]:
    """LangChain and OpenAI are recorded, and no context is left behind."""
    before = otel_context.get_current()
    with scene.recording("openai"):
        yield
    assert otel_context.get_current() is before


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest) -> scene.Way:
    """Both ways of calling."""
    return scene.Way(request.param)


def shape(captured: Captured) -> list[tuple[str, str, str | None]]:
    """Name, outcome and name of the parent of every span, in the order of their starts."""
    names = {span.context.span_id: span.name for span in captured.spans}
    spans = sorted((*captured.calls, *captured.turns), key=lambda call: call.span.start_time or 0)
    return [(c.name, c.outcome, names.get(c.span.parent.span_id) if c.span.parent else None) for c in spans]


def ran(way: scene.Way, simulator: Simulator, scenario: scene.Scenario, **settings: Any) -> tuple[Captured, Any]:
    """A scenario with an OpenAI model."""
    hosts = {scene.host_of(simulator): "openai"}
    return scene.played(way, scenario, lambda: scene.openai_model(simulator), provider_hosts=hosts, **settings)


CHAIN = [
    ("invoke_workflow RunnableSequence", "completed", None),
    ("chat gpt-4o-mini", "completed", "invoke_workflow RunnableSequence"),
]


def test_a_chain(way: scene.Way, simulator: Simulator) -> None:
    """One turn with the one call of the client inside, and nothing of what was said."""

    async def scenario(way: scene.Way, model: Any) -> Any:
        return await way.invoke(PROMPT | model, GIVEN)

    captured, answer = ran(way, simulator, scenario)

    assert shape(captured) == CHAIN
    assert captured.turn("RunnableSequence").cost == captured.call("llm").cost == captured.cost
    assert captured.call("llm").attributes[a.GEN_AI_RESPONSE_ID] == answer.response_metadata["id"]
    assert "tides" not in repr([dict(span.attributes or {}) for span in captured.spans])


def test_a_streamed_chain(way: scene.Way, simulator: Simulator) -> None:
    """The turn lasts as long as the stream and knows the first token."""

    async def scenario(way: scene.Way, model: Any) -> Any:
        return await way.chunks(PROMPT | model.bind(stream_usage=True), GIVEN)

    captured, chunks = ran(way, simulator, scenario)
    turn, call = captured.turn("RunnableSequence"), captured.call("llm")

    assert shape(captured) == CHAIN
    assert len(chunks) > 3
    assert call.cost_status == "exact"
    assert turn.time_to_first_token_s is not None
    assert turn.duration_s >= call.duration_s


def test_a_chain_without_a_stage_is_no_turn(way: scene.Way, simulator: Simulator) -> None:
    """Prompts, parsers and functions alone leave no trace."""

    async def scenario(way: scene.Way, _model: Any) -> None:
        await way.invoke(PROMPT, GIVEN)
        await way.invoke(PROMPT | RunnableLambda(str), GIVEN)

    captured, _ = ran(way, simulator, scenario)

    assert captured.spans == ()


def test_inside_a_turn_there_is_no_other(way: scene.Way, simulator: Simulator) -> None:
    """Chains inside a turn of the application's are parts of it, and tell it what it does not know."""

    async def scenario(way: scene.Way, model: Any) -> None:
        with stagelight.turn("answer", feature="help"):
            config = {"configurable": {"thread_id": "c-7"}, "metadata": {"stagelight_feature": "other"}}
            await way.invoke(PROMPT | model, GIVEN, config)
            await way.invoke(PROMPT | model, GIVEN, {"configurable": {"thread_id": "c-8"}})

    captured, _ = ran(way, simulator, scenario)
    turn = captured.turn("answer")

    assert [call.name for call in turn.calls] == ["chat gpt-4o-mini"] * 2
    assert len(captured.turns) == 1
    assert (turn.attributes[a.STAGELIGHT_FEATURE], turn.attributes[a.GEN_AI_CONVERSATION_ID]) == ("help", "c-7")


def test_inside_a_request_the_request_is_the_turn(way: scene.Way, simulator: Simulator) -> None:
    """Two chains of one request are one turn, which is the request's and has the conversation of the first."""

    async def scenario(way: scene.Way, model: Any) -> None:
        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            await way.invoke(PROMPT | model, GIVEN, {"configurable": {"thread_id": "c-9"}})
            await way.invoke(PROMPT | model, GIVEN)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        async def nothing(*_: Any) -> Any:
            return {"type": "http.request"}

        await RequestMiddleware(app)({"type": "http", "method": "POST", "path": "/", "headers": []}, nothing, nothing)

    captured, _ = ran(way, simulator, scenario)
    (turn,) = captured.turns

    assert turn.name == "invoke_workflow POST request"
    assert [call.name for call in turn.calls] == ["chat gpt-4o-mini"] * 2
    assert turn.attributes[a.GEN_AI_CONVERSATION_ID] == "c-9"


def test_whose_turn_it_is(way: scene.Way, simulator: Simulator) -> None:
    """Keys of the metadata name the owner, the thread is the conversation; other metadata is not recorded."""
    config = {
        "configurable": {"thread_id": 7},
        "run_name": "answer",
        "metadata": {
            "stagelight_tenant": "acme",
            "stagelight_feature": "help",
            "stagelight_variant": "B",
            "stagelight_user_id": "ada",
            "mood": "secret",
        },
    }

    async def scenario(way: scene.Way, model: Any) -> None:
        await way.invoke(PROMPT | model, GIVEN, config)

    captured, _ = ran(way, simulator, scenario, id_key="0123456789abcdef0123456789abcdef")
    known = captured.turn("answer").attributes

    assert [known[key] for key in (a.STAGELIGHT_TENANT, a.STAGELIGHT_FEATURE, a.STAGELIGHT_VARIANT)] == [
        "acme", "help", "B",
    ]  # fmt: skip
    assert known[a.GEN_AI_CONVERSATION_ID] == "7"
    assert str(known[a.USER_HASH]).startswith("h1:")
    assert captured.call("llm").attributes[a.GEN_AI_CONVERSATION_ID] == "7"
    assert "secret" not in repr([dict(span.attributes or {}) for span in captured.spans])


def test_batches(way: scene.Way, simulator: Simulator) -> None:
    """Each chain of a batch is a turn with its own call."""

    async def scenario(way: scene.Way, model: Any) -> Any:
        return await way.batch(PROMPT | model, [GIVEN, {"things": "moons"}])

    captured, answers = ran(way, simulator, scenario)

    assert [[call.name for call in turn.calls] for turn in captured.turns] == [["chat gpt-4o-mini"]] * 2
    assert len(answers) == len(captured.ledger) == 2


def test_a_stream_that_is_left(way: scene.Way, simulator: Simulator) -> None:
    """Whoever leaves the stream of a chain leaves the call and the turn."""

    async def scenario(way: scene.Way, model: Any) -> None:
        async with way.stream(PROMPT | model, GIVEN) as chunks:
            async for _ in chunks:
                break

    captured, _ = ran(way, simulator, scenario)

    assert [(call.outcome, call.error_type) for call in captured.calls] == [("client_abandoned", None)]
    assert [call.name for call in captured.turn("RunnableSequence").calls] == ["chat gpt-4o-mini"]
    assert captured.turn("RunnableSequence").outcome == "client_abandoned"


def test_a_chain_that_fails(way: scene.Way, simulator: Simulator) -> None:
    """The error is the caller's very own, and the turn's."""
    error = ZeroDivisionError("secret")

    def broken(_: Any) -> None:
        raise error

    async def scenario(way: scene.Way, model: Any) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            await way.invoke(PROMPT | model | RunnableLambda(broken), GIVEN)
        assert caught.value is error

    captured, _ = ran(way, simulator, scenario)
    turn = captured.turn("RunnableSequence")

    assert (turn.outcome, turn.error_type) == ("error", "ZeroDivisionError")
    assert captured.call("llm").outcome == "completed"
    assert "secret" not in repr([dict(span.attributes or {}) for span in captured.spans])


def test_a_cancelled_chain(simulator: Simulator) -> None:
    """A cancelled task is no error of the turn's, and leaves nothing attached in the task."""

    async def scenario(_way: scene.Way, model: Any) -> None:
        began = asyncio.Event()

        async def wait(_: Any) -> None:
            began.set()
            await asyncio.Event().wait()

        async def task() -> None:
            before = otel_context.get_current()
            try:
                await (PROMPT | model | RunnableLambda(wait)).ainvoke(GIVEN)
            finally:
                assert otel_context.get_current() is before

        running = asyncio.create_task(task())
        await asyncio.wait_for(began.wait(), 30)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    captured, _ = ran(scene.Way("async"), simulator, scenario)
    turn = captured.turn("RunnableSequence")

    assert (turn.outcome, turn.error_type) == ("cancelled", None)


def test_branches_and_threads(way: scene.Way, simulator: Simulator) -> None:
    """Parallel branches and threads that are given the configuration are inside the one turn."""

    async def scenario(way: scene.Way, model: Any) -> None:
        def in_a_thread(given: Any, config: Any) -> Any:
            thread = threading.Thread(target=lambda: (PROMPT | model).invoke(given, config))
            thread.start()
            thread.join()
            return given

        chain = RunnableParallel(left=PROMPT | model, right=PROMPT | model) | (lambda _: GIVEN)
        await way.invoke(chain | RunnableLambda(in_a_thread), GIVEN)

    captured, _ = ran(way, simulator, scenario)

    assert [call.name for call in captured.turn("RunnableSequence").calls] == ["chat gpt-4o-mini"] * 3


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


def test_the_users_own_callbacks(way: scene.Way, simulator: Simulator) -> None:
    """Callbacks of the application's are called as without us."""

    class Noting(BaseCallbackHandler):
        """Notes what it is told."""

        def __init__(self) -> None:
            self.noted: list[str] = []

        def on_chain_start(self, *_: Any, **more: Any) -> None:
            self.noted.append(f"start {more.get('name')}")

        def on_chat_model_start(self, *_: Any, **__: Any) -> None:
            self.noted.append("model")

        def on_llm_end(self, *_: Any, **__: Any) -> None:
            self.noted.append("answer")

        def on_chain_end(self, *_: Any, **__: Any) -> None:
            self.noted.append("end")

    async def scenario(way: scene.Way, model: Any) -> list[str]:
        noting = Noting()
        callbacks = [noting]
        await way.invoke(PROMPT | model, GIVEN, {"callbacks": callbacks})
        assert callbacks == [noting]
        return noting.noted

    captured, with_us = ran(way, simulator, scenario)
    LangChainInstrumentor().uninstrument()
    _, alone = ran(way, simulator, scenario)
    LangChainInstrumentor().switch_on()

    assert shape(captured) == CHAIN
    assert with_us == alone


def test_runs_that_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded number is known; the oldest is let go, and its turn ends as left."""
    monkeypatch.setattr(_langchain_runs, "_MOST_RUNS", 3)
    handler, runs = callback_handler(), [uuid.uuid4() for _ in range(5)]
    with capture() as captured:
        for run in runs:
            handler.on_chain_start(None, {}, run_id=run, name="endless")
            handler.on_chat_model_start(None, [], run_id=run, parent_run_id=run)
            handler.on_llm_new_token("word", run_id=run)
        kept = handler.unfinished
        for run in runs:
            handler.on_llm_end(None, run_id=run)
            handler.on_chain_end({}, run_id=run)

    assert kept == 6
    assert sorted(call.outcome for call in captured.calls) == ["client_abandoned"] * 2 + ["completed"] * 3
    assert len(captured.turns) == 5


def test_switched_off_everything_is_as_before() -> None:
    """LangChain has its very own functions again, and no handler joins."""
    instrumentor = LangChainInstrumentor()
    instrumentor.uninstrument()
    places = ((BaseChatModel, "stream"), (BaseChatModel, "_generate_with_cache"), (BaseTool, "run"))
    before = [vars(kind)[name] for kind, name in places]
    instrumentor.switch_on()
    assert all(vars(kind)[name] is not own for (kind, name), own in zip(places, before, strict=True))
    instrumentor.uninstrument()

    assert [vars(kind)[name] for kind, name in places] == before
    with capture() as captured:
        (PROMPT | scene.Local()).invoke(GIVEN)
    assert captured.spans == ()
    instrumentor.switch_on()


def test_the_handler_is_one() -> None:
    """Copied or pickled with a configuration, it stays the one handler."""
    handler = callback_handler()

    assert copy.deepcopy({"callbacks": [handler]})["callbacks"][0] is handler
    assert pickle.loads(pickle.dumps(handler)) is handler  # noqa: S301 - our own bytes
