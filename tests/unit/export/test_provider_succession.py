"""What was taken from our providers goes over to the application's, completely and without a trace in both."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once
from stagelight.export import succession
from stagelight.export.accounting import Signal
from stagelight.export.succession import Meters, Tracers, await_successors


def _names(exporter: InMemorySpanExporter) -> list[str]:
    return [span.name for span in exporter.get_finished_spans()]


def test_tracers_go_over() -> None:
    """Spans start at the successor, from tracers and decorated functions of before; ours of our own stay."""
    here, there = InMemorySpanExporter(), InMemorySpanExporter()
    ours = Tracers(shutdown_on_exit=False)
    ours.add_own(SimpleSpanProcessor(here))
    theirs = TracerProvider(resource=Resource({"service.name": "own"}), shutdown_on_exit=False)
    theirs.add_span_processor(SimpleSpanProcessor(there))
    tracer, own = ours.get_tracer("library", "1.0"), ours.own_tracer("stagelight")

    @tracer.start_as_current_span("decorated")
    def work() -> None:
        with tracer.start_as_current_span("inside"):
            pass

    work()
    begun = tracer.start_span("begun before")
    ours.go_over(theirs)
    begun.end()
    work()
    own.start_span("own").end()

    assert _names(here) == ["inside", "decorated", "begun before", "own"]
    assert _names(there) == ["inside", "decorated"]
    scopes = {(span.instrumentation_scope.name, span.resource.attributes["service.name"])
              for span in there.get_finished_spans() if span.instrumentation_scope}  # fmt: skip
    assert scopes == {("library", "own")}


def _points(reader: InMemoryMetricReader) -> dict[str, Any]:
    data: Any = reader.get_metrics_data()
    return {
        metric.name: [getattr(point, "value", None) or getattr(point, "sum", None) for point in metric.data.data_points]
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_instruments_go_over() -> None:
    """Counters, histograms, gauges and callbacks of before, and instruments made later, record at the successor."""
    here, there = InMemoryMetricReader(), InMemoryMetricReader()
    ours, theirs = Meters([here], shutdown_on_exit=False), MeterProvider([there], shutdown_on_exit=False)
    meter = ours.get_meter("library", "1.0")

    def observe(_: CallbackOptions) -> Iterator[Observation]:
        yield Observation(7)

    counter, updown = meter.create_counter("counter"), meter.create_up_down_counter("updown")
    histogram, gauge = meter.create_histogram("histogram", unit="s"), meter.create_gauge("gauge")
    meter.create_observable_gauge("observed", [observe])
    counter.add(1)

    ours.go_over(theirs)
    counter.add(2)
    updown.add(3)
    histogram.record(4)
    gauge.set(5)
    meter.create_counter("later").add(6)

    assert _points(there) == {
        "counter": [2], "updown": [3], "histogram": [4], "gauge": [5], "observed": [7], "later": [6],
    }  # fmt: skip
    assert _points(here)["counter"] == [1]
    for provider in (ours, theirs):
        provider.shutdown()


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
def test_opentelemetry_still_notes_providers_where_we_look(signal: Signal) -> None:
    """An update of OpenTelemetry that moves these private names must be noticed."""
    module, name = succession._SET_ONCE[signal]

    assert isinstance(getattr(importlib.import_module(module), name), Once)


def test_the_application_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first provider that is set after ours is taken and told of, a second is refused as ever."""
    module, name = succession._SET_ONCE["traces"]
    owner = importlib.import_module(module)
    monkeypatch.setattr(owner, name, Once())
    came: list[Signal] = []
    done: list[str] = []

    await_successors(came.append, ["traces"])
    once = getattr(owner, name)
    taken = [once.do_once(lambda: done.append("first")), once.do_once(lambda: done.append("second"))]

    assert (taken, done, came) == ([True, False], ["first"], ["traces"])
