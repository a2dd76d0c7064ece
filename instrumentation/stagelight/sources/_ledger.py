"""What things cost: sums over the ledger of usage events, in decimal and exact."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from datetime import tzinfo
from decimal import Decimal
from typing import Any, Final

from stagelight.conventions.attributes import STAGELIGHT_COST_COMPONENTS
from stagelight.sources._spend import DATES_NS, Spend, Used, by_cost, days, exact_sum
from stagelight.sources._turns import TURN_IS_TOP
from stagelight.sources.model import UNKNOWN_KEY, CostDimension, CostRow, LedgerRow, Window

__all__ = ["cost_rows", "count_turns", "ledger_rows", "spend"]

_COMPONENT: Final = f"{STAGELIGHT_COST_COMPONENTS}."

_COLUMNS: Final[Mapping[CostDimension, str]] = {
    "model": "model",
    "stage": "stage",
    "day": "NULL",
    "feature": "feature",
    "tenant": "tenant",
    "user": "user",
}
# SQLite's sum() fails beyond 63 bits, and a file may hold counts of any size: the halves are summed apart.
_COUNT_SUMS: Final = ", ".join(
    f"sum({column} >> 32), sum({column} & 4294967295)"
    for column in ("input_tokens", "output_tokens", "cached_tokens", "characters")
)


def spend(connection: sqlite3.Connection, window: Window) -> Spend:
    """All of the window in one."""
    return _spends(connection, window, "NULL").get(None, Spend())


def cost_rows(connection: sqlite3.Connection, window: Window, by: CostDimension, tz: tzinfo) -> list[CostRow]:
    """Spend per key, most expensive first; days in order of time."""
    has_turns = _turns_are_known(connection, window)
    if by == "day":
        return [
            found[None].row(label, sum(_turns(connection, day, "NULL").values()) if has_turns else 0)
            for label, day in _days(connection, window, tz)
            if (found := _spends(connection, day, "NULL"))
        ]
    column = _COLUMNS[by]
    per_key = by in {"feature", "tenant", "user"}
    turns = _turns(connection, window, column if per_key else "NULL") if has_turns else {}
    rows = [
        found.row(key if key is not None else UNKNOWN_KEY, turns.get(key if per_key else None, 0))
        for key, found in _spends(connection, window, column).items()
    ]
    return by_cost(rows)


def count_turns(connection: sqlite3.Connection, window: Window) -> int | None:
    """Top-level turns of the window; None when it has calls from before the spans that are still kept."""
    return sum(_turns(connection, window, "NULL").values()) if _turns_are_known(connection, window) else None


def _spends(connection: sqlite3.Connection, window: Window, column: str) -> dict[str | None, Spend]:
    """Sums per value of a column; one pass over the covering index, amounts added up in Python."""
    spends: dict[str | None, Spend] = {}
    groups = connection.execute(
        f"SELECT {column}, cost_status, reason, missing, count(*), {_COUNT_SUMS}, "  # noqa: S608 (our own names)
        "sum(audio_seconds), group_concat(cost, ' ') "
        "FROM usage INDEXED BY usage_cost WHERE time_ns >= ? AND time_ns < ? GROUP BY 1, 2, 3, 4",
        (window.since_ns, window.until_ns),
    )
    for key, status, reason, missing, *sums in groups:
        components = map(str, json.loads(missing)) if missing else ()
        spends.setdefault(key, Spend()).add(_used(*sums), status, reason=reason, missing=components)
    return spends


def _used(calls: int, *sums: Any) -> Used:
    *halves, audio_seconds, amounts = sums
    inputs, outputs, cached, characters = (
        ((high or 0) << 32) + (low or 0) for high, low in zip(halves[::2], halves[1::2], strict=True)
    )
    cost = exact_sum(amounts.split() if amounts else ())
    return Used(calls, (inputs, outputs, cached, characters), audio_seconds or 0.0, cost)


def _turns(connection: sqlite3.Connection, window: Window, column: str) -> dict[str | None, int]:
    """Top-level turns per value of a column."""
    return dict(
        connection.execute(
            f"SELECT {column}, count(*) FROM spans AS turn "  # noqa: S608 (our own names)
            f"WHERE turn.stage = 'turn' AND turn.start_ns >= ? AND turn.start_ns < ? AND {TURN_IS_TOP} GROUP BY 1",
            (window.since_ns, window.until_ns),
        ).fetchall()
    )


def _turns_are_known(connection: sqlite3.Connection, window: Window) -> bool:
    """False when the window has calls from before the spans that are still kept."""
    row = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM usage, meta WHERE meta.key = 'pruned_until_ns' "
        "AND usage.time_ns >= ? AND usage.time_ns < ? AND usage.time_ns <= meta.value)",
        (window.since_ns, window.until_ns),
    ).fetchone()
    return not row[0]


def _days(connection: sqlite3.Connection, window: Window, tz: tzinfo) -> Iterator[tuple[str, Window]]:
    """The days of the window that the ledger reaches, as a label and its part of the window."""
    first, last = connection.execute(
        "SELECT min(time_ns), max(time_ns) FROM usage WHERE time_ns >= ? AND time_ns < ?",
        (window.since_ns, min(window.until_ns, DATES_NS)),
    ).fetchone()
    return iter(()) if first is None else days(first, last, window, tz)


def ledger_rows(connection: sqlite3.Connection, trace_id: bytes) -> Iterator[LedgerRow]:
    """What each call of one trace cost."""
    rows = connection.execute(
        "SELECT span_id, cost, attributes FROM usage WHERE trace_id = ? ORDER BY time_ns, id", (trace_id,)
    )
    for span_id, cost, attributes in rows:
        amounts = {
            key.removeprefix(_COMPONENT): Decimal(repr(value))
            for key, value in json.loads(attributes).items()
            if key.startswith(_COMPONENT) and isinstance(value, int | float) and not isinstance(value, bool)
        }
        yield LedgerRow(
            span_id=span_id.hex() if span_id else None,
            cost=None if cost is None else Decimal(cost),
            components={} if cost is None else amounts,
        )
