"""Figures over a window: costs from Loki, calls and failures from Tempo, and from Prometheus what Tempo cannot tell."""

from __future__ import annotations

import time
from datetime import tzinfo
from typing import Final

from stagelight.sources._durations import percentile, percentiles_of
from stagelight.sources._loki_ledger import DIMENSIONS, Ledger
from stagelight.sources._prometheus import Prometheus
from stagelight.sources._series import Values, counted, filled, slowest
from stagelight.sources._spend import Spend, by_cost
from stagelight.sources._tempo import KEPT_NS, SHOWN_AFTER_S, Tempo, TooManySpans
from stagelight.sources._tempo_calls import Call, count_top_turns, failures, staged, top_turns
from stagelight.sources.model import (
    UNKNOWN_KEY,
    Bucket,
    CostDimension,
    CostRow,
    LatencyDimension,
    LatencyRow,
    SeriesName,
    SourceUnavailable,
    Totals,
    Window,
)

__all__ = ["Figures"]

_TURNS_AND_JOBS: Final = frozenset({"turn", "job"})


class Figures:
    """Sums, counts and percentiles."""

    def __init__(self, tempo: Tempo, ledger: Ledger, prometheus: Prometheus) -> None:
        self._tempo = tempo
        self._ledger = ledger
        self._prometheus = prometheus

    def cost(self, window: Window, by: CostDimension, tz: tzinfo) -> list[CostRow]:
        """Spend per key, most expensive first; days in order of time."""
        if by == "day":
            days = self._ledger.days(window, tz)
            known = bool(days) and self.count_turns(window) is not None
            return [spent.row(day, (self.count_turns(part) or 0) if known else 0) for day, part, spent in days]
        owner = DIMENSIONS[by] if by in {"feature", "tenant", "user"} else None
        spends = self._ledger.spends(window, by)
        turns = (self._turns(window, owner) if spends else None) or {}
        return by_cost(
            spent.row(UNKNOWN_KEY if key is None else key, turns.get(key if owner else None, 0))
            for key, spent in spends.items()
        )

    def count_turns(self, window: Window) -> int | None:
        """Top-level turns of the window; None where they are not known."""
        turns = self._turns(window, None)
        return None if turns is None else turns.get(None, 0)

    def latency(self, window: Window, by: LatencyDimension) -> list[LatencyRow]:
        """Exact percentiles while Tempo has all calls and they can be read; estimated from histograms otherwise."""
        if self._prometheus.is_sampled(window):
            return self._prometheus.latency(window, by)
        try:
            calls = staged(self._tempo, window)
        except TooManySpans:
            return self._prometheus.latency(window, by)
        if by == "stage":
            return percentiles_of((str(call.stage), call.duration_ns, call.failed, call.first_s) for call in calls)
        return percentiles_of(
            (call.model, call.duration_ns, call.failed, call.first_s)
            for call in calls
            if call.model is not None and call.stage not in _TURNS_AND_JOBS
        )

    def series(self, name: SeriesName, window: Window, steps: int) -> list[Bucket]:
        """Equal buckets over the window."""
        return filled(name, window, steps, lambda width_ns: self._values(name, window, width_ns))

    def totals(self, window: Window) -> Totals:
        """The figures of the window."""
        spent = Spend() if not (found := self._ledger.spends(window, None)) else found[None]
        turns = top_turns(self._tempo, window)
        return Totals(
            spend=spent.cost,
            calls=spent.calls,
            unpriced=spent.unpriced,
            partial=spent.partial,
            turns=len(turns),
            failed_turns=sum(turn.failed for turn in turns),
            errors=len(failures(self._tempo, window)),
            first_token_p95_s=percentile(sorted(turn.first_s for turn in turns if turn.first_s is not None), 95),
        )

    def _turns(self, window: Window, by: str | None) -> dict[str | None, int] | None:
        """Top-level turns per value of an attribute; None where Tempo does not have all that the ledger has.

        What is missing is figures per turn only: that Tempo or Prometheus is away is no reason to give no costs.
        """
        now_ns = time.time_ns()
        kept_ns = now_ns - KEPT_NS
        if window.since_ns > now_ns - SHOWN_AFTER_S * 1_000_000_000:
            return None
        if window.since_ns < kept_ns:
            first_ns = self._ledger.first_ns(window)
            if first_ns is not None and first_ns < kept_ns:
                return None
            window = Window(kept_ns, max(window.until_ns, kept_ns))
        try:
            if self._prometheus.is_sampled(window):
                return None
            return count_top_turns(self._tempo, window, by)
        except SourceUnavailable:
            return None

    def _values(self, name: SeriesName, window: Window, width_ns: int) -> Values:
        def step(call: Call) -> int:
            return (call.start_ns - window.since_ns) // width_ns

        if name == "spend":
            values: dict[int, dict[str, float]] = {}
            for at, model, dollars in self._ledger.over_time(window, width_ns):
                values.setdefault(at, {})[model] = dollars
            return values
        if name == "latency":
            return slowest(
                (step(call), call.stage, call.duration_ns / 1e9)
                for call in staged(self._tempo, window)
                if call.stage is not None and call.stage not in _TURNS_AND_JOBS
            )
        if name == "errors":
            return counted(
                "errors", ((one.start_ns - window.since_ns) // width_ns for one in failures(self._tempo, window))
            )
        turns = top_turns(self._tempo, window)
        if name == "turns":
            return counted("turns", map(step, turns))
        return slowest((step(turn), "p95", turn.first_s) for turn in turns if turn.first_s is not None)
