"""OTLP over gRPC against a running server: status codes, what may be retried, and that refusals leave it working."""

from __future__ import annotations

import gzip
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from receiving import PATIENCE_S, TOKEN, logs, metrics, options, spans, stored
from stagelight.embedded.background import EmbeddedServer
from stagelight.embedded.options import Addresses, Limits

METHODS = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
MIB = 1 << 20


def export(
    addresses: Addresses, body: bytes, *, signal: str = "traces", token: str | None = None, packing: Any = None
) -> bytes:
    """Call ``Export`` with bytes as they are; raises ``grpc.RpcError`` like a generated client."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    channel_options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"{addresses.host}:{addresses.grpc_port}", channel_options) as channel:
        call = channel.unary_unary(METHODS[signal])
        return bytes(call(body, timeout=PATIENCE_S, metadata=metadata, compression=packing))


def refusal(addresses: Addresses, body: bytes, **how: Any) -> tuple[grpc.StatusCode, str, Status]:
    """Code, message and details of a call that fails."""
    with pytest.raises(grpc.RpcError) as failed:
        export(addresses, body, **how)
    return told(failed.value)


def told(error: Any) -> tuple[grpc.StatusCode, str, Status]:
    """Code, message and details of a failure."""
    details = Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            details.ParseFromString(value)
    return error.code(), error.details(), details


def retry_s(status: Status) -> list[int]:
    """Seconds of the ``RetryInfo`` in a status; empty when there is none."""
    found = []
    for detail in status.details:
        info = RetryInfo()
        if detail.Unpack(info):
            found.append(info.retry_delay.seconds)
    return found


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    limits = Limits(wire_bytes=MIB, body_bytes=4 * MIB, inflight_bytes=4 * MIB)
    with EmbeddedServer(options(tmp_path_factory.mktemp("grpc"), limits=limits)) as server:
        yield server.addresses


def works(addresses: Addresses) -> bool:
    """Whether a good request is answered."""
    return export(addresses, spans().SerializeToString()) == b""


def test_signals(tmp_path: Path) -> None:
    """The three services store their signal, plain, gzip and deflate."""
    packings = (grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate)
    with EmbeddedServer(options(tmp_path)) as server:
        answers = [
            export(server.addresses, make(50).SerializeToString(), signal=signal, packing=packing)
            for signal, make in (("traces", spans), ("logs", logs), ("metrics", metrics))
            for packing in packings
        ]

    assert answers == [b""] * 9
    assert stored(tmp_path) == {"spans": 150, "logs": 150, "points": 50}


def test_partial_success(addresses: Addresses) -> None:
    """Invalid spans are left out and counted in the answer."""
    request = spans(3)
    request.resource_spans[0].scope_spans[0].spans[1].span_id = b"short"
    response = ExportTraceServiceResponse.FromString(export(addresses, request.SerializeToString()))

    assert response.partial_success.rejected_spans == 1
    assert "span id" in response.partial_success.error_message


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        (b"\xff" * 100, grpc.StatusCode.INVALID_ARGUMENT, "not an OTLP traces request in protobuf"),
        (b"\x1f\x8b\x08cut", grpc.StatusCode.INVALID_ARGUMENT, "cannot be decompressed"),
        (gzip.compress(b"\0" * (50 * MIB)), grpc.StatusCode.RESOURCE_EXHAUSTED, "4194304 bytes when decompressed"),
        (zlib.compress(b"\0" * (50 * MIB)), grpc.StatusCode.RESOURCE_EXHAUSTED, "4194304 bytes when decompressed"),
        (b"\0" * (2 * MIB), grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"),
    ],
    ids=["garbage", "bad gzip", "gzip bomb", "zlib bomb", "too large"],
)
def test_refused(addresses: Addresses, body: bytes, code: grpc.StatusCode, reason: str) -> None:
    """Bad requests fail with a reason and without ``RetryInfo``, so exporters drop them; the next good one works."""
    received, message, details = refusal(addresses, body)

    assert (received, retry_s(details)) == (code, [])
    assert reason in message
    assert works(addresses)


def test_unknown_method(addresses: Addresses) -> None:
    """Other methods are unimplemented."""
    with grpc.insecure_channel(f"{addresses.host}:{addresses.grpc_port}") as channel:
        call = channel.unary_unary("/opentelemetry.proto.collector.profiles.v1.ProfilesService/Export")
        with pytest.raises(grpc.RpcError) as failed:
            call(b"", timeout=PATIENCE_S)

    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_token(tmp_path: Path) -> None:
    """With a token configured, calls without it or with another are unauthenticated; with it they work."""
    with EmbeddedServer(options(tmp_path, token=TOKEN)) as server:
        refusals = [refusal(server.addresses, b"", token=token)[0] for token in (None, "another-token-as-long-as-it")]
        accepted = export(server.addresses, spans().SerializeToString(), token=TOKEN)

    assert refusals == [grpc.StatusCode.UNAUTHENTICATED] * 2
    assert (accepted, stored(tmp_path)) == (b"", {"spans": 1})


def test_full_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is held up the queue fills; then calls are UNAVAILABLE with ``RetryInfo``; nothing is lost."""
    monkeypatch.setattr("stagelight.embedded.store._BUSY_S", PATIENCE_S)
    answers: list[bytes] = []
    refusals: list[tuple[grpc.StatusCode, str, Status]] = []

    def send() -> None:
        try:
            answers.append(export(server.addresses, spans(10).SerializeToString()))
        except grpc.RpcError as error:
            refusals.append(told(error))

    size = len(spans(10).SerializeToString())
    with EmbeddedServer(options(tmp_path, limits=Limits(queue_bytes=size + 100))) as server:
        lock = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        senders: list[threading.Thread] = []
        while not refusals:  # one request is being written, one may wait for it, the next is refused
            assert len(senders) < 400, "nothing is refused"
            senders.append(threading.Thread(target=send))
            senders[-1].start()
            time.sleep(0.05)
        before = list(answers)
        lock.execute("ROLLBACK")
        lock.close()
        for sender in senders:
            sender.join()

    code, message, details = refusals[0]
    assert before == []
    assert (code, details.code, retry_s(details)) == (grpc.StatusCode.UNAVAILABLE, 14, [1])
    assert "queue is full" in message
    assert answers == [b""] * (len(senders) - len(refusals))
    assert stored(tmp_path) == {"spans": 10 * len(answers)}


def test_cancelled_call(addresses: Addresses) -> None:
    """A client that cancels in the middle of a call does no harm."""
    with grpc.insecure_channel(f"{addresses.host}:{addresses.grpc_port}") as channel:
        call = channel.unary_unary(METHODS["traces"])
        for _ in range(20):
            call.future(spans(500).SerializeToString()).cancel()

    assert works(addresses)
