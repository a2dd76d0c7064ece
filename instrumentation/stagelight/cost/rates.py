"""A price row: unit prices, their long-context steps and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Context, Decimal
from typing import Final

__all__ = ["EXACT", "Rates", "Row", "Step"]

EXACT: Final = Context(prec=50)
"""Precision at which no product or sum of ordinary prices and quantities is ever rounded."""


@dataclass(frozen=True, slots=True)
class Step:
    """Unit prices of a call whose input has more than ``above`` tokens; a step applies to all tokens of the call."""

    above: int
    prices: Mapping[str, Decimal]
    """USD by unit name, per the unit's ``per``."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What one model costs. The first step starts below zero and is the base price."""

    steps: tuple[Step, ...]
    gpu_factor: Decimal = Decimal(1)
    """GPUs x share of them: multiplies busy seconds of self-hosted hardware."""
    minimum_audio_s: int = 0
    """Shortest audio that is billed, in seconds."""

    def scaled(self, multiplier: Decimal) -> Rates:
        """The same rates with every price multiplied."""
        steps = tuple(
            Step(step.above, {unit: EXACT.multiply(price, multiplier) for unit, price in step.prices.items()})
            for step in self.steps
        )
        return replace(self, steps=steps)


@dataclass(frozen=True, slots=True)
class Row:
    """Rates as they apply to one model at one time, with their provenance."""

    provider: str
    model: str
    rates: Rates
    price_source: str
    tier: str | None = None
    estimate: bool = False
    """True when the price itself is an estimate, or was found by a pattern that is not exactly this model."""
    as_of: date | None = None
    source_url: str | None = None
    since: date | None = None
    note: str | None = None
    start: float = float("-inf")
    end: float = float("inf")
    """Unix seconds between which the row is known to stay the right one, at most the UTC day it was asked for."""

    @property
    def identity(self) -> str:
        """``provider/model`` of the row, for the record of a call."""
        return f"{self.provider}/{self.model}"
