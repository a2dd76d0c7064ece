"""Who gets in: one of two tokens on both ports and for every signal, nothing that is too large, nobody else."""

from __future__ import annotations

import gzip
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from stack.native import Stack
from stack.outputs import (
    PROTOBUF,
    REQUESTS,
    Outputs,
    collecting,
    log_request,
    metric_request,
    put,
    send,
    trace_request,
)
from stack.queries import Refused, request
from stack.waiting import eventually

STUBS = {"traces": TraceServiceStub, "metrics": MetricsServiceStub, "logs": LogsServiceStub}
WRONG = {
    "none": {},
    "wrong": {"authorization": "Bearer 0123456789abcdef0123456789abcdef"},
    "empty": {"authorization": "Bearer "},
    "wrong scheme": {"authorization": "Basic TOKEN"},
    "bare": {"authorization": "TOKEN"},
}


def marked(signal: str, mark: str) -> Any:
    """A request of a signal with a mark that can be found at the outputs."""
    one, where = {"traces": trace_request, "logs": log_request, "metrics": lambda: metric_request("app.marked")}[
        signal
    ]()
    put(where, "app.mark", mark)
    return one


def by_grpc(stack: Stack, signal: str, body: Any, headers: dict[str, str]) -> None:
    """Send a request over OTLP/gRPC."""
    with grpc.insecure_channel(stack.address("collector", 4317)) as channel:
        STUBS[signal](channel).Export(body, metadata=list(headers.items()), timeout=30)


@pytest.mark.parametrize("signal", REQUESTS)
@pytest.mark.parametrize("kind", WRONG)
def test_no_entry_without_a_token(kind: str, signal: str, collector: tuple[Stack, Outputs]) -> None:
    """Without a token, or with another one, both protocols refuse every signal, and nothing comes out."""
    stack, outputs = collector
    headers = {key: field.replace("TOKEN", stack.token) for key, field in WRONG[kind].items()}
    body = marked(signal, "intruder")
    with pytest.raises(Refused, match=": 401 "):
        request(
            "POST",
            f"{stack.url('collector', 4318)}/v1/{signal}",
            body.SerializeToString(),
            {"content-type": PROTOBUF, **headers},
        )
    with pytest.raises(grpc.RpcError) as refused:
        by_grpc(stack, signal, body, headers)
    send(stack, signal, marked(signal, "guest"))
    eventually(outputs.everything, lambda all_of_it: b"guest" in all_of_it)

    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert b"intruder" not in outputs.everything()


@pytest.mark.parametrize("number", [0, 1])
def test_two_tokens_are_valid(number: int, collector: tuple[Stack, Outputs]) -> None:
    """Both tokens of the file are accepted on both ports, so that applications can be moved from one to the other."""
    stack, outputs = collector
    token = stack.secrets.tokens[number]
    for signal in REQUESTS:
        send(stack, signal, marked(signal, f"{signal} over http"), token=token)
        by_grpc(stack, signal, marked(signal, f"{signal} over grpc"), {"authorization": f"Bearer {token}"})
    marks = [f"{signal} over {protocol}".encode() for signal in REQUESTS for protocol in ("http", "grpc")]

    assert eventually(outputs.everything, lambda all_of_it: all(mark in all_of_it for mark in marks))


def test_tokens_are_rotated_without_a_restart(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A token that is taken out of the file is refused soon after, and a new one accepted."""
    with collecting(tmp_path_factory.mktemp("rotated")) as (stack, _):
        old, kept = stack.secrets.tokens
        stack.path("collector", "/run/secrets/otlp_tokens").write_text(f"{kept}\nthe-new-token-of-the-day\n")

        def is_refused() -> bool:
            try:
                send(stack, "traces", marked("traces", "old"), token=old)
            except Refused:
                return True
            return False

        assert eventually(is_refused, bool)
        send(stack, "traces", marked("traces", "kept"), token=kept)
        send(stack, "traces", marked("traces", "new"), token="the-new-token-of-the-day")


def test_too_large_requests_are_refused(collector: tuple[Stack, Outputs]) -> None:
    """More than 16 MiB is refused on both ports, also when it was small before it was decompressed."""
    stack, outputs = collector
    large = marked("traces", "x" * 17 * 2**20)
    url, headers = (
        f"{stack.url('collector', 4318)}/v1/traces",
        {"content-type": PROTOBUF, "authorization": f"Bearer {stack.token}"},
    )
    with pytest.raises(grpc.RpcError) as refused:
        by_grpc(stack, "traces", large, {"authorization": f"Bearer {stack.token}"})
    with pytest.raises(Refused, match=r": 4[01]\d "):
        request("POST", url, gzip.compress(large.SerializeToString()), {**headers, "content-encoding": "gzip"})
    send(stack, "traces", marked("traces", "small"))
    (span,) = eventually(outputs.spans, bool)

    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert span.attributes[0].value.string_value == "small"


@pytest.mark.parametrize("body", [b"\x0a\xff\xff\xff\xff\x0f", b"not protobuf"])
def test_broken_requests_are_refused(body: bytes, collector: tuple[Stack, Outputs]) -> None:
    """A body that is no OTLP is the client's error, and the next request is taken."""
    stack, outputs = collector
    with pytest.raises(Refused, match=": 400 "):
        send(stack, "traces", body)
    send(stack, "traces", marked("traces", "good"))

    assert len(eventually(outputs.spans, bool)) == 1
