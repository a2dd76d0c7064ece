"""Usage and cost as OpenAI, and the servers that speak its protocol, tell them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from stagelight.facts import Usage
from stagelight.integrations._reading import amount, count, part

__all__ = ["charged", "used"]

_TICKS: Final = -10
"""The power of ten of xAI's unit of cost, in USD: https://docs.x.ai/developers/cost-tracking."""
_CACHED: Final = ("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens")  # DeepSeek, Moonshot, Mistral


def used(told: Any) -> Usage | None:
    """Token counts under either name, inclusive: some providers leave reasoning out of the output they report."""
    if told is None:
        return None
    taken = count(part(told, "prompt_tokens"))
    made = count(part(told, "completion_tokens"))
    taken = count(part(told, "input_tokens")) if taken is None else taken
    made = count(part(told, "output_tokens")) if made is None else made
    given = part(told, "prompt_tokens_details") or part(told, "input_tokens_details")
    returned = part(told, "completion_tokens_details") or part(told, "output_tokens_details")
    reasoning = count(part(returned, "reasoning_tokens"))
    total = count(part(told, "total_tokens"))
    if taken is not None and made is not None and total is not None and total > taken + made:
        # xAI and Gemini: the total has them, the output has not.
        made, reasoning = total - taken, reasoning or total - taken - made
    places = (part(given, "cached_tokens"), *(part(told, name) for name in _CACHED))
    return Usage(
        input_tokens=taken,
        output_tokens=made,
        cache_read_tokens=next((found for one in places if (found := count(one)) is not None), None),
        cache_write_tokens=count(part(given, "cache_write_tokens")),
        reasoning_tokens=reasoning,
        # An answer without audio or images is told as 0 of them by some servers and not at all by others.
        audio_input_tokens=count(part(given, "audio_tokens")) or None,
        audio_output_tokens=count(part(returned, "audio_tokens")) or None,
        image_input_tokens=count(part(given, "image_tokens")) or None,
        image_output_tokens=count(part(returned, "image_tokens")) or None,
        text_input_tokens=count(part(given, "text_tokens")) or None,
        text_output_tokens=count(part(returned, "text_tokens")) or None,
    )


def charged(told: Any) -> Decimal | None:
    """What the provider says it charged, in USD; with a key of the caller's own, also what goes to the provider
    behind it.
    """
    ticks = count(part(told, "cost_in_usd_ticks"))
    if ticks is not None:
        return Decimal(ticks).scaleb(_TICKS)
    total = part(told, "cost", "total_cost")  # Perplexity
    stated = [part(told, "cost") if total is None else total]
    if part(told, "is_byok") is True:
        stated.append(part(told, "cost_details", "upstream_inference_cost"))
    amounts = [amount(one) for one in stated]
    if any(one is None or one < 0 for one in amounts):
        return None
    return sum((Decimal(repr(one)) for one in amounts), Decimal(0))
