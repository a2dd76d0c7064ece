"""The metric reader: collects and pushes in one thread, keeps the deadline of a flush, stops, and survives a fork.

The SDK's periodic reader pushes in the thread that flushes, however long the exporter retries, calls every flush a
success, and a fork during a push leaves its lock held in the child.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricReader, MetricsData

from stagelight._forks import around_every_fork, in_every_child
from stagelight._guard import guard
from stagelight.export.complaints import Complaints
from stagelight.export.pushed_metrics import PushedMetrics

__all__ = ["PushReader"]

_FORK_WAITS_S = 1.0  # a collection takes milliseconds; a fork does not wait longer for a hung one


class PushReader(MetricReader):
    """Pushes at an interval, when asked, and a last time when closed.

    Args:
        exporter: takes the points.
        interval_s: seconds between pushes.
        complaints: in whose context the exports run.
    """

    def __init__(self, exporter: PushedMetrics, interval_s: float, complaints: Complaints) -> None:
        super().__init__(
            preferred_temporality=exporter._preferred_temporality,  # noqa: SLF001 - the SDK's reader reads it the same way
            preferred_aggregation=exporter._preferred_aggregation,  # noqa: SLF001
        )
        self._exporter = exporter
        self._interval_s = interval_s
        self._complaints = complaints
        self.restart()
        in_every_child(self.restart)
        around_every_fork(self._stand_still, self._go_on)

    def restart(self) -> None:
        """Begin with a thread of this process."""
        self._asked = 0
        self._answered = 0
        self._succeeded = False
        self._closed = False
        self._collected: MetricsData | None = None
        self._collecting = threading.RLock()  # re-entrant: a callback of the application may fork
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="stagelight-export-metrics", daemon=True)
        self._thread.start()

    def _stand_still(self) -> None:
        self._collecting.acquire(timeout=_FORK_WAITS_S)

    def _go_on(self) -> None:
        with contextlib.suppress(RuntimeError):  # the wait above was in vain
            self._collecting.release()

    def ask(self) -> int:
        """Ask for a push at once; wait for it with ``answered``."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()
            return self._asked

    def answered(self, asked: int, timeout_s: float) -> bool:
        """Wait until a push has ended that began after ``ask`` returned ``asked``.

        Returns:
            Whether it ended in time and was delivered.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._answered < asked:
                left = deadline - time.monotonic()
                if left <= 0 or self._closed or not self._thread.is_alive():
                    return False
                self._changed.wait(left)
            return self._succeeded

    def close(self) -> None:
        """Push no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self.answered(self.ask(), timeout_millis / 1000)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:  # noqa: ARG002 - the SDK's signature
        self.force_flush(timeout_millis)
        self.close()
        self._exporter.shutdown(timeout_millis)

    def _receive_metrics(self, metrics_data: MetricsData, *_: Any, **__: Any) -> None:
        self._collected = metrics_data

    def _run(self) -> None:
        otel_context.attach(self._complaints.context("metrics"))
        due = time.monotonic() + self._interval_s
        while True:
            with self._changed:
                while not self._closed and self._answered >= self._asked and time.monotonic() < due:
                    self._changed.wait(due - time.monotonic())
                if self._closed:
                    return
                asked = self._asked
            succeeded = False
            try:
                with guard("push metrics"):
                    succeeded = self._push()
            finally:
                with self._changed:
                    self._answered, self._succeeded = asked, succeeded
                    self._changed.notify_all()
            due = time.monotonic() + self._interval_s

    def _push(self) -> bool:
        with self._collecting:
            self.collect()
            data, self._collected = self._collected, None
        return data is None or self._exporter.export(data) is MetricExportResult.SUCCESS
