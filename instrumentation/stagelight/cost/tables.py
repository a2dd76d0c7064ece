"""Price files as a layer: which item of a file applies to a model, in a tier, on a day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Literal, NamedTuple

from stagelight.cost.files import Entry, PriceFile, read
from stagelight.cost.names import is_same_model
from stagelight.cost.rates import Row
from stagelight.cost.units import STANDARD_TIERS

__all__ = ["Found", "bundled", "find", "tiers", "to_row"]

_FOLDER: Final = Path(__file__).parent / "prices"
_GLOB: Final = frozenset("*?[")


class Found(NamedTuple):
    """An item that applies to a model, and whether it names the model itself and not a pattern."""

    entry: Entry
    exact: bool


def bundled() -> tuple[PriceFile, ...]:
    """The price files that come with Stagelight; every item is dated and sourced."""
    return tuple(read(path, sourced=True) for path in sorted(_FOLDER.glob("*.yaml")))


def find(
    file: PriceFile, provider: str, name: str, tier: str, at: datetime
) -> Found | Literal["unknown_context"] | None:
    """The item for a model; ``None`` when the file does not have it, ``unknown_context`` when not in this tier.

    An item that names the model wins over a pattern, a longer pattern over a shorter one, a later ``from`` over an
    earlier one. A pure discount without ``tier`` applies in every tier.
    """
    matches = [found for found in _matches(file, provider, name) if _started(found.entry, at)]
    if not matches:
        return None
    wanted = "" if tier in STANDARD_TIERS else tier
    suited = [m for m in matches if m.entry.tier == wanted or (m.entry.rates is None and not m.entry.tier)]
    if not suited:
        return "unknown_context"
    return max(suited, key=_rank)


def tiers(file: PriceFile, provider: str, name: str) -> tuple[str, ...]:
    """Tiers apart from the standard one that a file prices for a model."""
    return tuple(sorted({found.entry.tier for found in _matches(file, provider, name)} - {""}))


def to_row(found: Found, *, provider: str, price_source: str, tier: str) -> Row:
    """The row of an item that has prices of its own."""
    entry = found.entry
    if entry.rates is None:
        raise ValueError(f"line {entry.line}: a discount has no rates")
    return Row(
        provider=provider,
        model=entry.model,
        rates=entry.rates,
        price_source=price_source,
        tier=None if tier in STANDARD_TIERS else tier,
        estimate=entry.estimate or not found.exact,
        as_of=entry.as_of,
        source_url=entry.source_url,
        since=entry.since,
        note=entry.note,
    )


def _matches(file: PriceFile, provider: str, name: str) -> Iterator[Found]:
    for entry in file.entries:
        if provider != entry.provider and not (_is_glob(entry.provider) and fnmatchcase(provider, entry.provider)):
            continue
        if _is_glob(entry.model):
            if fnmatchcase(name.lower(), entry.model):
                yield Found(entry, exact=False)
        elif is_same_model(name, entry.model):
            yield Found(entry, exact=True)


def _started(entry: Entry, at: datetime) -> bool:
    return entry.since is None or entry.since <= at.date()


def _rank(found: Found) -> tuple[bool, bool, int, int, int]:
    entry = found.entry
    return (
        found.exact,
        bool(entry.tier),
        len(entry.model),
        not _is_glob(entry.provider),
        entry.since.toordinal() if entry.since else 0,
    )


def _is_glob(text: str) -> bool:
    return not _GLOB.isdisjoint(text)
