"""Spans as Tempo gives them, OTLP in JSON, as the records of the reading interface."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from stagelight.conventions import attributes as names
from stagelight.sources.model import AttributeValue, SpanEvent, SpanLink, SpanRow

__all__ = ["attribute_value", "spans_of"]

_UNKNOWN_SERVICE: Final = "unknown_service"
_KINDS: Final = frozenset({"INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"})
_STATUSES: Final = frozenset({"OK", "ERROR"})


def spans_of(trace: Any) -> Iterator[SpanRow]:
    """The spans of a trace; an answer of another form raises whatever reading it raises."""
    for group in trace.get("resourceSpans", ()):
        resource = _attributes(group.get("resource", {}))
        named = resource.get(names.SERVICE_NAME)
        service = named if isinstance(named, str) and named else _UNKNOWN_SERVICE
        for scoped in group.get("scopeSpans", ()):
            scope = scoped.get("scope", {})
            version = scope.get("version")
            by_whom = f"{scope.get('name', '')}@{version}" if version else scope.get("name", "")
            for span in scoped.get("spans", ()):
                yield _span(span, service, resource, by_whom)


def attribute_value(value: Any) -> AttributeValue:
    """The value of an attribute; 64-bit numbers are text in JSON, and bytes are base64."""
    (kind, content), *_ = (value or {"": None}).items()
    found: AttributeValue = _READERS[kind](content)
    return found


def _array(array: Any) -> AttributeValue:
    return [attribute_value(item) for item in array.get("values", ())]


def _mapping(pairs: Any) -> AttributeValue:
    return {item["key"]: attribute_value(item.get("value")) for item in pairs.get("values", ())}


_READERS: Final[Mapping[str, Callable[[Any], AttributeValue]]] = {
    "stringValue": str,
    "boolValue": bool,
    "intValue": int,
    "doubleValue": float,
    "arrayValue": _array,
    "kvlistValue": _mapping,
    "bytesValue": str,
    "": lambda _: None,
}


def _span(span: Any, service: str, resource: dict[str, AttributeValue], scope: str) -> SpanRow:
    attributes = _attributes(span)
    start_ns, end_ns = int(span["startTimeUnixNano"]), int(span.get("endTimeUnixNano", 0))
    stage = attributes.get(names.STAGELIGHT_STAGE)
    kind = span.get("kind", "").removeprefix("SPAN_KIND_")
    status = span.get("status", {})
    code = status.get("code", "").removeprefix("STATUS_CODE_")
    return SpanRow(
        trace_id=_hexadecimal(span["traceId"], 32),
        span_id=_hexadecimal(span["spanId"], 16),
        parent_id=_parent(span),
        name=span.get("name", ""),
        service=service,
        kind=kind if kind in _KINDS else "UNSPECIFIED",
        start_ns=start_ns,
        duration_ns=max(end_ns - start_ns, 0),
        status=code if code in _STATUSES else "UNSET",
        status_message=(status.get("message") or None) if code in _STATUSES else None,
        stage=stage if isinstance(stage, str) else None,
        attributes=attributes,
        events=tuple(
            SpanEvent(int(event["timeUnixNano"]), event.get("name", ""), _attributes(event))
            for event in span.get("events", ())
        ),
        links=tuple(
            SpanLink(_hexadecimal(link["traceId"], 32), _hexadecimal(link["spanId"], 16), _attributes(link))
            for link in span.get("links", ())
        ),
        resource=resource,
        scope=scope,
    )


def _parent(span: Any) -> str | None:
    parent = _hexadecimal(span.get("parentSpanId", ""), 16)
    return parent if parent.strip("0") else None


def _attributes(owner: Any) -> dict[str, AttributeValue]:
    return {one["key"]: attribute_value(one.get("value")) for one in owner.get("attributes", ())}


def _hexadecimal(text: str, digits: int) -> str:
    """An id as hex digits, from base64 as protobuf's JSON has it."""
    return base64.b64decode(text, validate=True).hex().rjust(digits, "0")
