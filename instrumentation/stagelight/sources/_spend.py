"""Sums of what calls cost, in decimal and exact, and the days they fall on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Context, Decimal
from typing import Final, NamedTuple

from stagelight.sources.model import UNKNOWN_KEY, CostRow, Window

__all__ = ["DATES_NS", "PRICED", "Spend", "Used", "by_cost", "days", "exact_sum"]

_WIDE: Final = Context(prec=800)  # holds a sum of doubles of any size without rounding
_ZERO: Final = Decimal(0)

DATES_NS: Final = 253_402_214_400 * 1_000_000_000
"""9999-12-31: beyond it there are no dates."""

PRICED: Final = frozenset({"exact", "estimated", "partial"})
"""The statuses of a call that has an amount."""


class Used(NamedTuple):
    """What some calls used."""

    calls: int
    counts: tuple[int, int, int, int]
    """Input, output and cached tokens, and characters."""
    audio_seconds: float
    cost: Decimal


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

    def add(self, used: Used, status: str, *, reason: str | None, missing: Iterable[str]) -> None:
        """Add calls of one status.

        Args:
            used: by all of them.
            status: ``exact``, ``estimated``, ``partial`` or ``unpriced``.
            reason: why unpriced ones have no price.
            missing: components without a price of partial ones.
        """
        self.calls += used.calls
        input_tokens, output_tokens, cached_tokens, characters = used.counts
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        self.cached_tokens += cached_tokens
        self.characters += characters
        self.audio_seconds += used.audio_seconds
        self.cost = _WIDE.add(self.cost, used.cost)
        self.statuses[status] += used.calls
        if status == "unpriced":
            self.reasons[reason or UNKNOWN_KEY] += used.calls
        if status == "partial":
            for component in missing:
                self.missing[component] += used.calls

    @property
    def unpriced(self) -> int:
        """Calls without any amount."""
        return self.statuses["unpriced"]

    @property
    def is_priced(self) -> bool:
        """Whether any call has an amount."""
        return self.calls > self.unpriced

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


def by_cost(rows: Iterable[CostRow]) -> list[CostRow]:
    """Rows with the most expensive first."""
    return sorted(rows, key=lambda row: (-row.cost, -row.calls, row.key))


def days(first_ns: int, last_ns: int, window: Window, tz: tzinfo) -> Iterator[tuple[str, Window]]:
    """The days from one moment to another, each as a label and its part of the window.

    Args:
        first_ns: a moment of the first day, before :data:`DATES_NS`.
        last_ns: a moment of the last day.
        window: the first part begins with it, or with its day, and the last part ends with it.
        tz: whose midnight divides days.
    """
    day = datetime.fromtimestamp(first_ns // 1_000_000_000, UTC).astimezone(tz).date()
    start_ns = max(_midnight_ns(day, tz), window.since_ns)
    while start_ns <= last_ns:
        day_after = day + timedelta(days=1)
        end_ns = _midnight_ns(day_after, tz)
        yield day.isoformat(), Window(start_ns, min(end_ns, window.until_ns))
        day, start_ns = day_after, end_ns


def _midnight_ns(day: date, tz: tzinfo) -> int:
    """By the clock of the zone: days with a change of it are longer or shorter."""
    return int(datetime.combine(day, time(), tz).timestamp()) * 1_000_000_000
