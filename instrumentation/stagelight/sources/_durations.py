"""How long things take: exact percentiles over the covering index of spans."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from stagelight.sources.model import LatencyDimension, LatencyRow, Window

__all__ = ["latency_rows", "percentile", "percentiles_of"]

_Number = TypeVar("_Number", int, float)

_NS_PER_S: Final = 1e9


@dataclass(slots=True)
class _Sample:
    errors: int = 0
    durations_ns: list[int] = field(default_factory=list)
    firsts_s: list[float] = field(default_factory=list)


def percentile(ordered: Sequence[_Number], percent: int) -> _Number | None:
    """The smallest of the ordered values that at least ``percent`` of 100 values do not exceed; None of no values."""
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1] if ordered else None


def latency_rows(connection: sqlite3.Connection, window: Window, by: LatencyDimension) -> list[LatencyRow]:
    """Durations per stage, or per model of the calls that have one; slowest p95 first."""
    condition = "stage IS NOT NULL" if by == "stage" else "model IS NOT NULL AND stage NOT IN ('turn', 'job')"
    calls = connection.execute(
        f"SELECT {by}, duration_ns, failed, coalesce(first_token_s, first_chunk_s) "  # noqa: S608 (our own names)
        f"FROM spans INDEXED BY spans_time WHERE start_ns >= ? AND start_ns < ? AND {condition}",
        (window.since_ns, window.until_ns),
    )
    return percentiles_of(calls)


def percentiles_of(calls: Iterable[tuple[str, int, int, float | None]]) -> list[LatencyRow]:
    """Percentiles of calls given as key, duration in ns, 1 if failed, and seconds to the first; slowest p95 first."""
    samples: dict[str, _Sample] = {}
    for key, duration_ns, failed, first_s in calls:
        sample = samples.get(key)
        if sample is None:
            sample = samples[key] = _Sample()
        sample.durations_ns.append(duration_ns)
        sample.errors += failed
        if first_s is not None:
            sample.firsts_s.append(first_s)
    return sorted((_row(key, sample) for key, sample in samples.items()), key=lambda row: (-row.p95_s, row.key))


def _row(key: str, sample: _Sample) -> LatencyRow:
    durations_ns = sorted(sample.durations_ns)
    firsts_s = sorted(sample.firsts_s)
    p50_s, p95_s, p99_s = ((percentile(durations_ns, percent) or 0) / _NS_PER_S for percent in (50, 95, 99))
    return LatencyRow(
        key=key,
        calls=len(durations_ns),
        errors=sample.errors,
        p50_s=p50_s,
        p95_s=p95_s,
        p99_s=p99_s,
        first_p50_s=percentile(firsts_s, 50),
        first_p95_s=percentile(firsts_s, 95),
    )
