"""Failures, counted where they arose: an error that passes through five spans is one error."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final, NamedTuple

from stagelight.conventions import attributes as names
from stagelight.conventions import values
from stagelight.sources.model import UNKNOWN_KEY, ErrorRow, Window

__all__ = ["Origin", "error_rows", "kinds_of", "origins", "origins_of_trace", "without_caused"]

# A vector database's name is no promoted column; failed spans are few enough to look into their JSON, where it
# may be anything.
_FAILED: Final = f"""
SELECT trace_id, span_id, parent_id, start_ns, stage,
  coalesce(provider, CASE json_type(attributes, '$."{names.DB_SYSTEM_NAME}"') WHEN 'text'
    THEN json_extract(attributes, '$."{names.DB_SYSTEM_NAME}"') END) AS provider, model, error_type, outcome
FROM spans AS span {{index}} WHERE failed = 1 AND {{condition}}
  AND NOT (stage IS NULL AND EXISTS (
    SELECT 1 FROM spans AS turn
    WHERE turn.trace_id = span.trace_id AND turn.stage = '{values.Stage.TURN}' AND turn.failed = 0))
ORDER BY start_ns
"""  # noqa: S608 (our own names)


_OF_WINDOW: Final = _FAILED.format(index="INDEXED BY spans_failed", condition="start_ns >= ? AND start_ns < ?")
_OF_TRACE: Final = _FAILED.format(index="", condition="trace_id = ?")


class Origin(NamedTuple):
    """A failed span that did not fail because of one below it."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    start_ns: int
    stage: str | None
    provider: str | None
    model: str | None
    error_type: str | None
    outcome: str | None


def origins(connection: sqlite3.Connection, window: Window) -> list[Origin]:
    """Failures of the window in order of time.

    A span counts when it has a stage or is a root, and no such span below it failed in an unbroken chain of failures.
    The server's span around a turn that did not fail is no failure: the caller hung up, and the turn says so.
    """
    return without_caused(Origin(*row) for row in connection.execute(_OF_WINDOW, (window.since_ns, window.until_ns)))


def origins_of_trace(connection: sqlite3.Connection, trace_id: bytes) -> list[Origin]:
    """Failures of one trace in order of time, by the same rules."""
    return without_caused(Origin(*row) for row in connection.execute(_OF_TRACE, (trace_id,)))


def without_caused(spans: Iterable[Origin]) -> list[Origin]:
    """Of failed spans in order of time, those that did not fail because of one below them."""
    failed = list(spans)
    by_id = {(span.trace_id, span.span_id): span for span in failed}
    caused: set[tuple[bytes, bytes]] = set()
    for span in failed:
        if span.stage is None:
            continue
        above = span.parent_id
        while above is not None and (span.trace_id, above) in by_id and (span.trace_id, above) not in caused:
            caused.add((span.trace_id, above))
            above = by_id[span.trace_id, above].parent_id
    return [
        span
        for span in failed
        if (span.stage is not None or span.parent_id is None) and (span.trace_id, span.span_id) not in caused
    ]


def error_rows(connection: sqlite3.Connection, window: Window) -> list[ErrorRow]:
    """Failures by kind, most frequent first."""
    return kinds_of(origins(connection, window))


def kinds_of(found: Iterable[Origin]) -> list[ErrorRow]:
    """Origins in order of time by kind, most frequent first."""
    kinds: dict[tuple[str | None, ...], list[Origin]] = {}
    for span in found:
        kinds.setdefault((span.stage, span.provider, span.model, span.error_type, span.outcome), []).append(span)
    rows = [
        ErrorRow(
            stage=spans[-1].stage or UNKNOWN_KEY,
            provider=spans[-1].provider,
            model=spans[-1].model,
            error_type=spans[-1].error_type,
            outcome=spans[-1].outcome,
            count=len(spans),
            last_ns=spans[-1].start_ns,
            trace_id=spans[-1].trace_id.hex(),
        )
        for spans in kinds.values()
    ]
    return sorted(rows, key=lambda row: (-row.count, -row.last_ns))
