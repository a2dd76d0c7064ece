"""What people ask about a price: which rows match a model, what each unit costs, how a bill was made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from time import time
from typing import Final

from stagelight.cost.book import Query
from stagelight.cost.calculation import Line, refuse, state
from stagelight.cost.names import canonical_provider
from stagelight.cost.pricing import answer, book, clock_time
from stagelight.cost.rates import Row
from stagelight.cost.units import UNITS
from stagelight.facts import Component, Cost, Unpriced, Usage

__all__ = ["STALE_AFTER_DAYS", "Explanation", "Listing", "UnitPrice", "explain", "lookup"]

STALE_AFTER_DAYS: Final = 180
"""Age in days after which a bundled price is warned about."""


@dataclass(frozen=True, slots=True)
class UnitPrice:
    """Price of one unit, in USD per ``label`` (``1M tokens``, ``hour of audio``)."""

    unit: str
    component: Component
    price: Decimal
    per: int
    label: str
    above_input_tokens: int | None
    """Set on long-context steps: the price holds for calls with more input tokens than this."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One price row that matches a model."""

    provider: str
    model: str
    status: str
    """``exact`` or ``estimated``: what a call with provider-reported usage gets."""
    wins: bool
    """True for the row that is used; the others of the same provider are shadowed by it."""
    prices: tuple[UnitPrice, ...]
    price_source: str
    source_url: str | None
    as_of: date | None
    """Day the price was read at its source; ``None`` where the source does not say."""
    age_days: int | None
    since: date | None
    """Day from which the price holds, if it has not always been the same."""
    tier: str | None
    other_tiers: tuple[str, ...]
    note: str | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A cost with its arithmetic and the row behind it."""

    cost: Cost
    lines: tuple[Line, ...]
    listing: Listing | None


def lookup(
    model: str, provider: str | None = None, *, service_tier: str | None = None, at: float | None = None
) -> tuple[Listing, ...]:
    """Price rows that match a model.

    Args:
        model: name of the model as sent or as answered.
        provider: name of the provider; ``None`` for every provider that has the model.
        service_tier: tier to show; default the list price.
        at: unix seconds; default now.

    Returns:
        Rows ordered by provider, the one that is used first; empty when no price is known.
    """
    when = clock_time(at)
    moment = datetime.fromtimestamp(when, UTC)
    providers = [canonical_provider(provider)] if provider else sorted(_providers())
    listings = []
    for name in providers:
        rows = book().rows(name, model, (service_tier or "").lower(), moment)
        listings += [_listing(row, moment, wins=index == 0) for index, row in enumerate(rows)]
    return tuple(listings)


def explain(
    usage: Usage | None,
    *,
    provider: str | None,
    request_model: str | None,
    response_model: str | None = None,
    operation: str | None = None,  # noqa: ARG001 - accepted so that both take the same call
    service_tier: str | None = None,
    at: float | None = None,
    server_address: str | None = None,
) -> Explanation:
    """Price one call as ``price()`` does and show each multiplication. Arguments are those of ``price()``."""
    when = clock_time(at)
    found = answer(Query(provider, request_model, response_model, service_tier, server_address), when)
    listing = _listing(found.row, datetime.fromtimestamp(when, UTC), wins=True) if found.row else None
    if usage is None:
        return Explanation(Unpriced("no_usage"), (), listing)
    if found.row is None:
        return Explanation(refuse(found.reason or "unknown_model")(usage), (), None)
    statement = state(found.row, usage)
    return Explanation(statement.cost, statement.lines, listing)


def stale(as_of: date | None, today: date) -> int | None:
    """Age in days of a price that is too old to trust, else ``None``."""
    age = (today - as_of).days if as_of else 0
    return age if age > STALE_AFTER_DAYS else None


def _providers() -> set[str]:
    from stagelight.cost import library

    named = {entry.provider for file in book().files() for entry in file.entries}
    return {*library.provider_ids(), *named}


def _listing(row: Row, moment: datetime, *, wins: bool) -> Listing:
    today = datetime.fromtimestamp(time(), UTC).date()
    return Listing(
        provider=row.provider,
        model=row.model,
        status="estimated" if row.estimate else "exact",
        wins=wins,
        prices=tuple(_unit_prices(row)),
        price_source=row.price_source,
        source_url=row.source_url,
        as_of=row.as_of,
        age_days=(today - row.as_of).days if row.as_of else None,
        since=row.since,
        tier=row.tier,
        other_tiers=_other_tiers(row, moment),
        note=row.note,
        warnings=tuple(_warnings(row, today)),
    )


def _unit_prices(row: Row) -> Iterator[UnitPrice]:
    base = row.rates.steps[0].prices
    for step in row.rates.steps:
        for name, unit in UNITS.items():
            price = step.prices.get(name)
            if price is None or (step.above >= 0 and price == base.get(name)):
                continue
            yield UnitPrice(name, unit.component, price, unit.per, unit.label, step.above if step.above >= 0 else None)


def _other_tiers(row: Row, moment: datetime) -> tuple[str, ...]:
    from stagelight.cost import library, tables

    if row.price_source.endswith(library.SOURCE):
        found = library.tiers(row.provider, row.model, moment)
    else:
        found = tuple(tier for file in book().files() for tier in tables.tiers(file, row.provider, row.model))
    return tuple(tier for tier in found if tier != row.tier)


def _warnings(row: Row, today: date) -> Iterator[str]:
    age = stale(row.as_of, today)
    if age is not None:
        yield f"price is {age} days old (limit {STALE_AFTER_DAYS}): check {row.source_url or 'its source'}"
    if row.estimate:
        yield "estimate: put your own price into STAGELIGHT_PRICES"
    if not row.rates.steps[0].prices:
        yield "listed without any price: calls are unpriced(unit_not_priced)"
