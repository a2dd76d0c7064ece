"""Whose each instant of a turn is: self times and shares of its stages."""

from __future__ import annotations

from typing import Any

import pytest
import stagelight
from hypothesis import given, settings
from hypothesis import strategies as st
from stagelight.conventions import attributes as a
from stagelight.testing import Captured, Clock, capture

LLM = {"provider": "acme", "model": "acme-1"}


def _parts(captured: Captured, template: str, name: str = "answer") -> dict[str, float]:
    attributes = captured.turn(name).attributes
    return {
        key.removeprefix(f"{template}."): value for key, value in attributes.items() if key.startswith(f"{template}.")
    }


Interval = tuple[str, float, float]


def _play(intervals: list[Interval], duration: float) -> Captured:
    """A turn of ``duration`` seconds with one call per interval, by a clock that is moved from event to event."""
    clock = Clock()
    moments = sorted({0.0, duration, *(moment for _, start, end in intervals for moment in (start, end))})
    running: dict[int, Any] = {}
    with capture(clock=clock) as captured, stagelight.turn("answer"):
        for moment in moments:
            clock.advance(moment - clock.seconds())
            for number, (_, start, end) in enumerate(intervals):
                if end == moment and number in running:
                    running.pop(number).end()
                if start == moment < end:
                    running[number] = _start(intervals[number][0])
    return captured


def _start(stage: str) -> Any:
    verb = getattr(stagelight, stage)
    return verb.start(**LLM) if stage in {"llm", "embedding", "tts"} else verb.start("x")


HAND_COMPUTED: dict[str, tuple[list[Interval], float, dict[str, float]]] = {
    "nothing": ([], 4.0, {"other": 4.0}),
    "one after another": (
        [("embedding", 0, 1), ("llm", 1, 3), ("tts", 3, 4)], 4.0, {"embedding": 1, "llm": 2, "tts": 1},
    ),
    "gaps are other": ([("llm", 1, 2), ("tts", 3, 4)], 5.0, {"other": 3, "llm": 1, "tts": 1}),
    "the last-ending one has the overlap": ([("llm", 0, 3), ("tts", 2, 4)], 4.0, {"llm": 2, "tts": 2}),
    "an inner one has nothing": ([("llm", 0, 4), ("parse", 1, 2)], 4.0, {"llm": 4}),
    "parallel ones of one stage are not counted twice": (
        [("parse", 0, 2), ("parse", 0, 3)], 4.0, {"parse": 3, "other": 1},
    ),
    "the earlier part of a covered one counts": (
        [("parse", 0, 2), ("llm", 1, 3), ("tts", 2.5, 4)], 4.0, {"parse": 1, "llm": 1.5, "tts": 1.5},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("intervals", "duration", "expected"), HAND_COMPUTED.values(), ids=HAND_COMPUTED)
def test_each_instant_belongs_to_the_last_ending_stage(
    intervals: list[Interval], duration: float, expected: dict[str, float]
) -> None:
    """Self times by hand, from the definition; shares are the same divided by the duration."""
    captured = _play(intervals, duration)

    assert _parts(captured, a.STAGELIGHT_TURN_SELF_TIME) == pytest.approx(expected)
    assert _parts(captured, a.STAGELIGHT_TURN_SHARE) == pytest.approx(
        {stage: seconds / duration for stage, seconds in expected.items()}
    )


def _by_definition(intervals: list[Interval], duration: float, steps: int) -> dict[str, float]:
    """Self times of the definition itself, instant by instant, on a grid the moments lie on."""
    times: dict[str, float] = {}
    step = duration / steps
    for number in range(steps):
        middle = (number + 0.5) * step
        active = [(end, stage) for stage, start, end in intervals if start < middle < end]
        latest = max((end for end, _ in active), default=0.0)
        stages = {stage for end, stage in active if end == latest} or {"other"}
        if len(stages) > 1:
            return {}  # two stages end in the same instant: either may have it
        (stage,) = stages
        times[stage] = times.get(stage, 0.0) + step
    return times


@settings(deadline=None, max_examples=120)
@given(
    st.lists(
        st.tuples(st.sampled_from(["llm", "tts", "parse", "store"]), st.integers(0, 16), st.integers(0, 16)), max_size=6
    )
)
def test_shares_sum_to_one(given_intervals: list[tuple[str, int, int]]) -> None:
    """Whatever overlaps: shares sum to 1, self times to the duration, and both follow the definition."""
    intervals = [(stage, min(one, two), max(one, two)) for stage, one, two in given_intervals if one != two]
    captured = _play([(stage, float(start), float(end)) for stage, start, end in intervals], 16.0)
    times = _parts(captured, a.STAGELIGHT_TURN_SELF_TIME)
    expected = _by_definition([(stage, float(start), float(end)) for stage, start, end in intervals], 16.0, 16)

    assert sum(times.values()) == pytest.approx(16.0)
    assert sum(_parts(captured, a.STAGELIGHT_TURN_SHARE).values()) == pytest.approx(1.0)
    assert times == pytest.approx(expected or times)
