"""The gateway's source against small HTTP servers: what it asks, what it reads, and what it says when that fails."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from stagelight.cli.program import main
from stagelight.sources import GatewaySource, SourceUnavailable, Window, _gateway_http, _loki, _tempo, open_source
from stagelight.sources._gateway_http import GatewayClient
from stagelight.sources._loki import Loki, TooManyRecords, label, quoted
from stagelight.sources._tempo import Tempo
from stagelight.sources.model import LatencyRow
from stored import T0, S

TOKEN = "0123456789abcdef-a-token"
WINDOW = Window(T0, T0 + 100 * S)
EMPTY = {"data": {"result": []}, "traces": [], "series": []}
ODD = 'a "b" \\ c\n{d="e"}\t`f` é🙂\x00\x7f'

Answer = tuple[int, Any]
Asked = dict[str, str]


@dataclass(slots=True)
class Server:
    """A server that remembers what it was asked."""

    url: str
    asked: list[tuple[str, Asked]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def serving(answer: Callable[[str, Asked], Answer], **headers: str) -> Iterator[Server]:
    """A server on a free port of the loopback interface; what it answers is sent as JSON unless it is bytes."""
    server: Server

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
            server.asked.append((parts.path, asked))
            server.headers.append({key.lower(): value for key, value in self.headers.items()})
            status, content = answer(parts.path, asked)
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            given = {key.replace("_", "-"): value for key, value in headers.items()}
            sent = {"Content-Type": "application/json", "Content-Length": str(len(body)), **given}
            for key, value in sent.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True  # without saying so, as a server does that was idle for too long

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's word
            """Say nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    server = Server(f"http://127.0.0.1:{listening.server_port}")
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join(10)
        listening.server_close()


def failure(url: str, token: str | None = TOKEN) -> str:
    """What is said when costs cannot be read."""
    source = GatewaySource(url, token)
    with pytest.raises(SourceUnavailable) as caught:
        source.cost(WINDOW, "model")
    source.close()
    message = str(caught.value)
    assert TOKEN not in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "refuses the token in STAGELIGHT_GATEWAY_TOKEN: was it rotated?"),
        (403, r"is not the gateway of a stack \(it answers 403\)"),
        (404, r"is not the gateway of a stack \(it answers 404\)"),
        (302, "it answers 302, which sends to another address"),
        (429, "has too many requests to answer, .* try again in a moment"),
        (502, "Loki does not answer behind http://127.0.0.1:.*: `docker compose ps loki` says why"),
        (504, "Loki does not answer behind"),
        (400, r"Loki behind .* refuses a query with 400: bad \\x1b\[31mquery$"),
        (500, r"Loki behind .* refuses a query with 500: bad \\x1b\[31mquery$"),
    ],
)
def test_refusals_say_what_to_do(status: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each status has a sentence of its own; a back end's words come harmless and short."""
    monkeypatch.setattr(_gateway_http, "_PAUSE_S", 0.001)
    with serving(lambda *_: (status, b"bad \x1b[31mquery"), Location="http://127.0.0.1:9/") as server:
        assert re.search(said, failure(server.url))


def test_a_missing_token_is_named() -> None:
    """Which variable to set, and where the token is from."""
    with serving(lambda *_: (401, b"")) as server:
        message = failure(server.url, None)
        assert "authorization" not in server.headers[0]

    assert "asks for its token: set STAGELIGHT_GATEWAY_TOKEN; `docker compose run --rm setup gateway-token`" in message


def test_redirections_are_not_followed() -> None:
    """The token goes nowhere else."""
    with serving(lambda *_: (200, EMPTY)) as other, serving(lambda *_: (307, b""), Location=other.url) as server:
        failure(server.url)

        assert server.headers[0]["authorization"] == f"Bearer {TOKEN}"
        assert other.asked == []


def test_busy_answers_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that is asked by many at once refuses some; a moment later it does not."""
    monkeypatch.setattr(_gateway_http, "_PAUSE_S", 0.001)
    statuses = iter([429, 429, 200, 200, 200])
    with serving(lambda *_: (next(statuses), EMPTY)) as server:
        source = GatewaySource(server.url, TOKEN)
        assert source.cost(WINDOW, "model") == []
        source.close()


def test_idle_connections_that_were_closed_are_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second question is answered although the server hung up after the first; proxies are left aside."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(lambda *_: (200, EMPTY)) as server:
        source = GatewaySource(server.url, TOKEN)
        assert [source.logs(WINDOW) for _ in range(3)] == [[], [], []]
        source.close()

        assert len(server.asked) == 3
        with pytest.raises(SourceUnavailable, match="is closed"):
            source.logs(WINDOW)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>", "answers with broken JSON"),
        (b"[" * 100_000, "answers with broken JSON"),
        ({}, "Loki answers in a form that is not known here"),
        ([1], "Loki answers in a form that is not known here"),
        ({"data": {"result": [{"stream": {}, "values": [["soon", ""]]}]}}, "Loki answers in a form"),
        ({"data": {"result": [{"stream": [], "values": [["1", ""]]}]}}, "Loki answers in a form"),
    ],
)
def test_malformed_answers(content: Any, said: str) -> None:
    """What is no answer of Loki's is no traceback."""
    with serving(lambda *_: (200, content)) as server:
        assert said in failure(server.url)


def test_another_kind_of_server() -> None:
    """A page is no answer of a gateway's."""
    with serving(lambda *_: (200, b"<html>"), Content_Type="text/html") as server:
        assert "is not the gateway of a stack (what it answers is no JSON)" in failure(server.url)


def test_too_long_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read to its end."""
    monkeypatch.setattr(_gateway_http, "_MOST_BYTES", 1 << 20)
    with serving(lambda *_: (200, b" " * (3 << 20))) as server:
        assert "answers with more than 1 MiB: ask for less, with --since" in failure(server.url)


@pytest.mark.parametrize("sent", [b"SSH-2.0-nobody\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b""])
def test_what_is_no_http(sent: bytes) -> None:
    """Another protocol, half an answer, and none."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(sent)

        thread = threading.Thread(target=answer)
        thread.start()
        message = failure(f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread.join(10)

    assert (
        "is not the gateway of a stack (its answer is cut off or no HTTP)" in message or "cannot be reached" in message
    )


def test_nobody_there() -> None:
    """The reason, and where to look."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

    assert f"http://127.0.0.1:{port} cannot be reached (Connection refused): see `docker compose ps`" in failure(
        f"http://127.0.0.1:{port}"
    )


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ftp://127.0.0.1", "accepted are the path of a database file and the address of a gateway"),
        ("http://", "accepted are the path"),
        ("http://127.0.0.1:99999", "this is no address"),
        ("http://[::1", "this is no address"),
        ("http://me:secret@127.0.0.1:99999", "this is no address"),
        ("http://127.0.0.1:0", "accepted are the path"),
        ("http://127.0.0.1/a path", "accepted are the path"),
        ("http://me:secret@127.0.0.1:8080", "the gateway's token is read from STAGELIGHT_GATEWAY_TOKEN"),
        ("http://127.0.0.1:8080/?token=secret", "the gateway's token is read from STAGELIGHT_GATEWAY_TOKEN"),
        ("http://127.0.0.1:80\r\nX: secret", "this is no address"),
    ],
)
def test_addresses_that_are_none(address: str, said: str) -> None:
    """Refused before anything is sent; secrets in them are not repeated."""
    with pytest.raises(SourceUnavailable, match=said) as caught:
        open_source(address)
    assert "me:secret" not in str(caught.value)


def test_tokens_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that would be two header lines is refused, and not shown."""
    monkeypatch.setenv("STAGELIGHT_GATEWAY_TOKEN", "abc\r\nHost: elsewhere")
    with pytest.raises(SourceUnavailable, match=r"^STAGELIGHT_GATEWAY_TOKEN is no token") as caught:
        open_source("http://127.0.0.1:8080")
    assert "abc" not in str(caught.value)


def test_commands_end_with_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3 as without a database; the token is nowhere."""
    monkeypatch.setenv("STAGELIGHT_GATEWAY_TOKEN", TOKEN)
    with serving(lambda *_: (401, b"")) as server:
        monkeypatch.setenv("STAGELIGHT_SOURCE", f" {server.url}/ ")
        statuses = {verb: main([verb]) for verb in ("cost", "turns", "traces", "latency", "errors", "tail")}
        printed = capsys.readouterr()

    assert set(statuses.values()) == {3}
    assert printed.out == ""
    assert printed.err.splitlines() == [
        f"stagelight: {server.url} refuses the token in STAGELIGHT_GATEWAY_TOKEN: was it rotated? "
        "`docker compose run --rm setup gateway-token` prints it"
    ] * len(statuses)


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


def loki_with(times_s: list[float]) -> Callable[[str, Asked], Answer]:
    """Loki's answers for records at these times, as many at once as are asked for."""
    records = [(T0 + round(at * S), f"line {number}") for number, at in enumerate(times_s)]

    def answer(_: str, asked: Asked) -> Answer:
        within = [one for one in records if int(asked["start"]) <= one[0] < int(asked["end"])]
        within.sort(key=lambda one: one[0], reverse=asked["direction"] == "backward")
        page = [[str(at), line, {}] for at, line in within[: int(asked["limit"])]]
        return 200, {"data": {"result": [{"stream": {"service_name": "app"}, "values": page}]}}

    return answer


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


def test_more_of_one_moment_than_a_page() -> None:
    """There is no way to get the rest: that is said."""
    with serving(loki_with([1.0] * 5_001)) as server:
        assert "Loki has more than 5,000 records of one moment" in failure(server.url)


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


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"traces": [], "metrics": {"completedJobs": 1, "totalJobs": 2}}, "Tempo has not searched everything"),
        ({"traces": [{"traceID": 1}]}, "Tempo answers in a form that is not known here"),
        ({"status": "PARTIAL", "trace": {}}, "is too large: Tempo gives a part of it only"),
        ({"trace": {"resourceSpans": [{"scopeSpans": [{"spans": [{}]}]}]}}, "Tempo answers in a form"),
    ],
)
def test_what_tempo_leaves_out_is_said(content: Any, said: str) -> None:
    """Half an answer is none."""
    with serving(lambda *_: (200, content)) as server:
        client = GatewayClient(server.url, TOKEN)
        tempo = Tempo(client)
        ask = tempo.trace if "trace" in content else lambda query: list(tempo.newest(query, Window(0, 2**62), 1))
        with pytest.raises(SourceUnavailable, match=said):
            ask("a" * 32)
        client.close()


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
