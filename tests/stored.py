"""What the tests of the store and of the sources share: OTLP requests in one line, and writing them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from stagelight.embedded.batch import Batch, WriteResult
from stagelight.embedded.store import open_readonly
from stagelight.embedded.transform import logs_batch, metrics_batch, traces_batch
from stagelight.embedded.writer import Writer

S = 1_000_000_000
T0 = 1_790_000_000 * S
"""2026-09-21T14:13:20Z: the start of every scene."""


def any_value(value: Any) -> AnyValue:
    """A Python value as OTLP sends it."""
    match value:
        case None:
            return AnyValue()
        case list() | tuple():
            return AnyValue(array_value=ArrayValue(values=[any_value(item) for item in value]))
        case dict():
            return AnyValue(kvlist_value=KeyValueList(values=pairs(value)))
    fields = {bool: "bool_value", int: "int_value", float: "double_value", bytes: "bytes_value", str: "string_value"}
    return AnyValue(**{fields[type(value)]: value})


def pairs(attributes: dict[str, Any]) -> list[KeyValue]:
    """Attributes as OTLP sends them."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def identifier(number: int, size: int) -> bytes:
    """A readable id: the number in the last bytes."""
    return number.to_bytes(size, "big")


def span(
    number: int, *, trace: int = 1, parent: int | None = None, at: float = 0, lasts: float = 1, **more: Any
) -> Span:
    """A span that starts ``at`` seconds after ``T0``.

    Further keywords: ``name``, ``kind``, ``error`` (bool), ``attributes``, and the fields of the message.
    """
    attributes = more.pop("attributes", {})
    if more.pop("error", False):
        more["status"] = Status(code=Status.STATUS_CODE_ERROR)
    start_ns = T0 + round(at * S)
    return Span(
        trace_id=identifier(trace, 16),
        span_id=identifier(number, 8),
        parent_span_id=b"" if parent is None else identifier(parent, 8),
        start_time_unix_nano=start_ns,
        end_time_unix_nano=start_ns + round(lasts * S),
        attributes=pairs(attributes),
        **{"name": f"span {number}", "kind": Span.SPAN_KIND_INTERNAL, **more},
    )


def traces(*spans: Span, service: str = "app") -> ExportTraceServiceRequest:
    """A request with these spans of one program."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.extend(pairs({"service.name": service}))
    scope = resource.scope_spans.add()
    scope.scope.name = "tests"
    scope.spans.extend(spans)
    return request


def record(
    body: Any = "", *, at: float = 0, trace: int | None = None, attributes: Any = None, **more: Any
) -> LogRecord:
    """A log record ``at`` seconds after ``T0``."""
    return LogRecord(
        time_unix_nano=T0 + round(at * S),
        body=any_value(body),
        trace_id=b"" if trace is None else identifier(trace, 16),
        attributes=pairs(attributes or {}),
        **{"severity_number": 9, **more},
    )


def usage(at: float = 0, *, trace: int | None = None, **attributes: Any) -> LogRecord:
    """A usage event; ``_`` in the keywords stands for ``.`` where the names of the ledger have one."""
    return record(at=at, trace=trace, attributes=_named(attributes), event_name="stagelight.usage.recorded")


_USAGE_NAMES = {
    "stage": "stagelight.stage",
    "model": "gen_ai.request.model",
    "provider": "gen_ai.provider.name",
    "feature": "stagelight.feature",
    "tenant": "stagelight.tenant",
    "user": "user.hash",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "characters": "stagelight.usage.characters",
    "audio_seconds": "stagelight.usage.audio_seconds",
    "cost": "stagelight.cost.amount",
    "currency": "stagelight.cost.currency",
    "status": "stagelight.cost.status",
    "reason": "stagelight.cost.reason",
    "missing": "stagelight.cost.missing",
}


def _named(attributes: dict[str, Any]) -> dict[str, Any]:
    return {_USAGE_NAMES[key]: value for key, value in attributes.items()}


def logs(*records: LogRecord, service: str = "app") -> ExportLogsServiceRequest:
    """A request with these log records of one program."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    resource.resource.attributes.extend(pairs({"service.name": service}))
    scope = resource.scope_logs.add()
    scope.scope.name = "tests"
    scope.log_records.extend(records)
    return request


def metrics(*given: Metric, service: str = "app") -> ExportMetricsServiceRequest:
    """A request with these metrics of one program."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.extend(pairs({"service.name": service}))
    scope = resource.scope_metrics.add()
    scope.scope.name = "tests"
    scope.metrics.extend(given)
    return request


def batch_of(request: Any) -> Batch:
    """The rows of any of these requests."""
    transform = {
        ExportTraceServiceRequest: traces_batch,
        ExportLogsServiceRequest: logs_batch,
        ExportMetricsServiceRequest: metrics_batch,
    }[type(request)]
    return transform(request)


def store(path: Path, *requests: Any, **options: Any) -> list[WriteResult]:
    """Write requests to a database with a writer of their own, and stop it."""
    writer = Writer(path, **options)
    writer.start()
    try:
        return [writer.submit(batch_of(request)).result(timeout=60) for request in requests]
    finally:
        assert writer.close(timeout=60)


def query(path: Path, statement: str) -> Sequence[Any]:
    """All rows of a statement."""
    connection = open_readonly(path)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()
