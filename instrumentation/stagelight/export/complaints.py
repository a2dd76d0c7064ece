"""What is said while a back end is away: one line a minute, with what was lost and the exporters' own words.

The official exporters log every attempt; measured with a dead collector, these were 19 lines in 30 s. While our
exports run, their lines are kept back and the first one is quoted in ours.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from stagelight._forks import in_every_child
from stagelight.export.accounting import Signal

__all__ = ["SUPPRESS_KEY", "Complaints"]

logger = logging.getLogger("stagelight.export")

SUPPRESS_KEY: Final = otel_context._SUPPRESS_INSTRUMENTATION_KEY  # noqa: SLF001 - the API has no public name for it yet
"""Context key under which no instrumentation records, so that exports do not export themselves."""

_COMPLAINTS_KEY = otel_context.create_key("stagelight.complaints")

_EXPORTERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
)
"""Loggers of the official exporters; a filter takes effect on the very logger only."""

_ATTRIBUTES = "opentelemetry.attributes"
"""Says of every single value that it was cut."""


class _Sparing(logging.Filter):
    """Lets one line a period pass."""

    def __init__(self, period_s: float) -> None:
        super().__init__()
        self._period_s = period_s
        self._said_at = -period_s

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - the signature of logging
        now = time.monotonic()
        if now - self._said_at < self._period_s:
            return False
        self._said_at = now
        return True


class Complaints(logging.Filter):
    """Keeps back the lines of exporters that run in a ``context``, and says once a period what was lost.

    Args:
        period_s: seconds between two lines at least.
    """

    def __init__(self, period_s: float = 60.0) -> None:
        super().__init__()
        self._period_s = period_s
        self._sparing = _Sparing(period_s)
        self.restart()
        in_every_child(self.restart)

    def restart(self) -> None:
        """Forget everything, as a forked child must."""
        self._lock = threading.RLock()
        self._lost: Counter[Signal] = Counter()
        self._reasons: dict[Signal, str] = {}
        self._said_at = -self._period_s

    def context(self, signal: Signal) -> Context:
        """The context in which exports of a signal run."""
        quiet = otel_context.set_value(SUPPRESS_KEY, True, Context())
        return otel_context.set_value(_COMPLAINTS_KEY, (self, signal), quiet)

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep back what an exporter of ours says; the application's own exporters speak for themselves."""
        running: Any = otel_context.get_value(_COMPLAINTS_KEY)
        if record.levelno < logging.WARNING or running is None or running[0] is not self:
            return True
        self._reasons.setdefault(running[1], record.getMessage())  # the first says why, later ones that it gave up
        return False

    def lost(self, items: int, signal: Signal) -> None:
        """Say that items were dropped, unless something was said within the period."""
        with self._lock:
            self._lost[signal] += items
            if time.monotonic() - self._said_at < self._period_s:
                return
            self._said_at = time.monotonic()
        self._say()

    def _say(self) -> None:
        with self._lock:
            lost, self._lost = self._lost, Counter()
            reasons = [self._reasons.pop(signal) for signal in lost if signal in self._reasons]
        if lost:
            reason = reasons[0] if reasons else ""
            items = ", ".join(f"{signal} {count}" for signal, count in lost.items())
            cause = reason and f"; the exporter says: {reason}"
            logger.warning("stagelight: not delivered and dropped: %s%s", items, cause)

    def begin(self) -> None:
        """Listen to the exporters, and let little be said of values that are cut."""
        logging.getLogger(_ATTRIBUTES).addFilter(self._sparing)
        for name in _EXPORTERS:
            logging.getLogger(name).addFilter(self)

    def end(self) -> None:
        """Say what was not said yet and let everybody speak again."""
        self._say()
        logging.getLogger(_ATTRIBUTES).removeFilter(self._sparing)
        for name in _EXPORTERS:
            logging.getLogger(name).removeFilter(self)
