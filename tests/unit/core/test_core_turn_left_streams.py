"""Turns that end before a stream of theirs: of a client that left, or of an answer whose rest nobody reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import stagelight
from stagelight.conventions import attributes as a
from stagelight.testing import CapturedTurn, Clock, capture

LLM = {"provider": "acme", "model": "acme-1"}
FACTS = (a.STAGELIGHT_TURN_CALLS, a.STAGELIGHT_TURN_COST, a.STAGELIGHT_TURN_COST_STATUS)


def facts_of(turn: CapturedTurn) -> tuple[object, ...]:
    """Number of calls, amount, status, and whose the time was."""
    share = f"{a.STAGELIGHT_TURN_SHARE}."
    return (
        *(turn.attributes.get(name) for name in FACTS),
        {name.removeprefix(share): value for name, value in turn.attributes.items() if name.startswith(share)},
    )


def begun(call: stagelight.stages.Call) -> Iterator[str]:
    """A stream of the call of which one chunk was read."""
    stream = iter(call.stream(iter(["one", "two"])))
    assert next(stream) == "one"
    return stream


def test_a_stream_that_is_open_at_the_end_is_a_call_of_unknown_cost() -> None:
    """What it used is told after the turn, so the turn's amount is a lower bound; the time is the stream's."""
    clock = Clock()
    with capture(clock=clock) as captured:
        turn = stagelight.turn.start("answer")
        with turn.active():
            with stagelight.embedding(**LLM) as call:
                clock.advance(1)
                call.cost("0.25")
            stream = begun(stagelight.llm.start(**LLM))
        clock.advance(3)
        turn.end("client_abandoned")
        clock.advance(5)
        assert list(stream) == ["two"]
        found = [facts_of(one) for one in captured.turns]

    assert found == [(2, 0.25, "partial", {"embedding": 0.25, "llm": 0.75})]


@pytest.mark.parametrize("is_read", [True, False])
def test_a_call_is_counted_once(is_read: bool) -> None:
    """Whether its stream ends before the turn or after, in the turn around as well."""
    with capture() as captured:
        outer = stagelight.turn.start("outer")
        with outer.active():
            inner = stagelight.turn.start("inner")
            with inner.active(), stagelight.llm(**LLM) as call:
                stream = begun(call)
        if is_read:
            assert list(stream) == ["two"]
        inner.end()
        outer.end()
        del stream
        found = {turn.name: facts_of(turn)[:3] for turn in captured.turns}

    assert found == dict.fromkeys(("invoke_workflow inner", "invoke_workflow outer"), (1, None, "unpriced"))


def test_a_stream_that_was_dropped_before_the_end_has_told_what_it_used() -> None:
    """A call inside a block ends with its stream, and what it cost is the turn's."""
    with capture() as captured:
        with stagelight.turn("answer"):
            with stagelight.llm(**LLM) as call:
                call.cost("0.5")
                stream = begun(call)
            del stream
        found = [facts_of(one)[:3] for one in captured.turns]

    assert found == [(1, 0.5, "exact")]
