"""structlog processors: the trace a line belongs to, and the line itself as an OpenTelemetry log record.

Example::

    structlog.configure(processors=[
        structlog.processors.add_log_level,
        stagelight.logs.trace_context,
        stagelight.logs.to_opentelemetry,
        structlog.processors.JSONRenderer(),
    ])
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber

from stagelight import _clock, _runtime
from stagelight._guard import guard
from stagelight._lifecycle import error_type
from stagelight._turns import current_turn
from stagelight.conventions import attributes as a

__all__ = ["to_opentelemetry", "trace_context"]

EventDict = MutableMapping[str, Any]

_SEVERITIES = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "warn": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "exception": SeverityNumber.ERROR,
    "critical": SeverityNumber.FATAL,
    "fatal": SeverityNumber.FATAL,
}
_NOT_SENT = frozenset(
    {"event", "level", "timestamp", "exception", "exc_info", "stack", "stack_info", "trace_id", "span_id"}
)
"""Keys that have a field of their own, or that carry messages and stack traces."""


def trace_context(_logger: Any, _method: str, event_dict: EventDict) -> EventDict:
    """Add ``trace_id`` and ``span_id`` (hex) of the current span, and the ``turn``'s name; nothing outside a span."""
    with guard("trace_context"):
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            event_dict["trace_id"] = trace.format_trace_id(span.trace_id)
            event_dict["span_id"] = trace.format_span_id(span.span_id)
        turn = current_turn()
        if turn is not None:
            event_dict.setdefault("turn", turn.name)
    return event_dict


def to_opentelemetry(_logger: Any, method: str, event_dict: EventDict) -> EventDict:
    """Send the line as a log record and pass it on unchanged.

    Text, numbers and switches become attributes, anything else its class name; of an exception only the class is sent,
    because messages and stack traces carry prompts and keys. Place it before the renderer.
    """
    with guard("to_opentelemetry"):
        level = str(event_dict.get("level", method)).lower()
        attributes = {
            key: value if isinstance(value, str | bool | int | float) else type(value).__name__
            for key, value in event_dict.items()
            if key not in _NOT_SENT and value is not None
        }
        attributes[a.STAGELIGHT_RECORD_KIND] = "app"
        error = _error(event_dict.get("exc_info"))
        if error is not None:
            attributes[a.EXCEPTION_TYPE] = error_type(error)
        now_ns = _clock.wall_ns()
        _runtime.current().logger.emit(
            LogRecord(
                timestamp=now_ns,
                observed_timestamp=now_ns,
                context=otel_context.get_current(),
                severity_number=_SEVERITIES.get(level, SeverityNumber.INFO),
                severity_text=level.upper(),
                body=str(event_dict.get("event", "")),
                attributes=attributes,
            )
        )
    return event_dict


def _error(given: Any) -> BaseException | None:
    if given is True:
        return sys.exc_info()[1]
    if isinstance(given, tuple):
        return given[1] if len(given) == 3 else None
    return given if isinstance(given, BaseException) else None
