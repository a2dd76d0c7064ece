"""Metrics through the Collector: counted from spans, made cumulative, kept apart, and its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stack.native import Stack
from stack.outputs import Outputs, attributes, collecting, metric_request, put, send, trace_request
from stack.queries import request as ask
from stack.queries import series
from stack.waiting import eventually
from stagelight.conventions import attributes as a

CROWD = 6000
CALLS, LATENCY = "traces.spanmetrics.calls", "traces.spanmetrics.latency"


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Outputs]]:
    """One Collector for all tests, which has been given a crowd of span names."""
    with collecting(tmp_path_factory.mktemp("collector")) as one:
        for batch in range(12):
            request, first = trace_request()
            request.resource_spans[0].resource.attributes[0].value.string_value = "crowd"
            scope = request.resource_spans[0].scope_spans[0]
            for _ in range(CROWD // 12 - 1):
                scope.spans.add().CopyFrom(first)
            for number, span in enumerate(scope.spans):
                span.name = f"step {batch}.{number}"
            send(one[0], "traces", request)
        yield one


def points(outputs: Outputs, metric: str, **wanted: Any) -> list[Any]:
    """Points of a metric that have these attributes; ``_`` in a keyword stands for ``.``."""
    fields = {key.replace("_", "."): value for key, value in wanted.items()}
    return [point for point in outputs.points().get(metric, ()) if fields.items() <= attributes(point).items()]


def test_span_metrics(collector: tuple[Stack, Outputs]) -> None:
    """Calls and latency in seconds under the names of Grafana's views, with bounded labels and exemplars."""
    stack, outputs = collector
    request, span = trace_request({"service.instance.id": "i-1", "deployment.environment.name": "test"})
    span.name = "chat gpt-4o"
    span.kind = 3
    span.start_time_unix_nano = span.end_time_unix_nano - 1_500_000_000
    for key, content in {
        a.STAGELIGHT_STAGE: "llm",
        a.STAGELIGHT_OUTCOME: "completed",
        a.GEN_AI_OPERATION_NAME: "chat",
        a.GEN_AI_PROVIDER_NAME: "openai",
        a.GEN_AI_REQUEST_MODEL: "gpt-4o",
        "user.id": "jane",
        "app.long": "x" * 70_000,
    }.items():
        put(span, key, content)
    send(stack, "traces", request)
    # Counters start at 0, so that the first call is an increase. A slow answer makes the Collector send again.
    first, calls, *_ = eventually(
        lambda: list({point.time_unix_nano: point for point in points(outputs, CALLS, span_name=span.name)}.values()),
        lambda seen: len(seen) >= 2,
        every_s=1,
    )
    latency = next(point for point in points(outputs, LATENCY, span_name=span.name) if point.exemplars)

    assert (first.as_int, calls.as_int, latency.count, latency.sum) == (0, 1, 1, pytest.approx(1.5))
    assert attributes(calls) == {
        "service.name": "shop",
        "span.name": "chat gpt-4o",
        "span.kind": "SPAN_KIND_CLIENT",
        "status.code": "STATUS_CODE_UNSET",
        "deployment.environment.name": "test",
        a.STAGELIGHT_STAGE: "llm",
        a.STAGELIGHT_OUTCOME: "completed",
        a.GEN_AI_OPERATION_NAME: "chat",
        a.GEN_AI_PROVIDER_NAME: "openai",
        a.GEN_AI_REQUEST_MODEL: "gpt-4o",
        a.STAGELIGHT_TRUNCATED: True,
    }
    assert [(one.trace_id, one.span_id) for one in latency.exemplars] == [(span.trace_id, span.span_id)]
    assert {metric.unit for name, metric in outputs.kinds().items() if name in (CALLS, LATENCY)} == {""}
    assert outputs.kinds()[CALLS].sum.aggregation_temporality == 2
    resources = [attributes(of.resource) for of in outputs.metrics.resource_metrics]
    assert {"service.name": "shop", "service.instance.id": "i-1", "deployment.environment.name": "test"} in resources


def test_delta_becomes_cumulative(collector: tuple[Stack, Outputs]) -> None:
    """Prometheus refuses delta metrics: they are summed up here, per process."""
    stack, outputs = collector
    for instance, values in (("i-1", (3, 4)), ("i-2", (10,))):
        for value in values:
            request, point = metric_request("app.orders", {"service.instance.id": instance})
            request.resource_metrics[0].scope_metrics[0].metrics[0].sum.aggregation_temporality = 1
            point.as_int = value
            send(stack, "metrics", request)
            time.sleep(0.01)  # times of points must grow

    def totals() -> dict[str, int]:
        found: dict[str, int] = {}
        for of in list(outputs.metrics.resource_metrics):
            for metric in (metric for scope in of.scope_metrics for metric in scope.metrics):
                if metric.name == "app.orders":
                    found[attributes(of.resource)["service.instance.id"]] = metric.sum.data_points[-1].as_int
        return found

    assert eventually(totals, lambda found: sum(found.values()) == 17) == {"i-1": 7, "i-2": 10}
    assert outputs.kinds()["app.orders"].sum.aggregation_temporality == 2


def test_masked_labels_stay_apart(collector: tuple[Stack, Outputs]) -> None:
    """Labels with personal data or content become keyed hashes, not one mask, which would mix up two series."""
    stack, outputs = collector
    request, first = metric_request("app.mails")
    put(first, "app.to", "jane@example.com")
    second = request.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points.add()
    second.CopyFrom(first)
    del second.attributes[:]
    put(second, "app.to", "john@example.com")
    put(second, a.GEN_AI_INPUT_MESSAGES, "hello")
    put(second, "app.password", "hunter2")
    exemplar = first.exemplars.add(time_unix_nano=first.time_unix_nano, as_int=1, span_id=b"12345678")
    exemplar.filtered_attributes.add(key="app.text").value.string_value = "secret words"
    send(stack, "metrics", request)
    eventually(lambda: points(outputs, "app.mails"), lambda found: len(found) == 2)

    jane, john = (attributes(point) for point in points(outputs, "app.mails"))
    masked = (jane["app.to"], john["app.to"], john[a.GEN_AI_INPUT_MESSAGES], john["app.password"])
    assert [len(one) for one in masked] == [64, 64, 64, 64]
    assert jane["app.to"] != john["app.to"]
    assert [list(one.filtered_attributes) for one in points(outputs, "app.mails")[0].exemplars] == [[]]


def test_own_metrics(collector: tuple[Stack, Outputs]) -> None:
    """Prometheus can scrape what the alerts on the Collector need: accepted, refused, sent, failed, and queues."""
    stack, outputs = collector
    request, span = trace_request()
    send(stack, "traces", request)
    eventually(outputs.spans, lambda spans: span.span_id in {one.span_id for one in spans})

    def names() -> set[str]:
        text = ask("GET", f"{stack.url('collector', 8888)}/metrics").decode()
        return {line.replace("{", " ").split(" ")[0] for line in text.splitlines() if not line.startswith("#")}

    expected = {
        "otelcol_receiver_accepted_spans",
        "otelcol_receiver_refused_spans",
        "otelcol_exporter_sent_spans",
        "otelcol_exporter_queue_size",
        "otelcol_exporter_queue_capacity",
        "otelcol_process_memory_rss",
    }
    assert eventually(names, lambda found: expected <= found)  # what was sent is counted after it has arrived


def test_span_metrics_are_bounded(collector: tuple[Stack, Outputs]) -> None:
    """Beyond 5,000 label sets calls are still counted, in one overflow series per process."""
    _, outputs = collector

    def last() -> dict[str, int]:
        found = {str(attributes(point)): point.as_int for point in points(outputs, CALLS, service_name="crowd")}
        for point in points(outputs, CALLS, otel_metric_overflow=True):
            found["overflow"] = point.as_int
        return found

    found = eventually(last, lambda calls: sum(calls.values()) == CROWD, every_s=1)
    assert 0 < found["overflow"] <= CROWD - 4990
    assert len(found) <= 5001


def test_names_in_prometheus(tmp_path: Path) -> None:
    """In Prometheus, span metrics have the names that Grafana's views of Tempo ask for."""
    with Stack(tmp_path, ["collector", "prometheus"]) as stack:
        request, _ = trace_request({"service.instance.id": "i-1"})
        send(stack, "traces", request)
        prometheus = stack.url("prometheus")
        names = eventually(
            lambda: {dict(labels)["__name__"] for labels in series(prometheus, '{__name__=~"traces_.*"}')},
            lambda names: len(names) >= 4,
        )
        (calls,) = series(prometheus, "traces_spanmetrics_calls_total")

    assert names == {
        "traces_spanmetrics_calls_total",
        "traces_spanmetrics_latency_bucket",
        "traces_spanmetrics_latency_count",
        "traces_spanmetrics_latency_sum",
    }
    assert dict(calls) == {
        "__name__": "traces_spanmetrics_calls_total",
        "job": "shop",
        "instance": "i-1",
        "service_name": "shop",
        "span_name": "step",
        "span_kind": "SPAN_KIND_INTERNAL",
        "status_code": "STATUS_CODE_UNSET",
    }
