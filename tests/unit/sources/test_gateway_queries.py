"""What the gateway's source asks of Loki, Tempo and Prometheus, until it has everything and each once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from decimal import Decimal

import pytest
from gateway_server import EMPTY, TOKEN, WINDOW, Answer, Asked, loki_with, serving
from stagelight.sources import GatewaySource, SourceUnavailable, Window, _loki, _tempo
from stagelight.sources._gateway_http import GatewayClient
from stagelight.sources._loki import Loki, TooManyRecords, label, quoted
from stagelight.sources._tempo import Tempo
from stagelight.sources.model import LatencyRow
from stored import T0, S

ODD = 'a "b" \\ c\n{d="e"}\t`f` é🙂\x00\x7f'


def test_text_in_queries_is_quoted() -> None:
    """Whatever a name holds, it stays inside its string, which Go reads as JSON does."""
    assert json.loads(quoted(ODD)) == ODD
    assert "\n" not in quoted(ODD)
    assert quoted("\ud800") == '"?"'
    assert label("user.hash-2") == "user_hash_2"
    with serving(lambda *_: (200, EMPTY)) as server:
        source = GatewaySource(server.url, TOKEN)
        assert source.logs(WINDOW, service='a"} | drop x\n') == []
        with pytest.raises(ValueError, match="accepted are 6 to 32 hexadecimal digits"):
            source.trace('abcdef" || true')
        source.close()

    assert [asked["query"] for _, asked in server.asked] == [
        '{service_name="a\\"} | drop x\\n", stagelight_record_kind!="usage"}'
    ]


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_are_read_to_the_end(newest_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of one moment that stand on two pages are read once each."""
    monkeypatch.setattr(_loki, "_PAGE", 5)
    times = [1, 2, 3, 3.5, 4, 4, 4, 5, 6, 6, 7, 8, 99]
    with serving(loki_with(times)) as server:
        client = GatewayClient(server.url, TOKEN)
        found = [one.line for one in Loki(client).records("{}", WINDOW, most=13, newest_first=newest_first)]
        with pytest.raises(TooManyRecords, match="more than 12 log records in this range: narrow it, with --since"):
            list(Loki(client).records("{}", WINDOW, most=12, newest_first=newest_first))
        newest = [one.line for one in Loki(client).newest("{}", WINDOW, 7)]
        client.close()

    assert sorted(found) == sorted(f"line {number}" for number in range(len(times)))
    assert (found[0], found[-1]) == (("line 12", "line 0") if newest_first else ("line 0", "line 12"))
    assert [newest[0], len(newest)] == ["line 12", 7]


def tempo_with(starts_s: list[int]) -> Callable[[str, Asked], Answer]:
    """Tempo's answers for traces of one span each that start at these times."""

    def answer(_: str, asked: Asked) -> Answer:
        start_s, end_s = int(asked["start"]), int(asked["end"])
        assert end_s - start_s <= 7 * 86_400
        traces = [
            {
                "traceID": f"{number + 1:x}",
                "startTimeUnixNano": str(T0 + at * S),
                "spanSets": [{"spans": [{"spanID": "1", "startTimeUnixNano": str(T0 + at * S)}], "matched": 1}],
            }
            for number, at in enumerate(starts_s)
            if start_s <= T0 // S + at < end_s
        ]
        if "most_recent" in asked["q"]:
            traces.reverse()
        return 200, {"traces": traces[: int(asked["limit"])]}

    return answer


def test_searches_are_split_until_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """More traces than Tempo gives at once are found in parts of the time, each once; newest ones in pages."""
    monkeypatch.setattr(_tempo, "_TRACES", 3)
    monkeypatch.setattr(_tempo, "_REACH_S", 10**10)
    starts = [1, 2, 3, 3, 4, 50, 51, 52, 53, 54, 90]
    with serving(tempo_with(starts)) as server:
        client = GatewayClient(server.url, TOKEN)
        found = [one.trace_id for one in Tempo(client).traces("{ }", WINDOW, most=20)]
        newest = [one.trace_id for one in Tempo(client).newest("{ }", WINDOW, 2)]
        with pytest.raises(SourceUnavailable, match=r"more than 10 spans .*: narrow the range, with --since"):
            list(Tempo(client).traces("{ }", WINDOW, most=10))
        client.close()

    assert sorted(found) == [f"{number + 1:032x}" for number in range(len(starts))]
    assert newest == [f"{number:032x}" for number in range(11, 0, -1)]


def sampled(path: str, asked: Asked) -> Answer:
    """Answers of a stack that keeps one trace in ten: a thousand calls of 0.2 to 0.3 s, four of which failed."""
    if path.startswith("/tempo"):
        return 200, {"series": [{"labels": [], "value": 7}]}
    if path.endswith("/query_range"):
        usage = {"structuredMetadata": {"stagelight_cost_status": "exact", "stagelight_cost_amount": "0.25"}}
        return 200, {"data": {"result": [{"stream": {}, "values": [[asked["start"], "", usage]]}]}}
    query = asked["query"]
    if "tail_sampling" in query:
        return 200, {"data": {"result": [{"metric": {}, "value": [0, "1"]}]}}
    edges = ["0.25", "0.5", "+Inf"] if 'le="+Inf"' not in query else ["+Inf"]
    grown = {"0.25": 500, "0.5": 1000, "+Inf": 996 if "status_code" in query else 1000}
    rows = [{"metric": {"stagelight_stage": "llm", "le": edge}, "value": [0, f"{grown[edge]}"]} for edge in edges]
    return 200, {"data": {"result": rows if "increase" in query else []}}


def test_sampling_is_taken_into_account() -> None:
    """Turns are not known then, costs are, and latency comes from the Collector's histograms of all spans."""
    now_ns = time.time_ns()
    window = Window(now_ns - 3600 * S, now_ns - 600 * S)
    with serving(sampled) as server:
        source = GatewaySource(server.url, TOKEN)
        [cost] = source.cost(window, "tenant")
        turns = source.count_turns(window)
        latency = source.latency(window, "stage")
        source.close()

    assert (cost.key, cost.cost, cost.exact, cost.turns) == ("-", Decimal("0.25"), 1, 0)
    assert turns is None
    assert latency == [
        LatencyRow("llm", 1000, 4, p50_s=0.25, p95_s=0.475, p99_s=0.495, first_p50_s=None, first_p95_s=None)
    ]
    assert {path for path, _ in server.asked} == {"/loki/loki/api/v1/query_range", "/prometheus/api/v1/query"}


def test_turns_that_tempo_does_not_have_any_more() -> None:
    """Calls from before the traces that are kept: nobody knows their turns, nor those of the last half minute."""
    now_ns = time.time_ns()
    with serving(sampled) as server:
        source = GatewaySource(server.url, TOKEN)
        known = [source.count_turns(Window(now_ns - age_s * S, now_ns)) for age_s in (20 * 86_400, 10)]
        source.close()

        assert known == [None, None]
        assert [path for path, _ in server.asked] == ["/loki/loki/api/v1/query_range"]


def test_counts_and_sums_cover_the_window_exactly() -> None:
    """Tempo counts a day at most at once; Loki's ranges leave out their beginning and contain their end."""
    end_ns = (int(time.time()) - 3600) * S
    window = Window(end_ns - 2 * 86_400 * S - 1000 * S, end_ns)

    def answer(path: str, asked: Asked) -> Answer:
        if path.startswith("/loki"):
            return 200, {"data": {"result": [{"metric": {"a": "b"}, "value": [0, "0.1"]}]}}
        labels = [{"key": "span.tenant", "value": {"stringValue": name}} for name in ("acme", "nil")]
        return 200, {"series": [{"labels": [one], "value": 3} for one in labels] + [{"labels": []}]}

    with serving(answer) as server:
        client = GatewayClient(server.url, TOKEN)
        counts = Tempo(client).count('{ name = "x" }', window, "tenant")
        total = Loki(client).total("sum({})", '{a="b"}', window)
        client.close()

    assert (counts, total) == ({"acme": 9, None: 9}, [({"a": "b"}, 0.1)])
    *asked_tempo, asked_loki = (asked for _, asked in server.asked)
    ranges = [(int(asked["start"]), int(asked["end"])) for asked in asked_tempo]
    assert [ranges[0][0], ranges[-1][1]] == [window.since_ns // S, end_ns // S]
    assert [end for _, end in ranges[:-1]] == [start for start, _ in ranges[1:]]
    assert max(end - start for start, end in ranges) == 86_400
    assert {asked["q"] for asked in asked_tempo} == {'{ name = "x" } | count_over_time() by (span.tenant)'}
    assert asked_loki == {"query": 'sum({a="b"} [173800000ms])', "time": str(end_ns - 1)}
