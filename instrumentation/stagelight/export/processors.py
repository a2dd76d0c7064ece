"""The SDK's processor and exporter interfaces over our queues, one per signal."""

from __future__ import annotations

import copy
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from stagelight._guard import quietly
from stagelight.export.accounting import Account
from stagelight.export.batches import BatchQueue, Limits

__all__ = ["CountedMetrics", "LogQueue", "SpanQueue"]

_SPAN_BYTES = 1024  # an exported span without long strings, with the SDK's own objects
_LOG_BYTES = 1024
_VALUE_BYTES = 64


def _weight(attributes: Any) -> int:
    total = 0
    for value in attributes.values() if attributes else ():
        total += _VALUE_BYTES + (len(value) if isinstance(value, str | bytes | tuple | list) else 0)
    return total


def _span_size(span: ReadableSpan) -> int:
    return _SPAN_BYTES + _weight(span.attributes) + sum(_weight(event.attributes) for event in span.events)


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
    """Queues every log record."""

    def __init__(self, exporter: LogRecordExporter, limits: Limits) -> None:
        self.exporter = exporter
        self.queue: BatchQueue[ReadableLogRecord] = BatchQueue(
            Account("logs"), lambda batch: exporter.export(batch) is LogRecordExportResult.SUCCESS, _log_size, limits
        )

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        record = copy.copy(log_record.log_record)
        record.context = Context()  # the record has its ids; the context would keep the whole call alive
        self.queue.put(
            ReadableLogRecord(
                log_record=record,
                resource=log_record.resource or Resource.get_empty(),
                instrumentation_scope=log_record.instrumentation_scope,
                limits=log_record.limits,
            )
        )

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self.queue.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        self.queue.close(0)


def _points(data: MetricsData) -> int:
    return sum(
        len(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )


class CountedMetrics(MetricExporter):
    """An exporter whose points are accounted for; there is no queue, a failed push is made up by the next."""

    def __init__(self, exporter: MetricExporter) -> None:
        super().__init__(
            preferred_temporality=exporter._preferred_temporality,  # noqa: SLF001 - the reader reads it the same way
            preferred_aggregation=exporter._preferred_aggregation,  # noqa: SLF001
        )
        self.exporter = exporter
        self.account = Account("metrics")

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        points = _points(metrics_data)
        self.account.made(points)
        result = quietly(
            "export metrics",
            lambda: self.exporter.export(metrics_data, timeout_millis=timeout_millis, **kwargs),
            None,
        )
        if result is MetricExportResult.SUCCESS:
            self.account.delivered(points)
            return result
        self.account.dropped(points, "export_error" if result is None else "export_failed")
        return MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self.exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self.exporter.shutdown(timeout_millis=timeout_millis, **kwargs)
