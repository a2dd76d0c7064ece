"""What things cost: sums over the usage events in Loki.

Up to :data:`MOST_EVENTS` events are read one by one and summed in decimal, without rounding. More are summed by Loki,
in doubles: about 15 significant digits, of which twelve decimal places are taken.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import tzinfo
from decimal import Context, Decimal, InvalidOperation
from typing import Final

from stagelight.conventions import attributes as names
from stagelight.sources._loki import Loki, Record, TooManyRecords, label, quoted
from stagelight.sources._spend import DATES_NS, PRICED, Spend, Used, days, exact_sum
from stagelight.sources.model import UNKNOWN_KEY, CostDimension, LedgerRow, Window

__all__ = ["DIMENSIONS", "MOST_EVENTS", "Ledger", "trace_cost"]

MOST_EVENTS: Final = 50_000
"""Events of one question that are read one by one; more are summed by Loki."""

DIMENSIONS: Final[Mapping[CostDimension, str]] = {
    "model": names.GEN_AI_REQUEST_MODEL,
    "stage": names.STAGELIGHT_STAGE,
    "feature": names.STAGELIGHT_FEATURE,
    "tenant": names.STAGELIGHT_TENANT,
    "user": names.USER_HASH,
}
"""The attribute behind each dimension but the day."""

_KIND: Final = label(names.STAGELIGHT_RECORD_KIND)
_EVENTS: Final = f'{{{_KIND}="usage"}}'
_STATUS: Final = label(names.STAGELIGHT_COST_STATUS)
_REASON: Final = label(names.STAGELIGHT_COST_REASON)
_MISSING: Final = label(names.STAGELIGHT_COST_MISSING)
_CURRENCY: Final = label(names.STAGELIGHT_COST_CURRENCY)
_COST: Final = label(names.STAGELIGHT_COST_AMOUNT)
_AUDIO: Final = label(names.STAGELIGHT_USAGE_AUDIO_SECONDS)
_INPUT: Final = label(names.GEN_AI_USAGE_INPUT_TOKENS)
_OUTPUT: Final = label(names.GEN_AI_USAGE_OUTPUT_TOKENS)
_CACHED: Final = label(names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS)
_CHARACTERS: Final = label(names.STAGELIGHT_USAGE_CHARACTERS)
_SUMMED: Final = (_INPUT, _OUTPUT, _CACHED, _CHARACTERS, _AUDIO, _COST)
_COMPONENT: Final = f"{label(names.STAGELIGHT_COST_COMPONENTS)}_"
_GROUP: Final = (_STATUS, _REASON, _MISSING, _CURRENCY)
_TRACES_AT_ONCE: Final = 50
_MOST_OF_TRACES: Final = 20_000
_PLACES: Final = Decimal("1e-12")
_WIDE: Final = Context(prec=400)

Spends = dict[str | None, Spend]


class Ledger:
    """The usage events.

    Args:
        loki: where they are.
        most: events that are read one by one for an answer.
    """

    def __init__(self, loki: Loki, *, most: int = MOST_EVENTS) -> None:
        self._loki = loki
        self._most = most

    def spends(self, window: Window, by: CostDimension | None) -> Spends:
        """Sums per value of a dimension that is not the day; under None those that have none, or all."""
        key = label(DIMENSIONS[by]) if by else None
        spends: Spends = {}
        try:
            for event in self._events(window, [key] if key else []):
                _add(spends.setdefault(event.metadata.get(key) if key else None, Spend()), event.metadata)
        except TooManyRecords:
            return self._summed(window, key)
        return spends

    def days(self, window: Window, tz: tzinfo) -> list[tuple[str, Window, Spend]]:
        """Sums of each day that has calls, in order of time, with the day's part of the window."""
        within = Window(window.since_ns, min(window.until_ns, DATES_NS))
        first_ns = self._loki.edge(_EVENTS, within, newest=False)
        last_ns = self._loki.edge(_EVENTS, within, newest=True)
        if first_ns is None or last_ns is None:
            return []
        return [
            (day, part, found[None])
            for day, part in days(first_ns, last_ns, window, tz)
            if (found := self.spends(part, None))
        ]

    def first_ns(self, window: Window) -> int | None:
        """Time of the first call of the window; None when it has none."""
        return self._loki.edge(_EVENTS, window, newest=False)

    def last_ns(self, window: Window) -> int | None:
        """Time of the last call of the window; None when it has none."""
        return self._loki.edge(_EVENTS, window, newest=True)

    def over_time(self, window: Window, width_ns: int) -> Iterator[tuple[int, str, float]]:
        """Spend by step and model: number of the step, model, US dollars."""
        key = label(DIMENSIONS["model"])
        steps: dict[tuple[int, str], Spend] = {}
        try:
            for event in self._events(window, [key]):
                place = (event.time_ns - window.since_ns) // width_ns, event.metadata.get(key, UNKNOWN_KEY)
                _add(steps.setdefault(place, Spend()), event.metadata)
        except TooManyRecords:
            steps.clear()
            for step, start_ns in enumerate(range(window.since_ns, window.until_ns, width_ns)):
                part = Window(start_ns, min(start_ns + width_ns, window.until_ns))
                for model, spent in self.spends(part, "model").items():
                    steps[step, UNKNOWN_KEY if model is None else model] = spent
        return ((step, model, float(spent.cost)) for (step, model), spent in steps.items() if spent.is_priced)

    def of_traces(self, trace_ids: Sequence[str], window: Window) -> dict[str, list[LedgerRow]]:
        """What each call of some traces cost, in order of time.

        Args:
            trace_ids: 32 hex digits each.
            window: in which the events are looked for.
        """
        rows: dict[str, list[LedgerRow]] = {}
        for at in range(0, len(trace_ids), _TRACES_AT_ONCE):
            chosen = quoted("|".join(trace_ids[at : at + _TRACES_AT_ONCE]))
            query = f"{_EVENTS} | trace_id=~{chosen}"
            for event in self._loki.records(query, window, most=_MOST_OF_TRACES):
                rows.setdefault(event.metadata["trace_id"], []).append(_ledger_row(event))
        return rows

    def _events(self, window: Window, keys: Iterable[str]) -> Iterator[Record]:
        kept = ", ".join([*keys, *_GROUP, *_SUMMED])
        return self._loki.records(f"{_EVENTS} | keep {kept}", window, most=self._most)

    def _summed(self, window: Window, key: str | None) -> Spends:
        """The same by Loki's own sums, for more events than can be read."""
        group = ", ".join([*([key] if key else []), *_GROUP])
        sums: dict[tuple[str, ...], dict[str, float]] = {}

        def read(value: str, aggregation: str, pipeline: str) -> None:
            for labels, number in self._loki.total(f"sum by ({group}) ({aggregation}({{}}))", pipeline, window):
                identity = tuple(labels.get(name, "") for name in (key or "", *_GROUP))
                sums.setdefault(identity, {})[value] = number

        read("calls", "count_over_time", _EVENTS)
        for value in _SUMMED:
            read(value, "sum_over_time", f'{_EVENTS} | unwrap {value} | __error__=""')
        spends: Spends = {}
        for (own, *group_values), numbers in sums.items():
            fields = {name: text for name, text in zip(_GROUP, group_values, strict=True) if text}
            cost = _rounded(numbers.get(_COST))
            counts = _counts({name: round(number) for name, number in numbers.items() if math.isfinite(number)})
            used = Used(round(numbers.get("calls", 0)), counts, numbers.get(_AUDIO, 0.0), cost or Decimal(0))
            _add_used(spends.setdefault(own or None, Spend()), fields, used, has_amount=cost is not None)
        return spends


def _add(spent: Spend, fields: Mapping[str, str]) -> None:
    amount = _amount(fields.get(_COST))
    counts = _counts({name: _whole(text) for name, text in fields.items()})
    used = Used(1, counts, _seconds(fields.get(_AUDIO)), amount or Decimal(0))
    _add_used(spent, fields, used, has_amount=amount is not None)


def _add_used(spent: Spend, fields: Mapping[str, str], used: Used, *, has_amount: bool) -> None:
    """Add calls by the rules of the embedded store: amounts of different currencies have no sum."""
    status, reason = fields.get(_STATUS, ""), fields.get(_REASON)
    if status not in PRICED or not has_amount:
        status, reason = "unpriced", reason or "bad_usage"
    elif fields.get(_CURRENCY, "USD") != "USD":
        status, reason = "unpriced", "no_rate"
    if status == "unpriced":
        used = used._replace(cost=Decimal(0))
    spent.add(used, status, reason=reason, missing=_components(fields.get(_MISSING)))


def _ledger_row(event: Record) -> LedgerRow:
    spent = Spend()
    _add(spent, event.metadata)
    amounts = {
        name.removeprefix(_COMPONENT): amount
        for name, text in event.metadata.items()
        if name.startswith(_COMPONENT) and (amount := _amount(text)) is not None
    }
    cost = None if spent.unpriced else spent.cost
    return LedgerRow(event.metadata.get("span_id") or None, cost, {} if cost is None else amounts)


def _components(text: str | None) -> list[str]:
    """Names from an attribute that is a list, which Loki keeps as JSON."""
    with suppress(ValueError, RecursionError):
        found = json.loads(text or "")
        return [str(one) for one in found] if isinstance(found, list) else []
    return [text] if text else []


def _amount(text: str | None) -> Decimal | None:
    try:
        amount = Decimal(text or "")
    except InvalidOperation:
        return None
    # What no double is was not sent by us, and its sum would have no end of digits.
    return amount if amount.is_finite() and abs(amount.adjusted()) < 309 else None


def _rounded(dollars: float | None) -> Decimal | None:
    """A sum of doubles without the digits that are none of the amounts'."""
    if dollars is None or not math.isfinite(dollars):
        return None
    return _WIDE.quantize(Decimal(dollars), _PLACES).normalize(_WIDE)


def _counts(numbers: Mapping[str, int]) -> tuple[int, int, int, int]:
    return numbers.get(_INPUT, 0), numbers.get(_OUTPUT, 0), numbers.get(_CACHED, 0), numbers.get(_CHARACTERS, 0)


def _whole(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 20 else 0


def _seconds(text: str | None) -> float:
    with suppress(ValueError):
        seconds = float(text or 0)
        return seconds if math.isfinite(seconds) else 0.0
    return 0.0


def trace_cost(rows: Iterable[LedgerRow]) -> Decimal | None:
    """Sum of what the calls of a trace cost; None when none of them has a price."""
    amounts = [str(row.cost) for row in rows if row.cost is not None]
    return exact_sum(amounts) if amounts else None
