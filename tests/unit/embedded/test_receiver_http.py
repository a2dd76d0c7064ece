"""OTLP over HTTP against a running server: what is accepted, what is refused, and that refusals leave it working."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from receiving import (
    JSON,
    PATIENCE_S,
    PROTOBUF,
    START_NS,
    TABLES,
    ask,
    logs,
    metrics,
    options,
    otlp_json,
    post,
    rows,
    spans,
    stored,
    works,
)
from stagelight.embedded.background import EmbeddedServer
from stagelight.embedded.options import Addresses
from stagelight.embedded.server import _listener

SIGNALS = {"traces": spans, "logs": logs, "metrics": metrics}
EMPTY: dict[str, str] = {}


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    with EmbeddedServer(options(tmp_path_factory.mktemp("http"))) as server:
        yield server.addresses


def test_signals_and_encodings(tmp_path: Path) -> None:
    """Every signal arrives as protobuf and as JSON, plain, gzip and chunked, and is answered in its own type."""
    answers = {}
    with EmbeddedServer(options(tmp_path)) as server:
        for name, make in SIGNALS.items():
            for content_type in (PROTOBUF, JSON):
                for way in ("plain", "gzip", "chunked"):
                    request = make(2)
                    request.MergeFrom(make(1))
                    body = request.SerializeToString() if content_type == PROTOBUF else otlp_json(request)
                    headers = {"content-type": content_type}
                    if way == "gzip":
                        body, headers["content-encoding"] = gzip.compress(body), "gzip"
                    sent = (body[at : at + 50] for at in range(0, len(body), 50)) if way == "chunked" else body
                    answer = ask(server.addresses, f"/v1/{name}", sent, method="POST", headers=headers)
                    answers[name, content_type, way] = answer.status, answer.headers["content-type"], answer.body

    assert answers == {
        (name, kind, way): (200, kind, b"" if kind == PROTOBUF else b"{}")
        for name in SIGNALS
        for kind in (PROTOBUF, JSON)
        for way in ("plain", "gzip", "chunked")
    }
    assert stored(tmp_path)["spans"] == 18


@pytest.mark.parametrize("name", SIGNALS)
def test_json_equals_protobuf(name: str, tmp_path: Path) -> None:
    """The same request leaves the same rows, whether it came as protobuf or as JSON."""
    request = SIGNALS[name](3)
    dumps = []
    for content_type, body in ((PROTOBUF, request.SerializeToString()), (JSON, otlp_json(request))):
        folder = tmp_path / content_type.replace("/", "-")
        folder.mkdir()
        with EmbeddedServer(options(folder)) as server:
            assert post(server.addresses, f"/v1/{name}", body, content_type=content_type).status == 200
        dumps.append({table: rows(folder, f"SELECT * FROM {table}") for table in (*TABLES, "series")})  # noqa: S608

    assert dumps[0] == dumps[1]
    assert any(dumps[0].values())


def test_json_of_other_senders(tmp_path: Path) -> None:
    """JSON with upper-case ids, numbers as text, an enum's name, unknown fields and a type with charset is accepted."""
    span = {
        "traceId": "5B8EFFF798038103D269B633813FC60C",
        "spanId": "EEE19B7EC3C1B174",
        "parentSpanId": "",
        "name": "GET /",
        "kind": "SPAN_KIND_SERVER",
        "startTimeUnixNano": str(START_NS),
        "endTimeUnixNano": START_NS + 5,
        "notInvented": {"yet": [1, None]},
    }
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}], "unknown": 1}).encode()
    with EmbeddedServer(options(tmp_path)) as server:
        answer = post(server.addresses, "/v1/traces", body, content_type="Application/JSON; charset=utf-8")

    assert (answer.status, answer.body) == (200, b"{}")
    assert rows(tmp_path, "SELECT hex(trace_id), hex(span_id), parent_id, name, kind, duration_ns FROM spans") == [
        (span["traceId"], span["spanId"], None, "GET /", 2, 5)
    ]


def test_sent_twice(tmp_path: Path) -> None:
    """A request that is sent again, because its answer was lost, adds nothing."""
    with EmbeddedServer(options(tmp_path)) as server:
        for name, make in SIGNALS.items():
            body = make(3).SerializeToString()
            assert [post(server.addresses, f"/v1/{name}", body).status for _ in range(2)] == [200, 200]

    assert stored(tmp_path) == {"spans": 3, "logs": 3, "points": 3}


def test_partial_success(addresses: Addresses) -> None:
    """Invalid items are left out and counted in the answer; the valid ones of the same request are kept."""
    request = spans(3)
    request.resource_spans[0].scope_spans[0].spans[1].span_id = b"short"
    answer = post(addresses, "/v1/traces", request.SerializeToString())
    response = ExportTraceServiceResponse.FromString(answer.body)
    as_json = post(addresses, "/v1/traces", otlp_json(request), content_type=JSON)

    assert (answer.status, response.partial_success.rejected_spans) == (200, 1)
    assert "span id" in response.partial_success.error_message
    assert as_json.status == 400  # an id of the wrong length is no OTLP/JSON at all
    assert b"spanId" in as_json.body


SPAN = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":%s}]}]}]}'


@pytest.mark.parametrize(
    ("headers", "body", "status", "reason"),
    [
        (EMPTY, b"\n\x05cut", 400, "not an OTLP traces request in protobuf"),
        (EMPTY, b"\xff" * 100, 400, "not an OTLP traces request in protobuf"),
        ({"content-type": JSON}, b"{", 400, "not JSON"),
        ({"content-type": JSON}, b"[]", 400, "JSON of type list"),
        ({"content-type": JSON}, b"[" * 100_000, 400, "not JSON"),
        ({"content-type": JSON}, b'{"resourceSpans":1}', 400, "not an OTLP request in JSON"),
        ({"content-type": JSON}, b'{"resourceSpans":' * 300 + b"1" + b"}" * 300, 400, "not an OTLP request in JSON"),
        ({"content-type": JSON}, b'{"resourceSpans":[{"resource":"\xff"}]}', 400, "not JSON"),
        ({"content-type": JSON}, SPAN % b'"xyz"', 400, "traceId='xyz': an id is 32 hex digits"),
        ({"content-type": JSON}, SPAN % b"17", 400, "traceId='17': an id is 32 hex digits"),
        ({"content-type": JSON}, SPAN % (b'"' + b"g" * 32 + b'"'), 400, "an id is 32 hex digits"),
        ({"content-encoding": "gzip"}, b"no gzip", 400, "cannot be decompressed"),
        ({"content-encoding": "gzip"}, gzip.compress(b"\n" * 999, mtime=0)[:-9], 400, "ends too early"),
        ({"content-encoding": "br"}, b"", 415, "Content-Encoding 'br': accepted are gzip and identity"),
        ({"content-encoding": "gzip, gzip"}, b"", 415, "accepted are gzip and identity"),
        ({"content-type": "text/plain"}, b"{}", 415, "Content-Type 'text/plain': accepted are application/x-protobuf"),
        ({"content-type": ""}, b"{}", 415, "Content-Type '': accepted are"),
        ({"origin": "https://evil.example"}, b"", 403, "is another site"),
        ({"sec-fetch-site": "cross-site"}, b"", 403, "Sec-Fetch-Site"),
        ({"host": "evil.example"}, b"", 421, "is not a name of this server"),
    ],
)
def test_refused(addresses: Addresses, headers: dict[str, str], body: bytes, status: int, reason: str) -> None:
    """Bad requests get a status and a reason in the form of OTLP, and the next good request works."""
    answer = ask(addresses, "/v1/traces", body, headers={"content-type": PROTOBUF, **headers})
    if answer.headers["content-type"] == PROTOBUF:
        message = Status.FromString(answer.body).message
    else:
        message = json.loads(answer.body)["message"]

    assert answer.status == status
    assert reason in message
    assert "retry-after" not in answer.headers
    assert (answer.headers["content-type"] == PROTOBUF) is ("content-type" not in headers)
    assert works(addresses)


# Metrics sent as logs are missing: no field of a log record is required, so they make valid, empty records.
@pytest.mark.parametrize(
    ("sent", "path"),
    [("traces", "logs"), ("traces", "metrics"), ("logs", "traces"), ("logs", "metrics"), ("metrics", "traces")],
)
def test_wrong_signal(addresses: Addresses, sent: str, path: str) -> None:
    """A request of one signal sent to the path of another is refused, not taken for an empty one."""
    answer = post(addresses, f"/v1/{path}", SIGNALS[sent](3).SerializeToString())

    assert answer.status == 400
    assert works(addresses)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_wrong_method(addresses: Addresses, method: str) -> None:
    """Other methods than POST are refused, pre-flight requests of other sites included."""
    answer = ask(addresses, "/v1/logs", method=method, headers={"Access-Control-Request-Method": "POST"})

    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/v1/profiles", "/v1/traces/", "/v1/", "/v1//traces"])
def test_wrong_path(addresses: Addresses, path: str) -> None:
    """Under /v1/ there is nothing but the three signals; the answer names them."""
    answer = post(addresses, path, b"")

    assert answer.status == 404
    assert b"/v1/traces, /v1/metrics, /v1/logs" in answer.body


def test_empty_request(addresses: Addresses) -> None:
    """A request without items is a success, as OTLP asks."""
    answers = [post(addresses, "/v1/traces", b""), post(addresses, "/v1/logs", b"{}", content_type=JSON)]

    assert [(answer.status, answer.body) for answer in answers] == [(200, b""), (200, b"{}")]


def test_security_headers(addresses: Addresses) -> None:
    """Every response, refusals included, forbids other sites, frames, foreign sources and guessing of types."""
    answers = [
        ask(addresses, "/healthz"),
        post(addresses, "/v1/traces", b""),
        post(addresses, "/v1/traces", b"\xff"),
        ask(addresses, "/healthz", headers={"host": "evil.example"}),
    ]

    assert [answer.status for answer in answers] == [200, 200, 400, 421]
    for answer in answers:
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; base-uri 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "server" not in answer.headers
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_health(addresses: Addresses) -> None:
    """``/healthz`` says ok, to GET and HEAD only."""
    answers = [ask(addresses, "/healthz", method=method) for method in ("GET", "HEAD", "POST")]

    assert [(answer.status, answer.body[:3]) for answer in answers] == [(200, b"ok\n"), (200, b""), (405, b"/he")]


def test_pages(addresses: Addresses) -> None:
    """Everything that is not OTLP is answered by the pages, under the same policy, also when loaded at once."""
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda path: ask(addresses, path), ["/", "/", "/no/such/page"]))

    assert [answer.status for answer in answers] == [200, 200, 404]
    for answer in answers:
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")


def test_client_that_leaves(addresses: Addresses) -> None:
    """A client that closes its connection in the middle of a request does no harm."""
    for _ in range(20):
        with socket.create_connection((addresses.host, addresses.http_port), timeout=PATIENCE_S) as connection:
            connection.sendall(
                b"POST /v1/traces HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                b"content-length: 100\r\n\r\n{"
            )

    assert works(addresses)


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_not_http(addresses: Addresses, garbage: bytes) -> None:
    """Bytes that are not HTTP/1.1 end the connection and nothing else."""
    with socket.create_connection((addresses.host, addresses.http_port), timeout=PATIENCE_S) as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert works(addresses)


def test_small_answers_are_not_held_back() -> None:
    """The listening socket names its protocol: only then does asyncio send small answers at once."""
    with _listener(socket.AF_INET, "127.0.0.1", 0, "HTTP") as listener:
        assert listener.proto == socket.IPPROTO_TCP
