"""The ``Source`` over the read-only gateway of the stack: costs and log lines from Loki, traces from Tempo."""

from __future__ import annotations

import time
from datetime import UTC, tzinfo
from typing import Final

from stagelight.sources._failures import kinds_of
from stagelight.sources._gateway_figures import Figures
from stagelight.sources._gateway_http import GatewayClient
from stagelight.sources._gateway_tail import Tail
from stagelight.sources._gateway_traces import GatewayTraces
from stagelight.sources._loki import Loki
from stagelight.sources._loki_ledger import Ledger
from stagelight.sources._loki_logs import ANY_RECORD, newest_logs
from stagelight.sources._prometheus import Prometheus
from stagelight.sources._tempo import Tempo
from stagelight.sources._tempo_calls import failures
from stagelight.sources.model import (
    COST_DIMENSIONS,
    LATENCY_DIMENSIONS,
    SERIES,
    Bucket,
    CostDimension,
    CostRow,
    Description,
    ErrorRow,
    LatencyDimension,
    LatencyRow,
    LogRow,
    SeriesName,
    TailRecord,
    Totals,
    Trace,
    TraceRow,
    TurnOrder,
    TurnRow,
    Window,
    accept,
)

__all__ = ["GatewaySource"]

_DAY_NS: Final = 86_400 * 1_000_000_000


class GatewaySource:
    """Reads through one gateway. Each back end answers for itself: there is no snapshot over all of them.

    Nothing is asked before the first question.

    Args:
        url: of the gateway.
        token: of the gateway.

    Raises:
        SourceUnavailable: the address or the token cannot be one.
    """

    def __init__(self, url: str, token: str | None) -> None:
        self._client = GatewayClient(url, token)
        self._tempo = Tempo(self._client)
        self._loki = Loki(self._client)
        ledger = Ledger(self._loki)
        self._figures = Figures(self._tempo, ledger, Prometheus(self._client))
        self._traces = GatewayTraces(self._tempo, self._loki, ledger)
        self._tail = Tail(self._tempo, self._loki)

    @property
    def location(self) -> str:
        """The gateway's address."""
        return self._client.location

    def turns(self, window: Window, limit: int = 50, *, order: TurnOrder = "newest") -> list[TurnRow]:
        """Top-level turns that started in the window, newest or slowest first."""
        accept("order", order, ("newest", "slowest"))
        return (self._traces.newest_turns if order == "newest" else self._traces.slowest_turns)(window, limit)

    def traces(self, window: Window, limit: int = 50) -> list[TraceRow]:
        """Traces whose root or first known span started in the window, newest first."""
        return self._traces.newest(window, limit)

    def trace(self, trace_id: str) -> Trace | None:
        """One trace by its id or a unique prefix of it."""
        return self._traces.one(trace_id)

    def cost(self, window: Window, by: CostDimension, *, tz: tzinfo = UTC) -> list[CostRow]:
        """Spend per key; exact up to 50,000 usage events, in doubles beyond."""
        accept("by", by, COST_DIMENSIONS)
        return self._figures.cost(window, by, tz)

    def count_turns(self, window: Window) -> int | None:
        """Top-level turns of the window, to whole seconds; ``None`` when Tempo does not have all of them."""
        return self._figures.count_turns(window)

    def latency(self, window: Window, by: LatencyDimension) -> list[LatencyRow]:
        """Percentiles per stage or model: exact up to 20,000 spans, from the Collector's histograms beyond."""
        accept("by", by, LATENCY_DIMENSIONS)
        return self._figures.latency(window, by)

    def errors(self, window: Window) -> list[ErrorRow]:
        """Failures by kind, counted where they arose."""
        return kinds_of(failures(self._tempo, window))

    def series(self, name: SeriesName, window: Window, steps: int) -> list[Bucket]:
        """Equal buckets over the window."""
        accept("name", name, SERIES)
        if steps < 1:
            raise ValueError(f"steps={steps!r}: must be 1 or more")
        return self._figures.series(name, window, steps)

    def logs(
        self, window: Window, limit: int = 100, *, after: int | None = None, service: str | None = None
    ) -> list[LogRow]:
        """Log records of the window, newest first; their ids are their times, for Loki does not know what came when."""
        since_ns = window.since_ns if after is None else max(window.since_ns, after + 1)
        return newest_logs(self._loki, Window(since_ns, window.until_ns), limit, service)

    def tail(self, after: str | None = None, limit: int = 500) -> tuple[list[TailRecord], str]:
        """What arrived after the cursor, at most three minutes after it happened, and the next cursor."""
        return self._tail.read(after, limit)

    def totals(self, window: Window) -> Totals:
        """The figures of the window."""
        return self._figures.totals(window)

    def describe(self) -> Description:
        """Where this source reads, and from when its records are; how many there are is not counted."""
        always = Window(0, time.time_ns() + _DAY_NS)
        newest_span = next(iter(self._tempo.newest("{ }", always, 1)), None)
        moments = [
            moment_ns
            for moment_ns in (
                self._loki.edge(ANY_RECORD, always, newest=False),
                self._loki.edge(ANY_RECORD, always, newest=True),
                newest_span.start_ns if newest_span else None,
            )
            if moment_ns is not None
        ]
        return Description(
            location=self.location,
            spans=None,
            logs=None,
            usage=None,
            points=None,
            oldest_ns=min(moments, default=None),
            newest_ns=max(moments, default=None),
            size_bytes=None,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
