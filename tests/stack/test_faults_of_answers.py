"""What the Collector does with an answer that is not success: tries again, or drops, counts, and an alert says so."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from stack.native import Stack
from stack.outputs import Outputs, attributes, metric_request, put, receiving, send
from stack.programs import ROOT, program
from stack.queries import exposed, series
from stack.waiting import eventually

REFUSED = "otelcol_exporter_send_failed_metric_points"
FILTERED = "otelcol_processor_filter_datapoints_filtered"
SERVICE = "service.name"


@dataclass(slots=True)
class Answering(Outputs):
    """A back end that answers some services with a status of its own, as often as it is asked."""

    answers: dict[str, int] = field(default_factory=dict)
    """Status by service; 200 for others."""
    asked: list[frozenset[str]] = field(default_factory=list)
    """The services of each request."""

    def status(self, signal: str, request: Any) -> int:
        """The highest status of the services in a request of metrics."""
        if signal != "metrics":
            return 200
        services = frozenset(attributes(of.resource)[SERVICE] for of in request.resource_metrics)
        self.asked.append(services)
        return max(self.answers.get(service, 200) for service in services)

    def services(self) -> set[str]:
        """Of which services anything was taken."""
        return {attributes(of.resource)[SERVICE] for of in list(self.metrics.resource_metrics)}


@contextmanager
def answering(folder: Path, **answers: int) -> Iterator[tuple[Stack, Answering]]:
    """The Collector, and a back end that gives these answers."""
    stack = Stack(folder, ["collector"])
    outputs = Answering(answers=dict(answers))
    with receiving(stack, outputs), stack:
        yield stack, outputs


def sent_by(stack: Stack, service: str) -> None:
    """Send one metric of a service."""
    send(stack, "metrics", metric_request("app.orders", {SERVICE: service})[0])


def counted(stack: Stack, name: str) -> dict[str, float]:
    """The series of one of the Collector's own metrics."""
    return exposed(stack.url("collector", 8888), name)


def total(stack: Stack, name: str) -> float:
    """Their sum."""
    return sum(counted(stack, name).values())


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_these_answers_are_tried_again(status: int, tmp_path: Path) -> None:
    """A back end that is busy or away, for longer than one attempt: what it refused arrives once it takes it."""
    with answering(tmp_path, shop=status) as (stack, outputs):
        sent_by(stack, "shop")
        eventually(lambda: len(outputs.asked), lambda times: times >= 2)
        outputs.answers.clear()
        eventually(outputs.services, lambda found: found == {"shop"})

        assert total(stack, REFUSED) == 0


@pytest.mark.parametrize("status", [400, 500])
def test_these_answers_are_final_and_alerted_on(status: int, tmp_path: Path) -> None:
    """Refused for good: asked once, counted, and the shipped alert fires on the very series that the Collector has."""
    with answering(tmp_path, shop=status) as (stack, outputs):
        sent_by(stack, "shop")
        [(refused, points)] = eventually(lambda: counted(stack, REFUSED).items(), bool)
        sent_by(stack, "other")
        eventually(outputs.services, lambda found: found == {"other"})

        assert points == 1
        assert outputs.asked.count(frozenset({"shop"})) == 1
    assert fires("CollectorSendFailed", refused, tmp_path)
    assert not fires("CollectorSendFailed", refused.replace("failed", "tried"), tmp_path)


def fires(alert: str, series_as_printed: str, folder: Path) -> bool:
    """Whether promtool sees an alert of the shipped rules once a series is there with the value 1."""
    values = {"series": series_as_printed, "values": "_x5 1x20"}
    seen = {"expr": f'count(ALERTS{{alertname="{alert}"}})', "eval_time": "8m", "exp_samples": [{"value": 1}]}
    case = {"interval": "1m", "input_series": [values], "promql_expr_test": [seen]}
    path = folder / "case.yml"
    rules = str(ROOT / "prometheus" / "rules" / "pipeline.yml")
    path.write_text(yaml.safe_dump({"rule_files": [rules], "evaluation_interval": "1m", "tests": [case]}))
    done = subprocess.run(
        [str(program("promtool")), "test", "rules", str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode == 0


def test_a_refusal_costs_only_its_sender(tmp_path: Path) -> None:
    """Many clients while the back end is away, one of them with what will be refused: all others arrive."""
    good = {f"shop-{number}" for number in range(20)}
    with answering(tmp_path, **dict.fromkeys(good, 503), broken=503) as (stack, outputs):
        for service in (*sorted(good)[:10], "broken", *sorted(good)[10:]):
            sent_by(stack, service)
        outputs.answers = {"broken": 500}
        eventually(outputs.services, lambda found: found >= good)
        eventually(lambda: total(stack, REFUSED), lambda refused: refused == 1)

        assert outputs.services() == good
        assert {len(services) for services in outputs.asked} == {1}


def unspecified(metric: Any, point: Any) -> None:
    """Neither delta nor cumulative."""
    metric.sum.aggregation_temporality = 0


def empty(metric: Any, point: Any) -> None:
    """A metric without points."""
    del metric.sum.data_points[:]


def untyped(metric: Any, point: Any) -> None:
    """A metric of no type."""
    metric.ClearField("sum")


def wide(metric: Any, point: Any) -> None:
    """Exponential buckets wider than Prometheus has them."""
    metric.exponential_histogram.aggregation_temporality = 2
    added = metric.exponential_histogram.data_points.add(time_unix_nano=time.time_ns(), count=1, sum=1, scale=-5)
    added.positive.bucket_counts.append(1)


def unnamed(metric: Any, point: Any) -> None:
    """A label that no letter of a name is left of."""
    put(point, "日本", "x")


def nameless(metric: Any, point: Any) -> None:
    """A label without a name."""
    put(point, "", "x")
    put(point, "app.kept", "y")


@pytest.fixture(scope="module")
def storing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The Collector and Prometheus itself."""
    with Stack(tmp_path_factory.mktemp("stack"), ["collector", "prometheus"]) as stack:
        yield stack


@pytest.mark.parametrize("spoil", [unspecified, empty, untyped, wide, unnamed, nameless])
def test_what_prometheus_would_refuse_is_left_out(spoil: Callable[[Any, Any], None], storing: Stack) -> None:
    """Prometheus answers 500 to the whole request for one such metric: it alone is dropped, and counted."""
    name = spoil.__name__
    filtered = total(storing, FILTERED)
    request, point = metric_request(f"app.{name}")
    metrics = request.resource_metrics[0].scope_metrics[0].metrics
    spoil(metrics[0], point)
    put(request.resource_metrics[0].resource, "日本", "x")
    metrics.add(name=f"app.good.{name}").gauge.data_points.add(time_unix_nano=time.time_ns(), as_int=1)
    send(storing, "metrics", request)
    found = eventually(
        lambda: {
            dict(labels)["__name__"] for labels in series(storing.url("prometheus"), f'{{__name__=~".*{name}.*"}}')
        },
        bool,
    )

    assert found == {f"app_good_{name}"}
    assert total(storing, REFUSED) == 0
    assert total(storing, FILTERED) - filtered == (0 if spoil in {empty, untyped} else 1)
