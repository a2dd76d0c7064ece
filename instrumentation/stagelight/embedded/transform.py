"""OTLP requests to rows. Pure functions: what is malformed is left out and counted, the rest is kept."""

from __future__ import annotations

import time
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final

import orjson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from stagelight.conventions import events
from stagelight.embedded.batch import Batch, Group, Resource, Row
from stagelight.embedded.decoding import (
    MAX_AHEAD_NS,
    MalformedError,
    Plans,
    check_text,
    decode,
    fill,
    json_text,
    moment,
    plain,
    resource_of,
    scope_of,
)
from stagelight.embedded.points import metrics_batch
from stagelight.embedded.schema import LOG_COLUMNS, PROMOTED_SPAN, PROMOTED_USAGE, SPAN_COLUMNS, USAGE_COLUMNS

__all__ = ["logs_batch", "metrics_batch", "traces_batch"]

_SPAN_PLANS: Final = Plans(SPAN_COLUMNS, PROMOTED_SPAN)
_SPAN_FACTS: Final = (None,) * len(PROMOTED_SPAN)
_TEXTS: Final = SPAN_COLUMNS.index("status_message")
_FAILED: Final = SPAN_COLUMNS.index("failed")
_ERROR_TYPE: Final = SPAN_COLUMNS.index("error_type")
_ERROR: Final = Status.STATUS_CODE_ERROR
_REMOTE_PARENT: Final = 0x300  # SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
_NO_TRACE: Final = bytes(16)
_NO_SPAN: Final = bytes(8)

_USAGE: Final = {column: position for position, column in enumerate(USAGE_COLUMNS)}
_USAGE_PLANS: Final = Plans(USAGE_COLUMNS, PROMOTED_USAGE)
_COUNTS: Final = tuple((_USAGE[column], key) for key, (column, kind) in PROMOTED_USAGE.items() if kind is int)
_MAX_COUNT: Final = 1 << 53
"""Largest count of a usage event: beyond it no JSON reader and no double is exact, and sums of a few overflow."""
_PRICED: Final = frozenset({"exact", "estimated", "partial"})


def traces_batch(request: ExportTraceServiceRequest) -> Batch:
    """Rows of a trace export request; ``Batch.rejected`` counts spans that cannot be stored."""
    batch = Batch()
    for resource_spans in request.resource_spans:
        if not resource_spans.scope_spans:
            continue
        try:
            resource = resource_of(resource_spans.resource)
            scopes = [(scope_of(scope_spans.scope), scope_spans.spans) for scope_spans in resource_spans.scope_spans]
        except MalformedError as error:
            batch.reject(str(error), sum(len(scope_spans.spans) for scope_spans in resource_spans.scope_spans))
            continue
        for scope, spans in scopes:
            rows = []
            for span in spans:
                try:
                    rows.append(_span_row(span))
                except MalformedError as error:
                    batch.reject(str(error))
            if rows:
                batch.spans.append(Group(resource, scope, rows))
                batch.weigh(rows, _TEXTS)
    return batch


def _span_row(span: Span) -> Row:
    trace_id = span.trace_id
    span_id = span.span_id
    if len(trace_id) != 16 or trace_id == _NO_TRACE:
        raise MalformedError("the trace id of a span is not 16 bytes, or all zero")
    if len(span_id) != 8 or span_id == _NO_SPAN:
        raise MalformedError("the span id of a span is not 8 bytes, or all zero")
    parent_id = span.parent_span_id or None
    if parent_id is not None and len(parent_id) != 8:
        raise MalformedError("the parent id of a span is not 8 bytes")
    if parent_id == _NO_SPAN:
        parent_id = None
    start_ns = span.start_time_unix_nano
    end_ns = span.end_time_unix_nano
    latest_ns = time.time_ns() + MAX_AHEAD_NS
    if not 0 < start_ns <= latest_ns or end_ns > latest_ns:
        raise MalformedError(
            "the start or end time of a span is missing, or more than an hour ahead of this machine's clock"
        )
    status = span.status.code
    row: list[Any] = [
        trace_id, span_id, parent_id, check_text(span.name, "the name of a span"), span.kind, start_ns,
        end_ns - start_ns if end_ns > start_ns else 0, status, 0,
        1 if parent_id is None or span.flags & _REMOTE_PARENT == _REMOTE_PARENT else 0,
        *_SPAN_FACTS,
    ]  # fmt: skip
    attributes = fill(row, span.attributes, _SPAN_PLANS)
    if status == _ERROR or row[_ERROR_TYPE] is not None:
        row[_FAILED] = 1
    row += (
        check_text(span.status.message, "a status message") or None if status else None,
        attributes,
        _events(span.events) if span.events else None,
        _links(span.links) if span.links else None,
    )
    return tuple(row)


def _events(span_events: Iterable[Span.Event]) -> str:
    return _list_text(
        {
            "time_ns": moment(event.time_unix_nano, "the time of a span event"),
            "name": check_text(event.name, "the name of a span event"),
            "attributes": decode(event.attributes),
        }
        for event in span_events
    )


def _links(links: Iterable[Span.Link]) -> str:
    return _list_text(
        {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex(), "attributes": decode(link.attributes)}
        for link in links
    )


def _list_text(items: Iterable[dict[str, Any]]) -> str:
    listed = list(items)
    for item in listed:
        json_text(item["attributes"])
    return orjson.dumps(listed).decode()


def logs_batch(request: ExportLogsServiceRequest, *, received_ns: int | None = None) -> Batch:
    """Rows of a log export request: log records, and the usage events among them as rows of the ledger.

    Args:
        received_ns: time of records that carry none; now by default. Such records are not recognised when sent again.
    """
    received_ns = time.time_ns() if received_ns is None else received_ns
    batch = Batch()
    for resource_logs in request.resource_logs:
        if not resource_logs.scope_logs:
            continue
        try:
            resource = resource_of(resource_logs.resource)
            scopes = [(scope_of(scope_logs.scope), scope_logs.log_records) for scope_logs in resource_logs.scope_logs]
        except MalformedError as error:
            batch.reject(str(error), sum(len(scope_logs.log_records) for scope_logs in resource_logs.scope_logs))
            continue
        for scope, records in scopes:
            logs: list[Row] = []
            usage: list[Row] = []
            for record in records:
                try:
                    if record.event_name == events.STAGELIGHT_USAGE_RECORDED:
                        usage.append(_usage_row(record, resource, scope, received_ns))
                    else:
                        logs.append(_log_row(record, resource, scope, received_ns))
                except MalformedError as error:
                    batch.reject(str(error))
            if logs:
                batch.logs.append(Group(resource, scope, logs))
                batch.weigh(logs, LOG_COLUMNS.index("body"))
            if usage:
                batch.usage.append(Group(resource, scope, usage))
                batch.weigh(usage, _USAGE["attributes"])
    return batch


def _log_row(record: LogRecord, resource: Resource, scope: str, received_ns: int) -> Row:
    body = plain(record.body)
    return (
        *_identity(record, resource, scope, received_ns),
        record.severity_number,
        check_text("" if body is None else body if isinstance(body, str) else orjson.dumps(body).decode(), "a body"),
        check_text(record.event_name, "the name of an event") or None,
        *_ids(record),
        json_text(decode(record.attributes)),
    )


def _usage_row(record: LogRecord, resource: Resource, scope: str, received_ns: int) -> Row:
    row: list[Any] = [*_identity(record, resource, scope, received_ns), *_ids(record), *(None,) * len(PROMOTED_USAGE)]
    attributes = fill(row, record.attributes, _USAGE_PLANS)
    for position, key in _COUNTS:
        if row[position] is not None and abs(row[position]) > _MAX_COUNT:
            raise MalformedError(f"{key} of a usage event is larger than {_MAX_COUNT}")
    amount = row[_USAGE["cost"]]
    if row[_USAGE["cost_status"]] in _PRICED and amount is not None:
        if row[_USAGE["currency"]] in {None, "USD"}:
            row[_USAGE["cost"]] = repr(amount)
        else:  # amounts of different currencies have no sum
            _unprice(row, "no_rate")
    else:
        _unprice(row, row[_USAGE["reason"]] or "bad_usage")
    missing = row[_USAGE["missing"]]
    row[_USAGE["missing"]] = orjson.dumps(missing).decode() if missing else None
    return (*row, attributes)


def _unprice(row: list[Any], reason: str) -> None:
    row[_USAGE["cost"]] = None
    row[_USAGE["cost_status"]] = "unpriced"
    row[_USAGE["reason"]] = reason


def _identity(record: LogRecord, resource: Resource, scope: str, received_ns: int) -> tuple[int, int]:
    """Time and digest of the content: a record that is sent twice has the same, and is stored once."""
    time_ns = moment(record.time_unix_nano or record.observed_time_unix_nano or received_ns, "the time of a log record")
    digest = blake2b(record.SerializeToString(deterministic=True), digest_size=8)
    digest.update(resource.json.encode())
    digest.update(scope.encode())
    return time_ns, int.from_bytes(digest.digest(), "big", signed=True)


def _ids(record: LogRecord) -> tuple[bytes | None, bytes | None]:
    trace_id = record.trace_id or None
    span_id = record.span_id or None
    if trace_id is not None and len(trace_id) != 16:
        raise MalformedError("the trace id of a log record is not 16 bytes")
    if span_id is not None and len(span_id) != 8:
        raise MalformedError("the span id of a log record is not 8 bytes")
    return (None if trace_id == _NO_TRACE else trace_id), (None if span_id == _NO_SPAN else span_id)
