"""When a call is current, and when it ends: once, whatever is said to it afterwards."""

from __future__ import annotations

import stagelight
from opentelemetry.trace import StatusCode
from stagelight.conventions import attributes as a
from stagelight.testing import Clock, capture

START_NS = 1_700_000_000_000_000_000
MODEL = {"provider": "acme", "model": "acme-1"}


def test_ends_are_idempotent() -> None:
    """The first end counts; later ends, failures and facts change nothing and raise nothing."""
    clock = Clock()
    with capture(clock=clock) as captured:
        call = stagelight.llm.start(**MODEL)
        call.usage(input_tokens=5)
        clock.advance(1.0)
        call.end(outcome="client_abandoned")
        before = captured.spans
        clock.advance(1.0)
        call.end()
        call.end(outcome="error")
        call.fail(ValueError("late"))
        call.usage(input_tokens=99)
        call.response(model="late")
        call.results(scores=[1.0])
        call.cost("1.0")
        assert call.stream(items := [1, 2]) is items
        with call.active(), call:
            pass

        assert captured.spans == before
        (span,) = before
        assert dict(span.attributes or {})[a.STAGELIGHT_OUTCOME] == "client_abandoned"
        assert dict(span.attributes or {})[a.GEN_AI_USAGE_INPUT_TOKENS] == 5
        assert span.end_time == START_NS + 1_000_000_000
        assert span.status.status_code is StatusCode.UNSET
        assert len(captured.ledger) == 1


def test_a_turn_that_failed_after_its_end_stays_completed() -> None:
    """What is said about a turn after its end is not mixed into what is handed in later."""
    with capture() as captured:
        turn = stagelight.turn.start("answer")
        turn.end()
        turn.fail(ValueError("late"))

        assert (captured.turn("answer").outcome, captured.turn("answer").error_type) == ("completed", None)


def test_current_is_the_innermost_call() -> None:
    """``current`` follows blocks, turns hide the calls around them, and outside it accepts everything."""
    with capture():
        outside = stagelight.current()
        with stagelight.llm(**MODEL) as outer:
            assert stagelight.current() is outer
            with stagelight.tool("t") as inner:
                assert stagelight.current() is inner
            assert stagelight.current() is outer
            with stagelight.turn("sub"):
                assert stagelight.current() is outside
        assert stagelight.current() is outside

        outside.usage(input_tokens=1)
        outside.response(model="m")
        outside.results(scores=[1.0])
        outside.cost(1)
        outside.record(object())
        outside.end()
        outside.fail(ValueError())
        assert outside.stream(items := [1]) is items
        with outside.active(), outside.start():
            assert not stagelight.current().live


def test_a_started_call_is_current_in_its_active_block_only() -> None:
    """``start`` attaches nothing; ``active`` does for its block and does not end the call."""
    with capture() as captured:
        nothing = stagelight.current()
        call = stagelight.llm.start(**MODEL)
        assert stagelight.current() is nothing
        with call.active():
            assert stagelight.current() is call
        assert stagelight.current() is nothing
        assert captured.spans == ()
        call.end()

        assert [span.name for span in captured.spans] == ["chat acme-1"]


def test_a_block_entered_twice_leaves_nothing_behind() -> None:
    """The same object nested in itself is one call, and its context is gone afterwards."""
    with capture() as captured:
        nothing = stagelight.current()
        call = stagelight.llm(**MODEL)
        with call:
            with call:
                pass
            assert stagelight.current() is call

        assert stagelight.current() is nothing
        assert len(captured.spans) == 1
