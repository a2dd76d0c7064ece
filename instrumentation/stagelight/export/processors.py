"""The SDK's processor and exporter interfaces over our queues, one per signal."""

from __future__ import annotations

import copy
from typing import Any

from opentelemetry._logs import LogRecord
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordLimits, LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from stagelight.export.accounting import Account
from stagelight.export.batches import BatchQueue, Limits

__all__ = ["LogQueue", "SpanQueue"]

_SPAN_BYTES = 1024  # an exported span without long strings, with the SDK's own objects
_LOG_BYTES = 1024
_VALUE_BYTES = 64
_NO_CONTEXT = Context()
_SIZED = frozenset({str, bytes, tuple})


def _weight(attributes: Any) -> int:
    if not attributes:
        return 0
    values = attributes.copy().values()  # a plain dict: the SDK's containers are slow to iterate
    return len(values) * _VALUE_BYTES + sum([len(value) for value in values if type(value) in _SIZED])


def _span_size(span: ReadableSpan) -> int:
    events = sum(_weight(event.attributes) for event in span.events) if span.events else 0
    return _SPAN_BYTES + _weight(span.attributes) + events


def _log_size(record: ReadableLogRecord) -> int:
    body = record.log_record.body
    return _LOG_BYTES + _weight(record.log_record.attributes) + (len(body) if isinstance(body, str) else 0)


class SpanQueue(SpanProcessor):
    """Queues every sampled span, whoever made it."""

    def __init__(self, exporter: SpanExporter, limits: Limits) -> None:
        self.exporter = exporter
        self.queue: BatchQueue[ReadableSpan] = BatchQueue(
            Account("traces"), lambda batch: exporter.export(batch) is SpanExportResult.SUCCESS, _span_size, limits
        )

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self.queue.put(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self.queue.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        self.queue.close(0)


class LogQueue(LogRecordProcessor):
    """Queues every log record.

    Args:
        exporter: where the records go.
        limits: bounds of the queue.
    """

    def __init__(self, exporter: LogRecordExporter, limits: Limits) -> None:
        self.exporter = exporter
        self.queue: BatchQueue[ReadableLogRecord] = BatchQueue(
            Account("logs"), lambda batch: exporter.export(batch) is LogRecordExportResult.SUCCESS, _log_size, limits
        )

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        record = copy.copy(log_record.log_record)  # other processors may still need the original's context
        scope, resource = log_record.instrumentation_scope, log_record.resource or Resource.get_empty()
        self.take(record, resource, scope, log_record.limits)

    def take(
        self, record: LogRecord, resource: Resource, scope: InstrumentationScope | None, limits: LogRecordLimits
    ) -> None:
        """Queue a record that is nobody else's."""
        record.context = _NO_CONTEXT  # the record has its ids; the context would keep the whole call alive
        self.queue.put(ReadableLogRecord(record, resource, scope, limits))

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self.queue.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        self.queue.close(0)
