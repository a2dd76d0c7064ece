"""Accumulated series -> the SDK's data points, cumulative or delta."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)
from opentelemetry.trace import SpanContext

from stagelight import _clock
from stagelight.export.accumulators import Accumulators, CounterSeries, HistogramSeries

__all__ = ["collect"]

DELTA = AggregationTemporality.DELTA


def collect(
    accumulators: Accumulators, counters: AggregationTemporality, histograms: AggregationTemporality
) -> list[Metric]:
    """The points of all series now; delta temporality starts them anew.

    Args:
        accumulators: the series.
        counters: temporality of the sums.
        histograms: temporality of the histograms.
    """
    found: list[Metric] = []
    with accumulators.lock:
        now_ns = _clock.wall_ns()
        for metric, many in accumulators.all():
            if metric.instrument == "histogram":
                series = (one for one in many if isinstance(one, HistogramSeries))
                points = list(_histogram_points(series, now_ns, histograms))
                data: Sum | Histogram = Histogram(points, histograms)
                some = bool(points)
            else:
                sums = list(_sum_points((one for one in many if isinstance(one, CounterSeries)), now_ns, counters))
                data = Sum(sums, counters, is_monotonic=True)
                some = bool(sums)
            if some:
                found.append(Metric(metric.name, metric.description, metric.unit, data))
    return found


def _sum_points(
    series: Iterable[CounterSeries], now_ns: int, temporality: AggregationTemporality
) -> Iterable[NumberDataPoint]:
    for one in series:
        if not one.changed:
            continue
        yield NumberDataPoint(one.labels, one.start_ns, now_ns, one.value)
        if temporality is DELTA:
            one.clear()
            one.start_ns = now_ns


def _histogram_points(
    series: Iterable[HistogramSeries], now_ns: int, temporality: AggregationTemporality
) -> Iterable[HistogramDataPoint]:
    for one in series:
        count = sum(one.counts)
        if not count:
            continue
        yield HistogramDataPoint(
            attributes=one.labels,
            start_time_unix_nano=one.start_ns,
            time_unix_nano=now_ns,
            count=count,
            sum=one.total,
            bucket_counts=tuple(one.counts),
            explicit_bounds=one.bounds,
            min=one.lowest,
            max=one.highest,
            exemplars=[_exemplar(*kept) for kept in one.exemplars.values()],
        )
        one.exemplars = {}
        if temporality is DELTA:
            one.clear()
            one.start_ns = now_ns


def _exemplar(value: float, time_ns: int, context: SpanContext | None) -> Exemplar:
    if context is None or not context.is_valid:
        return Exemplar({}, value, time_ns)
    return Exemplar({}, value, time_ns, context.span_id, context.trace_id)
