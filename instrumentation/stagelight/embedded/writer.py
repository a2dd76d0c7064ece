"""The one thread that writes. What is queued while it is busy goes into its next transaction: no timer, no batching."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from stagelight.embedded.batch import Batch, Group, Resource, Row, WriteResult
from stagelight.embedded.retention import Pruner, Retention
from stagelight.embedded.schema import (
    LOG_COLUMNS,
    POINT_COLUMNS,
    SERIES_COLUMNS,
    SPAN_COLUMNS,
    USAGE_COLUMNS,
    insertion,
)
from stagelight.embedded.store import Synchronous, open_writable

__all__ = ["QueueFull", "WriteFailed", "Writer", "WriterClosed"]

_log = logging.getLogger(__name__)

_MAX_QUEUED_BYTES: Final = 64 << 20
_MAX_GROUP_BYTES: Final = 16 << 20
_MAX_CACHED: Final = 10_000
_HOUR_NS: Final = 3600 * 1_000_000_000

_INSERT_SPAN: Final = insertion("spans", SPAN_COLUMNS)
_INSERT_LOG: Final = insertion("logs", LOG_COLUMNS)
_INSERT_USAGE: Final = insertion("usage", USAGE_COLUMNS)
_INSERT_SERIES: Final = insertion("series", SERIES_COLUMNS)
_INSERT_POINT: Final = insertion("points", POINT_COLUMNS)


class QueueFull(Exception):  # noqa: N818 (a state that passes, like queue.Full)
    """More is waiting to be written than allowed: try again in a moment."""


class WriterClosed(Exception):  # noqa: N818 (a state, not a fault)
    """The writer is not running; nothing was written."""


class WriteFailed(Exception):  # noqa: N818 (named after WriteResult)
    """The database refused the batch; nothing of it was written."""


class _Job(NamedTuple):
    batch: Batch
    future: Future[WriteResult]


class Writer:
    """Writes batches in the order of their submission, several in one transaction when they wait.

    Args:
        path: the database file, made when it is not there.
        synchronous: ``NORMAL`` survives the kill of the process, ``FULL`` also the loss of power.
        max_queued_bytes: size of the requests that may wait; one batch is taken whatever its size.
        retention: what is kept; 7 days and 2 GiB by default.
    """

    def __init__(
        self,
        path: Path,
        *,
        synchronous: Synchronous = "NORMAL",
        max_queued_bytes: int = _MAX_QUEUED_BYTES,
        retention: Retention | None = None,
    ) -> None:
        self._path = path
        self._synchronous = synchronous
        self._max_queued_bytes = max_queued_bytes
        self._retention = retention or Retention()
        self._queue: deque[_Job] = deque()
        self._queued_bytes = 0
        self._wake = threading.Condition()
        self._running = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Open (or make, or update) the file and start the thread.

        Raises:
            StoreError: the file cannot be used.
        """
        connection = open_writable(self._path, synchronous=self._synchronous)
        self._thread = threading.Thread(target=self._run, args=(connection,), name="stagelight-writer", daemon=True)
        self._running = True
        self._thread.start()

    def submit(self, batch: Batch) -> Future[WriteResult]:
        """Queue a batch; the future ends only after the commit.

        The future fails with ``WriteFailed`` when the database refuses the batch, and with ``WriterClosed`` when the
        writer stops before it got to it.

        Raises:
            QueueFull: too much is waiting.
            WriterClosed: not started, or closed.
        """
        future: Future[WriteResult] = Future()
        with self._wake:
            if not self._running:
                raise WriterClosed("the writer is not running")
            if self._queue and self._queued_bytes + batch.size_bytes > self._max_queued_bytes:
                raise QueueFull(f"{self._queued_bytes} bytes wait to be written")
            self._queue.append(_Job(batch, future))
            self._queued_bytes += batch.size_bytes
            self._wake.notify()
        return future

    def close(self, timeout: float | None = None) -> bool:
        """Write what is queued and stop; True when all was written within ``timeout`` seconds. Idempotent."""
        with self._wake:
            self._running = False
            self._wake.notify()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self, connection: sqlite3.Connection) -> None:
        pruner = Pruner(connection, self._retention)
        ledger = _Inserter(connection)
        group: list[_Job] = []
        try:
            while (taken := self._take(pruner.wait_s())) is not None:
                group = taken
                if group:
                    self._write(connection, ledger, group)
                self._prune(pruner, ledger)
        finally:
            with self._wake:
                self._running = False
                left = [*group, *self._queue]
                self._queue.clear()
                self._queued_bytes = 0
            for job in left:
                if not job.future.done():
                    job.future.set_exception(WriterClosed("the writer stopped before it got to this batch"))
            connection.close()

    def _take(self, wait_s: float) -> list[_Job] | None:
        """What waits now, up to a transaction's size; empty after ``wait_s`` seconds, None at the end."""
        with self._wake:
            if not self._queue and self._running:
                self._wake.wait(wait_s)
            if not self._queue:
                return [] if self._running else None
            group = []
            size = 0
            while self._queue and size < _MAX_GROUP_BYTES:
                job = self._queue.popleft()
                self._queued_bytes -= job.batch.size_bytes
                if job.future.set_running_or_notify_cancel():
                    size += job.batch.size_bytes
                    group.append(job)
            return group

    def _write(self, connection: sqlite3.Connection, ledger: _Inserter, group: Sequence[_Job]) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
            results = [ledger.insert(job.batch) for job in group]
            connection.execute("COMMIT")
        except (sqlite3.Error, ValueError, OverflowError) as error:
            # A full disk rolls back by itself.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            ledger.forget()
            if len(group) > 1:
                # One of them may be at fault: the others must not suffer.
                for job in group:
                    self._write(connection, ledger, (job,))
                return
            _log.error("a batch could not be written to %s: %s", self._path, error)
            group[0].future.set_exception(WriteFailed(f"cannot write to {self._path}: {error}"))
            return
        for job, result in zip(group, results, strict=True):
            job.future.set_result(result)

    def _prune(self, pruner: Pruner, ledger: _Inserter) -> None:
        try:
            if pruner.shrink() or pruner.step():
                ledger.forget()
        except sqlite3.Error as error:
            _log.error("old telemetry could not be deleted from %s: %s", self._path, error)


class _Inserter:
    """Adds batches inside the writer's transaction; remembers the ids of resources, scopes and series."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._owners: dict[bytes, tuple[tuple[int, int], int]] = {}
        self._series: dict[bytes, int] = {}

    def forget(self) -> None:
        """Ask the database again: rows may have gone with a rollback or by retention."""
        self._owners.clear()
        self._series.clear()

    def insert(self, batch: Batch) -> WriteResult:
        """Add a batch; rows whose unique key is there already are skipped."""
        return WriteResult(
            spans=self._add(_INSERT_SPAN, batch.spans),
            logs=self._add(_INSERT_LOG, batch.logs),
            usage=self._add(_INSERT_USAGE, batch.usage),
            points=self._add_points(batch),
        )

    def _add(self, statement: str, groups: Sequence[Group]) -> int:
        added = 0
        for resource, scope, rows in groups:
            owner = self._owner(resource, scope)
            added += self._connection.executemany(statement, [row + owner for row in rows]).rowcount
        return added

    def _add_points(self, batch: Batch) -> int:
        rows: list[Row] = []
        for resource, scope, series, points in batch.points:
            owner = self._owner(resource, scope)
            digest = series[0]
            number = self._series.get(digest)
            if number is None:
                self._connection.execute(_INSERT_SERIES, series + owner)
                number = self._id("SELECT id FROM series WHERE digest = ?", digest)
                if len(self._series) >= _MAX_CACHED:
                    self._series.clear()
                self._series[digest] = number
            rows.extend((number, *point) for point in points)
        return self._connection.executemany(_INSERT_POINT, rows).rowcount if rows else 0

    def _owner(self, resource: Resource, scope: str) -> tuple[int, int]:
        hour = time.time_ns() // _HOUR_NS
        # A digest: senders choose how long these texts are.
        key = blake2b(f"{resource.json}{scope}".encode(), digest_size=16).digest()
        known = self._owners.get(key)
        if known is not None and known[1] == hour:
            return known[0]
        seen_ns = time.time_ns()
        self._connection.execute(
            "INSERT INTO resource (service, json, seen_ns) VALUES (?, ?, ?) "
            "ON CONFLICT (json) DO UPDATE SET seen_ns = excluded.seen_ns",
            (resource.service, resource.json, seen_ns),
        )
        self._connection.execute(
            "INSERT INTO scope (name, seen_ns) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET seen_ns = excluded.seen_ns",
            (scope, seen_ns),
        )
        owner = (
            self._id("SELECT id FROM resource WHERE json = ?", resource.json),
            self._id("SELECT id FROM scope WHERE name = ?", scope),
        )
        if len(self._owners) >= _MAX_CACHED:
            self._owners.clear()
        self._owners[key] = (owner, hour)
        return owner

    def _id(self, query: str, key: str | bytes) -> int:
        return int(self._connection.execute(query, (key,)).fetchone()[0])
