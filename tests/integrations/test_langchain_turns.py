"""Turns of LangChain: the outermost chain, when a stage runs inside and no turn is there."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import langchain_scene as scene
import pytest
import stagelight
from integrations.langchain_chains import CHAIN, GIVEN, PROMPT, ran, shape
from langchain_core.runnables import RunnableLambda, RunnableParallel
from opentelemetry import context as otel_context
from stagelight.asgi import RequestMiddleware
from stagelight.conventions import attributes as a
from stagelight.sim import Simulator

CLIENTS = ("openai",)
pytestmark = pytest.mark.usefixtures("langchain")


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
