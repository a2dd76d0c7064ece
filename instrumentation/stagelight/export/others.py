"""Exporters that are not OTLP: the console, and what other packages install. The SDK's own processors serve them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from opentelemetry.sdk._logs import LogRecordProcessor
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

from stagelight._guard import quietly
from stagelight.export.accounting import Signal
from stagelight.standard import OTLP, exporter_names, stops

__all__ = ["NO_OTHERS", "Others", "is_otlp", "others"]

Served = TypeVar("Served")

_CONSOLE: Final = "console"


class Others(NamedTuple):
    """What else takes part in the providers, per signal."""

    spans: tuple[SpanProcessor, ...]
    logs: tuple[LogRecordProcessor, ...]
    metrics: tuple[MetricReader, ...]


NO_OTHERS: Final = Others((), (), ())


def is_otlp(signal: Signal, environment: Mapping[str, str]) -> bool:
    """Whether a signal is to be sent by OTLP; that is the default."""
    return not stops(signal, environment) and any(name in OTLP for name in _names(signal, environment))


def others(environment: Mapping[str, str]) -> Others:
    """What serves the exporters that ``OTEL_TRACES_EXPORTER`` and its kind name besides OTLP."""
    return Others(
        spans=tuple(_served("traces", environment, SimpleSpanProcessor, BatchSpanProcessor)),
        logs=tuple(_served("logs", environment, SimpleLogRecordProcessor, BatchLogRecordProcessor)),
        metrics=tuple(_served("metrics", environment, PeriodicExportingMetricReader, _reader)),
    )


def _names(signal: Signal, environment: Mapping[str, str]) -> tuple[str, ...]:
    given = exporter_names(environment.get(f"OTEL_{signal.upper()}_EXPORTER", "")) or ("otlp",)
    return () if "none" in given else given


def _served(
    signal: Signal,
    environment: Mapping[str, str],
    at_once: Callable[[Any], Served],
    in_batches: Callable[[Any], Served],
) -> Iterator[Served]:
    if stops(signal, environment):
        return
    for name in dict.fromkeys(_names(signal, environment)):
        if name in OTLP:
            continue
        serve = at_once if name == _CONSOLE else in_batches
        made = quietly(f"make the exporter {name} of {signal}", lambda name=name: _exporter(signal, name), None)  # type: ignore[misc]
        if made is not None:
            yield serve(made)


def _exporter(signal: Signal, name: str) -> Any:
    from importlib.metadata import entry_points

    [entry, *_] = entry_points(group=f"opentelemetry_{signal}_exporter", name=name)
    return entry.load()()


def _reader(made: Any) -> MetricReader:
    """Some exporters of metrics, such as Prometheus's, are readers themselves."""
    return made if isinstance(made, MetricReader) else PeriodicExportingMetricReader(made)
