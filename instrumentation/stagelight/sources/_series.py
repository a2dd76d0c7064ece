"""Figures over time, in equal steps."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from stagelight.sources._durations import percentile
from stagelight.sources._failures import origins
from stagelight.sources._spend import exact_sum
from stagelight.sources._turns import turn_facts
from stagelight.sources.model import UNKNOWN_KEY, Bucket, SeriesName, Window

__all__ = ["Values", "buckets", "counted", "filled", "slowest"]

Values: TypeAlias = Mapping[int, dict[str, float]]
"""Figures by step and key."""


def buckets(connection: sqlite3.Connection, name: SeriesName, window: Window, steps: int) -> list[Bucket]:
    """A named series; the last bucket may be cut off by the end of the window."""
    return filled(name, window, steps, lambda width_ns: _READERS[name](connection, window, width_ns))


def _spend(connection: sqlite3.Connection, window: Window, width_ns: int) -> Values:
    values: dict[int, dict[str, float]] = {}
    for step, model, amounts in connection.execute(
        "SELECT (time_ns - ?1) / ?3, model, group_concat(cost, ' ') FROM usage INDEXED BY usage_cost "
        "WHERE time_ns >= ?1 AND time_ns < ?2 AND cost IS NOT NULL GROUP BY 1, 2",
        (window.since_ns, window.until_ns, width_ns),
    ):
        values.setdefault(step, {})[model if model is not None else UNKNOWN_KEY] = float(exact_sum(amounts.split()))
    return values


def _latency(connection: sqlite3.Connection, window: Window, width_ns: int) -> Values:
    return slowest(
        connection.execute(
            "SELECT (start_ns - ?1) / ?3, stage, duration_ns / 1e9 FROM spans INDEXED BY spans_time "
            "WHERE start_ns >= ?1 AND start_ns < ?2 AND stage IS NOT NULL AND stage NOT IN ('turn', 'job')",
            (window.since_ns, window.until_ns, width_ns),
        )
    )


def _turns(connection: sqlite3.Connection, window: Window, width_ns: int) -> Values:
    return counted("turns", ((turn.start_ns - window.since_ns) // width_ns for turn in turn_facts(connection, window)))


def _errors(connection: sqlite3.Connection, window: Window, width_ns: int) -> Values:
    return counted("errors", ((span.start_ns - window.since_ns) // width_ns for span in origins(connection, window)))


def _first_token(connection: sqlite3.Connection, window: Window, width_ns: int) -> Values:
    return slowest(
        ((turn.start_ns - window.since_ns) // width_ns, "p95", turn.first_token_s)
        for turn in turn_facts(connection, window)
        if turn.first_token_s is not None
    )


def filled(name: SeriesName, window: Window, steps: int, read: Callable[[int], Values]) -> list[Bucket]:
    """Buckets from what ``read`` finds in steps of so many nanoseconds; counts are 0 where it finds nothing."""
    width_ns = max(-(-(window.until_ns - window.since_ns) // steps), 1)
    values = read(width_ns)
    nothing = dict.fromkeys(_COUNTED.get(name, ()), 0.0)
    return [Bucket(window.since_ns + step * width_ns, {**nothing, **values.get(step, {})}) for step in range(steps)]


def counted(key: str, steps: Iterable[int]) -> Values:
    """How often each step is there."""
    return {step: {key: float(number)} for step, number in Counter(steps).items()}


def slowest(samples: Iterable[tuple[int, str, float]]) -> Values:
    """The p95 per step and key of samples given as step, key and seconds."""
    sorted_out: dict[tuple[int, str], list[float]] = {}
    for step, key, seconds in samples:
        sorted_out.setdefault((step, key), []).append(seconds)
    values: dict[int, dict[str, float]] = {}
    for (step, key), found in sorted_out.items():
        values.setdefault(step, {})[key] = percentile(sorted(found), 95) or 0.0
    return values


_COUNTED: Final[Mapping[SeriesName, tuple[str, ...]]] = {"turns": ("turns",), "errors": ("errors",)}
"""Keys that are 0 when nothing happened."""

_READERS: Final[Mapping[SeriesName, Callable[[sqlite3.Connection, Window, int], Values]]] = {
    "spend": _spend,
    "latency": _latency,
    "turns": _turns,
    "errors": _errors,
    "first_token": _first_token,
}
