"""Log records as Loki keeps them, as the records of the reading interface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from stagelight.conventions import attributes as names
from stagelight.sources._loki import Loki, Record, label, quoted
from stagelight.sources._rows import severity
from stagelight.sources.model import LogRow, Window

__all__ = ["ANY_RECORD", "log_rows", "newest_logs", "selector"]

_SERVICE: Final = label(names.SERVICE_NAME)
_KIND: Final = label(names.STAGELIGHT_RECORD_KIND)

ANY_RECORD: Final = f'{{{_SERVICE}=~".+"}}'
"""Everything that Loki has, usage events too."""

_LOKIS_OWN: Final = frozenset(
    {
        "detected_level",
        "event_name",
        "flags",
        "observed_timestamp",
        "scope_name",
        "scope_version",
        "severity_number",
        "severity_text",
        "severity_text_extracted",
        "span_id",
        "trace_id",
    }
)
_REGISTERED: Final[Mapping[str, str]] = {
    label(name): name for key, name in vars(names).items() if key.isupper() and isinstance(name, str)
}
"""The names of the conventions; of other attributes nobody knows where they had dots."""


def selector(service: str | None = None) -> str:
    """LogQL for all records that are no usage events, or for those of one service."""
    whose = f'{_SERVICE}=~".+"' if service is None else f"{_SERVICE}={quoted(service)}"
    return f'{{{whose}, {_KIND}!="usage"}}'


def newest_logs(loki: Loki, window: Window, limit: int, service: str | None = None) -> list[LogRow]:
    """Log records of the window, newest first."""
    return log_rows(loki.newest(selector(service), window, limit))


def log_rows(records: Iterable[Record]) -> list[LogRow]:
    """Records as rows, in their order."""
    return [_row(record) for record in records]


def _row(record: Record) -> LogRow:
    own = record.metadata
    number = own.get("severity_number", "")
    return LogRow(
        id=record.time_ns,
        time_ns=record.time_ns,
        severity=severity(int(number) if number.isascii() and number.isdigit() and len(number) < 4 else 0),
        service=record.labels.get(_SERVICE) or "-",
        body=record.line,
        event_name=own.get("event_name") or None,
        trace_id=own.get("trace_id") or None,
        span_id=own.get("span_id") or None,
        attributes={_REGISTERED.get(key, key): value for key, value in own.items() if key not in _LOKIS_OWN},
    )
