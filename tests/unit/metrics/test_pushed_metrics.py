"""What a push contains, from the public calls to the bytes a receiver gets, under every standard setting."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import stagelight
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from sinks import Sink, delivering, receiving
from stagelight import _guard, _runtime
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.conventions.metrics import METRICS
from stagelight.export.accumulators import Accumulators
from stagelight.export.providers import METRIC_INTERVAL_MS, Providers

CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
PREFERENCE = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
KIND = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
FILTER = "OTEL_METRICS_EXEMPLAR_FILTER"


def chat(model: str = "gpt-4o-mini", tokens: int = 100) -> None:
    """A call that costs something."""
    with stagelight.turn("answer"), stagelight.llm(provider="openai", model=model) as call:
        call.usage(input_tokens=tokens, output_tokens=5)


def points(metric: Any) -> list[Any]:
    """The points of a metric of any kind."""
    data = getattr(metric, metric.WhichOneof("data"))
    return list(data.data_points)


def labels(point: Any) -> dict[str, Any]:
    """Labels of a point."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in point.attributes}


def pushed(sink: Sink, providers: Providers) -> dict[str, Any]:
    """The next push."""
    assert providers.flush(60)
    return sink.pushes[-1]


@pytest.mark.parametrize(
    ("preference", "counter", "histogram", "observed", "updown"),
    [
        ("", CUMULATIVE, CUMULATIVE, CUMULATIVE, CUMULATIVE),
        ("cumulative", CUMULATIVE, CUMULATIVE, CUMULATIVE, CUMULATIVE),
        ("delta", DELTA, DELTA, DELTA, CUMULATIVE),
        ("LowMemory", DELTA, DELTA, CUMULATIVE, CUMULATIVE),
    ],
)
@pytest.mark.parametrize("kind", ["explicit_bucket_histogram", "base2_exponential_bucket_histogram"])
def test_temporality_and_kind_of_histogram_follow_the_standard_variables(
    preference: str, counter: int, histogram: int, observed: int, updown: int, kind: str
) -> None:
    """Both kinds of histogram in all temporalities; the values of two pushes are right in each."""
    with receiving() as sink, delivering(sink.http, **{PREFERENCE: preference, KIND: kind}) as (providers, _):
        chat()
        first = pushed(sink, providers)
        chat(tokens=300)
        second = pushed(sink, providers)

    cost, duration = first[m.STAGELIGHT_USAGE_COST], first[m.GEN_AI_CLIENT_OPERATION_DURATION]
    data = "exponential_histogram" if kind.startswith("base2") else "histogram"
    assert (cost.sum.aggregation_temporality, cost.sum.is_monotonic) == (counter, True)
    assert duration.WhichOneof("data") == data
    assert getattr(duration, data).aggregation_temporality == histogram
    assert first[m.STAGELIGHT_TELEMETRY_MADE].sum.aggregation_temporality == observed
    assert first[m.STAGELIGHT_CALLS_IN_FLIGHT].sum.aggregation_temporality == updown
    both = [
        [(point.count, point.sum) for point in points(push[m.GEN_AI_CLIENT_TOKEN_USAGE])] for push in (first, second)
    ]
    assert [sorted(each) for each in both] == [
        [(1, 5.0), (1, 100.0)],
        [(1, 5.0), (1, 300.0)] if histogram == DELTA else [(2, 10.0), (2, 400.0)],
    ]
    spent = {labels(point)[a.STAGELIGHT_COST_COMPONENT]: point.as_double for point in points(cost)}
    assert spent["input"] == pytest.approx(100 * 0.15e-6)


def test_buckets_are_those_of_the_registry() -> None:
    """Explicit histograms have the registered bounds, and one bucket more."""
    with receiving() as sink, delivering(sink.http) as (providers, _):
        chat()
        push = pushed(sink, providers)

    found = {
        name: tuple(points(metric)[0].explicit_bounds)
        for name, metric in push.items()
        if metric.WhichOneof("data") == "histogram"
    }
    assert len(found) > 3
    assert found == {name: tuple(map(float, METRICS[name].buckets)) for name in found}


def test_the_default_interval_and_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pushes come every 15 s; the standard variable wins, and they come without being asked for."""
    monkeypatch.delenv("OTEL_METRIC_EXPORT_INTERVAL", raising=False)
    assert METRIC_INTERVAL_MS == 15_000
    with receiving() as sink, delivering(sink.http, OTEL_METRIC_EXPORT_INTERVAL="") as (providers, _):
        assert providers._reader is not None
        assert providers._reader._interval_s == 15.0
    with receiving() as sink, delivering(sink.http, OTEL_METRIC_EXPORT_INTERVAL="40"):
        chat()
        deadline = time.monotonic() + 60
        while len(sink.pushes) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(sink.pushes) >= 3


def test_known_counters_start_at_zero() -> None:
    """The first push after a model's first call has a series of each component it can be billed for."""
    before = time.time_ns()
    with receiving() as sink, delivering(sink.http) as (providers, _):
        call = stagelight.llm.start(provider="openai", model="gpt-4o-mini")
        running = pushed(sink, providers)
        call.usage(input_tokens=100, output_tokens=5)
        call.end()
        ended = pushed(sink, providers)

    def spent(push: dict[str, Any]) -> dict[str, float]:
        found = points(push[m.STAGELIGHT_USAGE_COST])
        assert all(before <= point.start_time_unix_nano <= point.time_unix_nano for point in found)
        return {labels(point)[a.STAGELIGHT_COST_COMPONENT]: point.as_double for point in found}

    assert set(spent(running).items()) == {("input", 0.0), ("output", 0.0), ("cache_read", 0.0)}
    assert spent(ended) == {"input": pytest.approx(15e-6), "output": pytest.approx(3e-6), "cache_read": 0.0}


def test_everything_of_ours_is_one_scope_of_one_resource() -> None:
    """Observed and accumulated metrics arrive together, from a process that has its own id."""
    with receiving() as sink, delivering(sink.http) as (providers, _):
        chat()
        pushed(sink, providers)
        other = providers.meter_provider.get_meter("the application")
        other.create_counter("orders").add(1)
        pushed(sink, providers)
        first, second = (request for request in sink.requests if hasattr(request, "resource_metrics"))

    scopes = [
        [scope.scope.name for scope in of.scope_metrics] for of in (*first.resource_metrics, *second.resource_metrics)
    ]
    names = [metric.name for metric in first.resource_metrics[0].scope_metrics[0].metrics]
    resource = {pair.key for pair in first.resource_metrics[0].resource.attributes}
    assert scopes == [["stagelight"], ["the application", "stagelight"]]
    assert len(names) == len(set(names))
    assert {m.STAGELIGHT_HEARTBEAT, m.STAGELIGHT_USAGE_COST, m.STAGELIGHT_TURN_DURATION} <= set(names)
    assert a.SERVICE_INSTANCE_ID in resource


@pytest.mark.parametrize(
    ("given", "sampled", "unsampled"),
    [("", True, False), ("trace_based", True, False), ("always_on", True, True), ("always_off", False, False)],
)
def test_exemplars_follow_the_standard_filter(given: str, sampled: bool, unsampled: bool) -> None:
    """By default measurements of sampled spans are exemplars with the ids of their span."""
    found = []
    for sampler in (None, ALWAYS_OFF):
        with receiving() as sink, delivering(sink.http, **{FILTER: given}) as (providers, runtime):
            runtime.tracer = TracerProvider(sampler=sampler, shutdown_on_exit=False).get_tracer("tests")
            with stagelight.llm(provider="openai", model="gpt-4o-mini") as call:
                ids = call.span.get_span_context()
            (point,) = points(pushed(sink, providers)[m.GEN_AI_CLIENT_OPERATION_DURATION])
        exemplars = [(int.from_bytes(e.trace_id), int.from_bytes(e.span_id)) for e in point.exemplars]
        assert exemplars in ([], [(ids.trace_id, ids.span_id)])
        found.append(bool(exemplars))

    assert found == [sampled, unsampled]


@pytest.mark.parametrize("kind", ["explicit_bucket_histogram", "base2_exponential_bucket_histogram"])
def test_negative_scores_are_left_out_in_silence(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Histograms take no negative values; a search with negative scores costs no line of log per call."""
    with receiving() as sink, delivering(sink.http, **{KIND: kind}) as (providers, _):
        for scores in ((-0.5, -0.75), (0.5, 0.25)):
            with stagelight.retrieval(provider="acme", source="docs") as call:
                call.results(scores=scores, metric="dot", higher_is_better=True)
        push = pushed(sink, providers)

    (best,), (margin,) = (
        points(push[name]) for name in (m.STAGELIGHT_RETRIEVAL_TOP_SCORE, m.STAGELIGHT_RETRIEVAL_MARGIN)
    )
    assert (best.count, best.sum) == (1, 0.5)
    assert (margin.count, margin.sum) == (2, 0.5)
    assert caplog.records == []


def finite(push: dict[str, Any]) -> bool:
    """Whether every number of a push is a number."""
    numbers = [
        value
        for metric in push.values()
        for point in points(metric)
        for value in (getattr(point, "sum", 0.0), getattr(point, "as_double", 0.0), getattr(point, "max", 0.0))
    ]
    return all(map(math.isfinite, numbers))


NONSENSE: tuple[Callable[[], object], ...] = (
    lambda: chat(tokens=10**400),
    lambda: chat(tokens=1 << 70),
    lambda: chat(tokens=-1),
    lambda: stagelight.feedback(score=math.nan),
    lambda: stagelight.evaluation("groundedness", score=math.inf),
    lambda: stagelight.evaluation("groundedness", score=1e300),
)


@pytest.mark.parametrize("kind", ["explicit_bucket_histogram", "base2_exponential_bucket_histogram"])
def test_nonsense_does_not_stop_the_metrics(kind: str) -> None:
    """Infinite, undefined, negative and absurdly large values reach no sum, and later pushes still arrive."""
    _guard.set_strict(False)
    with receiving() as sink, delivering(sink.http, **{KIND: kind}) as (providers, _):
        for give in NONSENSE:
            give()
        first = pushed(sink, providers)
        chat()
        second = pushed(sink, providers)

    assert finite(first)
    assert finite(second)
    assert 100.0 in {point.max for point in points(second[m.GEN_AI_CLIENT_TOKEN_USAGE])}


def test_the_accounts_are_metrics() -> None:
    """The telemetry metrics say of spans and logs what the accounts say, and of metrics what they said before."""
    with receiving() as sink, delivering(sink.http) as (providers, _):
        for _ in range(3):
            chat()
        assert all(queue.flush(60) for queue in providers._queues)
        push = pushed(sink, providers)
        traces, logs = providers.balances["traces"](), providers.balances["logs"]()
        metrics = providers.balances["metrics"]()

    said = {
        (name, *sorted(map(str, labels(point).values()))): point.as_int
        for name in (m.STAGELIGHT_TELEMETRY_MADE, m.STAGELIGHT_TELEMETRY_DELIVERED, m.STAGELIGHT_TELEMETRY_QUEUED)
        for point in points(push[name])
    }
    assert {key[1]: said[key] for key in said if key[0] == m.STAGELIGHT_TELEMETRY_MADE} == {
        "traces": traces.made,
        "logs": logs.made,
        "metrics": 0,
    }
    assert (traces.made, logs.made) == (6, 3)
    assert said[m.STAGELIGHT_TELEMETRY_DELIVERED, "traces"] == traces.delivered == 6
    assert said[m.STAGELIGHT_TELEMETRY_QUEUED, "logs"] == logs.queued == 0
    assert metrics.made == metrics.delivered == sum(len(points(metric)) for metric in push.values())


def test_a_failed_push_is_counted_and_the_next_one_brings_all() -> None:
    """Cumulative points lose nothing by a push that fails."""
    with receiving() as sink, delivering(sink.http) as (providers, _):
        chat()
        sink.status = 400
        assert not providers.flush(60)
        sink.status = 200
        chat()
        push = pushed(sink, providers)
        balance = providers.balances["metrics"]()

    dropped = {labels(p)[a.STAGELIGHT_DROP_REASON]: p.as_int for p in points(push[m.STAGELIGHT_TELEMETRY_DROPPED])}
    assert [point.count for point in points(push[m.GEN_AI_CLIENT_OPERATION_DURATION])] == [2]
    assert dropped["export_failed"] > 0
    assert balance.made == balance.delivered + sum(balance.dropped.values())
    assert balance.dropped["export_failed"] > 0


def test_an_exponential_histogram_is_the_sdks() -> None:
    """Where it is asked for, nothing is accumulated by ours."""
    with receiving() as sink:
        with delivering(sink.http, **{KIND: "base2_exponential_bucket_histogram"}) as (providers, _):
            assert providers.accumulators is None
        with delivering(sink.http) as (providers, _):
            assert isinstance(providers.accumulators, Accumulators)


def test_calls_in_flight_rise_and_fall() -> None:
    """Started calls are counted by stage and provider until they end; of too many providers the rest is one."""
    in_flight = _runtime.InFlight()
    for number in range(1000):
        in_flight.change("llm", f"provider-{number}", 1)
    most = len(in_flight.counts())
    running = sum(in_flight.counts().values())
    for number in range(1000):
        in_flight.change("llm", f"provider-{number}", -1)

    assert most <= 257
    assert running == 1000
    assert set(in_flight.counts().values()) == {0}
