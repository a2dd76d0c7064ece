"""OTLP bytes of spans and log records, five times faster than through message objects.

The official encoder builds one Python object per attribute, and one lone surrogate in a name costs it the batch; here
every field is written once, what repeats (keys, names of models, providers, stages) comes from a cache, and nothing in
one item can lose another. A test compares both encoders on random input.

Field numbers: opentelemetry/proto/trace/v1/trace.proto, logs/v1/logs.proto (OTLP 1.x).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status, StatusCode

from stagelight.export.otlp_values import BYTE, attributes, field, fixed32, fixed64, text, value, varint
from stagelight.export.urls import is_ours, safe, without_secrets

__all__ = ["logs_request", "spans_request"]

Item = TypeVar("Item", ReadableSpan, ReadableLogRecord)

_LOCAL, _REMOTE = fixed32(0x100), fixed32(0x300)  # SpanFlags of trace.proto: whether it is known, and that it is
_KINDS = (1, 2, 3, 4, 5)  # SpanKind of the API counts from 0, the protocol's from 1
_TRACE_ID, _SPAN_ID = (1 << 128) - 1, (1 << 64) - 1


def _trace_id(number: int) -> bytes:
    return (number & _TRACE_ID).to_bytes(16, "big")


def _span_id(number: int) -> bytes:
    return (number & _SPAN_ID).to_bytes(8, "big")


def _time(tag: bytes, nanoseconds: int | None) -> bytes:
    if type(nanoseconds) is not int or not 0 <= nanoseconds < 1 << 64:
        return b""  # not known, or nonsense given by the application
    return tag + fixed64(nanoseconds)


def _count(tag: int, number: int) -> bytes:
    return BYTE[tag] + varint(number) if number else b""


def _body(given: Any) -> bytes:
    try:
        return value(given)
    except (TypeError, ValueError):
        return b""


def _flags(context: SpanContext | None) -> bytes:
    return _REMOTE if context is not None and context.is_remote else _LOCAL


def _event(event: Event) -> bytes:
    return b"".join(
        (
            _time(b"\x09", event.timestamp),
            text(0x12, str(event.name)),
            attributes(_said(event) if event.name == "exception" else event.attributes, 0x1A),
            _count(0x20, event.dropped_attributes),
        )
    )


def _said(event: Event) -> dict[str, Any]:
    """What an exception says, which may quote the URL of a call."""
    given = event.attributes or {}
    return {key: without_secrets(value) if isinstance(value, str) else value for key, value in given.items()}


def _link(link: Link) -> bytes:
    context = link.context
    ids = b"\x0a\x10" + _trace_id(context.trace_id) + b"\x12\x08" + _span_id(context.span_id)
    dropped = _count(0x28, link.dropped_attributes)
    return ids + attributes(link.attributes, 0x22) + dropped + b"\x35" + _flags(context)


def _rare(span: ReadableSpan, context: SpanContext) -> bytes:
    """What few spans have: trace state, events, links, counts of what was dropped."""
    parts = [
        _count(0x50, span.dropped_attributes),
        _count(0x60, span.dropped_events),
        _count(0x70, span.dropped_links),
    ]
    if context.trace_state:
        parts.append(text(0x1A, ",".join([f"{key}={state}" for key, state in context.trace_state.items()])))
    parts += [field(0x5A, _event(event)) for event in span.events]
    parts += [field(0x6A, _link(link)) for link in span.links]
    return b"".join(parts)


def _status(status: Status | None) -> bytes:
    if status is None:
        return b""
    code = status.status_code
    if code is StatusCode.UNSET and not status.description:
        return b"\x7a\x00"
    written = b"\x18" + BYTE[code.value] if code.value else b""
    said = text(0x12, without_secrets(status.description)) if status.description else b""
    return field(0x7A, said + written)


def _span(span: ReadableSpan) -> bytes:
    context, parent, name = span.context, span.parent, span.name
    parts = [b"\x0a\x10", _trace_id(context.trace_id), b"\x12\x08", _span_id(context.span_id)]
    if parent is not None:
        parts += (b"\x22\x08", _span_id(parent.span_id))
    parts += (
        text(0x2A, name if isinstance(name, str) else str(name)),
        b"\x30" + BYTE[_KINDS[span.kind.value]],
        _time(b"\x39", span.start_time),
        _time(b"\x41", span.end_time),
        attributes(span.attributes if is_ours(span) else safe(span.attributes), 0x4A),
        _rare(span, context),
        _status(span.status),
        b"\x85\x01",
        _flags(parent),
    )
    return b"".join(parts)


def _log(readable: ReadableLogRecord) -> bytes:
    record = readable.log_record
    parts = [_time(b"\x09", record.timestamp)]
    if record.severity_number is not None and record.severity_number.value:
        parts.append(b"\x10" + varint(record.severity_number.value))
    if record.severity_text:
        parts.append(text(0x1A, record.severity_text))
    parts += (
        field(0x2A, _body(record.body)),
        attributes(record.attributes, 0x32),
        _count(0x38, readable.dropped_attributes),
    )
    if record.trace_flags:
        parts += (b"\x45", fixed32(int(record.trace_flags)))
    if record.trace_id:
        parts += (b"\x4a\x10", _trace_id(record.trace_id))
    if record.span_id:
        parts += (b"\x52\x08", _span_id(record.span_id))
    parts.append(_time(b"\x59", record.observed_timestamp))
    if record.event_name:
        parts.append(text(0x62, record.event_name))
    return b"".join(parts)


def _scope(scope: InstrumentationScope | None) -> bytes:
    if scope is None:
        return field(0x0A, b"")
    name, version = text(0x0A, scope.name or ""), text(0x12, scope.version) if scope.version else b""
    return field(0x0A, name + version + attributes(scope.attributes, 0x1A))


def _schema(of: Resource | InstrumentationScope | None) -> bytes:
    return text(0x1A, of.schema_url) if of is not None and of.schema_url else b""


class _Group(NamedTuple):
    """The items of one resource, written, by their scope."""

    resource: Resource
    by_scope: dict[InstrumentationScope | None, list[bytes]]


def _request(items: Iterable[Item], write: Callable[[Item], bytes]) -> bytes:
    groups: dict[int, _Group] = {}  # by identity: a Resource hashes itself through JSON
    for item in items:
        resource = item.resource
        group = groups.get(id(resource))
        if group is None:
            group = groups[id(resource)] = _Group(resource, {})
        group.by_scope.setdefault(item.instrumentation_scope, []).append(field(0x12, write(item)))
    out = []
    for resource, by_scope in groups.values():
        scopes = [
            field(0x12, _scope(scope) + b"".join(written) + _schema(scope)) for scope, written in by_scope.items()
        ]
        head = field(0x0A, attributes(resource.attributes, 0x0A))
        out.append(field(0x0A, head + b"".join(scopes) + _schema(resource)))
    return b"".join(out)


def spans_request(spans: Sequence[ReadableSpan]) -> bytes:
    """The serialised ``ExportTraceServiceRequest`` of a batch."""
    return _request(spans, _span)


def logs_request(records: Sequence[ReadableLogRecord]) -> bytes:
    """The serialised ``ExportLogsServiceRequest`` of a batch."""
    return _request(records, _log)
