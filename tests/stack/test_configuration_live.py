"""The back ends, running together with their shipped files: what is scraped, evaluated, delivered, and closed."""

from __future__ import annotations

import http.client
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from stack.native import Stack
from stack.outputs import log_request, metric_request, put, send, trace_request
from stack.programs import ROOT, program
from stack.queries import Refused, get, lines, number, request, series
from stack.substitution import PORTS
from stack.waiting import eventually, settled
from stagelight.conventions import attributes as names
from stagelight.conventions.metrics import METRICS, STAGELIGHT_TELEMETRY_DROPPED

HOUR_NS = 3_600_000_000_000

BORN_WITH_A_FAILURE = re.compile(
    r"otelcol_exporter_(?:send|enqueue)_failed_\w+|otelcol_processor_filter_(?:datapoints|spans)_filtered"
    r"|(?:loki_discarded_samples|tempo_discarded_spans)_total"
)
"""Seen below, and in the tests of faults."""
TEMPO_S_OWN = re.compile(r"tempo_\w+")
OURS = {metric.prometheus for metric in METRICS.values()}


def alerts_of(stack: Stack) -> list[dict[str, str]]:
    """Labels of the alerts that Alertmanager has."""
    return [alert["labels"] for alert in get(f"{stack.url('alertmanager')}/api/v2/alerts")]


def status(method: str, address: str, path: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    """The answer to a request that may be refused."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        response.read()
        return response
    finally:
        connection.close()


def test_everything_is_scraped(stack: Stack) -> None:
    """Prometheus reads the metrics of every service; Tempo's where there is a Tempo."""
    expected = {"prometheus", "collector", "loki", "alertmanager"} | ({"tempo"} if stack.has_tempo else set())

    def up() -> set[str]:
        return {dict(own)["job"] for own in series(stack.url("prometheus"), "up == 1")}

    assert settled(up, expected) == expected
    scraped = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert {job["job_name"] for job in scraped} == expected | {"tempo"}


def test_rules_are_evaluated(stack: Stack) -> None:
    """Every rule of every file is loaded and evaluated without error."""
    files = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "prometheus" / "rules").glob("*.yml"))]
    expected = {
        rule.get("alert") or rule["record"]: "ok" for one in files for group in one["groups"] for rule in group["rules"]
    }

    def found() -> dict[str, str]:
        groups = get(f"{stack.url('prometheus')}/api/v1/rules")["data"]["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    assert settled(found, expected) == expected


def test_alerts_read_what_exists(stack: Stack) -> None:
    """Every metric that an alert or a runbook reads is really there, but those that a first failure brings."""
    folder = ROOT / "prometheus"
    rules = yaml.safe_load((folder / "rules" / "pipeline.yml").read_text())["groups"][0]["rules"]
    runbooks = "\n".join(path.read_text() for path in (folder / "runbooks").glob("*.md"))
    asked = re.findall(r"promtool query instant \S+[\s\\]+'([^']+)'", runbooks)
    pattern = r"\b(?:up|(?:otelcol|prometheus|loki|tempo|alertmanager|stagelight)_\w+)(?=[\[{ )\n]|$)"
    expressions = [*(rule["expr"] for rule in rules), *asked]
    read = {name for text in expressions for name in re.findall(pattern, text)} - set(names_of_labels())
    expected = {name for name in read - OURS if not BORN_WITH_A_FAILURE.fullmatch(name)}
    expected = {name for name in expected if stack.has_tempo or not TEMPO_S_OWN.fullmatch(name)}
    # A series exists once there is something to count.
    for signal, message in (
        ("traces", trace_request()),
        ("logs", log_request()),
        ("metrics", metric_request("app.orders")),
    ):
        send(stack, signal, message[0])

    def missing() -> set[str]:
        return expected - set(get(f"{stack.url('prometheus')}/api/v1/label/__name__/values")["data"])

    assert len(asked) > 10
    assert len(expected) > 15
    assert settled(missing, set[str]()) == set()


def names_of_labels() -> list[str]:
    """Labels of ours, which look like metrics in an expression."""
    return [value.replace(".", "_") for value in vars(names).values() if isinstance(value, str)]


def test_prometheus_is_closed(stack: Stack) -> None:
    """Nobody can reload, stop or delete over HTTP, and pages of other sites cannot read."""
    address = stack.address("prometheus")
    administration = [
        "/-/reload",
        "/-/quit",
        "/api/v1/admin/tsdb/delete_series?match[]=up",
        "/api/v1/admin/tsdb/snapshot",
    ]
    allowed = status("GET", address, "/api/v1/query?query=1", {"Origin": "http://elsewhere.example"})

    assert all(status("POST", address, path).status >= 400 for path in administration)
    assert (allowed.status, allowed.getheader("Access-Control-Allow-Origin")) == (200, None)


def test_loki_is_closed(stack: Stack) -> None:
    """Rules cannot be changed over HTTP; deletion, which is for the inside, is there and asks for a range."""
    address = stack.address("loki")

    assert status("GET", address, "/loki/api/v1/rules").status == 404
    assert status("POST", address, "/loki/api/v1/rules/x").status == 404
    assert status("GET", address, "/loki/api/v1/delete").status == 200
    assert status("POST", address, "/loki/api/v1/delete?query=%7Bservice_name%3D%22x%22%7D").status == 400


def test_prometheus_keeps_what_is_documented(stack: Stack) -> None:
    """Retention by time and size, exemplars and the window for late samples are as the file says."""
    runtime = get(f"{stack.url('prometheus')}/api/v1/status/runtimeinfo")["data"]
    flags = get(f"{stack.url('prometheus')}/api/v1/status/flags")["data"]
    configuration = yaml.safe_load(get(f"{stack.url('prometheus')}/api/v1/status/config")["data"]["yaml"])

    assert runtime["storageRetention"] == "40d or 20GiB"
    assert configuration["storage"]["tsdb"]["out_of_order_time_window"] == "1d"
    assert flags["config.auto-reload"] == flags["web.enable-otlp-receiver"] == "true"
    assert (flags["web.enable-admin-api"], flags["web.enable-lifecycle"]) == ("false", "false")
    assert flags["enable-feature"] == "exemplar-storage"


def test_native_histograms_are_scraped(stack: Stack) -> None:
    """What programs offer as native histograms is stored so, beside the classic form."""
    native = "histogram_count(prometheus_http_request_duration_seconds)"
    classic = "sum(prometheus_http_request_duration_seconds_count)"

    assert eventually(lambda: number(stack.url("prometheus"), f"sum({native})"), bool)
    assert number(stack.url("prometheus"), classic)


@pytest.mark.parametrize("hours", [6, 26])
def test_late_records(hours: int, stack: Stack) -> None:
    """A record that comes hours late, after fresh ones of its stream, is taken, and found at once."""
    resource = {"service.name": f"late-by-{hours}"}
    for behind in (0, hours, 0):
        message, record = log_request(resource)
        record.time_unix_nano -= behind * HOUR_NS
        record.body.string_value = f"{behind} h"
        send(stack, "logs", message)
    start = time.time() - (hours + 1) * 3600

    def found() -> list[str]:
        return [one.text for one in lines(stack.url("loki"), f'{{service_name="late-by-{hours}"}}', start=start)]

    expected = [f"{hours} h", "0 h", "0 h"]
    assert settled(found, expected) == expected


def test_late_samples(stack: Stack) -> None:
    """A sample that comes 23 hours late, after fresh ones of its series, is taken with its own time."""
    values = {}
    for behind, count in ((0, 5), (23, 3), (6, 4)):
        message, point = metric_request("app.late", {"service.name": "late-counter"})
        point.time_unix_nano -= behind * HOUR_NS
        point.start_time_unix_nano = point.time_unix_nano - HOUR_NS
        point.as_int = count
        send(stack, "metrics", message)
        values[point.time_unix_nano / 1e9 + 1] = count
    query = 'app_late_total{service_name="late-counter"}'
    found = settled(lambda: {at: number(stack.url("prometheus"), query, at=at) for at in values}, dict(values))

    assert found == values


def test_largest_record(stack: Stack) -> None:
    """A record with as many and as large attributes as ours may have, and a long body, arrives whole."""
    message, record = log_request({"service.name": "large"})
    expected = {f"app_field_{at:03}": f"{at:03}".ljust(8192, "x") for at in range(127)}
    for key, content in expected.items():
        put(record, key, content)
    record.body.string_value = "y" * 300_000
    send(stack, "logs", message)
    [line] = eventually(lambda: lines(stack.url("loki"), '{service_name="large"}'), bool)

    assert {key: line.metadata.get(key) for key in expected} == expected
    assert line.text == record.body.string_value


def test_long_attributes_of_spans(stack: Stack) -> None:
    """Tempo keeps an attribute of sixty thousand characters whole; its own limit would be two thousand."""
    program("tempo")
    message, span = trace_request({"service.name": "large"})
    put(span, "app.text", "x" * 60_000)
    send(stack, "traces", message)
    url = f"{stack.url('tempo')}/api/v2/traces/{span.trace_id.hex()}"
    trace = eventually(lambda: get(url).get("trace", {}).get("resourceSpans"), bool)
    attributes = trace[0]["scopeSpans"][0]["spans"][0]["attributes"]

    assert {"key": "app.text", "value": {"stringValue": "x" * 60_000}} in attributes


def test_log_alert_reaches_alertmanager(stack: Stack) -> None:
    """A hundred and one errors in a service's log become an alert in Alertmanager, by Loki's ruler; 100 do not."""
    for service, errors in (("failing", 101), ("well", 100)):
        message, record = log_request({"service.name": service})
        record.severity_number = 17
        record.body.string_value = "it failed: 0"
        for at in range(1, errors):
            again = message.resource_logs[0].scope_logs[0].log_records.add()
            again.CopyFrom(record)
            again.time_unix_nano += at
            again.body.string_value = f"it failed: {at}"
        send(stack, "logs", message)

    def bursts() -> set[str]:
        return {own["service_name"] for own in alerts_of(stack) if own["alertname"] == "ErrorLogBurst"}

    assert eventually(bursts, bool) == {"failing"}


def test_metric_alert_reaches_alertmanager(stack: Stack) -> None:
    """What an application says it dropped becomes an alert in Alertmanager, by Prometheus, from one sample."""
    message, point = metric_request(
        STAGELIGHT_TELEMETRY_DROPPED, {"service.name": "dropping", "service.instance.id": "1"}
    )
    message.resource_metrics[0].scope_metrics[0].metrics[0].unit = METRICS[STAGELIGHT_TELEMETRY_DROPPED].unit
    put(point, names.STAGELIGHT_SIGNAL, "logs")
    put(point, names.STAGELIGHT_DROP_REASON, "queue_full")
    point.as_int = 12
    send(stack, "metrics", message)

    def dropping() -> list[dict[str, str]]:
        found = [own for own in alerts_of(stack) if own["alertname"] == "ApplicationDropsTelemetry"]
        return [own for own in found if own["service_name"] == "dropping"]

    assert eventually(dropping, bool) == [
        {
            "alertname": "ApplicationDropsTelemetry",
            "service_name": "dropping",
            "stagelight_signal": "logs",
            "stagelight_drop_reason": "queue_full",
            "severity": "warning",
        }
    ]


def test_usage_of_a_month_by_user(tmp_path: Path) -> None:
    """The cost of two thousand users over 31 days is one query; Loki's own limits would allow 500 series."""
    users, now = 2000, time.time_ns()
    message, first = log_request({"service.name": "ledger"})
    records = message.resource_logs[0].scope_logs[0].log_records
    del records[:]
    for user in range(users):
        record = records.add(severity_text="INFO", time_unix_nano=now - user % 31 * 24 * HOUR_NS - user)
        put(record, names.STAGELIGHT_RECORD_KIND, "usage")
        put(record, names.USER_HASH, f"h1:k:{user:032x}")
        put(record, names.STAGELIGHT_COST_AMOUNT, user / 1024)
    with Stack(tmp_path, ["loki"]) as stack:
        loki = stack.url("loki")
        request("POST", f"{loki}/otlp/v1/logs", message.SerializeToString(), {"content-type": "application/x-protobuf"})
        query = (
            'sum by (user_hash) (sum_over_time({service_name="ledger", stagelight_record_kind="usage"}'
            " | unwrap stagelight_cost_amount [31d]))"
        )
        answer = get(f"{loki}/loki/api/v1/query", query=query)["data"]["result"]
    found = {one["metric"]["user_hash"]: float(one["value"][1]) for one in answer}

    assert first.severity_number == 9
    assert found == {f"h1:k:{user:032x}": user / 1024 for user in range(users)}


def test_one_wrong_clock(stack: Stack) -> None:
    """Points of a clock that is wrong are dropped alone; those of others in the same request arrive."""
    good, _ = metric_request("app.good", {"service.name": "right-clock"})
    for hours in (26, -1):
        wrong, point = metric_request("app.wrong", {"service.name": "wrong-clock"})
        point.time_unix_nano -= hours * HOUR_NS
        point.start_time_unix_nano = point.time_unix_nano - HOUR_NS
        good.MergeFrom(wrong)
    send(stack, "metrics", good)
    prometheus = stack.url("prometheus")
    dropped = 'sum(otelcol_processor_filter_datapoints_filtered{filter="filter/clock"})'

    assert eventually(lambda: number(prometheus, "app_good_total"), bool) == 1
    assert eventually(lambda: number(prometheus, dropped), bool) == 2
    assert series(prometheus, '{__name__=~"otelcol_exporter_send_failed_metric_points"}') == {}


def test_refusals_become_alerts_and_changes_are_loaded(tmp_path: Path) -> None:
    """What a back end refuses for good fires alerts from the first time on; a saved change is loaded."""
    flags = {"prometheus": ["--config.auto-reload-interval=1s"]}
    with Stack(tmp_path, ["collector", "prometheus", "loki"], flags=flags) as stack:
        prometheus = stack.url("prometheus")
        file = stack.path("prometheus", "/etc/prometheus/prometheus.yml")
        shipped = file.read_text()
        file.write_text(shipped.replace("scrape_interval: 15s\n  scrape_timeout: 10s", "scrape_interval: 1s"))
        message, record = log_request()
        record.time_unix_nano += 26 * HOUR_NS
        send(stack, "logs", message)
        wrong, point = metric_request("app.wrong")
        point.time_unix_nano += HOUR_NS
        send(stack, "metrics", wrong)

        def firing() -> set[str]:
            found = get(f"{prometheus}/api/v1/alerts")["data"]["alerts"]
            names = {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}
            return names - {"AlertsNotDelivered", "BackEndDown"}  # no Alertmanager and no Tempo here

        expected = {"CollectorSendFailed", "LogsRefused", "MetricsRejected", "Watchdog"}
        assert settled(firing, expected) == expected
        file.write_text("no_such_word: 1")
        eventually(lambda: number(prometheus, "prometheus_config_last_reload_successful"), lambda seen: seen == 0)


def test_loki_says_what_it_refuses(tmp_path: Path) -> None:
    """What Loki refuses is in the counter that the alert reads, with its reason."""
    with Stack(tmp_path, ["loki"]) as stack:
        message, record = log_request({"service.name": "early"})
        record.time_unix_nano += 26 * HOUR_NS
        body = message.SerializeToString()
        with pytest.raises(Refused, match="too new"):
            request("POST", f"{stack.url('loki')}/otlp/v1/logs", body, {"content-type": "application/x-protobuf"})
        counted = [
            one for one in request("GET", f"{stack.url('loki')}/metrics").decode().splitlines() if "discarded" in one
        ]

    assert any(
        one.startswith("loki_discarded_samples_total{") and 'reason="too_far_in_future"' in one for one in counted
    )


def test_alertmanager_listens_to_nobody_else(stack: Stack) -> None:
    """Alertmanager has no cluster, and as shipped tells nobody."""
    found = json.loads(request("GET", f"{stack.url('alertmanager')}/api/v2/status"))
    receivers: list[dict[str, Any]] = get(f"{stack.url('alertmanager')}/api/v2/receivers")

    assert found["cluster"]["status"] == "disabled"
    assert [receiver["name"] for receiver in receivers] == ["nobody", "dead-mans-switch"]
    assert PORTS["alertmanager"] == (9093,)
