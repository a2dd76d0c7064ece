"""The ``Source`` over the embedded store: read-only connections, also while another process writes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, tzinfo
from pathlib import Path

from stagelight.embedded.store import StoreError, open_readonly
from stagelight.sources import _durations, _failures, _ledger, _rows, _series, _traces, _turns
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
    SourceUnavailable,
    TailRecord,
    Totals,
    Trace,
    TraceRow,
    TurnOrder,
    TurnRow,
    Window,
    accept,
)

__all__ = ["EmbeddedSource"]


class EmbeddedSource:
    """Reads one database file.

    Args:
        path: the file.

    Raises:
        StoreError: the file is not there or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._closed = False
        # A connection serves one query at a time: there are as many as threads have read at once.
        self._idle = [open_readonly(path)]

    @property
    def location(self) -> str:
        """Path of the file."""
        return str(self._path)

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection inside a read transaction: all queries of one answer see the same moment."""
        connection = self._acquire()
        try:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            connection.close()
            raise SourceUnavailable(f"{self._path} cannot be read: {error}") from error
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _acquire(self) -> sqlite3.Connection:
        with self._lock:
            if self._closed:
                raise SourceUnavailable(f"{self._path} is closed")
            if self._idle:
                return self._idle.pop()
        try:
            return open_readonly(self._path)
        except StoreError as error:
            raise SourceUnavailable(str(error)) from error

    def turns(self, window: Window, limit: int = 50, *, order: TurnOrder = "newest") -> list[TurnRow]:
        """Top-level turns that started in the window, newest or slowest first."""
        accept("order", order, ("newest", "slowest"))
        with self._snapshot() as connection:
            return _turns.turn_rows(connection, window, limit, order)

    def traces(self, window: Window, limit: int = 50) -> list[TraceRow]:
        """Traces that were entered in the window, newest first."""
        with self._snapshot() as connection:
            return _traces.trace_rows(connection, window, limit)

    def trace(self, trace_id: str) -> Trace | None:
        """One trace by its id or a unique prefix of it."""
        with self._snapshot() as connection:
            return _traces.trace(connection, trace_id)

    def cost(self, window: Window, by: CostDimension, *, tz: tzinfo = UTC) -> list[CostRow]:
        """Spend per key, summed exactly over the ledger."""
        accept("by", by, COST_DIMENSIONS)
        with self._snapshot() as connection:
            return _ledger.cost_rows(connection, window, by, tz)

    def count_turns(self, window: Window) -> int | None:
        """Top-level turns of the window; ``None`` when it has calls from before the spans that are still kept."""
        with self._snapshot() as connection:
            return _ledger.count_turns(connection, window)

    def latency(self, window: Window, by: LatencyDimension) -> list[LatencyRow]:
        """Exact percentiles per stage or model."""
        accept("by", by, LATENCY_DIMENSIONS)
        with self._snapshot() as connection:
            return _durations.latency_rows(connection, window, by)

    def errors(self, window: Window) -> list[ErrorRow]:
        """Failures by kind, counted where they arose."""
        with self._snapshot() as connection:
            return _failures.error_rows(connection, window)

    def series(self, name: SeriesName, window: Window, steps: int) -> list[Bucket]:
        """Equal buckets over the window."""
        accept("name", name, SERIES)
        if steps < 1:
            raise ValueError(f"steps={steps!r}: must be 1 or more")
        with self._snapshot() as connection:
            return _series.buckets(connection, name, window, steps)

    def logs(
        self, window: Window, limit: int = 100, *, after: int | None = None, service: str | None = None
    ) -> list[LogRow]:
        """Log records of the window, newest first."""
        with self._snapshot() as connection:
            return _rows.log_rows(
                connection,
                "WHERE logs.time_ns >= :since AND logs.time_ns < :until AND logs.id > :after"
                + (" AND resource.service = :service" if service is not None else "")
                + " ORDER BY logs.time_ns DESC LIMIT :limit",
                {
                    "since": window.since_ns,
                    "until": window.until_ns,
                    "after": after or 0,
                    "service": service,
                    "limit": limit,
                },
            )

    def tail(self, after: str | None = None, limit: int = 500) -> tuple[list[TailRecord], str]:
        """What arrived after the cursor, and the next cursor."""
        with self._snapshot() as connection:
            return _traces.tail(connection, after, limit)

    def totals(self, window: Window) -> Totals:
        """The figures of the window."""
        with self._snapshot() as connection:
            spend = _ledger.spend(connection, window)
            turns = _turns.turn_facts(connection, window)
            return Totals(
                spend=spend.cost,
                calls=spend.calls,
                unpriced=spend.unpriced,
                partial=spend.partial,
                turns=len(turns),
                failed_turns=sum(turn.failed for turn in turns),
                errors=len(_failures.origins(connection, window)),
                first_token_p95_s=_durations.percentile(
                    sorted(turn.first_token_s for turn in turns if turn.first_token_s is not None), 95
                ),
            )

    def describe(self) -> Description:
        """Where this source reads and how much is there."""
        with self._snapshot() as connection:
            counts = [
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 (our own names)
                for table in ("spans", "logs", "usage", "points")
            ]
            ends = [
                connection.execute(f"SELECT min({column}), max({column}) FROM {table}").fetchone()  # noqa: S608
                for table, column in (("spans", "start_ns"), ("logs", "time_ns"), ("usage", "time_ns"))
            ]
        spans, logs, usage, points = counts
        return Description(
            location=self.location,
            spans=spans,
            logs=logs,
            usage=usage,
            points=points,
            oldest_ns=min((oldest for oldest, _ in ends if oldest is not None), default=None),
            newest_ns=max((newest for _, newest in ends if newest is not None), default=None),
            size_bytes=sum(
                file.stat().st_size for suffix in ("", "-wal") if (file := Path(f"{self._path}{suffix}")).is_file()
            ),
        )

    def close(self) -> None:
        """Close what is idle now, and the rest as soon as it has answered."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
