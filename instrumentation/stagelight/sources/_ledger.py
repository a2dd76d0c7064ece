"""What things cost: sums over the ledger of usage events, in decimal and exact."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, tzinfo
from decimal import Context, Decimal
from typing import Any, Final

from stagelight.conventions.attributes import STAGELIGHT_COST_COMPONENTS
from stagelight.sources._turns import TURN_IS_TOP
from stagelight.sources.model import UNKNOWN_KEY, CostDimension, CostRow, LedgerRow, Window

__all__ = ["Spend", "cost_rows", "exact_sum", "ledger_rows", "spend"]

_WIDE: Final = Context(prec=800)  # holds a sum of doubles of any size without rounding
_ZERO: Final = Decimal(0)
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
_DATES_NS: Final = 253_402_214_400 * 1_000_000_000  # 9999-12-31: beyond it there are no dates


@dataclass(slots=True)
class Spend:
    """Sums over calls."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    characters: int = 0
    audio_seconds: float = 0.0
    cost: Decimal = _ZERO
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)

    @property
    def unpriced(self) -> int:
        """Calls without any amount."""
        return self.statuses["unpriced"]

    @property
    def partial(self) -> int:
        """Calls whose amount is a lower bound."""
        return self.statuses["partial"]

    def row(self, key: str, turns: int) -> CostRow:
        """These sums under a key."""
        return CostRow(
            key=key,
            calls=self.calls,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cached_tokens=self.cached_tokens,
            characters=self.characters,
            audio_seconds=self.audio_seconds,
            cost=self.cost,
            exact=self.statuses["exact"],
            estimated=self.statuses["estimated"],
            partial=self.partial,
            unpriced=self.unpriced,
            reasons=dict(self.reasons),
            missing=dict(self.missing),
            turns=turns,
        )


def exact_sum(amounts: Iterable[str]) -> Decimal:
    """Sum of amounts written as decimal text, without any rounding."""
    total = _ZERO
    add = _WIDE.add
    for amount in map(Decimal, amounts):
        total = add(total, amount)
    return total


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
    return sorted(rows, key=lambda row: (-row.cost, -row.calls, row.key))


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
        _add(spends.setdefault(key, Spend()), status, reason, missing, sums)
    return spends


def _add(spent: Spend, status: str, reason: str | None, missing: str | None, sums: Sequence[Any]) -> None:
    calls, *halves, audio_seconds, amounts = sums
    counts = [((high or 0) << 32) + (low or 0) for high, low in zip(halves[::2], halves[1::2], strict=True)]
    spent.calls += calls
    spent.input_tokens += counts[0]
    spent.output_tokens += counts[1]
    spent.cached_tokens += counts[2]
    spent.characters += counts[3]
    spent.audio_seconds += audio_seconds or 0.0
    if amounts:
        spent.cost = _WIDE.add(spent.cost, exact_sum(amounts.split()))
    spent.statuses[status] += calls
    if status == "unpriced":
        spent.reasons[reason or UNKNOWN_KEY] += calls
    if status == "partial" and missing:
        for component in json.loads(missing):
            spent.missing[str(component)] += calls


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
        (window.since_ns, min(window.until_ns, _DATES_NS)),
    ).fetchone()
    if first is None:
        return
    day = datetime.fromtimestamp(first // 1_000_000_000, UTC).astimezone(tz).date()
    start_ns = first
    while start_ns <= last:
        day_after = day + timedelta(days=1)
        # Midnight by the clock of the zone: days with a change of it are longer or shorter.
        end_ns = int(datetime.combine(day_after, time(), tz).timestamp()) * 1_000_000_000
        yield day.isoformat(), Window(start_ns, min(end_ns, window.until_ns))
        day, start_ns = day_after, end_ns


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
