"""The OpenTelemetry providers of a process that has none of its own: exporters by ``OTEL_*``, our queues between."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import LogRecordExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter

from stagelight.export.accounting import Balance, Signal
from stagelight.export.batches import Limits
from stagelight.export.deadline import all_within
from stagelight.export.processors import CountedMetrics, LogQueue, SpanQueue
from stagelight.export.protocols import protocol_of

__all__ = ["Providers", "build", "exporters"]

_STOP_S = 0.2
METRIC_INTERVAL_MS = 15_000
"""Default push interval; short, because a counter's last push before a crash is its last word."""


class Exporters(NamedTuple):
    """One exporter per signal; ``None`` where the signal is switched off."""

    traces: SpanExporter | None
    logs: LogRecordExporter | None
    metrics: MetricExporter | None


class Providers:
    """The three providers with their queues.

    Args:
        resource: attributes of the process.
        exporters: where each signal goes.
    """

    def __init__(self, resource: Resource, exporters: Exporters) -> None:
        self._spans = SpanQueue(exporters.traces, _limits("OTEL_BSP")) if exporters.traces else None
        self._logs = LogQueue(exporters.logs, _limits("OTEL_BLRP")) if exporters.logs else None
        self._metrics = CountedMetrics(exporters.metrics) if exporters.metrics else None
        self._reader: PeriodicExportingMetricReader | None = None
        self.tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.logger_provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
        if self._spans is not None:
            self.tracer_provider.add_span_processor(self._spans)
        if self._logs is not None:
            self.logger_provider.add_log_record_processor(self._logs)
        readers = []
        if self._metrics is not None:
            interval = _number("OTEL_METRIC_EXPORT_INTERVAL", METRIC_INTERVAL_MS)
            self._reader = PeriodicExportingMetricReader(self._metrics, export_interval_millis=interval)
            readers.append(self._reader)
        self.meter_provider = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)

    @property
    def balances(self) -> Mapping[Signal, Callable[[], Balance]]:
        """The account of every signal that is exported."""
        found: dict[Signal, Callable[[], Balance]] = {}
        if self._spans is not None:
            found["traces"] = self._spans.queue.account.balance
        if self._logs is not None:
            found["logs"] = self._logs.queue.account.balance
        if self._metrics is not None:
            found["metrics"] = self._metrics.account.balance
        return found

    def flush(self, timeout_s: float) -> bool:
        """Send everything of all signals, in parallel."""
        return all_within(timeout_s, self._works(closing=False))

    def shutdown(self, timeout_s: float) -> bool:
        """Send everything within the time, then stop; what could not be sent is counted as dropped."""
        sent = all_within(timeout_s, self._works(closing=True))
        # Ends the retries of exporters that still wait for a dead back end.
        stops = [part.exporter.shutdown for part in (self._spans, self._logs, self._metrics) if part is not None]
        all_within(_STOP_S, [partial(_stop, stop) for stop in stops])
        return sent

    def _works(self, *, closing: bool) -> list[Callable[[float], bool]]:
        queues = [part.queue for part in (self._spans, self._logs) if part is not None]
        works: list[Callable[[float], bool]] = [queue.close if closing else queue.flush for queue in queues]
        reader = self._reader
        if reader is not None:
            works.append(lambda left: reader.force_flush(timeout_millis=left * 1000))
        return works


def _stop(stop: Callable[[], None], _left: float) -> bool:
    stop()
    return True


def _number(variable: str, default: float) -> float:
    try:
        value = float(os.environ.get(variable, ""))
    except ValueError:
        return default
    return value if value > 0 else default


def _limits(prefix: str) -> Limits:
    default = Limits()
    return default._replace(
        items=int(_number(f"{prefix}_MAX_QUEUE_SIZE", default.items)),
        batch=int(_number(f"{prefix}_MAX_EXPORT_BATCH_SIZE", default.batch)),
        delay_s=_number(f"{prefix}_SCHEDULE_DELAY", default.delay_s * 1000) / 1000,
    )


def exporters(environment: Mapping[str, str]) -> Exporters:
    """The OTLP exporters the environment asks for; endpoints, headers and TLS are theirs to read."""

    def wanted(signal: Signal) -> bool:
        return environment.get(f"OTEL_{signal.upper()}_EXPORTER", "otlp").strip().lower() != "none"

    return Exporters(
        traces=_span_exporter(protocol_of("traces", environment)) if wanted("traces") else None,
        logs=_log_exporter(protocol_of("logs", environment)) if wanted("logs") else None,
        metrics=_metric_exporter(protocol_of("metrics", environment)) if wanted("metrics") else None,
    )


def _span_exporter(protocol: str) -> SpanExporter:
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

    return Http()


def _log_exporter(protocol: str) -> LogRecordExporter:
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as Grpc

        return Grpc()
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as Http

    return Http()


def _metric_exporter(protocol: str) -> MetricExporter:
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc

        return Grpc()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Http

    return Http()


def build(resource: Resource, environment: Mapping[str, str]) -> Providers:
    """Providers that export as the environment says."""
    return Providers(resource, exporters(environment))
