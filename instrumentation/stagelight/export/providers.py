"""The OpenTelemetry providers of a process that has none of its own: exporters by ``OTEL_*``, our queues between."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from opentelemetry._logs import Logger
from opentelemetry.sdk._logs.export import LogRecordExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from stagelight.export.accounting import Balance, Signal
from stagelight.export.accumulators import Accumulators
from stagelight.export.batches import Limits
from stagelight.export.deadline import all_within
from stagelight.export.events import EventLogger, Loggers
from stagelight.export.exporters import log_exporter, metric_exporter, span_exporter
from stagelight.export.processors import LogQueue, SpanQueue
from stagelight.export.pushed_metrics import PushedMetrics, wants_exponential

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
        scope: instrumentation scope of our own metrics.
    """

    def __init__(self, resource: Resource, exporters: Exporters, scope: InstrumentationScope) -> None:
        self._spans = SpanQueue(exporters.traces, _limits("OTEL_BSP")) if exporters.traces else None
        self._logs = LogQueue(exporters.logs, _limits("OTEL_BLRP")) if exporters.logs else None
        self.accumulators = _accumulators(exporters.metrics)
        """Where our own metrics are recorded; ``None`` where the SDK's instruments must do it."""
        self._metrics = PushedMetrics(exporters.metrics, self.accumulators, scope) if exporters.metrics else None
        self._reader: PeriodicExportingMetricReader | None = None
        self.tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.logger_provider = Loggers(resource=resource, shutdown_on_exit=False)
        if self._spans is not None:
            self.tracer_provider.add_span_processor(self._spans)
        if self._logs is not None:
            self.logger_provider.add_log_record_processor(self._logs)
        self.events: EventLogger | Logger = (
            EventLogger(self.logger_provider, self._logs, scope)
            if self._logs is not None
            else self.logger_provider.get_logger(scope.name)
        )
        """Takes our own events."""
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
        traces=span_exporter(environment) if wanted("traces") else None,
        logs=log_exporter(environment) if wanted("logs") else None,
        metrics=metric_exporter(environment) if wanted("metrics") else None,
    )


def _accumulators(exporter: MetricExporter | None) -> Accumulators | None:
    if exporter is None or wants_exponential(exporter):
        return None
    accumulators = Accumulators()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=accumulators.restart)
    return accumulators


def build(resource: Resource, environment: Mapping[str, str], scope: InstrumentationScope) -> Providers:
    """Providers that export as the environment says."""
    return Providers(resource, exporters(environment), scope)
