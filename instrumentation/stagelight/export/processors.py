"""The SDK's processor and exporter interfaces over our queues, one per signal."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from opentelemetry import context as otel_context
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
from stagelight.export.complaints import SUPPRESS_KEY, Complaints
from stagelight.export.deadline import once

__all__ = ["LogQueue", "SpanQueue"]

_SPAN_BYTES = 1024  # an exported span without long strings, with the SDK's own objects
_LOG_BYTES = 1024
_VALUE_BYTES = 64
_DEEPEST = 8  # containers further down weigh as one value
_SHUTDOWN_S = 2.0
_NO_CONTEXT = Context()
_SMALL = frozenset({int, float, bool, type(None)})


def _value_size(value: Any, depth: int = 0) -> int:
    if type(value) in _SMALL:
        return _VALUE_BYTES
    if isinstance(value, str):
        return _VALUE_BYTES + (len(value) if value.isascii() else 4 * len(value))
    if isinstance(value, bytes):
        return _VALUE_BYTES + len(value)
    if depth < _DEEPEST:
        if isinstance(value, tuple | list):
            return _VALUE_BYTES + sum([_value_size(one, depth + 1) for one in value])
        if isinstance(value, Mapping):
            return _VALUE_BYTES + _weight(value, depth + 1)
    return _VALUE_BYTES


def _weight(attributes: Any, depth: int = 0) -> int:
    if not attributes:
        return 0
    copy = getattr(attributes, "copy", None)  # a plain dict: the SDK's containers are slow to iterate
    values = (attributes if copy is None else copy()).values()
    total = len(values) * _VALUE_BYTES
    for value in values:
        kind = type(value)
        if kind is str:
            total += len(value) if value.isascii() else 4 * len(value)
        elif kind not in _SMALL:
            total += _value_size(value, depth) - _VALUE_BYTES
    return total


def _span_size(span: ReadableSpan) -> int:
    size = _SPAN_BYTES + _value_size(span.name) + _weight(span.attributes)
    for event in span.events:
        size += _VALUE_BYTES + _weight(event.attributes)
    for link in span.links:
        size += _VALUE_BYTES + _weight(link.attributes)
    return size


def _log_size(record: ReadableLogRecord) -> int:
    return _LOG_BYTES + _value_size(record.log_record.body) + _weight(record.log_record.attributes)


class SpanQueue(SpanProcessor):
    """Queues every sampled span, whoever made it.

    Args:
        exporter: where the spans go.
        limits: bounds of the queue.
        complaints: told of what is lost.
    """

    def __init__(self, exporter: SpanExporter, limits: Limits, complaints: Complaints) -> None:
        self.queue: BatchQueue[ReadableSpan] = BatchQueue(
            Account("traces"),
            lambda batch: exporter.export(batch) is SpanExportResult.SUCCESS,
            size=_span_size,
            limits=limits,
            complaints=complaints,
        )
        self.stop = once(exporter.shutdown)

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self.queue.put(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self.queue.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Called by applications that shut the provider down themselves."""
        self.queue.flush(_SHUTDOWN_S)
        self.queue.close()
        self.stop()


class LogQueue(LogRecordProcessor):
    """Queues every log record but those that exports cause.

    Args:
        exporter: where the records go.
        limits: bounds of the queue.
        complaints: told of what is lost.
    """

    def __init__(self, exporter: LogRecordExporter, limits: Limits, complaints: Complaints) -> None:
        self.queue: BatchQueue[ReadableLogRecord] = BatchQueue(
            Account("logs"),
            lambda batch: exporter.export(batch) is LogRecordExportResult.SUCCESS,
            size=_log_size,
            limits=limits,
            complaints=complaints,
        )
        self.stop = once(exporter.shutdown)

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        if otel_context.get_value(SUPPRESS_KEY):
            return  # a root handler at DEBUG would export the lines of every export, without end
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
        """Called by applications that shut the provider down themselves."""
        self.queue.flush(_SHUTDOWN_S)
        self.queue.close()
        self.stop()
