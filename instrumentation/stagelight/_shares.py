"""Which stage a turn's time belongs to: walk back from the end, each instant is the last-ending active stage's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["OTHER", "Interval", "self_times"]

OTHER = "other"


class Interval(NamedTuple):
    """One call of a turn, in monotonic seconds."""

    stage: str
    start: float
    end: float


def self_times(intervals: Iterable[Interval], start: float, end: float) -> dict[str, float]:
    """Seconds each stage is answerable for between ``start`` and ``end``.

    Returns:
        Seconds by stage, with ``other`` for instants in which no stage was active; they sum to ``end - start``.
    """
    times: dict[str, float] = {}
    moment = end
    for interval in sorted(intervals, key=lambda one: one.end, reverse=True):
        if moment <= start:
            break
        last = min(interval.end, moment)
        first = max(interval.start, start)
        if first >= last:
            continue
        if last < moment:
            times[OTHER] = times.get(OTHER, 0.0) + moment - last
        times[interval.stage] = times.get(interval.stage, 0.0) + last - first
        moment = first
    if moment > start:
        times[OTHER] = times.get(OTHER, 0.0) + moment - start
    return times
