"""Log events: the ledger of what calls cost, evaluations and feedback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context

from stagelight import _clock
from stagelight._runtime import EventSink
from stagelight.conventions import events as e

__all__ = ["record_event", "record_usage"]


def record_usage(sink: EventSink, attributes: Mapping[str, Any], time_ns: int, context: Context) -> None:
    """Emit the ledger's event of one priced or unpriced call; independent of sampling."""
    _emit(sink, e.STAGELIGHT_USAGE_RECORDED, attributes, time_ns, context)


def record_event(sink: EventSink, name: str, attributes: Mapping[str, Any], context: Context) -> None:
    """Emit an event that happens now."""
    _emit(sink, name, attributes, _clock.wall_ns(), context)


def _emit(sink: EventSink, name: str, attributes: Mapping[str, Any], time_ns: int, context: Context) -> None:
    sink.emit(
        LogRecord(
            timestamp=time_ns,
            observed_timestamp=time_ns,
            context=context,
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            attributes=attributes,
            event_name=name,
        )
    )
