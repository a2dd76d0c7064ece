"""A turn sums up its calls: first token and audio, cost, tokens; what is in it, and what comes after its end."""

from __future__ import annotations

import asyncio
import gc
import weakref
from decimal import Decimal

import pytest
import stagelight
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.testing import Clock, capture

LLM = {"provider": "acme", "model": "acme-1"}


def test_a_turn_is_measured() -> None:
    """Duration, first token, first audio, cost, shares and self times are histograms of the turn."""
    clock = Clock()
    with capture(clock=clock) as captured:
        with stagelight.turn("answer", feature="help"):
            clock.advance(0.5)
            with stagelight.llm(**LLM) as call:
                clock.advance(0.5)
                list(call.stream(["text"]))
                call.cost("0.25")
            with stagelight.tts(**LLM) as call:
                clock.advance(1.0)
                list(call.stream([b"audio"]))
                call.cost("0.5")
        found = {
            name: [(point.attributes.get(a.STAGELIGHT_STAGE), point.value) for point in captured.metric(name)]
            for name in (
                m.GEN_AI_INVOKE_WORKFLOW_DURATION,
                m.STAGELIGHT_TURN_DURATION,
                m.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN,
                m.STAGELIGHT_TURN_TIME_TO_FIRST_AUDIO,
                m.STAGELIGHT_TURN_COST,
                m.STAGELIGHT_TURN_STAGE_SELF_TIME,
            )
        }

    assert found == {
        m.GEN_AI_INVOKE_WORKFLOW_DURATION: [(None, 2.0)],
        m.STAGELIGHT_TURN_DURATION: [(None, 2.0)],
        m.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN: [(None, 1.0)],
        m.STAGELIGHT_TURN_TIME_TO_FIRST_AUDIO: [(None, 2.0)],
        m.STAGELIGHT_TURN_COST: [(None, 0.75)],
        m.STAGELIGHT_TURN_STAGE_SELF_TIME: [("tts", 1.0), ("llm", 0.5), ("other", 0.5)],
    }


def test_sums_are_exact() -> None:
    """Cost is summed in Decimal, tokens over the language models, calls over everything, nested turns included."""
    with capture() as captured:
        with stagelight.turn("answer"):
            for _ in range(10):
                with stagelight.llm(**LLM) as call:
                    call.usage(input_tokens=3, output_tokens=1)
                    call.cost("0.1")
            with stagelight.turn("sub"), stagelight.llm(**LLM) as call:
                call.usage(input_tokens=100)
                call.cost("0.0000001")
            with stagelight.embedding(**LLM) as call:
                call.usage(input_tokens=1000)
                call.cost("0.2")
        outer, inner = captured.turn("answer"), captured.turn("sub")

    assert (outer.cost, inner.cost) == (Decimal("1.2000001"), Decimal("0.0000001"))
    assert [
        (turn.attributes[a.STAGELIGHT_TURN_CALLS], turn.attributes[a.STAGELIGHT_TURN_INPUT_TOKENS])
        for turn in (outer, inner)
    ] == [(12, 130), (1, 100)]
    assert outer.attributes[a.STAGELIGHT_TURN_OUTPUT_TOKENS] == 10
    assert captured.cost == Decimal("1.2000001")
    assert inner.span.parent is not None
    assert inner.span.parent.span_id == outer.span.context.span_id  # type: ignore[union-attr]  # ended spans have one


STATUSES = {
    "exact": (["priced", "priced"], "exact", Decimal("0.2")),
    "estimated": (["priced", "counted"], "estimated", None),
    "partial": (["priced", "unpriced"], "partial", Decimal("0.1")),
    "partial the other way": (["unpriced", "priced"], "partial", Decimal("0.1")),
    "unpriced": (["unpriced", "unpriced"], "unpriced", None),
    "none": (["free"], None, None),
}


@pytest.mark.parametrize(("calls", "status", "amount"), STATUSES.values(), ids=STATUSES)
def test_a_turn_has_the_worst_status(calls: list[str], status: str | None, amount: Decimal | None) -> None:
    """A sum with something missing is partial, never an amount that looks complete."""
    with capture() as captured:
        with stagelight.turn("answer"):
            for kind in calls:
                if kind == "free":
                    with stagelight.tool("x"):
                        continue
                with stagelight.llm(provider="openai", model="gpt-4o-mini" if kind != "unpriced" else "nobody") as call:
                    call.usage(input_tokens=10, output_tokens=1, counted=kind == "counted")
                    if kind == "priced":
                        call.cost("0.1")
        turn = captured.turn("answer")

    assert turn.cost_status == status
    assert amount is None or turn.cost == amount
    assert (turn.cost is None) == (status in {"unpriced", None})


def test_the_cost_so_far_is_known_inside() -> None:
    """A budget can be checked between calls."""
    with capture(), stagelight.turn("answer") as turn:
        before = turn.cost_so_far
        with stagelight.llm(**LLM) as call:
            call.cost("0.125")

        assert (before, turn.cost_so_far) == (Decimal(0), Decimal("0.125"))


def test_a_stage_after_the_end_joins_the_trace_only() -> None:
    """What starts or ends after its turn is in the trace, not in the turn's figures."""
    clock = Clock()
    with capture(clock=clock) as captured:
        turn = stagelight.turn("answer", tenant="acme")
        with turn:
            late = stagelight.llm.start(**LLM)
            clock.advance(1.0)
        clock.advance(1.0)
        late.cost("1.0")
        late.end()
        with turn.active(), stagelight.llm(**LLM) as after:
            after.cost("1.0")
            clock.advance(1.0)
        found = captured.turn("answer")

        assert {span.context.trace_id for span in captured.spans if span.context} == {found.span.context.trace_id}  # type: ignore[union-attr]
        assert (found.duration_s, found.cost, found.attributes[a.STAGELIGHT_TURN_CALLS]) == (1.0, None, 0)
        assert [event.attributes.get(a.STAGELIGHT_TENANT) for event in captured.ledger] == ["acme", None]


def test_a_nested_turn_reports_to_the_outer() -> None:
    """The first token of an inner turn is the outer's too, counted from the outer's start."""
    clock = Clock()
    with capture(clock=clock) as captured:
        with stagelight.turn("answer", feature="help", tenant="acme"):
            clock.advance(1.0)
            with stagelight.turn("sub", feature="own"), stagelight.llm(**LLM) as call:
                clock.advance(1.0)
                list(call.stream(["x"]))

        assert captured.turn("sub").time_to_first_token_s == 1.0
        assert captured.turn("answer").time_to_first_token_s == 2.0
        assert captured.turn("sub").attributes[a.STAGELIGHT_FEATURE] == "own"
        assert captured.turn("sub").attributes[a.STAGELIGHT_TENANT] == "acme"


def test_an_ended_scope_is_freed_at_once() -> None:
    """Contexts refer to calls and turns weakly: nothing waits for the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        with capture() as captured:
            with stagelight.turn("answer") as turn, stagelight.llm(provider="p", model="m") as call:
                gone = weakref.ref(call), weakref.ref(turn)
                call.usage(input_tokens=1)
            del call, turn
            captured.settle()
            freed = [reference() for reference in gone]
    finally:
        gc.enable()

    assert freed == [None, None]


def test_a_task_that_outlives_an_inner_turn_finds_the_outer_one() -> None:
    """The inner turn is ended and gone, but what stood in the context before it is still known."""

    async def late(go: asyncio.Event) -> None:
        await go.wait()
        with stagelight.llm(provider="p", model="m") as call:
            call.usage(input_tokens=1)

    async def main() -> None:
        go = asyncio.Event()
        with stagelight.turn("outer"):
            with stagelight.turn("inner"):
                task = asyncio.create_task(late(go))
            go.set()
            await task

    with capture() as captured:
        asyncio.run(main())

    assert captured.turn("outer").attributes[a.STAGELIGHT_TURN_CALLS] == 1
    assert captured.turn("inner").attributes[a.STAGELIGHT_TURN_CALLS] == 0
