"""The units a price can be given in: what each one counts, per how many, and the component it is part of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from stagelight.facts import Component

__all__ = ["KEYS", "STANDARD_TIERS", "UNITS", "Unit"]


class Unit(NamedTuple):
    """One priced unit; ``key`` is its name in a price file and says the unit and the count it is per."""

    name: str
    key: str
    per: int
    label: str
    component: Component
    measure: str
    """What it measures. Tokens, characters, seconds, requests and compute describe the same work in different
    units: a price for one of them is enough. A ``charge`` comes on top and needs its own price."""


_MILLION: Final = 1_000_000
_TOKENS: tuple[tuple[str, Component], ...] = (
    ("input", "input"),
    ("cache_read", "cache_read"),
    ("audio_cache_read", "cache_read"),
    ("cache_write", "cache_write"),
    ("cache_write_1h", "cache_write"),
    ("output", "output"),
    ("reasoning", "reasoning"),
    ("audio_input", "audio_input"),
    ("audio_output", "audio_output"),
    ("image_input", "image_input"),
    ("image_output", "image_output"),
)

UNITS: Final[Mapping[str, Unit]] = {
    unit.name: unit
    for unit in (
        *(
            Unit(name, f"{name}_per_1m_tokens", _MILLION, "1M tokens", component, "tokens")
            for name, component in _TOKENS
        ),
        Unit("characters", "per_1m_characters", _MILLION, "1M characters", "characters", "characters"),
        Unit("audio_seconds", "per_audio_hour", 3600, "hour of audio", "audio_seconds", "audio_seconds"),
        Unit("search", "per_1k_searches", 1000, "1k searches", "search", "charge"),
        Unit("tools", "per_1k_tool_calls", 1000, "1k tool calls", "tools", "charge"),
        Unit("requests", "per_1k_requests", 1000, "1k requests", "requests", "requests"),
        Unit("compute", "per_gpu_hour", 3600, "GPU hour", "compute", "compute"),
    )
}
"""Units by name."""

KEYS: Final[Mapping[str, Unit]] = {unit.key: unit for unit in UNITS.values()}
"""Units by their key in a price file."""

STANDARD_TIERS: Final = frozenset({"", "default", "standard", "auto", "on_demand", "standard_only"})
"""Service tiers that mean the list price. ``auto`` is what every request without a tier gets."""
