"""What a client can cost before it has shown a token: headers, connections, forms and gRPC messages are bounded."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from receiving import PATIENCE_S, TOKEN, ask, options, spans, works
from stack.waiting import eventually
from stagelight.embedded.background import EmbeddedServer
from stagelight.embedded.options import Addresses, Limits

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
START = b"GET / HTTP/1.1\r\nhost: localhost\r\n"
CASES = {
    "nothing sent": (b"", b"HTTP/1.1 408 "),
    "half a header": (START, b"HTTP/1.1 408 "),
    "half a second header": (b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n" + START, b"HTTP/1.1 408 "),
    "endless header": (START + b"x: " + b"y" * 200_000, b"HTTP/1.1 431 "),
    "many headers": (START + b"".join(b"x-%d: y\r\n" % number for number in range(20_000)), b"HTTP/1.1 431 "),
}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """A server that gives half a second for a header."""
    limits = Limits(header_timeout_s=0.5)
    with EmbeddedServer(options(tmp_path_factory.mktemp("strict"), limits=limits)) as server:
        yield server.addresses


def conversation(addresses: Addresses, sent: bytes) -> bytes:
    """What the server answers until it closes the connection."""
    with socket.create_connection((addresses.host, addresses.http_port), timeout=PATIENCE_S) as connection:
        answer = b""
        try:
            connection.sendall(sent)
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionError:  # it may close before it has read all
            pass
        return answer


@pytest.mark.parametrize("case", CASES)
def test_header(strict: Addresses, case: str) -> None:
    """A header that is late or too large ends the connection with a status, and the next good request works."""
    sent, status = CASES[case]
    answer = conversation(strict, sent)

    assert status in answer or (answer == b"" and b"431" in status)
    assert works(strict)


def test_large_body_is_no_header(strict: Addresses) -> None:
    """The limit of headers does not hold for bodies, sent with the header or after it, slower than a header may be."""
    body = spans(3_000).SerializeToString()
    head = b"POST /v1/traces HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-protobuf\r\n"
    sent = head + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with socket.create_connection((strict.host, strict.http_port), timeout=PATIENCE_S) as connection:
        connection.sendall(sent[:100_000])
        time.sleep(0.7)
        connection.sendall(sent[100_000:])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 200 ")


def test_number_of_connections(tmp_path: Path) -> None:
    """A connection too many is answered with 503 and closed; when others end there is room again."""
    limits = Limits(header_timeout_s=2 * PATIENCE_S, connections=6)
    with EmbeddedServer(options(tmp_path, limits=limits)) as server:
        place = (server.addresses.host, server.addresses.http_port)
        others = [socket.create_connection(place, timeout=PATIENCE_S) for _ in range(6)]  # accepted in their order
        answer = conversation(server.addresses, b"")
        for connection in others:
            connection.close()
        # The server learns in its own time that they have gone.
        again = eventually(lambda: ask(server.addresses, "/healthz").status, lambda status: status != 503)

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert again == 200


def test_slow_login_form(tmp_path: Path) -> None:
    """A login form that is never completed is answered with 408, and the connection is closed."""
    limits = Limits(header_timeout_s=0.3)
    with EmbeddedServer(options(tmp_path, token=TOKEN, limits=limits)) as server:
        sent = b"POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\ntoken="
        answer = conversation(server.addresses, sent)
        alive = ask(server.addresses, "/healthz").status

    assert (answer.split(b" ")[1], b"not complete after 0.3 s" in answer, alive) == (b"408", True, 200)


def test_grpc_token_is_checked_before_the_message(tmp_path: Path) -> None:
    """A call without the token is refused although its message has not been sent."""
    never = threading.Event()

    def message() -> Iterator[bytes]:
        never.wait(PATIENCE_S)
        yield b""

    with EmbeddedServer(options(tmp_path, token=TOKEN)) as server:
        target = f"{server.addresses.host}:{server.addresses.grpc_port}"
        with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError) as refused:
            channel.stream_unary(EXPORT)(message(), timeout=PATIENCE_S / 2)
        never.set()
    error: Any = refused.value

    assert (error.code(), "needs a token" in error.details()) == (grpc.StatusCode.UNAUTHENTICATED, True)


def test_number_of_grpc_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request beyond those that may be under way is refused; afterwards there is room again."""
    monkeypatch.setattr("stagelight.embedded.store._BUSY_S", PATIENCE_S)
    body = spans().SerializeToString()
    with EmbeddedServer(options(tmp_path, limits=Limits(rpcs=1))) as server:
        target = f"{server.addresses.host}:{server.addresses.grpc_port}"
        with grpc.insecure_channel(target) as channel:
            call = channel.unary_unary(EXPORT)
            lock = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
            lock.execute("BEGIN IMMEDIATE")
            # Either may come first: it waits for the store, and the other one is refused.
            both = [call.future(body, timeout=PATIENCE_S) for _ in range(2)]
            eventually(lambda: [one.done() for one in both], any)
            first, second = sorted(both, key=lambda one: one.done())
            lock.execute("ROLLBACK")
            lock.close()
            kept = (first.result(), call(body, timeout=PATIENCE_S))

    assert (second.code(), kept) == (grpc.StatusCode.RESOURCE_EXHAUSTED, (b"", b""))
