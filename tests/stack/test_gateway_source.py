"""What is read through the gateway equals what the embedded store says of the same telemetry."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from stack.demo import Sent
from stack.gateway import CONFIGURATION, Gateway, configuration
from stack.native import Stack
from stack.programs import program
from stack.same_telemetry import ODD, Both, in_both
from stack.waiting import settled
from stagelight.cli.program import main
from stagelight.sources import EmbeddedSource, GatewaySource, Window
from stagelight.sources._gateway_http import GatewayClient
from stagelight.sources._loki import Loki
from stagelight.sources._loki_ledger import Ledger
from stagelight.sources._prometheus import Prometheus
from stagelight.sources.model import (
    COST_DIMENSIONS,
    LATENCY_DIMENSIONS,
    SERIES,
    CostDimension,
    CostRow,
    LatencyDimension,
    LogRow,
    SeriesName,
    SpanRow,
    TurnOrder,
)
from stored import S

BUCKETS_S = (0, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, float("inf"))
"""Edges of the Collector's histograms of spans."""


@pytest.fixture(scope="module")
def both(stack: Stack, sent: Sent, gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """One for all tests of the module."""
    with in_both(stack, sent, gateway, tmp_path_factory.mktemp("both")) as one:
        yield one


@pytest.fixture(params=["demo", "scene"])
def window(request: pytest.FixtureRequest, both: Both) -> Window:
    """Each of the two times."""
    return both.windows[request.param]


def test_the_gateway_is_the_shipped_one(stack: Stack, tmp_path: Path) -> None:
    """Nothing but addresses and paths of files differs from the configuration that compose mounts."""

    def without_places(text: str) -> str:
        text = re.sub(r"http://[a-z0-9.]+:[0-9]+", "http://BACK_END", text)
        text = re.sub(r"listen [0-9.:]+;", "listen PORT;", text)
        return re.sub(rf" ({re.escape(str(tmp_path))}|/tmp|/run/secrets|/dev)/(tokens|stdout|\w+)", " PLACE", text)

    here = configuration(stack, tmp_path, 1, 2)
    shipped = CONFIGURATION.read_text(encoding="utf-8")
    assert here != shipped
    assert without_places(here) == without_places(shipped)


@pytest.mark.parametrize("by", COST_DIMENSIONS)
def test_costs(by: CostDimension, window: Window, both: Both, stack: Stack) -> None:
    """Every sum of the ledger is the same, to the last digit; turns too, where there is a Tempo."""
    zone = timezone(timedelta(hours=5, minutes=30))

    def rows(source: GatewaySource | EmbeddedSource) -> list[CostRow]:
        found = source.cost(window, by, tz=zone)
        # Seconds are doubles, which each side adds up in its own order.
        return [
            replace(row, audio_seconds=round(row.audio_seconds, 9), turns=row.turns if stack.has_tempo else 0)
            for row in found
        ]

    assert rows(both.embedded)
    assert rows(both.gateway) == rows(both.embedded)


@pytest.mark.parametrize("by", ["model", "feature", "user"])
def test_costs_of_more_events_than_are_read(by: CostDimension, window: Window, both: Both, gateway: Gateway) -> None:
    """Loki's own sums agree with the exact ones in all twelve decimal places that are given."""
    client = GatewayClient(gateway.url, gateway.token)
    summed = Ledger(Loki(client), most=2).spends(window, by)
    client.close()

    expected = {row.key: row for row in both.embedded.cost(window, by)}
    found = {key or "-": spent.row(key or "-", expected[key or "-"].turns) for key, spent in summed.items()}
    assert {key: replace(row, audio_seconds=round(row.audio_seconds, 9)) for key, row in found.items()} == {
        key: replace(row, audio_seconds=round(row.audio_seconds, 9)) for key, row in expected.items()
    }


@pytest.mark.parametrize("order", ["newest", "slowest"])
def test_turns(order: TurnOrder, window: Window, both: Both) -> None:
    """Turns with their bars, shares, costs and owners; nested ones are not listed."""
    program("tempo")
    expected = both.embedded.turns(window, 100, order=order)

    assert len(expected) > 2
    assert both.gateway.turns(window, 100, order=order) == expected
    assert both.gateway.turns(window, 2, order=order) == expected[:2]


def test_traces(window: Window, both: Both) -> None:
    """Traces with their failures and what the ledger says they cost."""
    program("tempo")
    expected = both.embedded.traces(window, 100)

    assert len(expected) > 4
    assert both.gateway.traces(window, 100) == expected


def test_one_trace(window: Window, both: Both) -> None:
    """Every span, with attributes, resource and scope, and the ledger, by the whole id and by its beginning."""
    program("tempo")
    for row in both.embedded.traces(window, 100)[:6]:
        expected = both.embedded.trace(row.trace_id)
        found = both.gateway.trace(row.trace_id)
        assert expected is not None
        assert found is not None
        # Loki writes attributes of log records in its own way.
        assert replace(found, logs=()) == replace(expected, logs=())
        assert [(log.time_ns, log.body, log.severity, log.span_id) for log in found.logs] == [
            (log.time_ns, log.body, log.severity, log.span_id) for log in expected.logs
        ]
        if not row.trace_id.startswith("0000"):
            assert both.gateway.trace(row.trace_id[:12].upper()) == found


def test_traces_that_cannot_be_meant(both: Both) -> None:
    """No such trace is None; a beginning of several names them."""
    program("tempo")

    assert both.gateway.trace("f" * 32) is None
    assert both.gateway.trace("fffffff") is None
    with pytest.raises(ValueError, match="is the start of several: 0000"):
        both.gateway.trace("0" * 16)
    with pytest.raises(ValueError, match="accepted are 6 to 32 hexadecimal digits"):
        both.gateway.trace('" } || { true')


def test_errors(window: Window, both: Both) -> None:
    """Failures are counted where they arose."""
    program("tempo")

    assert both.embedded.errors(window)
    assert both.gateway.errors(window) == both.embedded.errors(window)


@pytest.mark.parametrize("by", LATENCY_DIMENSIONS)
def test_latency(by: LatencyDimension, window: Window, both: Both) -> None:
    """Percentiles of spans that can be read are exact."""
    program("tempo")

    assert both.embedded.latency(window, by)
    assert both.gateway.latency(window, by) == both.embedded.latency(window, by)


@pytest.mark.parametrize("by", LATENCY_DIMENSIONS)
def test_latency_from_histograms(by: LatencyDimension, both: Both, gateway: Gateway) -> None:
    """Calls and errors agree, and each percentile is in the bucket of the exact one."""
    everything = Window(both.windows["demo"].since_ns, both.windows["scene"].until_ns)
    expected = {row.key: row for row in both.embedded.latency(everything, by)}
    client = GatewayClient(gateway.url, gateway.token)
    prometheus = Prometheus(client)
    since_ns = everything.since_ns

    def found() -> dict[str, tuple[int, int]]:
        rows = prometheus.latency(Window(since_ns, time.time_ns()), by)
        return {row.key: (row.calls, row.errors) for row in rows if row.key in expected}

    wanted = {key: (row.calls, row.errors) for key, row in expected.items()}
    assert settled(found, wanted) == wanted
    estimated = {row.key: row for row in prometheus.latency(Window(since_ns, time.time_ns()), by)}
    client.close()
    for key, row in expected.items():
        one = estimated[key]
        for exact, near in ((row.p50_s, one.p50_s), (row.p95_s, one.p95_s), (row.p99_s, one.p99_s)):
            [(lower, upper)] = [edges for edges in pairwise(BUCKETS_S) if edges[0] < exact <= edges[1]]
            assert lower <= near <= upper, key


@pytest.mark.parametrize("name", SERIES)
def test_series(name: SeriesName, window: Window, both: Both) -> None:
    """Steps have the same figures."""
    program("tempo")

    assert both.gateway.series(name, window, 7) == both.embedded.series(name, window, 7)


def test_totals(window: Window, both: Both) -> None:
    """The figures of a window, and its turns."""
    program("tempo")

    assert both.gateway.totals(window) == both.embedded.totals(window)
    assert both.gateway.count_turns(window) == both.embedded.count_turns(window)


def test_log_lines(both: Both) -> None:
    """Log lines without usage events, newest first, of all services or of one whose name needs escaping."""
    window = both.windows["scene"]

    def plain(rows: Sequence[LogRow]) -> list[tuple[object, ...]]:
        return [(row.time_ns, row.severity, row.service, row.body, row.event_name, row.trace_id) for row in rows]

    expected = both.embedded.logs(window, 10)
    assert [row.service for row in expected] == [ODD, "other", "app", "app"]
    assert plain(both.gateway.logs(window, 10)) == plain(expected)
    assert plain(both.gateway.logs(window, 2)) == plain(expected[:2])
    assert plain(both.gateway.logs(window, 10, service=ODD)) == plain(expected[:1])
    assert plain(both.gateway.logs(window, 10, after=expected[1].time_ns)) == plain(expected[:1])
    assert both.gateway.logs(window, 10, service='"} or {a="') == []


def test_tail(both: Both) -> None:
    """What came after the first look is given once, each look in order of time; what was there before is not."""
    program("tempo")
    window = both.windows["scene"]
    expected = sorted(
        [
            (span.trace_id, span.span_id)
            for row in both.embedded.traces(window, 9)
            for span in _spans(both, row.trace_id)
        ]
        + [(log.trace_id or "", log.body) for log in both.embedded.logs(window, 9)]
    )
    seen: list[tuple[str, str]] = []
    after = both.cursor

    def look() -> list[tuple[str, str]]:
        nonlocal after
        records, after = both.gateway.tail(after)
        times = [one.time_ns if isinstance(one, LogRow) else one.start_ns for one in records]
        assert times == sorted(times)
        seen.extend(
            (one.trace_id or "", one.body if isinstance(one, LogRow) else one.span_id)
            for one, at_ns in zip(records, times, strict=True)
            if window.since_ns <= at_ns < window.until_ns
        )
        return sorted(seen)

    assert settled(look, expected) == expected
    assert look() == expected
    with pytest.raises(ValueError, match="accepted is what an earlier call returned"):
        both.gateway.tail("1 or 2")


def _spans(both: Both, trace_id: str) -> Sequence[SpanRow]:
    trace = both.embedded.trace(trace_id)
    return trace.spans if trace else ()


def test_describe(both: Both, gateway: Gateway, stack: Stack) -> None:
    """The address, and from when the records are; how many there are is not known."""
    if not stack.has_tempo:
        program("tempo")
    described = both.gateway.describe()

    assert (described.location, described.spans, described.size_bytes) == (gateway.url, None, None)
    assert described.oldest_ns is not None
    assert described.newest_ns is not None
    assert described.oldest_ns <= both.windows["scene"].until_ns
    assert described.newest_ns >= both.windows["demo"].since_ns


@pytest.mark.parametrize(
    "words",
    [
        "cost --by model", "cost --by day --utc", "cost --by tenant --limit 2", "turns --limit 5", "turns --slowest",
        "traces", "latency", "latency --by model", "errors", "tail --once --only spans --last 3",
    ],
)  # fmt: skip
def test_commands(
    words: str,
    window: Window,
    both: Both,
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Tables and JSON are the same, but for the name of the source."""
    program("tempo")
    monkeypatch.setenv("STAGELIGHT_GATEWAY_TOKEN", gateway.token)
    span = [f"--{word}={_moment(at)}" for word, at in (("since", window.since_ns), ("until", window.until_ns))]

    def output(source: str, *more: str) -> str:
        assert main([*words.split(), *span, "--source", source, *more]) == 0
        return capsys.readouterr().out.replace(source, "SOURCE")

    assert output(gateway.url) == output(both.embedded.location)
    if "tail" not in words:
        expected = json.loads(output(both.embedded.location, "--json"))
        assert expected["rows"]
        assert json.loads(output(gateway.url, "--json")) == expected


def _moment(at_ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(at_ns // S))


def test_amounts_are_decimal(both: Both) -> None:
    """A sum has no digits that none of its amounts has."""
    assert sum((row.cost for row in both.gateway.cost(both.windows["scene"], "model")), Decimal(0)) == Decimal(
        "0.3125001"
    )
