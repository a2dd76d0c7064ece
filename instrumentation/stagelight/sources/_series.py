"""Figures over time, in equal steps."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from stagelight.sources._durations import percentile
from stagelight.sources._failures import origins
from stagelight.sources._ledger import exact_sum
from stagelight.sources._turns import turn_facts
from stagelight.sources.model import UNKNOWN_KEY, Bucket, SeriesName, Window

__all__ = ["buckets"]

_Values: TypeAlias = Mapping[int, dict[str, float]]


def buckets(connection: sqlite3.Connection, name: SeriesName, window: Window, steps: int) -> list[Bucket]:
    """A named series; the last bucket may be cut off by the end of the window."""
    width_ns = max(-(-(window.until_ns - window.since_ns) // steps), 1)
    counted, read = _SERIES[name]
    values = read(connection, window, width_ns)
    return [
        Bucket(window.since_ns + step * width_ns, {**dict.fromkeys(counted, 0.0), **values.get(step, {})})
        for step in range(steps)
    ]


def _spend(connection: sqlite3.Connection, window: Window, width_ns: int) -> _Values:
    values: dict[int, dict[str, float]] = {}
    for step, model, amounts in connection.execute(
        "SELECT (time_ns - ?1) / ?3, model, group_concat(cost, ' ') FROM usage INDEXED BY usage_cost "
        "WHERE time_ns >= ?1 AND time_ns < ?2 AND cost IS NOT NULL GROUP BY 1, 2",
        (window.since_ns, window.until_ns, width_ns),
    ):
        values.setdefault(step, {})[model if model is not None else UNKNOWN_KEY] = float(exact_sum(amounts.split()))
    return values


def _latency(connection: sqlite3.Connection, window: Window, width_ns: int) -> _Values:
    samples: dict[tuple[int, str], list[int]] = {}
    for step, stage, duration_ns in connection.execute(
        "SELECT (start_ns - ?1) / ?3, stage, duration_ns FROM spans INDEXED BY spans_time "
        "WHERE start_ns >= ?1 AND start_ns < ?2 AND stage IS NOT NULL AND stage NOT IN ('turn', 'job')",
        (window.since_ns, window.until_ns, width_ns),
    ):
        samples.setdefault((step, stage), []).append(duration_ns)
    values: dict[int, dict[str, float]] = {}
    for (step, stage), durations_ns in samples.items():
        values.setdefault(step, {})[stage] = (percentile(sorted(durations_ns), 95) or 0) / 1e9
    return values


def _turns(connection: sqlite3.Connection, window: Window, width_ns: int) -> _Values:
    return _counted("turns", (turn.start_ns for turn in turn_facts(connection, window)), window, width_ns)


def _errors(connection: sqlite3.Connection, window: Window, width_ns: int) -> _Values:
    return _counted("errors", (span.start_ns for span in origins(connection, window)), window, width_ns)


def _first_token(connection: sqlite3.Connection, window: Window, width_ns: int) -> _Values:
    samples: dict[int, list[float]] = {}
    for turn in turn_facts(connection, window):
        if turn.first_token_s is not None:
            samples.setdefault((turn.start_ns - window.since_ns) // width_ns, []).append(turn.first_token_s)
    return {step: {"p95": percentile(sorted(firsts_s), 95) or 0.0} for step, firsts_s in samples.items()}


def _counted(key: str, times_ns: Iterable[int], window: Window, width_ns: int) -> _Values:
    values: dict[int, dict[str, float]] = {}
    for step in _steps(times_ns, window, width_ns):
        bucket = values.setdefault(step, {key: 0.0})
        bucket[key] += 1
    return values


def _steps(times_ns: Iterable[int], window: Window, width_ns: int) -> Iterator[int]:
    return ((time_ns - window.since_ns) // width_ns for time_ns in times_ns)


_SERIES: Final[Mapping[SeriesName, tuple[tuple[str, ...], Callable[[sqlite3.Connection, Window, int], _Values]]]] = {
    # name: (keys that are 0 when nothing happened, reader)
    "spend": ((), _spend),
    "latency": ((), _latency),
    "turns": (("turns",), _turns),
    "errors": (("errors",), _errors),
    "first_token": ((), _first_token),
}
