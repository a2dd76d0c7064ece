"""Providers that another can succeed: an application that sets up OpenTelemetry after us is joined, not overruled.

Auto-activation runs before the application. OpenTelemetry takes the first global provider and refuses a second; here
the application's is taken, and every tracer and instrument that was already made goes over to it.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from opentelemetry import metrics, trace
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.trace import SpanProcessor, Tracer, TracerProvider
from opentelemetry.util._once import Once

from stagelight._guard import guard
from stagelight.export.accounting import Signal

__all__ = ["Loggers", "Meters", "Tracers", "await_successors"]

logger = logging.getLogger("stagelight")

_CREATE: Final = (
    "create_counter", "create_up_down_counter", "create_histogram", "create_gauge",
    "create_observable_counter", "create_observable_up_down_counter", "create_observable_gauge",
)  # fmt: skip
_RECORD: Final = ("add", "record", "set")


class _Asked(NamedTuple):
    """What was made for somebody, and what had been asked for."""

    made: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Tracers(TracerProvider):
    """The SDK's provider, whose tracers can go over to another one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.guests: list[SpanProcessor] = []
        """Processors that are not ours, in order."""
        self._given: dict[int, _Asked] = {}
        super().__init__(*args, **kwargs)

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        """A tracer that goes over to a successor."""
        tracer = super().get_tracer(*args, **kwargs)
        self._given.setdefault(id(tracer), _Asked(tracer, args, kwargs))
        return tracer

    def own_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        """A tracer that stays here."""
        return super().get_tracer(*args, **kwargs)

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        self.guests.append(span_processor)
        super().add_span_processor(span_processor)

    def add_own(self, span_processor: SpanProcessor) -> None:
        """Add a processor of ours, which is flushed and stopped apart."""
        super().add_span_processor(span_processor)

    def go_over(self, successor: trace.TracerProvider) -> None:
        """Start all further spans at another provider."""
        for asked in list(self._given.values()):
            if isinstance(asked.made, Tracer):
                tracer = successor.get_tracer(*asked.args, **asked.kwargs)
                asked.made.start_span = tracer.start_span  # type: ignore[method-assign]


class Meters(MeterProvider):
    """The SDK's provider, whose instruments can go over to another one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.guests: list[MetricReader] = []
        """Readers that are not ours, in order."""
        self._given: dict[int, tuple[_Asked, list[tuple[str, _Asked]]]] = {}
        super().__init__(*args, **kwargs)

    def get_meter(self, *args: Any, **kwargs: Any) -> metrics.Meter:
        """A meter whose instruments go over to a successor."""
        meter = super().get_meter(*args, **kwargs)
        if id(meter) not in self._given:
            instruments: list[tuple[str, _Asked]] = []
            self._given[id(meter)] = _Asked(meter, args, kwargs), instruments
            for create in _CREATE:
                setattr(meter, create, _remembering(create, getattr(meter, create), instruments))
        return meter

    def own_meter(self, *args: Any, **kwargs: Any) -> metrics.Meter:
        """A meter whose instruments stay here."""
        return super().get_meter(*args, **kwargs)

    def add_metric_reader(self, metric_reader: MetricReader) -> None:
        self.guests.append(metric_reader)
        super().add_metric_reader(metric_reader)

    def go_over(self, successor: metrics.MeterProvider) -> None:
        """Record all further measurements at another provider."""
        for asked, instruments in list(self._given.values()):
            meter = successor.get_meter(*asked.args, **asked.kwargs)
            for create in _CREATE:
                setattr(asked.made, create, getattr(meter, create))
            for create, instrument in instruments:
                twin = getattr(meter, create)(*instrument.args, **instrument.kwargs)
                for verb in _RECORD:
                    if hasattr(twin, verb):
                        setattr(instrument.made, verb, getattr(twin, verb))


def _remembering(name: str, create: Callable[..., Any], instruments: list[tuple[str, _Asked]]) -> Callable[..., Any]:
    def remember(*args: Any, **kwargs: Any) -> Any:
        made = create(*args, **kwargs)
        instruments.append((name, _Asked(made, args, kwargs)))
        return made

    return remember


class Loggers(LoggerProvider):
    """The SDK's provider, which knows who reads its records."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.guests: list[LogRecordProcessor] = []
        """Processors that are not ours, in order."""
        super().__init__(*args, **kwargs)

    def add_log_record_processor(self, log_record_processor: LogRecordProcessor) -> None:
        self.guests.append(log_record_processor)
        super().add_log_record_processor(log_record_processor)

    def add_own(self, log_record_processor: LogRecordProcessor) -> None:
        """Add a processor of ours, which is flushed and stopped apart."""
        super().add_log_record_processor(log_record_processor)


# OpenTelemetry keeps "set once" in these; a test fails when an update moves them.
_SET_ONCE: Final[Mapping[Signal, tuple[str, str]]] = {
    "traces": ("opentelemetry.trace", "_TRACER_PROVIDER_SET_ONCE"),
    "metrics": ("opentelemetry.metrics._internal", "_METER_PROVIDER_SET_ONCE"),
    "logs": ("opentelemetry._logs._internal", "_LOGGER_PROVIDER_SET_ONCE"),
}


def await_successors(came: Callable[[Signal], None], signals: Iterable[Signal]) -> None:
    """Let the application set global providers once more.

    Args:
        came: told of the signal whose global provider is the application's from now on.
        signals: those whose global provider is ours.
    """
    for signal in signals:
        module, name = _SET_ONCE[signal]
        owner = importlib.import_module(module)
        if isinstance(getattr(owner, name, None), Once):
            setattr(owner, name, _OnceMore(signal, came))


class _OnceMore(Once):
    """Stands where OpenTelemetry notes that a provider has been set."""

    def __init__(self, signal: Signal, came: Callable[[Signal], None]) -> None:
        super().__init__()
        self._signal = signal
        self._came = came
        self._taking = threading.Lock()

    def do_once(self, func: Callable[[], None]) -> bool:
        if not super().do_once(func):
            return False
        logger.info("stagelight joins the application's own provider of %s", self._signal)
        with guard("join the provider of the application"), self._taking:
            self._came(self._signal)
        return True
