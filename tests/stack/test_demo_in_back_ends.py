"""What the demo sends is in the back ends: every span, record and metric, found by query, with the exact numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import yaml
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from stack.demo import RESOURCE, SERVICE, TURNS, Sent
from stack.native import Stack
from stack.programs import ROOT, program
from stack.queries import exemplars, get, lines, logged, number, series
from stack.waiting import eventually, settled
from stagelight.conventions import attributes as names
from stagelight.conventions.metrics import METRICS
from stagelight.embedded.store import open_readonly

PROFILE = "released"
LOGS = f'{{service_name="{SERVICE}", service_namespace="demo"}}'


def text(value: AnyValue) -> str:
    """An attribute's value as a label shows it."""
    kind = value.WhichOneof("value")
    shown = getattr(value, str(kind)) if kind else ""
    return str(shown).lower() if isinstance(shown, bool) else str(shown)


def plain(value: str) -> str | float:
    """A value of a record; numbers as such, however they are written."""
    try:
        return float(value)
    except ValueError:
        return value


def labels(attributes: Any, sent: Sent) -> dict[str, str]:
    """The labels of a point's series: those of the resource, and the point's own."""
    [instance] = sent.instances
    own: list[KeyValue] = list(attributes)
    return {
        "job": f"demo/{SERVICE}",
        "instance": instance,
        "service_name": SERVICE,
        **{key.replace(".", "_"): value for key, value in RESOURCE.items()},
        **{one.key.replace(".", "_"): text(one.value) for one in own if text(one.value)},
    }


def samples(metric: Metric, sent: Sent) -> Iterator[tuple[str, dict[str, str], float]]:
    """Every sample that a metric's last points are in Prometheus: suffix of the name, labels, value."""
    for point in (*metric.sum.data_points, *metric.gauge.data_points):
        yield "", labels(point.attributes, sent), point.as_double if point.HasField("as_double") else point.as_int
    for histogram in metric.histogram.data_points:
        own = labels(histogram.attributes, sent)
        yield "_count", own, histogram.count
        yield "_sum", own, histogram.sum
        within = 0
        for bound, count in zip((*histogram.explicit_bounds, float("inf")), histogram.bucket_counts, strict=True):
            within += count
            edge = "+Inf" if bound == float("inf") else f"{bound:g}" if bound < 1e6 else repr(bound)
            yield "_bucket", {**own, "le": edge}, within


def by_labels(found: list[tuple[dict[str, str], float]]) -> dict[frozenset[tuple[str, str]], float]:
    """Values by labels; the bucket's edge as a number, however it is written."""
    return {
        frozenset((key, f"{float(value):g}" if key == "le" else value) for key, value in own.items()): value
        for own, value in found
    }


def traces_of(stack: Stack, trace_ids: set[bytes]) -> Counter[tuple[str, str, str]]:
    """Trace id, span id and name of every stored span of these traces, asked for trace by trace."""
    if stack.has_tempo:
        spans = [span for trace_id in trace_ids for span in tempo_trace(stack, trace_id.hex())]
    else:
        connection = open_readonly(stack.traces_database)
        query = "SELECT trace_id, span_id, name FROM spans WHERE trace_id = ?"
        try:
            rows = [row for trace_id in trace_ids for row in connection.execute(query, (trace_id,))]
        finally:
            connection.close()
        spans = [(trace_id.hex(), span_id.hex(), name) for trace_id, span_id, name in rows]
    return Counter(spans)


def tempo_trace(stack: Stack, trace_id: str) -> Iterator[tuple[str, str, str]]:
    """Spans of one trace in Tempo."""
    import base64

    trace = get(f"{stack.url('tempo')}/api/v2/traces/{trace_id}")["trace"]
    for group in trace.get("resourceSpans", ()):
        for scope in group["scopeSpans"]:
            for span in scope["spans"]:
                yield trace_id, base64.b64decode(span["spanId"]).hex(), span["name"]


def test_everything_was_acknowledged(sent: Sent) -> None:
    """The Collector took every request; forty turns, and what belongs to them, were sent by one process."""
    stages = Counter(
        text(one.value) for span in sent.spans for one in span.attributes if one.key == names.STAGELIGHT_STAGE
    )

    assert sent.refused == []
    assert len(sent.instances) == 1
    assert stages["turn"] == TURNS
    assert (stages["llm"], stages["embedding"], stages["retrieval"]) == (TURNS, TURNS + 1, TURNS)


def test_spans(stack: Stack, sent: Sent) -> None:
    """Every span is found by its trace's id, once, under the name it was sent with."""
    expected = Counter((span.trace_id.hex(), span.span_id.hex(), span.name) for span in sent.spans)
    trace_ids = {span.trace_id for span in sent.spans}

    assert settled(lambda: traces_of(stack, trace_ids), expected) == expected


def test_records_by_trace(stack: Stack, sent: Sent) -> None:
    """Loki has as many records for every trace id as were sent with it."""
    expected: dict[str, float] = dict(Counter(record.trace_id.hex() for record in sent.records))

    def found() -> dict[str, float]:
        counted = logged(stack.url("loki"), f"sum by (trace_id) (count_over_time({LOGS}[1h]))")
        return {dict(own)["trace_id"]: value for own, value in counted.items()}

    assert len(expected) > TURNS
    assert settled(found, expected) == expected


def test_records_of_one_trace(stack: Stack, sent: Sent) -> None:
    """A query by trace id gives the whole records: time, span id, attributes, and few index labels."""
    chosen = sent.records[0]
    same = [record for record in sent.records if record.trace_id == chosen.trace_id]
    expected = {(record.time_unix_nano, record.span_id.hex()) for record in same}
    query = f'{LOGS} | trace_id="{chosen.trace_id.hex()}"'
    found = eventually(lambda: lines(stack.url("loki"), query), lambda seen: len(seen) >= len(same))
    [line] = [one for one in found if one.metadata["span_id"] == chosen.span_id.hex()]
    attributes = {one.key.replace(".", "_"): plain(text(one.value)) for one in chosen.attributes}

    assert {(one.at_ns, one.metadata["span_id"]) for one in found} == expected
    assert {key: value for key, value in line.labels.items() if not key.startswith("__")} == {
        "service_name": SERVICE,
        "service_namespace": "demo",
        "deployment_environment_name": "test",
        "severity_text": "INFO",
        "stagelight_record_kind": "usage",
    }
    assert attributes.pop("stagelight_record_kind") == "usage"
    assert {key: plain(line.metadata.get(key, "")) for key in attributes} == attributes
    assert line.metadata["event_name"] == chosen.event_name


def test_index_labels(stack: Stack, sent: Sent) -> None:
    """Nothing but service, namespace, environment, severity and kind of record is an index label."""
    eventually(lambda: lines(stack.url("loki"), LOGS), bool)
    streams = get(f"{stack.url('loki')}/loki/api/v1/series", **{"match[]": LOGS})["data"]

    assert {key for stream in streams for key in stream if not key.startswith("__")} == {
        "service_name",
        "service_namespace",
        "deployment_environment_name",
        "severity_text",
        "stagelight_record_kind",
    }


def test_metric_names(stack: Stack, sent: Sent) -> None:
    """Every metric that the registry says the demo shows is in Prometheus under exactly the registry's name."""
    shown = {metric.prometheus for metric in METRICS.values() if metric.demo and PROFILE in metric.profiles}
    registered = {metric.prometheus for metric in METRICS.values()}

    def found() -> set[str]:
        listed = get(
            f"{stack.url('prometheus')}/api/v1/label/__name__/values", **{"match[]": f'{{service_name="{SERVICE}"}}'}
        )
        names_found = {name for name in listed["data"] if name.startswith(("gen_ai_", "stagelight_"))}
        return {base(name, registered) for name in names_found}

    seen = eventually(found, lambda seen: shown <= seen)

    assert shown <= seen
    assert seen <= registered


def base(name: str, registered: set[str]) -> str:
    """A series' name without the ending of a histogram's series."""
    for ending in ("_bucket", "_sum", "_count"):
        if name.removesuffix(ending) in registered:
            return name.removesuffix(ending)
    return name


@pytest.mark.parametrize(
    "name", [metric.name for metric in METRICS.values() if metric.demo and PROFILE in metric.profiles]
)
def test_metric_values(name: str, stack: Stack, sent: Sent) -> None:
    """Every series has the labels and the value that the application sent last, buckets included."""
    expected: dict[str, list[tuple[dict[str, str], float]]] = {}
    for suffix, own, value in samples(sent.metrics[name], sent):
        expected.setdefault(METRICS[name].prometheus + suffix, []).append((own, value))
    [instance] = sent.instances

    def found(metric: str) -> dict[frozenset[tuple[str, str]], float]:
        seen = series(stack.url("prometheus"), f'last_over_time({metric}{{instance="{instance}"}}[1h])')
        without_name = [({key: text for key, text in own if key != "__name__"}, value) for own, value in seen.items()]
        return by_labels(without_name)

    assert expected
    for metric, points in expected.items():
        wanted = by_labels(points)
        assert settled(lambda metric=metric: found(metric), wanted) == wanted  # type: ignore[misc]


def test_exemplars(stack: Stack, sent: Sent) -> None:
    """Exemplars lead from a latency to a trace that was sent."""
    trace_ids = {span.trace_id.hex() for span in sent.spans}
    for metric in (METRICS["stagelight.turn.duration"], METRICS["gen_ai.client.operation.duration"]):
        query = f'{metric.prometheus}_bucket{{service_name="{SERVICE}"}}'
        found = eventually(lambda query=query: exemplars(stack.url("prometheus"), query), bool)  # type: ignore[misc]

        assert {exemplar["labels"]["trace_id"] for exemplar in found} <= trace_ids


def test_spend_of_ledger_and_counter(stack: Stack, sent: Sent) -> None:
    """The usage events in Loki add up to exactly what was sent; the documented PromQL for spend gives the same."""
    amounts = [
        Decimal(text(one.value))
        for record in sent.records
        for one in record.attributes
        if one.key == names.STAGELIGHT_COST_AMOUNT
    ]
    in_loki = [
        Decimal(line.metadata[names.STAGELIGHT_COST_AMOUNT.replace(".", "_")])
        for line in eventually(
            lambda: lines(stack.url("loki"), f"{LOGS} | stagelight_cost_amount != ``"),
            lambda seen: len(seen) >= len(amounts),
        )
    ]
    cost = f'stagelight_usage_cost_USD_total{{service_name="{SERVICE}"}}'
    spend = f"sum(max_over_time({cost}[1h]) - (last_over_time({cost}[1d] offset 1h) or 0 * max_over_time({cost}[1h])))"
    in_prometheus = eventually(
        lambda: number(stack.url("prometheus"), spend),
        lambda value: value == pytest.approx(float(sum(amounts)), rel=1e-9),
    )

    assert sum(amounts) > 0
    assert sorted(in_loki) == sorted(amounts)
    assert in_prometheus == pytest.approx(float(sum(amounts)), rel=1e-9)


def test_service_graph(stack: Stack, sent: Sent) -> None:
    """Tempo's service graph has the application's calls of its provider and of its database, each once."""
    program("tempo")
    expected: Counter[str] = Counter()
    for span in sent.spans:
        own = {one.key: text(one.value) for one in span.attributes}
        if span.kind == Span.SPAN_KIND_CLIENT:
            expected[own.get(names.GEN_AI_PROVIDER_NAME) or own[names.DB_SYSTEM_NAME]] += 1
    query = f'traces_service_graph_request_total{{client="{SERVICE}"}}'

    def found() -> dict[str, float]:
        return {dict(own)["server"]: value for own, value in series(stack.url("prometheus"), query).items()}

    assert settled(found, {server: float(calls) for server, calls in expected.items()}) == expected


def test_search(stack: Stack, sent: Sent) -> None:
    """TraceQL finds every turn by the model that it used."""
    program("tempo")
    query = f'{{ resource.service.name = "{SERVICE}" && span.{names.GEN_AI_REQUEST_MODEL} = "gpt-4o-mini" }}'

    def found() -> set[str]:
        traces = get(f"{stack.url('tempo')}/api/search", q=query, limit=1000).get("traces", ())
        return {trace["traceID"].rjust(32, "0") for trace in traces}

    expected = {span.trace_id.hex() for span in sent.spans if span.name == "chat gpt-4o-mini"}
    assert len(expected) == TURNS
    assert settled(found, expected) == expected


def test_collector_counts(stack: Stack, sent: Sent) -> None:
    """The Collector's own metrics, as Prometheus scrapes them, say the same: all accepted, nothing refused or lost."""
    prometheus = stack.url("prometheus")
    accepted = eventually(
        lambda: number(prometheus, "sum(otelcol_receiver_accepted_spans)"), lambda seen: (seen or 0) >= len(sent.spans)
    )

    assert accepted is not None
    assert number(prometheus, "sum(otelcol_receiver_refused_spans)") == 0
    assert series(prometheus, '{__name__=~"otelcol_exporter_(send|enqueue)_failed_.+"} > 0') == {}


def test_nobody_is_woken(stack: Stack, sent: Sent) -> None:
    """With the demo running no alert has a reason to fire, however short, but the one that always does."""
    assert sent.instances
    prometheus, groups = stack.url("prometheus"), alert_groups()
    heartbeat = METRICS["stagelight.heartbeat"].prometheus
    # Every program was scraped, and since the demo ended.
    targets = len(yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())["scrape_configs"])
    scraped = f"count(up) == {targets} and min(timestamp(up)) > max(max_over_time({heartbeat}[1h]))"
    eventually(lambda: series(prometheus, scraped), bool)
    found = {
        (rule["alert"], dict(own).get("service_name", dict(own).get("job")))
        for folder, rules in groups.items()
        for rule in rules
        for own in (
            series(prometheus, rule["expr"]) if folder == "prometheus" else logged(stack.url("loki"), rule["expr"])
        )
    }
    # What other tests did to the same stack is theirs, and no metrics come from what stands in for Tempo.
    others = {("MetricsRejected", "collector")} | (set() if stack.has_tempo else {("BackEndDown", "tempo")})
    found = {(alert, who) for alert, who in found if who not in {"dropping", "failing"}}

    assert found - others == {("Watchdog", None)}


def alert_groups() -> dict[str, list[dict[str, Any]]]:
    """Every alert, by the folder of the program that evaluates it."""
    files = {"prometheus": "rules/pipeline.yml", "loki": "rules/fake/logs.yml"}
    return {
        folder: [
            rule for group in yaml.safe_load((ROOT / folder / path).read_text())["groups"] for rule in group["rules"]
        ]
        for folder, path in files.items()
    }
