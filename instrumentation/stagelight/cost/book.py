"""The price book: layers of prices, the first that knows a model wins.

Layers: the user's overrides, then the bundled dated files, then genai-prices. The last two know hosted prices only and
are not asked for self-hosted software or private addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stagelight.cost.names import canonical_provider, is_private_host, is_self_hosted
from stagelight.cost.rates import Row
from stagelight.facts import UnpricedReason

if TYPE_CHECKING:
    from stagelight.cost.files import Entry, PriceFile

__all__ = ["Answer", "Book", "Query", "load"]


class Query(NamedTuple):
    """What identifies a price, apart from the time. Names are at most 128 characters."""

    provider: str | None
    request_model: str | None
    response_model: str | None
    tier: str | None
    server_address: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The row for a query, or the reason why there is none."""

    row: Row | None
    reason: UnpricedReason | None = None


class Book:
    """All layers. Files are read and genai-prices is imported when the first price needs them."""

    def __init__(self, overrides: PriceFile | None = None) -> None:
        self._overrides = overrides
        self._bundled: tuple[PriceFile, ...] | None = None

    def answer(self, query: Query, at: datetime) -> Answer:
        """The row that prices a query at a time (UTC)."""
        provider = canonical_provider(query.provider or "")
        tier = (query.tier or "").strip().lower()
        names = [name for name in (query.response_model, query.request_model) if name]
        hosted = not is_self_hosted(provider) and not is_private_host(query.server_address or "")
        reason: UnpricedReason = "unknown_model" if provider else "unknown_provider"
        for own in (True, False):
            if not own and (not hosted or not provider):
                break
            for name in dict.fromkeys(names):
                if own:
                    found = self._overridden(provider, name, tier, at, hosted=hosted)
                else:
                    found = self._listed(provider, name.removeprefix("models/"), tier, at)  # as Gemini may tell it
                if isinstance(found, Row):
                    # The response names the model that served the call; the request may be an alias of anything.
                    return Answer(found if name == names[0] else replace(found, estimate=True))
                reason = found or reason
                if found == "unknown_context":
                    return Answer(None, found)
        return Answer(None, reason if hosted else "no_rate")

    def rows(self, provider: str, name: str, tier: str, at: datetime) -> Iterator[Row]:
        """Rows of every layer for a hosted model, the winning one first."""
        hosted = not is_self_hosted(provider)
        own = self._overridden(provider, name, tier, at, hosted=hosted)
        if own == "unknown_context":
            return
        if isinstance(own, Row):
            yield own
        if hosted:
            yield from self._hosted(provider, name, tier, at)

    def files(self) -> tuple[PriceFile, ...]:
        """Overrides, if any, and bundled files."""
        return (*((self._overrides,) if self._overrides else ()), *self._own())

    def _overridden(
        self, provider: str, name: str, tier: str, at: datetime, *, hosted: bool
    ) -> Row | UnpricedReason | None:
        if self._overrides is None:
            return None
        from stagelight.cost import tables

        found = tables.find(self._overrides, provider, name, tier, at)
        if found is None or found == "unknown_context":
            return found
        if found.entry.rates is not None:
            return tables.to_row(found, provider=provider, price_source="override", tier=tier)
        if not hosted:
            return None
        listed = self._listed(provider, name, tier, at)
        return _discounted(listed, found.entry) if isinstance(listed, Row) else listed

    def _listed(self, provider: str, name: str, tier: str, at: datetime) -> Row | UnpricedReason:
        reason: UnpricedReason = "unknown_provider"
        for found in self._hosted_or_reason(provider, name, tier, at):
            if isinstance(found, Row) or found == "unknown_context":
                return found
            reason = found
        return reason

    def _hosted(self, provider: str, name: str, tier: str, at: datetime) -> Iterator[Row]:
        for found in self._hosted_or_reason(provider, name, tier, at):
            if found == "unknown_context":
                return
            if isinstance(found, Row):
                yield found

    def _hosted_or_reason(self, provider: str, name: str, tier: str, at: datetime) -> Iterator[Row | UnpricedReason]:
        from stagelight.cost import tables

        known = False
        for file in self._own():
            known = known or any(entry.provider == provider for entry in file.entries)
            found = tables.find(file, provider, name, tier, at)
            if found == "unknown_context":
                yield found
            elif found is not None:
                source = f"stagelight@{found.entry.as_of}"
                yield tables.to_row(found, provider=provider, price_source=source, tier=tier)
        from stagelight.cost import library

        last = library.find(provider, name, tier, at)
        yield "unknown_model" if known and last == "unknown_provider" else last

    def _own(self) -> tuple[PriceFile, ...]:
        if self._bundled is None:
            from stagelight.cost import tables

            self._bundled = tables.bundled()
        return self._bundled


def load(overrides: Path | None) -> Book:
    """A book with the user's file, read and checked now."""
    if overrides is None:
        return Book()
    from stagelight.cost.files import read

    return Book(read(Path(overrides)))


def _discounted(row: Row, entry: Entry) -> Row:
    if entry.multiplier is None:
        return row
    return replace(
        row,
        rates=row.rates.scaled(entry.multiplier),
        price_source=f"override+{row.price_source}",
        estimate=row.estimate or entry.estimate,
        note=entry.note or row.note,
    )
