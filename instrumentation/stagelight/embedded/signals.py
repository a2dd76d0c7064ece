"""The three signals of OTLP: what a request looks like in protobuf and in JSON, and how it is answered."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from google.protobuf import json_format  # type: ignore[import-untyped, unused-ignore]  # ships no types
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped, unused-ignore]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from stagelight.embedded.batch import Batch
from stagelight.embedded.refusal import Malformed, TooLarge
from stagelight.embedded.transform import logs_batch, metrics_batch, traces_batch
from stagelight.embedded.wire import NotProtobufError, check_entries

__all__ = ["MAX_JSON_NODES", "SIGNALS", "Encoding", "Signal"]

Encoding = Literal["protobuf", "json"]

MAX_JSON_NODES = 1_000_000
"""Objects and lists of one request in JSON; an empty one has 3 bytes as sent and about 100 in memory."""

_HEX_IDS = {"traceId": 32, "trace_id": 32, "spanId": 16, "span_id": 16, "parentSpanId": 16, "parent_span_id": 16}
"""JSON keys whose value is hex in OTLP, where protobuf's own JSON has base64, and the digits of a valid id.
In a well-formed request no other object has these keys: attribute keys are values of ``key``."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal of OTLP."""

    name: str
    service: str
    """Full name of its gRPC service; the method is always ``Export``."""
    rejected_field: str
    """Field of a partial success that counts rejected items."""
    request: Callable[[], Any]
    response: Callable[[], Any]
    to_batch: Callable[[Any], Batch]

    @property
    def path(self) -> str:
        """Where OTLP/HTTP posts it."""
        return f"/v1/{self.name}"

    def batch(self, body: bytes, encoding: Encoding) -> Batch:
        """Rows of a request body.

        Raises:
            Malformed: the body is not a request of this signal, or every item in it is invalid.
            TooLarge: it has too many entries.
        """
        message = self.request()
        if encoding == "json":
            _parse_json(body, message)
        else:
            try:
                check_entries(body, message.DESCRIPTOR)
                message.ParseFromString(body)
            except (NotProtobufError, DecodeError) as error:
                raise Malformed(f"the body is not an OTLP {self.name} request in protobuf: {error}") from None
        batch = self.to_batch(message)
        if batch.rejected and batch.is_empty:
            raise Malformed(f"no item of the {self.name} request is valid: {batch.reason}")
        return batch

    def answer(self, encoding: Encoding, *, rejected: int = 0, reason: str = "") -> bytes:
        """Body of a success; with ``rejected`` items it is a partial one."""
        response = self.response()
        if rejected:
            setattr(response.partial_success, self.rejected_field, rejected)
            response.partial_success.error_message = reason
        if encoding == "protobuf":
            return bytes(response.SerializeToString())
        return orjson.dumps(json_format.MessageToDict(response))


SIGNALS: tuple[Signal, ...] = (
    Signal(
        name="traces",
        service="opentelemetry.proto.collector.trace.v1.TraceService",
        rejected_field="rejected_spans",
        request=ExportTraceServiceRequest,
        response=ExportTraceServiceResponse,
        to_batch=traces_batch,
    ),
    Signal(
        name="metrics",
        service="opentelemetry.proto.collector.metrics.v1.MetricsService",
        rejected_field="rejected_data_points",
        request=ExportMetricsServiceRequest,
        response=ExportMetricsServiceResponse,
        to_batch=metrics_batch,
    ),
    Signal(
        name="logs",
        service="opentelemetry.proto.collector.logs.v1.LogsService",
        rejected_field="rejected_log_records",
        request=ExportLogsServiceRequest,
        response=ExportLogsServiceResponse,
        to_batch=logs_batch,
    ),
)


def _parse_json(body: bytes, message: Message) -> None:
    if body.count(b"{") + body.count(b"[") > MAX_JSON_NODES:
        raise TooLarge(f"the request has more than {MAX_JSON_NODES} objects and lists: send fewer at a time")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise Malformed(f"the body is JSON of type {type(document).__name__}: an OTLP request is an object")
    for node in _objects(document):
        for key in _HEX_IDS.keys() & node.keys():
            node[key] = _base64_of_hex(key, node[key])
    try:
        json_format.ParseDict(document, message, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise Malformed(f"the body is not an OTLP request in JSON: {error}") from None


def _objects(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object of a JSON document; a stack of our own, because hostile nesting would exhaust Python's."""
    pending: list[Any] = [document]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


def _base64_of_hex(key: str, value: object) -> str:
    if value is None or value == "":
        return ""
    digits = _HEX_IDS[key]
    if not isinstance(value, str) or len(value) != digits:
        raise Malformed(f"{key}={str(value)[:40]!r}: an id is {digits} hex digits in OTLP/JSON")
    try:
        return base64.b64encode(binascii.unhexlify(value)).decode()
    except ValueError:
        raise Malformed(f"{key}={value[:40]!r}: an id is {digits} hex digits in OTLP/JSON") from None
