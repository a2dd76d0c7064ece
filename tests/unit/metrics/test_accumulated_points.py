"""Our sums and histograms give the points that the SDK's instruments give for the same values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    AlwaysOnExemplarFilter,
    Counter,
    ExemplarFilter,
    Histogram,
    MeterProvider,
    TraceBasedExemplarFilter,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags, set_span_in_context
from stagelight import _clock
from stagelight.conventions import metrics as m
from stagelight.conventions.metrics import METRICS
from stagelight.export.accumulators import Accumulators, Measurements, SdkBackend, Where
from stagelight.export.points import collect
from stagelight.testing import Clock

COUNTER = METRICS[m.STAGELIGHT_TTS_CHARACTERS]
HISTOGRAM = METRICS[m.GEN_AI_CLIENT_OPERATION_DURATION]
CUMULATIVE, DELTA = AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA
FILTERS: Mapping[Measurements, type[ExemplarFilter]] = {
    "sampled": TraceBasedExemplarFilter,
    "all": AlwaysOnExemplarFilter,
    "none": AlwaysOffExemplarFilter,
}


class InSpan(NamedTuple):
    """Where a value was measured."""

    span: Span
    context: Context


def in_span(number: int, *, sampled: bool) -> InSpan:
    """A span of its own trace."""
    span = NonRecordingSpan(SpanContext(number, number, False, TraceFlags(int(sampled))))
    return InSpan(span, set_span_in_context(span, Context()))


class Step(NamedTuple):
    """One value, or a collection where there is none."""

    value: float | None
    histogram: bool
    label: int
    where: InSpan | None


# Binary fractions: the SDK adds in another order, which must not show in the last digit.
FRACTIONS = st.integers(0, 10**6).map(lambda number: number / 1024)
ODD = st.sampled_from([0, 0.0, 0.5, math.nan, math.inf, -1.0, -1])
VALUES = st.integers(0, 10**6) | FRACTIONS | ODD
STEPS = st.lists(
    st.builds(
        Step,
        st.none() | VALUES,
        st.booleans(),
        st.integers(0, 2),
        st.none() | st.builds(in_span, st.integers(1, 99), sampled=st.booleans()),
    ),
    max_size=40,
)


def shown(metrics: Iterable[Any], counter_exemplars: bool = False) -> dict[Any, Any]:
    """Points by metric and labels, with everything but their times."""
    found: dict[Any, Any] = {}
    for metric in metrics:
        data = metric.data
        head = (metric.name, metric.unit, metric.description, type(data).__name__, data.aggregation_temporality)
        for point in data.data_points:
            key = (*head, *sorted(point.attributes.items()))
            assert key not in found
            if hasattr(point, "value"):
                found[key] = (data.is_monotonic, point.value)
            else:
                exemplars = {(e.value, e.trace_id, e.span_id, str(e.filtered_attributes)) for e in point.exemplars}
                numbers = (point.count, point.sum, point.min, point.max)
                found[key] = (numbers, tuple(point.bucket_counts), tuple(point.explicit_bounds), exemplars)
    return found


class Official:
    """The SDK's instruments with one reader."""

    def __init__(self, temporality: AggregationTemporality, measurements: Measurements) -> None:
        preferred: dict[type, AggregationTemporality] = dict.fromkeys((Counter, Histogram), temporality)
        self._reader = InMemoryMetricReader(preferred_temporality=preferred)
        provider = MeterProvider(
            [self._reader], Resource({}), exemplar_filter=FILTERS[measurements](), shutdown_on_exit=False
        )
        self.backend = SdkBackend(provider.get_meter("tests"))

    def points(self) -> dict[Any, Any]:
        data = self._reader.get_metrics_data()
        return shown(
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        )


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from([CUMULATIVE, DELTA]), st.sampled_from(list(FILTERS)))
def test_points_are_the_sdks(
    steps: list[Step], temporality: AggregationTemporality, measurements: Measurements
) -> None:
    """Whatever is recorded and whenever it is collected, values, buckets and exemplars are equal."""
    ours, theirs = Accumulators(measurements), Official(temporality, measurements)
    for value, histogram, label, where in [*steps, Step(None, False, 0, None)]:
        if value is None:
            assert shown(collect(ours, temporality, temporality)) == theirs.points()
            continue
        metric = HISTOGRAM if histogram else COUNTER
        labels = {metric.labels[0]: f"value-{label}"}
        if measurements == "all" and where is None:
            where = in_span(100, sampled=False)  # noqa: PLW2901 - without a span, the SDK repeats the ids before it
        for backend in (ours, theirs.backend):
            backend.series(metric, labels).add(value, where)


@pytest.mark.parametrize("temporality", [CUMULATIVE, DELTA])
def test_times_are_those_of_the_series(temporality: AggregationTemporality) -> None:
    """A series starts when it is first asked for; a delta starts where the one before ended."""
    clock, series = Clock(), Accumulators()
    with _clock.use(clock.wall_ns, clock.seconds):
        began = clock.wall_ns()
        found = []
        for _ in range(2):
            for metric in (COUNTER, HISTOGRAM):
                series.series(metric, {}).add(1)
            clock.advance(10)
            found.append([one.data.data_points[0] for one in collect(series, temporality, temporality)])

    spans = [[(p.start_time_unix_nano - began, p.time_unix_nano - began) for p in points] for points in found]
    second = (10_000_000_000, 20_000_000_000) if temporality is DELTA else (0, 20_000_000_000)
    assert spans == [[(0, 10_000_000_000)] * 2, [second] * 2]


def test_a_counter_at_zero_is_a_point() -> None:
    """A known counter starts at 0, so that its first increase is one; a histogram without values is none."""
    series = Accumulators()
    series.series(COUNTER, {}).add(0)
    series.series(HISTOGRAM, {})

    assert list(shown(collect(series, CUMULATIVE, CUMULATIVE)).values()) == [(True, 0)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, -0.5])
def test_a_value_that_is_no_amount_changes_nothing(value: float) -> None:
    """NaN, infinities and negative values never reach a sum."""
    series = Accumulators()
    for metric in (COUNTER, HISTOGRAM):
        series.series(metric, {}).add(2)
        before = shown(collect(series, CUMULATIVE, CUMULATIVE))
        series.series(metric, {}).add(value)
        assert shown(collect(series, CUMULATIVE, CUMULATIVE)) == before


def test_an_exemplar_does_not_keep_its_span() -> None:
    """Until the next push only ids are kept, not the span with all its attributes."""
    series = Accumulators()
    where: Where = in_span(5, sampled=True)
    histogram: Any = series.series(HISTOGRAM, {})
    histogram.add(1.0, where)

    ((value, _, context),) = histogram.exemplars.values()

    assert (value, context) == (1.0, where.span.get_span_context())


def test_equal_labels_are_one_series() -> None:
    """Series are found by their labels, however they are ordered, also by threads that race."""
    series = Accumulators()
    first, second = HISTOGRAM.labels[:2]

    assert series.series(HISTOGRAM, {first: "a", second: "b"}) is series.series(HISTOGRAM, {second: "b", first: "a"})
    assert series.series(HISTOGRAM, {first: "a"}) is not series.series(HISTOGRAM, {second: "a"})
