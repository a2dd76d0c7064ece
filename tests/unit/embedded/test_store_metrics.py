"""Metrics become series and points; every kind, temporality and exemplar is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Exemplar,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
    Summary,
    SummaryDataPoint,
)
from stagelight.embedded.batch import WriteResult
from stored import T0, S, batch_of, identifier, metrics, pairs, query, store

_CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


def _sum(value: float, at_s: int = 0, **attributes: Any) -> Metric:
    number = {"as_int": value} if isinstance(value, int) else {"as_double": value}
    point = NumberDataPoint(
        time_unix_nano=T0 + at_s * S, start_time_unix_nano=T0, attributes=pairs(attributes), **number
    )
    return Metric(
        name="requests",
        unit="{call}",
        description="Calls.",
        sum=Sum(data_points=[point], aggregation_temporality=_CUMULATIVE, is_monotonic=True),
    )


EXEMPLAR = Exemplar(
    time_unix_nano=T0, as_double=0.3, trace_id=identifier(1, 16), span_id=identifier(2, 8),
    filtered_attributes=pairs({"k": "v"}),
)  # fmt: skip
HISTOGRAM = HistogramDataPoint(
    time_unix_nano=T0, count=3, sum=0.9, min=0.1, max=0.5, bucket_counts=[1, 2, 0], explicit_bounds=[0.25, 1],
    exemplars=[EXEMPLAR],
)  # fmt: skip
EXPONENTIAL = ExponentialHistogramDataPoint(
    time_unix_nano=T0, count=4, sum=-1.5, scale=3, zero_count=1, zero_threshold=0.001,
    positive=ExponentialHistogramDataPoint.Buckets(offset=-2, bucket_counts=[1, 1]),
    negative=ExponentialHistogramDataPoint.Buckets(offset=5, bucket_counts=[1]),
)  # fmt: skip
SUMMARY = SummaryDataPoint(
    time_unix_nano=T0, count=2, sum=3, quantile_values=[SummaryDataPoint.ValueAtQuantile(quantile=0.5, value=1)]
)  # fmt: skip
KINDS = (
    _sum(7, model="gpt"),
    Metric(name="depth", gauge=Gauge(data_points=[NumberDataPoint(time_unix_nano=T0, as_double=-0.5)])),
    Metric(name="length", histogram=Histogram(data_points=[HISTOGRAM], aggregation_temporality=_DELTA)),
    Metric(
        name="fine",
        exponential_histogram=ExponentialHistogram(data_points=[EXPONENTIAL], aggregation_temporality=_CUMULATIVE),
    ),
    Metric(name="old", summary=Summary(data_points=[SUMMARY])),
)
"""A metric of every kind, with what only its kind has."""

KEPT = [
    ("requests", "{call}", "Calls.", "sum", "cumulative", 1, '{"model":"gpt"}', None, "app", "tests", T0, T0, 7, None),
    ("depth", "", "", "gauge", None, None, "{}", None, "app", "tests", T0, None, -0.5, None),
    ("length", "", "", "histogram", "delta", None, "{}", "[0.25,1.0]", "app", "tests", T0, None, 0.9, 3),
    ("fine", "", "", "exponential_histogram", "cumulative", None, "{}", None, "app", "tests", T0, None, -1.5, 4),
    ("old", "", "", "summary", None, None, "{}", None, "app", "tests", T0, None, 3, 2),
]
"""What is in the tables of them: the columns of each series, and of its point."""

DETAILS = [
    {
        "buckets": [1, 2, 0],
        "min": 0.1,
        "max": 0.5,
        "exemplars": [
            {
                "time_ns": T0,
                "value": 0.3,
                "trace_id": "00000000000000000000000000000001",
                "span_id": "0000000000000002",
                "attributes": {"k": "v"},
            }
        ],
    },
    {
        "scale": 3,
        "zero_count": 1,
        "zero_threshold": 0.001,
        "positive": {"offset": -2, "buckets": [1, 1]},
        "negative": {"offset": 5, "buckets": [1]},
    },
    {"quantiles": [[0.5, 1.0]]},
]
"""What is kept beside the columns, of those that have more."""


def test_every_kind_is_kept(tmp_path: Path) -> None:
    """Sum, gauge, histogram, exponential histogram and summary, with what only they have."""
    path = tmp_path / "store.db"

    store(path, metrics(*KINDS))

    rows = query(
        path,
        "SELECT series.name, unit, description, kind, temporality, monotonic, attributes, bounds, service, scope.name, "
        "time_ns, start_ns, value, count "
        "FROM series JOIN points ON series_id = series.id JOIN resource ON resource.id = resource_id "
        "JOIN scope ON scope.id = scope_id ORDER BY series.id",
    )
    details = [
        json.loads(row[0]) for row in query(path, "SELECT detail FROM points WHERE detail NOT NULL ORDER BY series_id")
    ]
    assert rows == KEPT
    assert details == DETAILS


def test_a_series_is_one_whatever_the_order_of_its_attributes(tmp_path: Path) -> None:
    """Points are unique by series and time; another attribute, unit or sender is another series."""
    path = tmp_path / "store.db"

    results = store(
        path,
        metrics(_sum(1, a="1", b="2"), _sum(2, 15, b="2", a="1")),
        metrics(_sum(1, a="1", b="2"), _sum(3, 30, a="1", b="2")),
        metrics(_sum(1, a="1")),
        metrics(_sum(1, a="1", b="2"), service="other"),
    )

    assert results == [WriteResult(points=2), WriteResult(points=1), WriteResult(points=1), WriteResult(points=1)]
    assert query(path, "SELECT count(*) FROM series") == [(3,)]
    assert query(path, "SELECT value FROM points WHERE series_id = 1") == [(1,), (2,), (3,)]


def test_a_point_without_a_value_is_a_gap(tmp_path: Path) -> None:
    """The flag "no recorded value" marks the end of a series."""
    gap = NumberDataPoint(time_unix_nano=T0, flags=1)
    path = tmp_path / "store.db"

    store(path, metrics(Metric(name="depth", gauge=Gauge(data_points=[gap]))))

    assert query(path, "SELECT value FROM points") == [(None,)]


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        (NumberDataPoint(time_unix_nano=T0, as_double=math.nan), "not a number"),
        (NumberDataPoint(time_unix_nano=T0), "no value"),
        (NumberDataPoint(as_double=1.0), "no time"),
        (NumberDataPoint(time_unix_nano=2**63, as_double=1.0), "ahead of this machine's clock"),
        (NumberDataPoint(time_unix_nano=T0, as_double=1.0, attributes=pairs({"x": math.inf})), "not a finite number"),
        (HistogramDataPoint(time_unix_nano=T0, count=2**63), "count"),
        (HistogramDataPoint(time_unix_nano=T0, bucket_counts=[1], explicit_bounds=[1, 2]), "bucket"),
        (HistogramDataPoint(time_unix_nano=T0, bucket_counts=[1, 1], explicit_bounds=[math.inf]), "not finite"),
        (HistogramDataPoint(time_unix_nano=T0, count=1, min=math.nan), "not finite"),
    ],
)
def test_a_malformed_point_is_left_out(point: NumberDataPoint | HistogramDataPoint, reason: str) -> None:
    """It is counted with its reason, the others are kept."""
    good = Metric(name="good", gauge=Gauge(data_points=[NumberDataPoint(time_unix_nano=T0, as_int=1)]))
    bad = (
        Metric(name="bad", gauge=Gauge(data_points=[point]))
        if isinstance(point, NumberDataPoint)
        else Metric(name="bad", histogram=Histogram(data_points=[point], aggregation_temporality=_DELTA))
    )

    batch = batch_of(metrics(bad, good))

    assert (batch.rejected, len(batch.points)) == (1, 1)
    assert reason in batch.reason


def test_a_metric_without_a_name_or_data_is_left_out() -> None:
    """The first is counted, the second has no points to count."""
    nameless = Metric(gauge=Gauge(data_points=[NumberDataPoint(time_unix_nano=T0, as_int=1)]))

    batch = batch_of(metrics(nameless, Metric(name="nothing")))

    assert (batch.is_empty, batch.rejected, batch.reason) == (True, 1, "a metric has no name")
