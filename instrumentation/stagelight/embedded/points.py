"""OTLP metrics to rows: a series per resource, scope, name and attributes, and its points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any, Final, TypeAlias

import orjson
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    DataPointFlags,
    Exemplar,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    SummaryDataPoint,
)

from stagelight.embedded.batch import Batch, PointGroup, Resource, Row
from stagelight.embedded.decoding import MalformedError, check_text, decode, json_text, moment, resource_of, scope_of

__all__ = ["metrics_batch"]

_Point: TypeAlias = NumberDataPoint | HistogramDataPoint | ExponentialHistogramDataPoint | SummaryDataPoint

_TEMPORALITY: Final = {
    AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA: "delta",
    AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE: "cumulative",
}
_NO_VALUE: Final = DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
_DETAIL: Final = 4
_MAX_COUNT: Final = (1 << 63) - 1


def metrics_batch(request: ExportMetricsServiceRequest) -> Batch:
    """Rows of a metrics export request; ``Batch.rejected`` counts data points that cannot be stored."""
    batch = Batch()
    for resource_metrics in request.resource_metrics:
        if not resource_metrics.scope_metrics:
            continue
        try:
            resource = resource_of(resource_metrics.resource)
            scopes = [(scope_of(scoped.scope), scoped.metrics) for scoped in resource_metrics.scope_metrics]
        except MalformedError as error:
            count = sum(len(_points(metric)) for scoped in resource_metrics.scope_metrics for metric in scoped.metrics)
            batch.reject(str(error), count)
            continue
        for scope, metrics in scopes:
            for metric in metrics:
                batch.points.extend(_groups(batch, resource, scope, metric))
    return batch


def _points(metric: Metric) -> list[_Point]:
    kind = metric.WhichOneof("data")
    return [] if kind is None else list(getattr(metric, kind).data_points)


def _groups(batch: Batch, resource: Resource, scope: str, metric: Metric) -> Iterator[PointGroup]:
    for point in _points(metric):
        try:
            bounds, row = _point_row(point)
            series = _series_row(resource, scope, metric, json_text(decode(point.attributes)), bounds)
        except MalformedError as error:
            batch.reject(str(error))
        else:
            batch.weigh((row,), _DETAIL)
            yield PointGroup(resource, scope, series, (row,))


def _series_row(resource: Resource, scope: str, metric: Metric, attributes: str, bounds: str | None) -> Row:
    if not metric.name:
        raise MalformedError("a metric has no name")
    check_text(metric.name + metric.unit + metric.description, "the name of a metric")
    kind = metric.WhichOneof("data")
    data = getattr(metric, kind or "")
    monotonic = data.is_monotonic if kind == "sum" else None
    temporality = None if kind in {"gauge", "summary"} else _TEMPORALITY.get(data.aggregation_temporality)
    # Attributes come in any order from one export to the next.
    attributes = orjson.dumps(orjson.loads(attributes), option=orjson.OPT_SORT_KEYS).decode()
    identity = (resource.json, scope, metric.name, metric.unit, kind, temporality, monotonic, attributes, bounds)
    digest = blake2b(orjson.dumps(identity), digest_size=16).digest()
    return (digest, metric.name, metric.unit, metric.description, kind, temporality, monotonic, attributes, bounds)


def _point_row(point: _Point) -> tuple[str | None, Row]:
    """The bounds of a histogram, which belong to its series, and time, start, value, count and detail."""
    time_ns = moment(point.time_unix_nano, "the time of a data point")
    start_ns = moment(point.start_time_unix_nano, "the start time of a data point") or None
    if not time_ns:
        raise MalformedError("a data point has no time")
    if point.flags & _NO_VALUE:
        return None, (time_ns, start_ns, None, None, None)
    bounds = None
    detail: dict[str, Any] = {}
    if isinstance(point, NumberDataPoint):
        value: float | int | None = _number(point)
        count = None
    else:
        count = point.count
        if count > _MAX_COUNT:
            raise MalformedError("the count of a data point is out of range")
        value = point.sum if isinstance(point, SummaryDataPoint) or point.HasField("sum") else None
    if isinstance(point, HistogramDataPoint):
        bounds = orjson.dumps(_finite(point.explicit_bounds)).decode()
        detail["buckets"] = list(point.bucket_counts)
        if len(point.bucket_counts) not in {0, len(point.explicit_bounds) + 1}:
            raise MalformedError("a histogram has not one bucket more than bounds")
    elif isinstance(point, ExponentialHistogramDataPoint):
        detail |= _exponential(point)
    elif isinstance(point, SummaryDataPoint):
        detail["quantiles"] = [_finite((item.quantile, item.value)) for item in point.quantile_values]
    if isinstance(point, HistogramDataPoint | ExponentialHistogramDataPoint):
        detail |= {name: _finite((getattr(point, name),))[0] for name in ("min", "max") if point.HasField(name)}
    if not isinstance(point, SummaryDataPoint) and point.exemplars:
        detail["exemplars"] = [_exemplar(exemplar) for exemplar in point.exemplars]
    if value is not None and math.isnan(value):
        raise MalformedError("the value of a data point is not a number")
    return bounds, (time_ns, start_ns, value, count, json_text(detail) if detail else None)


def _number(point: NumberDataPoint | Exemplar) -> int | float:
    field = point.WhichOneof("value")
    if field is None:
        raise MalformedError("a data point has no value")
    return int(point.as_int) if field == "as_int" else float(point.as_double)


def _exponential(point: ExponentialHistogramDataPoint) -> dict[str, Any]:
    return {
        "scale": point.scale,
        "zero_count": point.zero_count,
        "zero_threshold": _finite((point.zero_threshold,))[0],
        "positive": {"offset": point.positive.offset, "buckets": list(point.positive.bucket_counts)},
        "negative": {"offset": point.negative.offset, "buckets": list(point.negative.bucket_counts)},
    }


def _exemplar(exemplar: Exemplar) -> dict[str, Any]:
    return {
        "time_ns": moment(exemplar.time_unix_nano, "the time of an exemplar"),
        "value": _finite((_number(exemplar),))[0],
        "trace_id": exemplar.trace_id.hex(),
        "span_id": exemplar.span_id.hex(),
        "attributes": decode(exemplar.filtered_attributes),
    }


def _finite(numbers: Iterable[float]) -> list[float]:
    finite = list(numbers)
    if not all(map(math.isfinite, finite)):
        raise MalformedError("a data point holds a number that is not finite")
    return finite
