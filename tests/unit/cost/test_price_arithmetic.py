"""Laws of the arithmetic: parts add up, more never costs less, and the library agrees."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from stagelight import cost
from stagelight.cost import library
from stagelight.cost.calculation import compile_row
from stagelight.cost.rates import Row
from stagelight.facts import COMPONENTS, Cost, Partial, Priced, Usage

NOVEMBER = datetime(2026, 11, 21, 12, tzinfo=UTC)
PICO = Decimal("1E-12")


def closure(provider: str, model: str) -> Callable[[Usage], Cost]:
    """The compiled price of one bundled model."""
    row = library.find(provider, model, "", NOVEMBER)
    assert isinstance(row, Row)
    return compile_row(row)


def total(components: Any) -> Decimal:
    """Sum of components."""
    return sum(components.values(), Decimal(0))


def test_a_million_calls_equal_the_sum_of_their_parts() -> None:
    """The amount is the sum of its components, and a double holds it, over a million random calls."""
    computes = [
        closure("openai", "gpt-4o-mini"), closure("openai", "gpt-5.4"), closure("anthropic", "claude-sonnet-4-5"),
        closure("google", "gemini-2.5-pro"), closure("openai", "gpt-4"),
    ]  # fmt: skip
    seed = random.Random(20261121)
    counts = [Usage(
        input_tokens=asked, output_tokens=told, cache_read_tokens=seed.randrange(asked + 1) if asked % 2 else None,
        reasoning_tokens=seed.randrange(told + 1) if asked % 3 else None,
    ) for asked, told in ((seed.randrange(400_000), seed.randrange(30_000)) for _ in range(20_000))]  # fmt: skip
    calls = 0
    while calls < 1_000_000:
        for compute in computes:
            for usage in counts[calls % 10 :: 10] if calls else counts:
                result = compute(usage)
                calls += 1
                parts = result.components.values()  # type: ignore[union-attr]
                if sum(parts) != result.amount:  # type: ignore[union-attr]
                    pytest.fail(f"{usage} costs {result}")

    assert calls >= 1_000_000


MODELS = [
    ("openai", "gpt-4o-mini"), ("openai", "gpt-realtime"), ("openai", "gpt-image-1.5"), ("openai", "gpt-4"),
    ("anthropic", "claude-sonnet-4-5"), ("google", "gemini-2.5-pro"), ("google", "gemini-2.5-flash"),
    ("perplexity", "sonar-pro"), ("openai", "tts-1"), ("groq", "whisper-large-v3"),
    ("elevenlabs", "eleven_realtime_v1_max"),
]  # fmt: skip
count = st.one_of(st.none(), st.integers(0, 10**9))


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Usage whose parts fit into their totals."""
    part = st.integers(0, 10**6)
    cached, audio, image, reasoning, spoken, drawn = (draw(part) for _ in range(6))
    written = draw(st.one_of(part, st.fixed_dictionaries({"5m": part, "1h": part})))
    both = draw(st.integers(0, min(cached, audio)))
    written_total = sum(written.values()) if isinstance(written, dict) else written
    return Usage(
        input_tokens=draw(part) + cached + audio + image + written_total,
        output_tokens=draw(part) + reasoning + spoken + drawn,
        cache_read_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
        audio_input_tokens=audio,
        audio_output_tokens=spoken,
        image_input_tokens=image,
        image_output_tokens=drawn,
        audio_cache_read_tokens=draw(st.sampled_from([None, both])),
        characters=draw(count),
        audio_seconds=draw(st.one_of(st.none(), st.floats(0, 10**6))),
        searches=draw(count),
        tools=draw(count),
        requests=draw(count),
        compute_seconds=draw(st.one_of(st.none(), st.floats(0, 10**6))),
        counted=draw(st.booleans()),
    )


@given(usages(), st.sampled_from(MODELS))
@settings(max_examples=400, deadline=None)
def test_components_are_a_partition(usage: Usage, model: tuple[str, str]) -> None:
    """Whatever was used, each part is priced or named as missing, once, and the parts are the whole."""
    result = cost.price(usage, provider=model[0], request_model=model[1])

    if isinstance(result, Priced | Partial):
        assert total(result.components) == result.amount >= 0
        assert set(result.components) <= set(COMPONENTS)
        missing = () if isinstance(result, Priced) else result.missing
        # Cached audio and long-lived cache writes may lack a price that the rest of their component has.
        assert not set(missing) & set(result.components) - {"cache_read", "cache_write"}


@given(usages(), st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(MODELS))
@settings(max_examples=200, deadline=None)
def test_more_never_costs_less(usage: Usage, asked: int, told: int, model: tuple[str, str]) -> None:
    """Adding tokens does not lower an amount."""
    more = usage._replace(
        input_tokens=(usage.input_tokens or 0) + asked, output_tokens=(usage.output_tokens or 0) + told
    )
    fewer_cost, more_cost = (cost.price(u, provider=model[0], request_model=model[1]) for u in (usage, more))

    if isinstance(fewer_cost, Priced | Partial):
        assert isinstance(more_cost, Priced | Partial)
        assert more_cost.amount >= fewer_cost.amount


@given(*(st.integers(0, 90_000) for _ in range(4)))
@settings(max_examples=100, deadline=None)
def test_two_calls_cost_what_one_with_both_costs(a: int, b: int, c: int, d: int) -> None:
    """Below the long-context step, cost is additive without any rounding."""
    compute = closure("openai", "gpt-5.4")
    apart = [compute(Usage(input_tokens=i, output_tokens=o)) for i, o in ((a, b), (c, d))]
    together = compute(Usage(input_tokens=a + c, output_tokens=b + d))

    assert sum(part.amount for part in apart) == together.amount  # type: ignore[union-attr]


@given(usages(), st.sampled_from(MODELS))
@settings(max_examples=300, deadline=None)
def test_the_short_way_equals_the_general_one(usage: Usage, model: tuple[str, str]) -> None:
    """The quick paths for text and speech give what the full calculation gives."""
    plain = usage._replace(**dict.fromkeys(Usage._fields[5:10] + Usage._fields[12:16]), counted=False)
    names: dict[str, Any] = {"provider": model[0], "request_model": model[1]}
    for short in (plain._replace(characters=None, audio_seconds=None), Usage(characters=usage.characters or 1)):
        assert cost.price(short, **names) == cost.explain(short, **names).cost


def _mixes(seed: random.Random, row: Row) -> list[Usage]:
    prices = row.rates.steps[0].prices
    mixes = []
    for largest in (500, 150_000, 900_000):
        cached, written, hour, audio = (seed.randrange(largest) for _ in range(4))
        audio = audio if {"audio_input", "audio_cache_read"} <= prices.keys() else 0
        both = min(cached, audio) // 2
        long_lived = hour if "cache_write_1h" in prices else 0
        reasoning, spoken = seed.randrange(largest), seed.randrange(largest) if "audio_output" in prices else 0
        mixes.append(Usage(
            input_tokens=seed.randrange(largest) + cached + written + long_lived + audio,
            output_tokens=seed.randrange(largest) + reasoning + spoken,
            cache_read_tokens=cached, cache_write_tokens={"5m": written, "1h": long_lived},
            reasoning_tokens=reasoning, audio_input_tokens=audio or None, audio_output_tokens=spoken or None,
            audio_cache_read_tokens=both if audio else None,
            searches=seed.randrange(9) if "search" in prices else None,
        ))  # fmt: skip
        mixes.append(Usage(input_tokens=seed.randrange(largest), output_tokens=seed.randrange(largest)))
    if "output" not in prices:
        mixes = [mix._replace(output_tokens=None, reasoning_tokens=None, audio_output_tokens=None) for mix in mixes]
    if "audio_seconds" in prices:
        mixes = [Usage(audio_seconds=float(seed.randrange(1, 9000)))]
    return mixes if "characters" not in prices else [Usage(characters=seed.randrange(10**6))]


def _theirs(usage: Usage) -> genai_prices.Usage:
    cached_audio = usage.audio_cache_read_tokens
    written = usage.cache_write_tokens or {}
    assert isinstance(written, dict)
    values = {
        "input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens, "cache_write_tokens": sum(written.values()) or None,
        "cache_write_1h_tokens": written.get("1h"), "output_reasoning_tokens": usage.reasoning_tokens,
        "input_audio_tokens": usage.audio_input_tokens, "output_audio_tokens": usage.audio_output_tokens,
        "cache_audio_read_tokens": 0 if cached_audio is None else cached_audio, "web_searches": usage.searches,
        "input_characters": usage.characters, "audio_seconds": usage.audio_seconds,
        "input_audio_seconds": usage.audio_seconds, "input_image_tokens": 0, "cache_image_read_tokens": 0,
    }  # fmt: skip
    return genai_prices.Usage(**{key: value for key, value in values.items() if value is not None})


def test_the_library_agrees_on_every_bundled_model() -> None:
    """Random token mixes on all bundled models equal the library's price, which rounds only beyond 28 digits.

    Ours rounds a component to 1E-12 USD where a price does not end there (hours of audio, prices with many decimals).
    """
    seed = random.Random(7)
    compared = unequal = 0
    for provider in get_snapshot().providers:
        for model in provider.models:
            row = library.find(provider.id, model.id, "", NOVEMBER)
            if not isinstance(row, Row) or row.model != model.id or not row.rates.steps[0].prices:
                continue
            compute = compile_row(row)
            for usage in _mixes(seed, row):
                expected = model.calc_price(_theirs(usage), provider, genai_request_timestamp=NOVEMBER).total_price
                result = compute(usage)
                assert isinstance(result, Priced), (provider.id, model.id, usage, result)
                compared += 1
                unequal += result.amount != expected
                assert abs(result.amount - expected) <= 4 * PICO, (provider.id, model.id, usage, result, expected)

    assert compared > 10_000
    assert unequal < compared / 100
