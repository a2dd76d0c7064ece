"""Traces, and what arrives now."""

from __future__ import annotations

import re
import sqlite3
from typing import Final

from stagelight.sources._failures import origins_of_trace
from stagelight.sources._ledger import ledger_rows
from stagelight.sources._rows import log_rows, span_rows
from stagelight.sources._spend import exact_sum
from stagelight.sources._trace_ids import choose, prefix_of
from stagelight.sources._turns import turns_of_trace
from stagelight.sources.model import LogRow, TailRecord, Trace, TraceRow, Window

__all__ = ["tail", "trace", "trace_rows"]

_CURSOR: Final = re.compile(r"([0-9]{1,19})\.([0-9]{1,19})", re.ASCII)
_MOST_LOGS: Final = 5_000


def trace(connection: sqlite3.Connection, trace_id: str) -> Trace | None:
    """One trace by its id or a unique prefix."""
    prefix = prefix_of(trace_id)
    found = connection.execute(
        "SELECT DISTINCT trace_id FROM spans WHERE trace_id BETWEEN ? AND ? LIMIT 6",
        (bytes.fromhex(prefix.ljust(32, "0")), bytes.fromhex(prefix.ljust(32, "f"))),
    ).fetchall()
    chosen = choose(trace_id, [row[0].hex() for row in found])
    if chosen is None:
        return None
    key = bytes.fromhex(chosen)
    return Trace(
        trace_id=chosen,
        spans=tuple(
            span_rows(
                connection,
                "WHERE spans.trace_id = :trace ORDER BY spans.start_ns, spans.duration_ns DESC, spans.id",
                {"trace": key},
            )
        ),
        logs=tuple(
            log_rows(
                connection,
                "WHERE logs.trace_id = :trace ORDER BY logs.time_ns, logs.id LIMIT :most",
                {"trace": key, "most": _MOST_LOGS},
            )
        ),
        turns=turns_of_trace(connection, key),
        ledger=tuple(ledger_rows(connection, key)),
    )


def trace_rows(connection: sqlite3.Connection, window: Window, limit: int) -> list[TraceRow]:
    """The newest traces that were entered in the window."""
    newest: dict[bytes, None] = {}
    entries = connection.execute(
        "SELECT trace_id FROM spans WHERE entry = 1 AND start_ns >= ? AND start_ns < ? ORDER BY start_ns DESC",
        (window.since_ns, window.until_ns),
    )
    for (trace_id,) in entries:
        if trace_id not in newest:
            if len(newest) == limit:
                break
            newest[trace_id] = None
    entries.close()
    rows = [_trace_row(connection, trace_id) for trace_id in newest]
    return sorted(rows, key=lambda row: row.start_ns, reverse=True)


def _trace_row(connection: sqlite3.Connection, trace_id: bytes) -> TraceRow:
    spans, failed, start_ns, end_ns = connection.execute(
        "SELECT count(*), sum(failed), min(start_ns), max(start_ns + duration_ns) FROM spans WHERE trace_id = ?",
        (trace_id,),
    ).fetchone()
    name, service = connection.execute(
        "SELECT spans.name, resource.service FROM spans LEFT JOIN resource ON resource.id = spans.resource_id "
        "WHERE spans.trace_id = ? ORDER BY spans.parent_id IS NOT NULL, spans.entry DESC, spans.start_ns LIMIT 1",
        (trace_id,),
    ).fetchone()
    amounts = connection.execute(
        "SELECT cost FROM usage WHERE trace_id = ? AND cost IS NOT NULL", (trace_id,)
    ).fetchall()
    return TraceRow(
        trace_id=trace_id.hex(),
        name=name,
        service=service or "-",
        start_ns=start_ns,
        duration_ns=int(end_ns) - start_ns,
        spans=spans,
        errors=len(origins_of_trace(connection, trace_id)) if failed else 0,
        cost=exact_sum(amount for (amount,) in amounts) if amounts else None,
    )


def tail(connection: sqlite3.Connection, after: str | None, limit: int) -> tuple[list[TailRecord], str]:
    """What arrived after the cursor, oldest first, and the next cursor."""
    ends = tuple(
        connection.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0]  # noqa: S608 (our own names)
        for table in ("spans", "logs")
    )
    if after is None:
        return [], _cursor(*ends)
    match = _CURSOR.fullmatch(after)
    if match is None:
        raise ValueError(f"cursor {after!r}: accepted is what an earlier call returned")
    # After a deletion of everything the numbers start again below the cursor.
    last_span, last_log = (min(int(number), end) for number, end in zip(match.groups(), ends, strict=True))
    parameters = {"limit": limit, "span": last_span, "log": last_log}
    spans = span_rows(connection, "WHERE spans.id > :span ORDER BY spans.id LIMIT :limit", parameters)
    logs = log_rows(connection, "WHERE logs.id > :log ORDER BY logs.id LIMIT :limit", parameters)
    if spans:
        last_span = connection.execute(
            "SELECT max(id) FROM (SELECT id FROM spans WHERE id > :span ORDER BY id LIMIT :limit)", parameters
        ).fetchone()[0]
    if logs:
        last_log = logs[-1].id
    records: list[TailRecord] = sorted([*spans, *logs], key=_time_ns)
    return records, _cursor(last_span, last_log)


def _cursor(last_span: int, last_log: int) -> str:
    return f"{last_span}.{last_log}"


def _time_ns(record: TailRecord) -> int:
    return record.time_ns if isinstance(record, LogRow) else record.start_ns
