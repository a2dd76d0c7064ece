"""The price of one call, written out: quantity times rate for each component, and their sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from stagelight.conventions import attributes as names
from stagelight.cost.quantities import BadUsageError, NoUsageError, Number, split
from stagelight.cost.units import UNITS, Unit
from stagelight.embedded.pages import units
from stagelight.embedded.pages.span_facts import number, written
from stagelight.facts import COMPONENTS, Usage
from stagelight.sources.model import AttributeValue, SpanRow

__all__ = ["Line", "Price", "cost", "price"]

_HOUR_S = 3_600
_LINES = 50
_RATE_DIGITS = 9  # significant; a rate that needs more did not come out of one price times one quantity


@dataclass(frozen=True, slots=True)
class Line:
    """One addend of a price."""

    part: str
    """The component, or the call of a turn."""
    quantity: str
    """With its unit; empty when the span does not say."""
    rate: str
    """With its unit; empty when it cannot be told from amount and quantity."""
    amount: str


@dataclass(frozen=True, slots=True)
class Price:
    """What one call or turn cost and why."""

    lines: tuple[Line, ...]
    more: int
    """Lines left out because there are too many; they are part of the sum."""
    total: str | None
    """None when nothing is known; never zero instead."""
    is_sum: bool
    """Whether the lines add up to the total exactly."""
    currency: str
    status: str
    reason: str | None
    missing: str | None
    """Components that were used and have no price."""
    source: str | None
    model: str | None
    """Identity of the price row."""


def price(
    given: Mapping[str, AttributeValue],
    calls: Sequence[SpanRow] = (),
    components: Mapping[str, Decimal] = MappingProxyType({}),
) -> Price | None:
    """Price written out from the attributes of a span; None when it carries none.

    Args:
        given: attributes of a call or turn.
        calls: spans below a turn; those with an amount of their own are the lines of its price.
        components: amounts of a call's components from its ledger event.
    """
    status = given.get(names.STAGELIGHT_COST_STATUS, given.get(names.STAGELIGHT_TURN_COST_STATUS))
    total = _amount(given.get(names.STAGELIGHT_COST_AMOUNT, given.get(names.STAGELIGHT_TURN_COST)))
    amounts = {component: components[component] for component in COMPONENTS if component in components}
    if status is None and total is None and not amounts:
        return None
    billed = _quantities(given)
    lines = [_line(component, amount, billed.get(component, ())) for component, amount in amounts.items()]
    parts = list(amounts.values())
    for call in [] if amounts else calls:
        if (spent := cost(call)) is not None:
            parts.append(spent)
            lines.append(Line(units.visible(call.name, 80), "", "", units.exact_money(spent)))
    return Price(
        lines=tuple(lines[:_LINES]),
        more=max(len(lines) - _LINES, 0),
        total=None if total is None else units.exact_money(total),
        is_sum=total is not None and sum(parts) == total,
        currency=written(given.get(names.STAGELIGHT_COST_CURRENCY) or "USD"),
        status=written(status or ""),
        reason=_text(given.get(names.STAGELIGHT_COST_REASON)),
        missing=_text(given.get(names.STAGELIGHT_COST_MISSING)),
        source=_text(given.get(names.STAGELIGHT_COST_PRICE_SOURCE)),
        model=_text(given.get(names.STAGELIGHT_COST_MODEL)),
    )


def cost(call: SpanRow) -> Decimal | None:
    """Amount that one call itself cost."""
    return _amount(call.attributes.get(names.STAGELIGHT_COST_AMOUNT))


def _text(value: AttributeValue) -> str | None:
    return written(value) if value else None


def _amount(value: AttributeValue) -> Decimal | None:
    """The exact decimal behind a double: amounts are sent with at most 15 significant digits."""
    amount = number(value)
    return None if amount is None else Decimal(repr(amount))


def _usage(given: Mapping[str, AttributeValue]) -> Usage:
    def tokens(attribute: str) -> int | None:
        value = given.get(attribute)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def first(*attributes: str) -> float | None:
        values = (number(given.get(attribute)) for attribute in attributes)
        return next((value for value in values if value is not None), None)

    return Usage(
        input_tokens=tokens(names.GEN_AI_USAGE_INPUT_TOKENS),
        output_tokens=tokens(names.GEN_AI_USAGE_OUTPUT_TOKENS),
        cache_read_tokens=tokens(names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS),
        cache_write_tokens=tokens(names.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS),
        reasoning_tokens=tokens(names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS),
        audio_input_tokens=tokens(names.GEN_AI_USAGE_AUDIO_INPUT_TOKENS),
        audio_output_tokens=tokens(names.GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS),
        image_input_tokens=tokens(names.GEN_AI_USAGE_IMAGE_INPUT_TOKENS),
        image_output_tokens=tokens(names.GEN_AI_USAGE_IMAGE_OUTPUT_TOKENS),
        audio_cache_read_tokens=tokens(names.GEN_AI_USAGE_AUDIO_CACHE_READ_INPUT_TOKENS),
        characters=tokens(names.STAGELIGHT_USAGE_CHARACTERS) or tokens(names.STAGELIGHT_TTS_CHARACTERS),
        audio_seconds=first(
            names.STAGELIGHT_USAGE_AUDIO_SECONDS,
            names.STAGELIGHT_TTS_AUDIO_SECONDS,
            names.STAGELIGHT_STT_AUDIO_SECONDS,
        ),
        searches=tokens(names.STAGELIGHT_USAGE_SEARCHES),
        tools=tokens(names.STAGELIGHT_USAGE_TOOLS),
        requests=tokens(names.STAGELIGHT_USAGE_REQUESTS),
        compute_seconds=first(names.STAGELIGHT_USAGE_COMPUTE_SECONDS),
    )


def _quantities(given: Mapping[str, AttributeValue]) -> dict[str, list[tuple[Unit, Number]]]:
    """What was billed, per component; empty when the span does not say, or says something impossible."""
    try:
        quantities, _ = split(_usage(given))
    except (NoUsageError, BadUsageError):
        return {}
    found: dict[str, list[tuple[Unit, Number]]] = {}
    for name, quantity in quantities.items():
        unit = UNITS[name]
        found.setdefault(unit.component, []).append((unit, quantity))
    return found


_MEASURES = {"search": "searches", "tools": "tool calls", "requests": "requests"}


def _line(component: str, amount: Decimal, billed: Sequence[tuple[Unit, Number]]) -> Line:
    named = component.replace("_", " ")
    if not billed:
        return Line(named, "", "", units.exact_money(amount))
    unit = billed[0][0]
    quantity = Decimal(sum(billed_number for _, billed_number in billed))
    measure = "s" if unit.per == _HOUR_S else _MEASURES.get(component, unit.measure)
    rate = ""
    if len(billed) == 1:  # two units in one component, as cached text and cached audio, have a price each
        price_each = amount * unit.per / quantity
        is_exact = len(price_each.normalize().as_tuple().digits) <= _RATE_DIGITS
        rate = units.exact_money(price_each) if is_exact else f"≈ {units.money(price_each)}"
        rate = f"{rate} per {unit.label}"
    return Line(named, f"{quantity.normalize():,f}\u00a0{measure}", rate, units.exact_money(amount))
