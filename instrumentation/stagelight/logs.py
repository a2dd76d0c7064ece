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

import re
import sys
from collections.abc import Iterator, MutableMapping
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber

from stagelight import _clock, _runtime
from stagelight._guard import guard
from stagelight._inbound import current_inbound
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
    {"event", "level", "timestamp", "exception", "exc_info", "stack", "stack_info", "trace_id", "span_id", "request_id"}
)
"""Keys that have a field of their own, or that carry messages and stack traces."""

_IDS: Final = {
    "user_id": a.USER_HASH,
    "enduser_id": a.USER_HASH,
    "session_id": a.SESSION_ID,
}
"""Ids of people, ``.`` and ``-`` read as ``_``: only a pseudonym of them is sent."""
_CREDENTIAL: Final = re.compile(
    r"authorization|cookie|passw(or)?d|passphrase|secret|credential|(api|access|account|private|signing|encryption)_?key"
    r"|(^|_)(pwd|jwt|bearer)(_|$)|(?<!first_)(?<!per_)token$"
)
"""Names of keys whose values open doors, in lower case with ``_`` for ``.`` and ``-``."""
_MOST_BYTES: Final = 8192
_INTEGERS: Final = range(-(2**63), 2**63)


def trace_context(_logger: Any, _method: str, event_dict: EventDict) -> EventDict:
    """Add ``trace_id`` and ``span_id`` (hex) of the current span, the turn as ``turn``, and the ``request_id``."""
    with guard("trace_context"):
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            event_dict["trace_id"] = trace.format_trace_id(span.trace_id)
            event_dict["span_id"] = trace.format_span_id(span.span_id)
        turn = current_turn()
        if turn is not None:
            event_dict.setdefault("turn", turn.name)
        inbound = current_inbound()
        if inbound is not None and inbound.request_id is not None:
            event_dict.setdefault("request_id", inbound.request_id)
    return event_dict


def to_opentelemetry(_logger: Any, method: str, event_dict: EventDict) -> EventDict:
    """Send the line as a log record and pass it on unchanged.

    The event's text, and values that are text, numbers or switches, are sent **as given**: keep prompts and personal
    data out of them, or place a processor that removes them before this one. Text ends after 8 KB; a value of another
    kind is sent as its class name, and of an exception only the class, because messages and stack traces carry prompts
    and keys. Two kinds of keys, in any case and with ``.``, ``-`` or ``_``, are not sent as given:

    * ``user_id``, ``enduser_id``, ``session_id``: sent as the pseudonyms ``user.hash`` and ``session.id`` that turns
      have; without a key (``STAGELIGHT_ID_KEY``) dropped.
    * names of credentials, such as ``authorization``, ``cookie``, ``password``, ``access_token``, ``client_secret``,
      ``x-api-key``: dropped.

    Place it before the renderer.
    """
    with guard("to_opentelemetry"):
        level = str(event_dict.get("level", method)).lower()
        attributes = dict(_sent(event_dict))
        attributes[a.STAGELIGHT_RECORD_KIND] = "app"
        inbound = current_inbound()
        if inbound is not None and inbound.request_id is not None:
            attributes[a.STAGELIGHT_REQUEST_ID] = inbound.request_id
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
                body=_cut(str(event_dict.get("event", ""))),
                attributes=attributes,
            )
        )
    return event_dict


def _sent(event_dict: EventDict) -> Iterator[tuple[str, Any]]:
    for key, value in event_dict.items():
        if value is None or key in _NOT_SENT:
            continue
        name = key.lower().replace(".", "_").replace("-", "_")
        if name in _IDS:
            pseudonyms = _runtime.current().pseudonyms
            if pseudonyms is not None and isinstance(value, str | int):
                yield _IDS[name], pseudonyms.of(str(value))
        elif not _CREDENTIAL.search(name):
            yield key, _plain(value)


def _plain(value: Any) -> str | bool | int | float:
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, bool | float) or (isinstance(value, int) and value in _INTEGERS):
        return value
    return type(value).__name__


def _cut(text: str) -> str:
    return text[:_MOST_BYTES].encode("utf-8", "replace")[:_MOST_BYTES].decode("utf-8", "ignore")


def _error(given: Any) -> BaseException | None:
    if given is True:
        return sys.exc_info()[1]
    if isinstance(given, tuple):
        return given[1] if len(given) == 3 else None
    return given if isinstance(given, BaseException) else None
