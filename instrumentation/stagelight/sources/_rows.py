"""Rows of the embedded store as the records of the reading interface."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from stagelight.embedded.schema import PROMOTED_SPAN
from stagelight.sources.model import LogRow, SpanEvent, SpanLink, SpanRow

__all__ = ["log_rows", "severity", "span_rows"]

_KINDS: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES: Final = ("UNSET", "OK", "ERROR")
_SEVERITIES: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_KEPT_CHARACTERS: Final = 4096  # longer resources are parsed each time: the cache counts entries, not bytes
_FACTS: Final = tuple(PROMOTED_SPAN)
_FACT_COLUMNS: Final = ", ".join(f"spans.{column}" for column, _ in PROMOTED_SPAN.values())

_SPANS: Final = f"""
SELECT spans.trace_id, spans.span_id, spans.parent_id, spans.name, spans.kind, spans.start_ns, spans.duration_ns,
  spans.status, spans.status_message, spans.stage, spans.attributes, spans.events, spans.links,
  resource.service, resource.json, scope.name, {_FACT_COLUMNS}
FROM spans LEFT JOIN resource ON resource.id = spans.resource_id LEFT JOIN scope ON scope.id = spans.scope_id
"""  # noqa: S608 (our own names)

_LOGS: Final = """
SELECT logs.id, logs.time_ns, logs.severity, resource.service, logs.body, logs.event_name, logs.trace_id,
  logs.span_id, logs.attributes
FROM logs LEFT JOIN resource ON resource.id = logs.resource_id
"""

Parameters = Mapping[str, Any]


def span_rows(connection: sqlite3.Connection, rest: str, parameters: Parameters) -> list[SpanRow]:
    """Spans of a query that ends with ``rest`` (``WHERE ...``)."""
    return [_span(row) for row in connection.execute(_SPANS + rest, parameters)]


def log_rows(connection: sqlite3.Connection, rest: str, parameters: Parameters) -> list[LogRow]:
    """Log records of a query that ends with ``rest`` (``WHERE ...``)."""
    return [_log(row) for row in connection.execute(_LOGS + rest, parameters)]


def _span(row: tuple[Any, ...]) -> SpanRow:
    (
        trace_id, span_id, parent_id, name, kind, start_ns, duration_ns,
        status, status_message, stage, attributes, events, links, service, resource, scope,
    ) = row[:16]  # fmt: skip
    facts = {key: value for key, value in zip(_FACTS, row[16:], strict=True) if value is not None}
    return SpanRow(
        trace_id=trace_id.hex(),
        span_id=span_id.hex(),
        parent_id=parent_id.hex() if parent_id else None,
        name=name,
        service=service or "-",
        kind=_word(_KINDS, kind),
        start_ns=start_ns,
        duration_ns=duration_ns,
        status=_word(_STATUSES, status),
        status_message=status_message,
        stage=stage,
        attributes=facts | json.loads(attributes),
        events=tuple(SpanEvent(**event) for event in json.loads(events)) if events else (),
        links=tuple(SpanLink(**link) for link in json.loads(links)) if links else (),
        resource=_resource(resource) if resource else {},
        scope=scope or "",
    )


def _log(row: tuple[Any, ...]) -> LogRow:
    number, time_ns, number_of_severity, service, body, event_name, trace_id, span_id, attributes = row
    return LogRow(
        id=number,
        time_ns=time_ns,
        severity=severity(number_of_severity),
        service=service or "-",
        body=body,
        event_name=event_name,
        trace_id=trace_id.hex() if trace_id else None,
        span_id=span_id.hex() if span_id else None,
        attributes=json.loads(attributes),
    )


def severity(number: int) -> str:
    """The word of OTLP's severity number, four numbers per word: 9 to 12 are INFO to INFO4."""
    return _SEVERITIES[(number - 1) // 4] if 1 <= number <= 24 else "-"


def _word(words: tuple[str, ...], number: int) -> str:
    """The word of an enumeration; a number that a later version of OTLP may add reads as the unspecified one."""
    return words[number] if 0 <= number < len(words) else words[0]


def _resource(text: str) -> dict[str, Any]:
    return _parsed(text) if len(text) <= _KEPT_CHARACTERS else _parsed.__wrapped__(text)


@lru_cache(maxsize=256)
def _parsed(text: str) -> dict[str, Any]:
    attributes: dict[str, Any] = json.loads(text)
    return attributes
