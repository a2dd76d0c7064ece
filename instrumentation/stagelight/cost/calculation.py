"""Rates -> a closure from usage to cost, exact in Decimal and cheap enough for the host's hot path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final, Literal, NamedTuple

from stagelight.cost.quantities import LIMIT, BadUsageError, NoUsageError, Number, split
from stagelight.cost.rates import EXACT, Rates, Row
from stagelight.cost.units import UNITS
from stagelight.facts import Component, Cost, Partial, Priced, Unpriced, UnpricedReason, Usage

__all__ = ["Compute", "Line", "Statement", "compile_row", "refuse", "state"]

Compute = Callable[[Usage], Cost]

_Status = Literal["exact", "estimated"]
_SHORT: Final = ("input", "cache_read", "cache_write", "output", "reasoning", "characters")
_ZERO: Final = Decimal(0)
_PICO: Final = Decimal("1E-12")
"""Where a price per second or a converted price does not end, a component is rounded to this many USD."""

_SUBSTITUTES: Final[Mapping[str, str]] = {
    "cache_read": "input",
    "cache_write": "input",
    "audio_cache_read": "audio_input",
    "image_input": "input",
    "reasoning": "output",
}
"""Units that are a kind of another one, billed like it where the list gives them no price of their own."""

_CERTAIN: Final = frozenset({"reasoning"})
"""Substitutes that are the rule everywhere; the others may miss a discount, so the result is an estimate."""


class Line(NamedTuple):
    """One multiplication of a bill: ``amount = quantity x price / per``."""

    unit: str
    component: Component
    quantity: Number
    price: Decimal
    """USD per ``per`` units."""
    per: int
    label: str
    amount: Decimal


class Statement(NamedTuple):
    """A cost with its arithmetic written out."""

    cost: Cost
    lines: tuple[Line, ...]


class _Rate(NamedTuple):
    price: Decimal
    each: Decimal
    """USD for one unit; exact only when ``ends``."""
    ends: bool
    certain: bool


def compile_row(row: Row) -> Compute:
    """Build the closure for a row: text tokens take a short way, everything else the general one."""
    tables = [(step.above, _resolve(step.prices)) for step in row.rates.steps]

    def general(usage: Usage) -> Cost:
        return _calculate(row, tables, usage).cost

    compute: Compute = general
    ceiling = LIMIT
    for above, table in reversed(tables):
        if "requests" in table or not _all_end(table):
            compute = general
        elif "input" in table:
            compute = _text(row, table, ceiling, (compute, general))
        elif table.keys() == {"characters"}:
            compute = _speech(row, table, general)
        else:
            compute = general
        ceiling = above
    return compute


def refuse(reason: UnpricedReason) -> Compute:
    """A closure that gives no amount: ``reason``, unless the usage itself is missing or impossible."""
    result = Unpriced(reason)

    def compute(usage: Usage) -> Cost:
        i, o = usage[:2]
        if type(i) is int and type(o) is int and 0 <= i <= LIMIT and 0 <= o <= LIMIT and not any(usage[2:]):
            return result
        try:
            split(usage)
        except NoUsageError:
            return Unpriced("no_usage")
        except BadUsageError:
            return Unpriced("bad_usage")
        return result

    return compute


def _resolve(prices: Mapping[str, Decimal]) -> dict[str, _Rate]:
    table: dict[str, _Rate] = {}
    for unit in UNITS.values():
        price, certain = prices.get(unit.name), True
        if price is None:
            price, certain = prices.get(_SUBSTITUTES.get(unit.name, "")), unit.name in _CERTAIN
        if price is None and unit.name == "cache_write_1h" and "cache_write" not in prices:
            price = prices.get("input")
        if price is not None:
            each = EXACT.divide(price, Decimal(unit.per)).normalize(EXACT)
            exponent = each.as_tuple().exponent
            ends = isinstance(exponent, int) and exponent >= -12
            table[unit.name] = _Rate(price, each, ends and unit.per != 3600, certain)
    return table


def _all_end(table: Mapping[str, _Rate]) -> bool:
    return all(table[unit].ends for unit in _SHORT if unit in table)


def _text(row: Row, table: dict[str, _Rate], ceiling: int, others: tuple[Compute, Compute]) -> Compute:
    """The short way for text tokens up to ``ceiling``: beyond it the first of ``others``, in doubt the second."""
    longer, general = others
    each_input, each_cached, each_written = table["input"].each, table["cache_read"].each, table["cache_write"].each
    each_output = table["output"].each if "output" in table else _ZERO
    each_reasoning = table["reasoning"].each if "output" in table else _ZERO
    most_output = LIMIT if "output" in table else 0
    plain: _Status = "estimated" if row.estimate else "exact"
    read: _Status = plain if table["cache_read"].certain else "estimated"
    written: _Status = plain if table["cache_write"].certain else "estimated"
    new, source, identity = tuple.__new__, row.price_source, row.identity

    def compute(usage: Usage) -> Cost:  # noqa: PLR0911 - straight-line code on the hot path
        i, o, cr, cw, r, ai, ao, ii, io, acr, _ti, _to, ch, s, se, to, rq, cs, counted = usage
        # Zero and absent are the same here; whatever is neither an absent nor a plain count is judged elsewhere.
        if ai or ao or ii or io or acr or ch or s or se or to or rq or cs or counted or type(i) is not int:
            return general(usage)
        if i > ceiling:
            return longer(usage)
        if o is None:
            o = 0
        elif type(o) is not int or not 0 <= o <= most_output:
            return general(usage)
        if not (cr or cw or r) and i and o:
            asked, told = each_input * i, each_output * o
            components: dict[Component, Decimal] = {"input": asked, "output": told}
            return new(Priced, (asked + told, components, plain, source, "local", "USD", identity))
        cr, cw, r = cr or 0, cw or 0, r or 0
        if type(cr) is not int or type(cw) is not int or type(r) is not int or cr < 0 or cw < 0 or not 0 <= r <= o:
            return general(usage)
        i, o = i - cr - cw, o - r
        if i < 0:
            return general(usage)
        components = {}
        amount, status = _ZERO, plain
        if i:
            components["input"] = amount = each_input * i
        if cr:
            components["cache_read"] = part = each_cached * cr
            amount, status = amount + part, read
        if cw:
            components["cache_write"] = part = each_written * cw
            amount, status = amount + part, written if status == plain else status
        if r:
            components["reasoning"] = part = each_reasoning * r
            amount += part
        if o:
            components["output"] = part = each_output * o
            amount += part
        # Building the named tuple through its own constructor costs three times as much.
        return new(Priced, (amount, components, status, source, "local", "USD", identity))

    return compute


def _speech(row: Row, table: dict[str, _Rate], general: Compute) -> Compute:
    """The short way for speech that is paid by the character, whatever else is known of its length."""
    each = table["characters"].each
    status: _Status = "estimated" if row.estimate else "exact"
    new, source, identity = tuple.__new__, row.price_source, row.identity

    def compute(usage: Usage) -> Cost:
        i, o, cr, cw, r, ai, ao, ii, io, acr, _ti, _to, characters, seconds, se, to, rq, cs, counted = usage
        if i or o or cr or cw or r or ai or ao or ii or io or acr or se or to or rq or cs or counted:
            return general(usage)
        if type(characters) is not int or not 0 < characters <= LIMIT or not (seconds is None or 0 <= seconds <= LIMIT):
            return general(usage)
        amount = each * characters
        return new(Priced, (amount, {"characters": amount}, status, source, "local", "USD", identity))

    return compute


def state(row: Row, usage: Usage) -> Statement:
    """The cost of ``usage`` under ``row`` with every line of its arithmetic."""
    return _calculate(row, [(step.above, _resolve(step.prices)) for step in row.rates.steps], usage)


def _calculate(row: Row, tables: list[tuple[int, dict[str, _Rate]]], usage: Usage) -> Statement:
    try:
        quantities, inferred = split(usage)
    except NoUsageError:
        return Statement(Unpriced("no_usage"), ())
    except BadUsageError:
        return Statement(Unpriced("bad_usage"), ())
    size = sum(quantity for unit, quantity in quantities.items() if unit in _INPUT)
    table = next(table for above, table in reversed(tables) if size > above)
    if "requests" in table and usage.requests is None:
        quantities["requests"] = 1
    lines = [_line(row.rates, unit, quantity, table[unit]) for unit, quantity in quantities.items() if unit in table]
    missing = _missing(quantities, table)
    if not table or (quantities and not lines):
        return Statement(Unpriced("unit_not_priced", missing), ())
    components: dict[Component, Decimal] = {}
    for line in lines:
        components[line.component] = EXACT.add(components.get(line.component, Decimal(0)), line.amount)
    amount = Decimal(0)
    for part in components.values():
        amount = EXACT.add(amount, part)
    if missing:
        partial = Partial(
            amount=amount,
            components=components,
            missing=missing,
            price_source=row.price_source,
            model=row.identity,
        )
        return Statement(partial, tuple(lines))
    guessed = row.estimate or usage.counted or inferred or not all(table[line.unit].certain for line in lines)
    priced = Priced(
        amount=amount,
        components=components,
        status="estimated" if guessed else "exact",
        price_source=row.price_source,
        model=row.identity,
    )
    return Statement(priced, tuple(lines))


_INPUT: Final = frozenset({
    "input", "cache_read", "audio_cache_read", "cache_write", "cache_write_1h", "audio_input", "image_input",
})  # fmt: skip


def _line(rates: Rates, name: str, quantity: Number, rate: _Rate) -> Line:
    unit = UNITS[name]
    if name == "audio_seconds":
        quantity = max(quantity, rates.minimum_audio_s)
    if name == "compute":
        quantity = EXACT.multiply(rates.gpu_factor, quantity)
    if rate.ends and isinstance(quantity, int):
        amount = EXACT.multiply(rate.each, quantity)
    else:
        exact = EXACT.divide(EXACT.multiply(rate.price, quantity), Decimal(unit.per))
        amount = EXACT.quantize(exact, _PICO)
    return Line(name, unit.component, quantity, rate.price, unit.per, unit.label, amount)


def _missing(quantities: Mapping[str, Number], table: Mapping[str, _Rate]) -> tuple[Component, ...]:
    """Components that were used and have no price, unless the same work is already priced in another measure."""
    measured = {UNITS[name].measure for name in quantities if name in table} - {"charge"}
    missing: dict[Component, None] = {}
    for name in quantities:
        unit = UNITS[name]
        described_otherwise = measured and unit.measure != "charge" and unit.measure not in measured
        if name not in table and not described_otherwise:
            missing[unit.component] = None
    return tuple(missing)
