"""Usage -> quantities that do not overlap: each token, character or second is in exactly one of them."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from numbers import Integral
from typing import Final

from stagelight.facts import Usage

__all__ = ["LIMIT", "BadUsageError", "NoUsageError", "Number", "split"]

Number = int | Decimal

LIMIT: Final = 10**12
"""Largest quantity taken for real: a thousand times the longest job a provider accepts."""

_QUANTITIES: Final = len(Usage._fields) - 1
_NOTHING: Final = (None,) * _QUANTITIES
_SHORT_TTL: Final = "5m"
_LONG_TTL: Final = "1h"


class BadUsageError(ValueError):
    """Usage that cannot be true: negative, not a number, a part larger than its total."""


class NoUsageError(ValueError):
    """Usage in which nothing is known."""


def split(usage: Usage) -> tuple[dict[str, Number], bool]:
    """Cut usage into quantities by unit name, without zeros.

    Returns:
        The quantities, and whether the parts had to be inferred because the provider did not report how
        cached tokens overlap with audio or image tokens.

    Raises:
        NoUsageError: no quantity is known.
        BadUsageError: a quantity is impossible.
    """
    if usage[:_QUANTITIES] == _NOTHING:
        raise NoUsageError
    found, inferred = _input(usage)
    found |= _output(usage)
    found["characters"] = _number(usage.characters)
    found["audio_seconds"] = _number(usage.audio_seconds)
    found["search"] = _number(usage.searches)
    found["tools"] = _number(usage.tools)
    found["requests"] = _number(usage.requests)
    found["compute"] = _number(usage.compute_seconds)
    return {unit: quantity for unit, quantity in found.items() if quantity}, inferred


def _input(usage: Usage) -> tuple[dict[str, Number], bool]:
    written, written_long = _cache_writes(usage.cache_write_tokens)
    cached_audio = _number(usage.audio_cache_read_tokens)
    cached = _subset_or(usage.cache_read_tokens, cached_audio)
    audio = _subset_or(usage.audio_input_tokens, cached_audio)
    image = _number(usage.image_input_tokens)
    if cached_audio > cached or cached_audio > audio:
        raise BadUsageError
    parts = cached + written + written_long + audio + image - cached_audio
    total = parts + _number(usage.text_input_tokens) if usage.input_tokens is None else _number(usage.input_tokens)
    inferred = bool(cached and ((audio and usage.audio_cache_read_tokens is None) or image))
    if parts > total and usage.audio_cache_read_tokens is None:
        overlap = min(parts - total, cached, audio)
        cached_audio, parts = overlap, parts - overlap
    if parts > total:
        overlap = min(parts - total, cached - cached_audio, image)
        image, parts = image - overlap, parts - overlap
    if parts > total:
        raise BadUsageError
    return {
        "input": total - parts,
        "cache_read": cached - cached_audio,
        "audio_cache_read": cached_audio,
        "cache_write": written,
        "cache_write_1h": written_long,
        "audio_input": audio - cached_audio,
        "image_input": image,
    }, inferred


def _output(usage: Usage) -> dict[str, Number]:
    reasoning = _number(usage.reasoning_tokens)
    audio = _number(usage.audio_output_tokens)
    image = _number(usage.image_output_tokens)
    parts = reasoning + audio + image
    total = parts + _number(usage.text_output_tokens) if usage.output_tokens is None else _number(usage.output_tokens)
    if parts > total:
        raise BadUsageError
    return {"output": total - parts, "reasoning": reasoning, "audio_output": audio, "image_output": image}


def _cache_writes(value: object) -> tuple[Number, Number]:
    """Tokens written for the short and for the long time-to-live; a plain number is the short, default one."""
    if not isinstance(value, Mapping):
        return _number(value), 0
    if not value.keys() <= {_SHORT_TTL, _LONG_TTL}:
        raise BadUsageError
    return _number(value.get(_SHORT_TTL)), _number(value.get(_LONG_TTL))


def _subset_or(value: object, smaller: Number) -> Number:
    return smaller if value is None else _number(value)


def _number(value: object) -> Number:
    number: Number
    if value is None:
        return 0
    if type(value) is int and 0 <= value <= LIMIT:
        return value
    if isinstance(value, bool):
        raise BadUsageError
    if isinstance(value, Integral):
        number = int(value)
    elif isinstance(value, float):
        # repr is the shortest text that gives the same float: the number the caller meant.
        number = Decimal(repr(float(value)))
    elif isinstance(value, Decimal):
        number = value
    else:
        raise BadUsageError
    if isinstance(number, Decimal) and not number.is_finite():
        raise BadUsageError
    if not 0 <= number <= LIMIT:
        raise BadUsageError
    return int(number) if number == int(number) else number
