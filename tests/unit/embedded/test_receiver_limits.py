"""OTLP over HTTP at its limits: too large, too slow, too much at a time, and a store that is held up."""

from __future__ import annotations

import gzip
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from google.rpc.status_pb2 import Status
from receiving import PATIENCE_S, PROTOBUF, Answer, ask, options, post, spans, stored, works
from stack.waiting import eventually
from stagelight.embedded.background import EmbeddedServer
from stagelight.embedded.options import Addresses, Limits

MIB = 1 << 20
EMPTY: dict[str, str] = {}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """A server with small limits: 64 KiB as sent, 1 MiB decompressed, two seconds to send it."""
    limits = Limits(wire_bytes=64 << 10, body_bytes=MIB, inflight_bytes=MIB, body_timeout_s=2)
    with EmbeddedServer(options(tmp_path_factory.mktemp("small"), limits=limits)) as server:
        yield server.addresses


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        (EMPTY, b"\0" * (65 << 10), "65536 bytes as sent"),
        (EMPTY, [b"\0" * 1000] * 100, "65536 bytes as sent"),
        ({"content-length": str(25 * MIB)}, b"", "65536 bytes as sent"),
        ({"content-encoding": "gzip"}, gzip.compress(b"\0" * (60 * MIB)), "1048576 bytes when decompressed"),
    ],
    ids=["length", "chunked", "announced", "bomb"],
)
def test_too_large(small: Addresses, headers: dict[str, str], body: Any, reason: str) -> None:
    """A body beyond a limit is refused however it is sent, and the next good request works."""
    answer = ask(small, "/v1/traces", body, method="POST", headers={"content-type": PROTOBUF, **headers})
    status = Status.FromString(answer.body)

    assert answer.status == 413
    assert reason in status.message
    assert works(small)


def test_connection_survives_a_refusal(small: Addresses) -> None:
    """After a refusal the same connection takes the next request, although the refused body was not read."""
    connection = HTTPConnection(small.host, small.http_port, timeout=PATIENCE_S)
    seen = []
    for body in (b"\0" * (65 << 10), spans().SerializeToString(), b"\xff", spans().SerializeToString()):
        connection.request("POST", "/v1/traces", body, {"content-type": PROTOBUF})
        response = connection.getresponse()
        response.read()
        seen.append(response.status)
    connection.close()

    assert seen == [413, 200, 400, 200]


def test_slow_body(small: Addresses) -> None:
    """A client that never completes its request is told so, and its connection is closed."""
    with socket.create_connection((small.host, small.http_port), timeout=PATIENCE_S) as connection:
        connection.sendall(
            b"POST /v1/traces HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-protobuf\r\n"
            b"content-length: 100\r\n\r\nhalf"
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"not complete after 2 s" in answer
    assert works(small)


def test_memory_of_requests_is_bounded(tmp_path: Path) -> None:
    """Requests that together hold more than allowed are told to come back; what they held is free at their end."""
    packed = gzip.compress(b"\0" * (900 << 10))
    packing = {"content-type": PROTOBUF, "content-encoding": "gzip"}
    with EmbeddedServer(options(tmp_path, limits=Limits(body_bytes=MIB, inflight_bytes=MIB))) as server:
        addresses = server.addresses
        first = HTTPConnection(addresses.host, addresses.http_port, timeout=PATIENCE_S)
        first.putrequest("POST", "/v1/traces")
        for name, value in {**packing, "content-length": str(len(packed))}.items():
            first.putheader(name, value)
        first.endheaders(packed[:-1])  # the last byte has to wait
        # Until the server has got the first: alone, a request of zeros is only malformed.
        second = eventually(
            lambda: ask(addresses, "/v1/traces", packed, headers=packing), lambda answer: answer.status != 400
        )
        first.send(packed[-1:])
        alone = first.getresponse().status
        first.close()
        again = ask(addresses, "/v1/traces", packed, headers=packing).status

    assert (second.status, second.headers["retry-after"]) == (429, "1")
    assert (alone, again) == (400, 400)


def test_full_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is held up the queue fills; then clients get 429 with Retry-After; queued data is kept."""
    monkeypatch.setattr("stagelight.embedded.store._BUSY_S", PATIENCE_S)
    kept: list[Answer] = []
    refusals: list[Answer] = []
    body = spans(10).SerializeToString()

    def send() -> None:
        answer = post(server.addresses, "/v1/traces", spans(10).SerializeToString())
        (kept if answer.status == 200 else refusals).append(answer)

    with EmbeddedServer(options(tmp_path, limits=Limits(queue_bytes=len(body) + 100))) as server:
        lock = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        senders: list[threading.Thread] = []
        while not refusals:  # one request is being written, one may wait for it, the next is refused
            assert len(senders) < 400, "nothing is refused"
            senders.append(threading.Thread(target=send))
            senders[-1].start()
            time.sleep(0.05)
        before = list(kept)
        lock.execute("ROLLBACK")
        lock.close()
        for sender in senders:
            sender.join()
        retried = post(server.addresses, "/v1/traces", body)

    assert before == []
    assert {(answer.status, answer.headers["retry-after"]) for answer in refusals} == {(429, "1")}
    assert "queue is full" in Status.FromString(refusals[0].body).message
    assert (len(kept), retried.status) == (len(senders) - len(refusals), 200)
    assert stored(tmp_path) == {"spans": 10 * (len(kept) + 1)}


def test_store_that_cannot_write(tmp_path: Path) -> None:
    """When the database refuses the data, clients get 503 with Retry-After, until it takes data again."""
    with EmbeddedServer(options(tmp_path)) as server:
        vandal = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        vandal.execute("ALTER TABLE spans RENAME TO moved")
        refused = post(server.addresses, "/v1/traces", spans().SerializeToString())
        vandal.execute("ALTER TABLE moved RENAME TO spans")
        vandal.close()
        accepted = post(server.addresses, "/v1/traces", spans().SerializeToString())

    assert (refused.status, refused.headers["retry-after"], accepted.status) == (503, "10", 200)
    assert "cannot write" in Status.FromString(refused.body).message
