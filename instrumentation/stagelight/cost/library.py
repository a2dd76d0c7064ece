"""Prices from the genai-prices package, with guards where it would be silently wrong. Imported at the first price."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.metadata import version
from typing import Final

from genai_prices import types
from genai_prices.data_snapshot import get_snapshot

from stagelight.cost.names import is_same_model
from stagelight.cost.rates import Rates, Row, Step
from stagelight.cost.units import STANDARD_TIERS
from stagelight.facts import UnpricedReason

__all__ = ["SOURCE", "find", "provider_ids", "tiers"]

SOURCE: Final = f"genai-prices@{version('genai_prices')}"

_UNIT_KEYS: Final[Mapping[str, str]] = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_5m_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_reasoning_mtok": "reasoning",
    "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output",
    "cache_audio_read_mtok": "audio_cache_read",
    "input_image_mtok": "image_input",
    "output_image_mtok": "image_output",
    "input_mchars": "characters",
    "audio_hours": "audio_seconds",
    "input_audio_hours": "audio_seconds",
    "output_audio_hours": "audio_seconds",
    "rerank_searches_kcount": "search",
    "web_searches_kcount": "search",
    "code_executions_kcount": "tools",
    "requests_kcount": "requests",
}
"""The library's price keys, to our units; its other keys price what a usage record cannot express."""

_SOLE_OUTPUT: Final[Mapping[str, str]] = {"-tts": "audio_output", "-image": "image_output"}
"""Models that produce nothing but audio or images are listed with a plain output price."""

_ONE_INPUT_PRICE: Final[Mapping[str, Mapping[str, str]]] = {
    "google": {"image_input": "input", "audio_input": "input", "audio_cache_read": "cache_read"},
}
"""Providers whose price of input is for all media that have none of their own, and what that stands for.
https://ai.google.dev/gemini-api/docs/pricing lists one price for text, images and video, and one for audio where it
differs."""

_GROQ_MINIMUM_AUDIO_S: Final = 10
_GROQ_WHISPER: Final = frozenset({"whisper-large-v3", "whisper-large-v3-turbo"})


def provider_ids() -> tuple[str, ...]:
    """Providers the library knows."""
    return tuple(provider.id for provider in get_snapshot().providers)


def find(provider_id: str, name: str, tier: str, at: datetime) -> Row | UnpricedReason:
    """The row of a model at a time, or why there is none."""
    provider = next((p for p in get_snapshot().providers if p.id == provider_id), None)
    if provider is None:
        return "unknown_provider"
    # Asking the provider directly keeps the library's unbounded lookup caches empty.
    model = provider.find_model(name, all_providers=get_snapshot().providers)
    if model is None or not _is_named(name.lower(), model):
        return "unknown_model"
    context = None
    if tier not in STANDARD_TIERS:
        own = any(model is known for known in provider.models)
        context = _context(model, tier, at) if own else None
        if context is None:
            return "unknown_context"
    rates = Rates(_steps(model.get_prices(at, context), model.id, _ONE_INPUT_PRICE.get(provider.id, {})))
    if provider.id == "groq" and model.id in _GROQ_WHISPER:
        rates = replace(rates, minimum_audio_s=_GROQ_MINIMUM_AUDIO_S)
    start, end = _window(model, at)
    return Row(
        provider=provider.id,
        model=model.id,
        rates=rates,
        price_source=SOURCE,
        tier=None if context is None else tier,
        source_url=provider.pricing_urls[0] if provider.pricing_urls else None,
        since=_since(model, at),
        note=model.price_comments,
        start=start,
        end=end,
    )


def tiers(provider_id: str, model_id: str, at: datetime) -> tuple[str, ...]:
    """Tiers apart from the standard one in which a model has a price at a time."""
    models = (m for p in get_snapshot().providers if p.id == provider_id for m in p.models if m.id == model_id)
    model = next(models, None)
    variants = (model.price_variants or ()) if model else ()
    found = {
        next(iter(variant.when.values()))
        for variant in variants
        if len(variant.when) == 1 and (variant.constraint is None or variant.constraint.active(at))
    }
    return tuple(sorted(tier for tier in found - STANDARD_TIERS if model and _context(model, tier, at)))


def _is_named(name: str, model: types.ModelInfo) -> bool:
    if name == model.id.lower():
        return True
    dashed = re.sub(r"-(20\d\d)(\d\d)(\d\d)(?=[-:]|$)", r"-\1-\2-\3", name)
    return any(_names(candidate, model.match) for candidate in {name, dashed})


def _names(name: str, clause: object) -> bool:  # noqa: PLR0911 - one case per kind of clause
    """True when a clause of the library matches a name because it is this model's, not just a similar one."""
    match clause:
        case types.ClauseOr():
            return any(_names(name, part) for part in clause.or_)
        case types.ClauseAnd():
            return clause.is_match(name) and any(_names(name, part) for part in clause.and_)
        case types.ClauseEquals():
            return clause.is_match(name)
        case types.ClauseStartsWith():
            return clause.is_match(name) and is_same_model(name, clause.starts_with)
        case types.ClauseContains():
            return clause.is_match(name) and is_same_model(name, clause.contains)
        case types.ClauseEndsWith():
            return clause.is_match(name) and is_same_model(name, clause.ends_with.lstrip("/"))
        case types.ClauseRegex():
            found = re.search(clause.regex, name)
            return bool(found and found[0]) and is_same_model(name, found[0] if found else "")
        case _:
            return False


def _context(model: types.ModelInfo, tier: str, at: datetime) -> dict[str, str] | None:
    """The request context of a tier, if the library has a price for it at this time; it would not tell if not."""
    keys = ("processing",) if tier == "batch" else ("service_tier", "speed")
    for key in keys:
        for variant in model.price_variants or ():
            active = variant.constraint is None or variant.constraint.active(at)
            if variant.when == {key: tier} and active:
                return {key: tier}
    return None


def _steps(prices: types.ModelPrice, model_id: str, one_price: Mapping[str, str]) -> tuple[Step, ...]:
    listed: dict[str, Decimal | types.TieredPrices] = {}
    for key, unit in _UNIT_KEYS.items():
        value = getattr(prices, key, None)
        if value is not None:
            listed[unit] = value
    for ending, unit in _SOLE_OUTPUT.items():
        if ending in model_id and "output" in listed:
            listed.setdefault(unit, listed["output"])
    if "audio_input" in listed:  # then cached audio has its own price too, or one that nobody knows
        one_price = {unit: stands_for for unit, stands_for in one_price.items() if unit != "audio_cache_read"}
    for unit, stands_for in one_price.items():
        if stands_for in listed:
            listed.setdefault(unit, listed[stands_for])
    starts = {tier.start for price in listed.values() if isinstance(price, types.TieredPrices) for tier in price.tiers}
    return tuple(
        Step(above, {unit: _at_size(price, above) for unit, price in listed.items()}) for above in (-1, *sorted(starts))
    )


def _at_size(price: Decimal | types.TieredPrices, above: int) -> Decimal:
    if not isinstance(price, types.TieredPrices):
        return price
    return next((tier.price for tier in reversed(price.tiers) if tier.start <= above), price.base)


def _since(model: types.ModelInfo, at: datetime) -> date | None:
    conditionals = model.prices if isinstance(model.prices, list) else []
    dates = [
        c.start_date
        for c in (conditional.constraint for conditional in conditionals)
        if isinstance(c, types.StartDateConstraint) and c.start_date <= at.astimezone(UTC).date()
    ]
    return max(dates, default=None)


def _window(model: types.ModelInfo, at: datetime) -> tuple[float, float]:
    """Between which daily changes of price (off-peak hours) a time lies."""
    now = at.timestamp()
    midnight = now - now % 86_400
    changes = [midnight, midnight + 86_400]
    conditionals = model.prices if isinstance(model.prices, list) else []
    for condition in (c.constraint for c in (*conditionals, *(model.price_variants or ()))):
        if isinstance(condition, types.TimeOfDateConstraint):
            for edge in (condition.start_time, condition.end_time):
                offset = edge.utcoffset()
                seconds = edge.hour * 3600 + edge.minute * 60 + edge.second - (offset.total_seconds() if offset else 0)
                changes.append(midnight + seconds % 86_400)
    return max(c for c in changes if c <= now), min(c for c in changes if c > now)
