"""The metric exporter between the SDK's reader and the wire: adds our own points and accounts for all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from opentelemetry.sdk.metrics import Counter, Histogram
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from stagelight._guard import quietly
from stagelight.export.accounting import Account
from stagelight.export.accumulators import Accumulators
from stagelight.export.complaints import Complaints
from stagelight.export.deadline import once
from stagelight.export.points import collect

__all__ = ["PushedMetrics", "wants_exponential"]


def wants_exponential(exporter: MetricExporter) -> bool:
    """Whether the exporter prefers exponential histograms, which only the SDK makes."""
    preferred = exporter._preferred_aggregation  # noqa: SLF001 - the SDK's reader reads it the same way
    return isinstance((preferred or {}).get(Histogram), ExponentialBucketHistogramAggregation)


def _points(data: MetricsData) -> int:
    return sum(
        len(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )


class PushedMetrics(MetricExporter):
    """Exports, adds and counts. There is no queue: what a failed push lacked, the next cumulative one brings.

    Args:
        exporter: where the points go.
        accumulators: series of our own to add to every push.
        scope: the instrumentation scope these belong to.
        complaints: told of what is lost.
    """

    def __init__(
        self,
        exporter: MetricExporter,
        accumulators: Accumulators | None,
        scope: InstrumentationScope,
        complaints: Complaints,
    ) -> None:
        super().__init__(
            preferred_temporality=exporter._preferred_temporality,  # noqa: SLF001 - as above
            preferred_aggregation=exporter._preferred_aggregation,  # noqa: SLF001
        )
        self.account = Account("metrics")
        self._exporter = exporter
        self._accumulators = accumulators
        self._scope = scope
        self._complaints = complaints
        self.stop = once(exporter.shutdown)

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        data = quietly("collect metrics", lambda: self._with_ours(metrics_data), metrics_data)
        points = _points(data)
        self.account.made(points)
        result: MetricExportResult | None = None
        try:
            result = quietly(
                "export metrics", lambda: self._exporter.export(data, timeout_millis=timeout_millis, **kwargs), None
            )
        finally:
            if result is MetricExportResult.SUCCESS:
                self.account.delivered(points)
            else:
                self.account.dropped(points, "export_error" if result is None else "export_failed")
                self._complaints.lost(points, "metrics")
        return result or MetricExportResult.FAILURE

    def _with_ours(self, data: MetricsData) -> MetricsData:
        if self._accumulators is None or not data.resource_metrics:
            return data
        preferred = self._preferred_temporality or {}
        cumulative = AggregationTemporality.CUMULATIVE
        ours = collect(self._accumulators, preferred.get(Counter, cumulative), preferred.get(Histogram, cumulative))
        if not ours:
            return data
        first, *rest = data.resource_metrics
        return MetricsData([self._merged(first, ours), *rest])

    def _merged(self, resource: ResourceMetrics, ours: list[Any]) -> ResourceMetrics:
        mine = [one for one in resource.scope_metrics if one.scope == self._scope]
        others = [one for one in resource.scope_metrics if one.scope != self._scope]
        observed = [metric for one in mine for metric in one.metrics]
        scope = ScopeMetrics(self._scope, [*observed, *ours], self._scope.schema_url or "")
        return replace(resource, scope_metrics=[*others, scope])

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:  # noqa: ARG002 - the SDK's signature
        self.stop()
