"""What a cost says of itself: exact, estimated, partial or unpriced with a reason."""

from __future__ import annotations

import decimal
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stagelight import cost
from stagelight.facts import Partial, Priced, Unpriced, Usage


def price(usage: Usage | None, **more: Any) -> Any:
    """Price a gpt-4o-mini call unless told otherwise."""
    return cost.price(usage, **{"provider": "openai", "request_model": "gpt-4o-mini", **more})


def test_a_priced_call_says_where_its_price_is_from() -> None:
    """The record names amount, parts, status, price data and the row that matched."""
    result = price(Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=400, reasoning_tokens=60))

    assert result == Priced(
        amount=Decimal("0.00018"),
        components={
            "input": Decimal("0.00009"),
            "cache_read": Decimal("0.00003"),
            "reasoning": Decimal("0.000036"),
            "output": Decimal("0.000024"),
        },
        status="exact",
        price_source=result.price_source,
        model="openai/gpt-4o-mini",
    )
    assert result.price_source.startswith("genai-prices@")


@pytest.mark.parametrize(
    ("request_model", "response_model", "status", "model"),
    [
        ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", "exact", "openai/gpt-4o-mini"),
        ("my-alias", "gpt-4o-mini", "exact", "openai/gpt-4o-mini"),
        ("gpt-4o-mini", "acme-router-7", "estimated", "openai/gpt-4o-mini"),
        (None, "gpt-4o-mini", "exact", "openai/gpt-4o-mini"),
    ],
)
def test_the_model_that_answered_decides(
    request_model: str | None, response_model: str, status: str, model: str
) -> None:
    """The requested model is a fallback, and makes an estimate of it."""
    result = price(Usage(input_tokens=10), request_model=request_model, response_model=response_model)

    assert (result.status, result.model) == (status, model)


@pytest.mark.parametrize(
    ("model", "usage"),
    [
        ("gpt-4o-mini", Usage(input_tokens=10, counted=True)),
        ("tts-1", Usage(characters=10, counted=True)),
        # The list has no price for cached tokens of this model: they may be cheaper than the input they are part of.
        ("gpt-4", Usage(input_tokens=10, cache_read_tokens=5)),
        # How much of the audio was cached is not reported.
        ("gpt-realtime", Usage(input_tokens=10, cache_read_tokens=5, audio_input_tokens=7)),
    ],
)
def test_what_was_inferred_is_an_estimate(model: str, usage: Usage) -> None:
    """Counted usage and parts without a price of their own are marked."""
    assert price(usage, request_model=model).status == "estimated"


def test_text_and_speech_measures_describe_the_same_work() -> None:
    """Seconds and characters beside priced tokens, or seconds beside priced characters, are no missing price."""
    tokens = price(Usage(input_tokens=10, characters=40, audio_seconds=2.5))
    speech = price(Usage(input_tokens=10, characters=40, audio_seconds=2.5), request_model="tts-1")

    assert (type(tokens), tokens.components.keys()) == (Priced, {"input"})
    assert (type(speech), speech.components.keys()) == (Priced, {"characters"})


def test_a_charge_without_a_price_makes_the_cost_partial() -> None:
    """Tool calls come on top of tokens, so their price is missing where the list has none."""
    result = price(Usage(input_tokens=1000, tools=2))

    assert result == Partial(
        amount=Decimal("0.00015"),
        components={"input": Decimal("0.00015")},
        missing=("tools",),
        price_source=result.price_source,
        model="openai/gpt-4o-mini",
    )


def test_web_searches_and_requests_are_charged() -> None:
    """Prices per search and per request are components of their own."""
    searched = price(Usage(input_tokens=1000, searches=2))

    assert searched.components == {"input": Decimal("0.00015"), "search": Decimal("0.02")}


@pytest.mark.parametrize("usage", [None, Usage(), Usage(counted=True)])
@pytest.mark.parametrize("model", ["gpt-4o-mini", "tts-1", "unheard-of"])
def test_no_usage_is_no_amount(usage: Usage | None, model: str) -> None:
    """A call without reported usage has no cost, not a cost of zero."""
    assert price(usage, request_model=model) == Unpriced("no_usage")


def test_reported_zero_is_free() -> None:
    """Zero tokens of a priced model cost zero."""
    result = price(Usage(input_tokens=0, output_tokens=0))

    assert (result.amount, result.components, result.status) == (Decimal(0), {}, "exact")


BAD = [
    Usage(input_tokens=-1),
    Usage(input_tokens=10, output_tokens=-1),
    Usage(input_tokens=10, cache_read_tokens=11),
    Usage(input_tokens=10, cache_read_tokens=-1),
    Usage(input_tokens=10, cache_read_tokens=6, cache_write_tokens=5),
    Usage(input_tokens=10, cache_write_tokens={"5m": 6, "1h": 5}),
    Usage(input_tokens=10, cache_write_tokens={"2y": 1}),
    Usage(input_tokens=10, output_tokens=5, reasoning_tokens=6),
    Usage(input_tokens=10, output_tokens=5, reasoning_tokens=3, audio_output_tokens=3),
    Usage(input_tokens=10, audio_input_tokens=11),
    Usage(input_tokens=10, audio_input_tokens=2, cache_read_tokens=2, audio_cache_read_tokens=3),
    Usage(input_tokens=math.nan),  # type: ignore[arg-type]
    Usage(input_tokens=math.inf),  # type: ignore[arg-type]
    Usage(input_tokens=10, output_tokens=math.nan),  # type: ignore[arg-type]
    Usage(input_tokens="10"),  # type: ignore[arg-type]
    Usage(input_tokens=True),
    Usage(input_tokens=10, output_tokens=[1]),  # type: ignore[arg-type]
    Usage(input_tokens=10**13),
    Usage(input_tokens=10, output_tokens=10**400),
    Usage(characters=-5),
    Usage(characters=5, audio_seconds=math.nan),
    Usage(audio_seconds=-0.5),
    Usage(compute_seconds=math.inf),
    Usage(input_tokens=Decimal("sNaN")),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("usage", BAD)
@pytest.mark.parametrize("model", ["gpt-4o-mini", "tts-1", "gpt-realtime", "unheard-of"])
def test_impossible_usage_is_refused(usage: Usage, model: str) -> None:
    """A negative, a number that is none, a part larger than its total: no amount, whatever the model."""
    assert price(usage, request_model=model) == Unpriced("bad_usage")


def test_an_unreported_overlap_is_inferred() -> None:
    """Cached audio counts once although it is in both the cached and the audio tokens."""
    result = price(Usage(input_tokens=100, cache_read_tokens=80, audio_input_tokens=60), request_model="gpt-realtime")
    known = price(
        Usage(input_tokens=100, cache_read_tokens=80, audio_input_tokens=60, audio_cache_read_tokens=40),
        request_model="gpt-realtime",
    )

    assert (result.status, known.status) == ("estimated", "exact")
    assert result.components == known.components
    assert known.components == {"cache_read": Decimal("0.000032"), "audio_input": Decimal("0.00064")}


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.decimals(),
    st.text(max_size=300),
    st.binary(max_size=8),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@given(
    st.lists(junk, min_size=len(Usage._fields), max_size=len(Usage._fields)),
    st.fixed_dictionaries(
        {
            "provider": junk,
            "request_model": st.one_of(junk, st.sampled_from(["gpt-4o-mini", "tts-1", "gpt-realtime"])),
            "response_model": junk,
            "operation": junk,
            "service_tier": junk,
            "at": junk,
            "server_address": junk,
        }
    ),
)
@settings(max_examples=300, deadline=None)
def test_no_input_makes_it_raise(values: list[Any], identity: dict[str, Any]) -> None:
    """Whatever is passed, the answer is one of the three kinds of cost."""
    for names in (identity, {**identity, "provider": "openai"}):
        assert isinstance(cost.price(Usage(*values), **names), Priced | Partial | Unpriced)


@pytest.mark.parametrize("usage", [0, "x", {"input_tokens": 5}, object(), (1, 2)])
def test_what_is_not_usage_is_refused(usage: Any) -> None:
    """Only usage records have a price."""
    assert price(usage) == Unpriced("bad_usage")


def test_the_decimal_context_of_the_host_changes_nothing() -> None:
    """A host that computes with few digits, or traps rounding, gets the same amounts."""
    usage = Usage(input_tokens=123_456_789, output_tokens=98_765_432)
    expected = price(usage)
    with decimal.localcontext(decimal.Context(prec=3, traps=[decimal.Inexact, decimal.FloatOperation])):
        result = price(usage)

    assert result == expected
    assert result.amount == Decimal("77.77777755")


def test_a_price_survives_a_flood_of_other_models() -> None:
    """Names that push a model out of the cache do not change its price."""
    usage = Usage(input_tokens=1000)
    expected = price(usage)
    for number in range(1500):
        price(usage, provider="acme", request_model=f"model-{number}")
        if number % 500 == 0:
            assert price(usage) == expected

    assert price(usage) == expected


def test_a_name_beyond_128_characters_is_not_a_model() -> None:
    """Names are compared up to a length that every real one has."""
    usage = Usage(input_tokens=1)

    assert price(usage, request_model="gpt-4o-mini" + "-" * 118) == Unpriced("unknown_model")
    assert price(usage, provider="x" * 129) == Unpriced("unknown_provider")
