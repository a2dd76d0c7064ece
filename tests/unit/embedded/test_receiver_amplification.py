"""Requests that are small as sent and huge once parsed are refused before they are parsed."""

from __future__ import annotations

import time
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from receiving import logs, metrics, spans
from stagelight.embedded.refusal import Malformed, TooLarge
from stagelight.embedded.signals import SIGNALS
from stagelight.embedded.wire import NotProtobufError, check_entries

TRACES, METRICS, LOGS = SIGNALS


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    length = len(content)
    size = bytearray()
    while length > 0x7F:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([number << 3 | 2, *size, length]) + content


def nested(*numbers: int, content: bytes) -> bytes:
    """Fields in each other, the outermost number first."""
    for number in reversed(numbers):
        content = field(number, content)
    return content


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x0a\x00" * 1_000_000, "30000 parts of resources and scopes"),
        (field(1, b"\x12\x00" * 1_000_000), "30000 parts of resources and scopes"),
        (nested(1, 2, content=b"\x12\x00" * 200_000), "100000 items"),
        (nested(1, 2, 2, content=b"\x4a\x00" * 2_000_000), "too many entries"),
        (nested(1, 2, 2, 9, 2, 5, content=b"\x0a\x00" * 2_000_000), "too many entries"),
        (nested(1, 2, 2, content=b"\x5a\x00" * 2_000_000), "too many entries"),
    ],
    ids=["resources", "scopes", "spans", "attributes", "values", "events"],
)
def test_empty_entries(body: bytes, reason: str) -> None:
    """However deep the empty entries are, the request is refused with a reason, in little time."""
    began = time.thread_time()
    with pytest.raises(TooLarge, match=reason):
        TRACES.batch(body, "protobuf")

    assert time.thread_time() - began < 20


def test_empty_buckets() -> None:
    """Numbers of one byte that take eight in memory count too."""
    with pytest.raises(TooLarge, match="too many entries"):
        METRICS.batch(nested(1, 2, 2, 10, 1, 8, content=b"\x12" + field(2, bytes(1 << 26))[1:]), "protobuf")


def test_many_objects_in_json() -> None:
    """The same in JSON."""
    began = time.thread_time()
    with pytest.raises(TooLarge, match="1000000 objects and lists"):
        TRACES.batch(b'{"resourceSpans":[' + b"{}," * 1_000_000 + b"{}]}", "json")

    assert time.thread_time() - began < 5


def test_largest_honest_requests() -> None:
    """What collectors send at most is taken: many programs with a span each, many spans, many records, many points."""
    programs = ExportTraceServiceRequest()
    for _ in range(8_192):
        programs.MergeFrom(spans())

    assert len(TRACES.batch(programs.SerializeToString(), "protobuf").spans) == 8_192
    assert len(TRACES.batch(spans(10_000).SerializeToString(), "protobuf").spans[0].rows) == 10_000
    assert len(LOGS.batch(logs(20_000).SerializeToString(), "protobuf").logs[0].rows) == 20_000
    assert len(METRICS.batch(metrics(10_000).SerializeToString(), "protobuf").points) == 10_000


def test_empty_resources_are_skipped() -> None:
    """A resource without scopes is no item and takes no row."""
    body = b"\x0a\x00" * 1_000 + spans().SerializeToString()

    assert len(TRACES.batch(body, "protobuf").spans) == 1


@pytest.mark.parametrize("request_type", [ExportTraceServiceRequest, ExportMetricsServiceRequest])
@pytest.mark.parametrize(
    "body",
    [b"\x0a", b"\x0a\x05\x12", b"\x0a\x01\x12\x7f", b"\x0b", b"\x0a" + b"\xff" * 11, b"\x09\x01", b"\x08\x80"],
    ids=["no length", "too short", "beyond its message", "group", "long number", "short fixed", "open number"],
)
def test_no_protobuf(request_type: Any, body: bytes) -> None:
    """What is no protobuf is refused, as the parser would."""
    with pytest.raises(NotProtobufError):
        check_entries(body, request_type.DESCRIPTOR)


def test_deep_nesting_is_left_to_the_parser() -> None:
    """Nesting deeper than any stack does not trouble the count; the parser refuses it."""
    name = field(5, b"x" * (1 << 20))
    attribute = nested(9, 2, *(5, 1) * 5_000, content=b"")

    with pytest.raises(Malformed, match="not an OTLP traces request"):
        TRACES.batch(nested(1, 2, 2, content=name + attribute), "protobuf")


def test_every_request_type_has_a_count() -> None:
    """Honest requests of each signal pass."""
    for request in (spans(3), metrics(3), logs(3)):
        check_entries(request.SerializeToString(), request.DESCRIPTOR)
    check_entries(b"", ExportLogsServiceRequest.DESCRIPTOR)
