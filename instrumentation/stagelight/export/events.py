"""The logger of our own events: straight into the queue while nobody else listens on the provider."""

from __future__ import annotations

from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LogRecordLimits
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from stagelight.export.processors import LogQueue
from stagelight.export.succession import Loggers

__all__ = ["EventLogger"]

_NO_LIMITS = LogRecordLimits(LogRecordLimits.UNSET, LogRecordLimits.UNSET, LogRecordLimits.UNSET, LogRecordLimits.UNSET)


class EventLogger:
    """Emits our events, whose attributes are clean by construction: the SDK would copy and check each of them.

    Args:
        provider: the provider the queue belongs to; it takes over as soon as it has another processor.
        queue: where records are queued for export.
        scope: the instrumentation scope of the events.
    """

    def __init__(self, provider: Loggers, queue: LogQueue, scope: InstrumentationScope) -> None:
        self._provider = provider
        self._queue = queue
        self._scope = scope
        self._official = provider.get_logger(scope.name, scope.version, scope.schema_url)

    def emit(self, record: LogRecord) -> None:
        """Emit one event."""
        if self._provider.guests:
            self._official.emit(record)
        else:
            self._queue.take(record, self._provider.resource, self._scope, _NO_LIMITS)
