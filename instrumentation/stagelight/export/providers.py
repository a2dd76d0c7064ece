"""The OpenTelemetry providers of a process that has none of its own: exporters by ``OTEL_*``, our queues between."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

from opentelemetry._logs import Logger
from opentelemetry.sdk._logs import LogRecordLimits
from opentelemetry.sdk._logs.export import LogRecordExporter
from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    AlwaysOnExemplarFilter,
    ExemplarFilter,
    TraceBasedExemplarFilter,
)
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from stagelight._guard import guard, quietly
from stagelight.export.accounting import Balance, Signal
from stagelight.export.accumulators import Accumulators, Measurements
from stagelight.export.batches import BatchQueue, Limits
from stagelight.export.complaints import Complaints
from stagelight.export.deadline import all_answered, all_within
from stagelight.export.events import EventLogger
from stagelight.export.exporters import log_exporter, metric_exporter, span_exporter
from stagelight.export.others import NO_OTHERS, Others, is_otlp, others
from stagelight.export.processors import LogQueue, SpanQueue
from stagelight.export.pushed_metrics import PushedMetrics, wants_exponential
from stagelight.export.reader import PushReader
from stagelight.export.sampling import id_generator, sampler
from stagelight.export.succession import Loggers, Meters, Tracers
from stagelight.export.urls import SecretUrls

__all__ = ["Exporters", "Providers", "build", "exporters"]

Made = TypeVar("Made")

_STOP_S = 0.2
METRIC_INTERVAL_MS = 15_000
"""Default push interval; short, because a counter's last push before a crash is its last word."""

VALUE_CHARACTERS = 8192
"""Default length limit of span attributes; 3,000 values of 1 MB would otherwise take 3 GB before they are dropped."""

_LENGTH_LIMITS = ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT")

_FILTERS: Mapping[Measurements, type[ExemplarFilter]] = {
    "sampled": TraceBasedExemplarFilter,
    "all": AlwaysOnExemplarFilter,
    "none": AlwaysOffExemplarFilter,
}

_MEASUREMENTS: Mapping[str, Measurements] = {"trace_based": "sampled", "always_on": "all", "always_off": "none"}


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
        beside: what else takes part.
    """

    def __init__(
        self, resource: Resource, exporters: Exporters, scope: InstrumentationScope, *, beside: Others = NO_OTHERS
    ) -> None:
        said = self._complaints = Complaints()
        self._spans = SpanQueue(exporters.traces, _limits("OTEL_BSP"), said) if exporters.traces else None
        self._logs = LogQueue(exporters.logs, _limits("OTEL_BLRP"), said) if exporters.logs else None
        measurements = _measurements()
        self.accumulators = None if beside.metrics else _accumulators(exporters.metrics, measurements)
        """Where our own metrics are recorded; ``None`` where the SDK's instruments must do it."""
        self._metrics = PushedMetrics(exporters.metrics, self.accumulators, scope, said) if exporters.metrics else None
        self._reader: PushReader | None = None
        self.tracer_provider = Tracers(
            sampler(os.environ),
            resource,
            shutdown_on_exit=False,
            id_generator=id_generator(os.environ),
            span_limits=_span_limits(),
        )
        self.logger_provider = Loggers(resource=resource, shutdown_on_exit=False, log_record_limits=LogRecordLimits())
        self.tracer_provider.add_own(SecretUrls())
        if self._spans is not None:
            self.tracer_provider.add_own(self._spans)
        if self._logs is not None:
            self.logger_provider.add_own(self._logs)
        self.events: EventLogger | Logger = (
            EventLogger(self.logger_provider, self._logs, scope)
            if self._logs is not None
            else self.logger_provider.get_logger(scope.name)
        )
        """Takes our own events."""
        if self._metrics is not None:
            interval_ms = _number("OTEL_METRIC_EXPORT_INTERVAL", METRIC_INTERVAL_MS)
            self._reader = PushReader(self._metrics, interval_ms / 1000, said)
        self.meter_provider = Meters(
            metric_readers=[] if self._reader is None else [self._reader],
            resource=resource,
            exemplar_filter=_FILTERS[measurements](),
            shutdown_on_exit=False,
        )
        for processor in beside.spans:
            self.tracer_provider.add_span_processor(processor)
        for recorder in beside.logs:
            self.logger_provider.add_log_record_processor(recorder)
        for reader in beside.metrics:
            self.meter_provider.add_metric_reader(reader)
        said.begin()

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

    def begin(self) -> None:
        """Start the threads that send."""
        for queue in self._queues:
            queue.begin()

    def flush(self, timeout_s: float) -> bool:
        """Send everything of all signals, in parallel."""
        guests = [partial(_flush, guest) for guest in self._guests()]
        if not guests:
            return all_answered(timeout_s, self._parts)
        return all_within(timeout_s, [lambda left_s: all_answered(left_s, self._parts), *guests])

    def shutdown(self, timeout_s: float) -> bool:
        """Send everything within the time, then stop; what could not be sent is counted as dropped."""
        sent = all_answered(timeout_s, self._parts)
        for part in self._parts:
            part.close()
        for stopping in (self._spans, self._logs, self._metrics):
            if stopping is not None:
                with guard("stop exporter"):
                    stopping.stop()  # ends the retries of exporters that still wait for a dead back end
        all_answered(_STOP_S, self._queues)  # so that what these had in hand is counted
        self._complaints.end()
        for guest in self._guests():
            with guard("stop a processor of the application"):
                guest.shutdown()
        return sent

    def push_no_more(self) -> None:
        """Leave metrics to somebody else."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _guests(self) -> Iterator[Any]:
        """What the application, or another exporter it asked for, added to the providers: not bound by our limits."""
        yield from (*self.tracer_provider.guests, *self.logger_provider.guests, *self.meter_provider.guests)

    @property
    def _queues(self) -> list[BatchQueue[Any]]:
        return [part.queue for part in (self._spans, self._logs) if part is not None]

    @property
    def _parts(self) -> list[BatchQueue[Any] | PushReader]:
        return [*self._queues, *([] if self._reader is None else [self._reader])]


def _flush(guest: Any, left_s: float) -> bool:
    return guest.force_flush(int(left_s * 1000)) is not False  # some return nothing


def _number(variable: str, default: float) -> float:
    return float(os.environ.get(variable, "").strip() or default)


def _span_limits() -> SpanLimits:
    """The standard limits; where none is set for lengths, one of ours."""
    limited = any(os.environ.get(variable, "").strip() for variable in _LENGTH_LIMITS)
    return SpanLimits(max_attribute_length=None if limited else VALUE_CHARACTERS)


def _measurements() -> Measurements:
    given = os.environ.get("OTEL_METRICS_EXEMPLAR_FILTER", "").strip().lower()
    return _MEASUREMENTS[given or "trace_based"]


def _limits(prefix: str) -> Limits:
    default = Limits()
    return default._replace(
        items=int(_number(f"{prefix}_MAX_QUEUE_SIZE", default.items)),
        batch=int(_number(f"{prefix}_MAX_EXPORT_BATCH_SIZE", default.batch)),
        delay_s=_number(f"{prefix}_SCHEDULE_DELAY", default.delay_s * 1000) / 1000,
    )


def exporters(environment: Mapping[str, str]) -> Exporters:
    """The OTLP exporters the environment asks for; endpoints, headers and TLS are theirs to read.

    A signal whose exporter cannot be made, e.g. for a certificate that is missing, is off.
    """

    def made(signal: Signal, make: Callable[[Mapping[str, str]], Made]) -> Made | None:
        if not is_otlp(signal, environment):
            return None
        return quietly(f"make the exporter of {signal}", lambda: make(environment), None)

    return Exporters(
        traces=made("traces", span_exporter), logs=made("logs", log_exporter), metrics=made("metrics", metric_exporter)
    )


def _accumulators(exporter: MetricExporter | None, measurements: Measurements) -> Accumulators | None:
    return None if exporter is None or wants_exponential(exporter) else Accumulators(measurements)


def build(
    resource: Resource,
    environment: Mapping[str, str],
    scope: InstrumentationScope,
    *,
    without: Collection[Signal] = (),
) -> Providers:
    """Providers that export as the environment says.

    Args:
        resource: attributes of the process.
        environment: the standard variables.
        scope: instrumentation scope of our own metrics.
        without: signals that are somebody else's.
    """
    wanted = {**environment, **{f"OTEL_{signal.upper()}_EXPORTER": "none" for signal in without}}
    return Providers(resource, exporters(wanted), scope, beside=others(wanted))
