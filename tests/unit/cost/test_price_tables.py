"""Published prices, and the cases in which a price list would be silently wrong."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from stagelight import cost
from stagelight.facts import Cost, Partial, Priced, Unpriced, Usage

NOVEMBER = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
MILLION = 1_000_000

TEXT = [
    ("openai", "gpt-4o-mini", "0.15", "0.60"),
    ("openai", "gpt-4o-mini-2024-07-18", "0.15", "0.60"),
    ("openai", "gpt-4o", "2.50", "10"),
    ("openai", "gpt-4o-2024-05-13", "5", "15"),
    ("openai", "gpt-4.1", "2", "8"),
    ("openai", "gpt-4.1-mini", "0.40", "1.60"),
    ("openai", "gpt-4.1-nano", "0.10", "0.40"),
    ("openai", "gpt-5", "1.25", "10"),
    ("openai", "gpt-5-mini", "0.25", "2"),
    ("openai", "gpt-5-nano", "0.05", "0.40"),
    ("openai", "gpt-5.1", "1.25", "10"),
    ("openai", "gpt-5.2", "1.75", "14"),
    ("openai", "gpt-5.4", "2.5", "15"),
    ("openai", "gpt-5.5", "5", "30"),
    ("openai", "o3", "2", "8"),
    ("openai", "ft:gpt-4o-mini-2024-07-18:acme::abc123", "0.30", "1.20"),
    ("anthropic", "claude-3-haiku-20240307", "0.25", "1.25"),
    ("anthropic", "claude-3-5-haiku-20241022", "0.80", "4"),
    ("anthropic", "claude-haiku-4-5", "1", "5"),
    ("anthropic", "claude-sonnet-4-20250514", "3", "15"),
    ("anthropic", "claude-sonnet-4-5-20250929", "3", "15"),
    ("anthropic", "claude-sonnet-4-6", "3", "15"),
    ("anthropic", "claude-opus-4-1", "15", "75"),
    ("anthropic", "claude-opus-4-5", "5", "25"),
    ("anthropic", "claude-opus-4-6", "5", "25"),
    ("anthropic", "claude-opus-4-7", "5", "25"),
    ("anthropic", "claude-opus-5", "5", "25"),
    ("gcp.gemini", "gemini-2.5-flash", "0.30", "2.50"),
    ("gcp.gemini", "gemini-2.5-flash-lite", "0.10", "0.40"),
    ("gcp.gemini", "gemini-2.5-pro", "1.25", "10"),
    ("gcp.gemini", "gemini-3-pro-preview", "2", "12"),
    ("gcp.gemini", "gemini-3-flash-preview", "0.50", "3"),
    ("cohere", "command-r-plus", "2.5", "10"),
    ("x_ai", "grok-4", "3", "15"),
    ("aws.bedrock", "anthropic.claude-3-haiku-20240307-v1:0", "0.25", "1.25"),
    ("aws.bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "3.30", "16.50"),
    ("aws.bedrock", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", "3", "15"),
    (
        "aws.bedrock",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "3.30",
        "16.50",
    ),
    ("gcp.vertex_ai", "claude-sonnet-4-5@20250929", "3", "15"),
    ("azure.ai.openai", "gpt-4o", "2.50", "10"),
]  # fmt: skip
"""Provider, model, USD per million input and output tokens in November 2026, from the vendors' pages."""

EMBEDDINGS = [
    ("openai", "text-embedding-3-small", "0.02"),
    ("openai", "text-embedding-3-large", "0.13"),
    ("openai", "text-embedding-ada-002", "0.10"),
    ("cohere", "embed-v4.0", "0.12"),
    ("voyageai", "voyage-3", "0.06"),
    ("voyageai", "voyage-3.5", "0.06"),
    ("voyageai", "voyage-3-large", "0.18"),
    ("mistral_ai", "mistral-embed", "0.10"),
    ("gcp.gemini", "gemini-embedding-001", "0.15"),
    ("aws.bedrock", "amazon.titan-embed-text-v2:0", "0.02"),
]

PARTS = [
    ("openai", "gpt-4o-mini", Usage(input_tokens=MILLION, cache_read_tokens=MILLION), "0.075"),
    ("openai", "gpt-4o", Usage(input_tokens=MILLION, cache_read_tokens=MILLION), "1.25"),
    ("anthropic", "claude-sonnet-4-5", Usage(input_tokens=100_000, cache_read_tokens=100_000), "0.03"),
    ("anthropic", "claude-sonnet-4-5", Usage(input_tokens=100_000, cache_write_tokens=100_000), "0.375"),
    ("anthropic", "claude-sonnet-4-5", Usage(input_tokens=100_000, cache_write_tokens={"1h": 100_000}), "0.6"),
    (
        "anthropic",
        "claude-sonnet-4-5",
        Usage(input_tokens=200_000, cache_write_tokens={"5m": 100_000, "1h": 100_000}),
        "0.975",
    ),
    ("gcp.gemini", "gemini-2.5-flash", Usage(input_tokens=MILLION, audio_input_tokens=MILLION), "1"),
    ("openai", "tts-1", Usage(characters=MILLION), "15"),
    ("openai", "tts-1-hd", Usage(characters=MILLION), "30"),
    ("openai", "gpt-4o-mini-tts", Usage(input_tokens=MILLION), "0.60"),
    ("openai", "gpt-4o-mini-tts", Usage(output_tokens=MILLION, audio_output_tokens=MILLION), "12"),
    ("gcp.gemini", "gemini-2.5-flash-preview-tts", Usage(input_tokens=MILLION, output_tokens=MILLION), "10.50"),
    ("gcp.gemini", "gemini-2.5-pro-preview-tts", Usage(input_tokens=MILLION, output_tokens=MILLION), "21"),
    ("openai", "whisper-1", Usage(audio_seconds=3600.0), "0.36"),
    ("groq", "whisper-large-v3", Usage(audio_seconds=3600.0), "0.111"),
    ("groq", "canopylabs/orpheus-v1-english", Usage(characters=MILLION), "22"),
]


def price(provider: str | None, model: str | None, usage: Usage | None, **more: object) -> Cost:
    """Price at the day of the tables."""
    arguments = {"at": NOVEMBER, **more}
    return cost.price(usage, provider=provider, request_model=model, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("provider", "model", "asked", "told"), TEXT)
def test_text_prices(provider: str, model: str, asked: str, told: str) -> None:
    """A model's published price is charged exactly, and a double holds the amount without loss."""
    result = price(provider, model, Usage(input_tokens=100_000, output_tokens=10_000))

    assert isinstance(result, Priced)
    components = {"input": Decimal(asked) / 10, "output": Decimal(told) / 100}
    assert (result.components, result.amount) == (components, sum(components.values()))
    assert (result.status, result.source, result.currency) == ("exact", "local", "USD")
    assert Decimal(repr(float(result.amount))) == result.amount


@pytest.mark.parametrize(("provider", "model", "each"), EMBEDDINGS)
def test_embedding_prices(provider: str, model: str, each: str) -> None:
    """Embedding models are charged for input only."""
    result = price(provider, model, Usage(input_tokens=123_457))

    assert isinstance(result, Priced)
    assert (result.amount, result.status) == (Decimal(each) * 123_457 / MILLION, "exact")
    assert Decimal(repr(float(result.amount))) == result.amount


@pytest.mark.parametrize(("provider", "model", "usage", "amount"), PARTS)
def test_cached_audio_and_speech_prices(provider: str, model: str, usage: Usage, amount: str) -> None:
    """Cached tokens, audio tokens, characters and audio hours have their own prices."""
    result = price(provider, model, usage)

    assert isinstance(result, Priced)
    assert (result.amount, result.status) == (Decimal(amount), "exact")


@pytest.mark.parametrize(
    ("provider", "model", "tier", "factor"),
    [
        ("openai", "gpt-4o-mini", "batch", "0.5"),
        ("openai", "gpt-5", "batch", "0.5"),
        ("anthropic", "claude-sonnet-4-5", "batch", "0.5"),
        ("gcp.gemini", "gemini-2.5-flash", "batch", "0.5"),
        ("openai", "gpt-5", "flex", "0.5"),
        ("openai", "gpt-5", "priority", "2"),
        ("openai", "gpt-5", "auto", "1"),
        ("openai", "gpt-5", "default", "1"),
        ("openai", "gpt-5", "standard", "1"),
    ],
)
def test_tiers(provider: str, model: str, tier: str, factor: str) -> None:
    """Batch, flex and priority calls have the price of their tier."""
    usage = Usage(input_tokens=1000, output_tokens=100)
    listed, tiered = price(provider, model, usage), price(provider, model, usage, service_tier=tier)

    assert isinstance(listed, Priced)
    assert isinstance(tiered, Priced)
    assert tiered.amount == listed.amount * Decimal(factor)


@pytest.mark.parametrize(
    ("provider", "model", "tokens", "amount"),
    [
        ("gcp.gemini", "gemini-2.5-pro", 200_000, "0.25"),
        ("gcp.gemini", "gemini-2.5-pro", 200_001, "0.5000025"),
        ("openai", "gpt-5.4", 272_000, "0.68"),
        ("openai", "gpt-5.4", 272_001, "1.360005"),
    ],
)
def test_long_context_steps(provider: str, model: str, tokens: int, amount: str) -> None:
    """One token above a step, all tokens of the call have the price of the step."""
    result = price(provider, model, Usage(input_tokens=tokens))

    assert isinstance(result, Priced)
    assert result.amount == Decimal(amount)


@pytest.mark.parametrize(("day", "amount"), [(1, "5"), (9, "5"), (10, "1"), (15, "1")])
def test_prices_hold_from_a_day(day: int, amount: str) -> None:
    """A call has the price of its day, although both were asked in the same process."""
    at = datetime(2025, 6, day, 12, tzinfo=UTC).timestamp()
    result = price("openai", "o3", Usage(input_tokens=100_000, output_tokens=100_000), at=at)

    assert isinstance(result, Priced)
    assert result.amount == Decimal(amount)


@pytest.mark.parametrize(("hour", "dearer"), [(0, False), (1, True), (3, True), (4, False), (7, True), (10, False)])
def test_prices_hold_for_hours_of_the_day(hour: int, dearer: bool) -> None:
    """Off-peak prices start and end at their minute."""
    night = datetime(2026, 11, 20, 23, 59, tzinfo=UTC).timestamp()
    at = datetime(2026, 11, 21, hour, 0, tzinfo=UTC).timestamp()
    usage = Usage(input_tokens=MILLION)
    off_peak, result = (price("deepseek", "deepseek-v4-flash", usage, at=moment) for moment in (night, at))

    assert isinstance(off_peak, Priced)
    assert isinstance(result, Priced)
    assert (result.amount > off_peak.amount) is dearer


UNPRICED = [
    # A unit the model has no price for is not free.
    ("openai", "tts-1", Usage(input_tokens=100), Unpriced("unit_not_priced", ("input",))),
    ("openai", "gpt-4o-mini-tts", Usage(audio_seconds=3.0), Unpriced("unit_not_priced", ("audio_seconds",))),
    ("openai", "gpt-4o-transcribe", Usage(audio_seconds=3.0), Unpriced("unit_not_priced", ("audio_seconds",))),
    ("openai", "gpt-4o-mini", Usage(characters=100), Unpriced("unit_not_priced", ("characters",))),
    # A longer name is another model.
    ("anthropic", "claude-sonnet-4-5-custom", Usage(input_tokens=1), Unpriced("unknown_model")),
    ("gcp.gemini", "gemini-3.8-flash-cyber", Usage(input_tokens=1), Unpriced("unknown_model")),
    ("gcp.gemini", "gemini-2.5-pro-exp", Usage(input_tokens=1), Unpriced("unknown_model")),
    ("deepseek", "deepseek-r1-distill-llama-70b", Usage(input_tokens=1), Unpriced("unknown_model")),
    ("openai", "gpt-4o-mini-xyz", Usage(input_tokens=1), Unpriced("unknown_model")),
    ("openai", "gpt-6", Usage(input_tokens=1), Unpriced("unknown_model")),
    ("openai", "gpt-5-turbo-max", Usage(input_tokens=1), Unpriced("unknown_model")),
    ("aws.bedrock", "acme-claude-3-haiku-20240307", Usage(input_tokens=1), Unpriced("unknown_model")),
    # The provider is never guessed from the model.
    (None, "gpt-oss-120b", Usage(input_tokens=1), Unpriced("unknown_provider")),
    (None, "text-embedding-3-small", Usage(input_tokens=1), Unpriced("unknown_provider")),
    ("openai", "openai/gpt-4o-mini", Usage(input_tokens=1), Unpriced("unknown_model")),
    ("my-openai-gateway", "gpt-4o-mini", Usage(input_tokens=1), Unpriced("unknown_provider")),
    # Models that no list has.
    ("gcp.gemini", "text-embedding-004", Usage(input_tokens=1), Unpriced("unknown_model")),
    ("gcp.gemini", "models/gemini-2.5-flash-unheard", Usage(input_tokens=1), Unpriced("unknown_model")),
    ("jina", "jina-embeddings-v3", Usage(input_tokens=1), Unpriced("unknown_provider")),
    ("deepgram", "nova-3", Usage(audio_seconds=1.0), Unpriced("unknown_provider")),
    ("cartesia", "sonic-2", Usage(characters=1), Unpriced("unknown_provider")),
    ("elevenlabs", "eleven_monolingual_v1", Usage(characters=1), Unpriced("unknown_model")),
    # One's own hardware has no list price.
    ("ollama", "gpt-oss-120b", Usage(input_tokens=1), Unpriced("no_rate")),
    ("vllm", "gpt-oss-120b", Usage(input_tokens=1, compute_seconds=2.0), Unpriced("no_rate")),
    # A model that is listed, but without a price.
    ("openrouter", "google/gemma-3-12b-it:free", Usage(input_tokens=1), Unpriced("unit_not_priced", ("input",))),
]


@pytest.mark.parametrize(("provider", "model", "usage", "expected"), UNPRICED)
def test_what_has_no_price_gets_no_amount(provider: str | None, model: str, usage: Usage, expected: Unpriced) -> None:
    """What is not known is a reason, never 0 and never another model's price."""
    assert price(provider, model, usage) == expected


@pytest.mark.parametrize("model", ["gpt-4o-audio-preview", "gpt-4o-mini-audio-preview"])
def test_audio_tokens_are_not_billed_as_text(model: str) -> None:
    """Without an audio price the text part is a lower bound."""
    usage = Usage(input_tokens=1000, audio_input_tokens=600, output_tokens=100, audio_output_tokens=100)
    result = price("openai", model, usage)

    assert isinstance(result, Partial)
    assert (set(result.components), result.missing) == ({"input"}, ("audio_input", "audio_output"))
    assert result.amount == result.components["input"] > 0


def test_audio_tokens_have_their_price_where_it_is_known() -> None:
    """Models with an audio price charge it."""
    usage = Usage(input_tokens=1000, audio_input_tokens=600, output_tokens=100, audio_output_tokens=40)
    result = price("openai", "gpt-audio", usage)

    assert isinstance(result, Priced)
    assert result.components == {
        "input": Decimal("0.001"),
        "audio_input": Decimal("0.0192"),
        "output": Decimal("0.0006"),
        "audio_output": Decimal("0.00256"),
    }


@pytest.mark.parametrize(
    ("provider", "model", "tier", "day"),
    [
        ("openai", "gpt-5", "bogus", (2026, 11, 21)),
        ("openai", "gpt-5", "scale", (2026, 11, 21)),
        ("openai", "gpt-5", "batch", (2026, 10, 13)),
        ("anthropic", "claude-sonnet-4-5", "priority", (2026, 11, 21)),
        ("azure.ai.openai", "gpt-4o-2024-05-13", "batch", (2026, 11, 21)),
    ],
)
def test_an_unknown_tier_is_not_the_list_price(provider: str, model: str, tier: str, day: tuple[int, int, int]) -> None:
    """A tier without a price at the time of the call is unknown, not standard."""
    at = datetime(*day, 12, tzinfo=UTC).timestamp()

    assert price(provider, model, Usage(input_tokens=1), service_tier=tier, at=at) == Unpriced("unknown_context")


@pytest.mark.parametrize(
    "address",
    [
        "localhost",
        "127.0.0.1",
        "::1",
        "[::1]",
        "0.0.0.0",  # noqa: S104 - an address a client was pointed at
        "10.1.2.3",
        "192.168.1.5",
        "vllm",
        "gpu.internal",
        "llm.local",
    ],
)
def test_a_private_address_is_never_priced_as_hosted(address: str) -> None:
    """A client of a hosted provider can talk to one's own server."""
    result = price("openai", "gpt-4o-mini", Usage(input_tokens=1), server_address=address)

    assert result == Unpriced("no_rate")


@pytest.mark.parametrize("address", [None, "", "api.openai.com", "acme.openai.azure.com", "104.18.7.192"])
def test_a_public_address_is_priced(address: str | None) -> None:
    """Only private addresses are in doubt."""
    assert isinstance(price("openai", "gpt-4o-mini", Usage(input_tokens=1), server_address=address), Priced)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o-mini"), ("azure.ai.openai", "gpt-4o-mini"), ("azure.ai.inference", "gpt-4o-mini"),
        ("aws.bedrock", "amazon.nova-lite-v1:0"), ("gcp.gemini", "gemini-2.5-flash"),
        ("gcp.vertex_ai", "gemini-2.5-flash"), ("gcp.gen_ai", "gemini-2.5-flash"), ("mistral_ai", "mistral-embed"),
        ("x_ai", "grok-4"), ("anthropic", "claude-haiku-4-5"), ("cohere", "command-r-plus"),
        ("deepseek", "deepseek-chat"), ("groq", "llama-3.1-8b-instant"), ("perplexity", "sonar"),
        ("moonshot_ai", "kimi-k2.5"),
    ],
)  # fmt: skip
def test_provider_names_of_the_conventions(provider: str, model: str) -> None:
    """Every provider name of the OpenTelemetry conventions with a price list finds it."""
    assert isinstance(price(provider, model, Usage(input_tokens=10)), Priced)


@pytest.mark.parametrize(
    ("provider", "model", "usage", "amount"),
    [
        ("elevenlabs", "eleven_multilingual_v2", Usage(characters=1000), "0.1"),
        ("elevenlabs", "eleven_flash_v2_5", Usage(characters=1000), "0.05"),
        ("aws.polly", "neural", Usage(characters=1000, audio_seconds=60.5), "0.016"),
        ("gcp.text_to_speech", "standard", Usage(characters=1000), "0.004"),
        ("azure.speech", "neural-hd", Usage(characters=1000), "0.03"),
        ("openai", "tts-1-1106", Usage(characters=1000), "0.015"),
        ("openai", "chatgpt-4o-latest", Usage(input_tokens=1000, output_tokens=1000), "0.02"),
        ("cohere", "embed-english-v3.0", Usage(input_tokens=1000), "0.0001"),
    ],
)
def test_bundled_prices_fill_gaps(provider: str, model: str, usage: Usage, amount: str) -> None:
    """What genai-prices lacks comes from our dated files, marked as an estimate."""
    result = price(provider, model, usage)

    assert isinstance(result, Priced)
    assert (result.amount, result.status) == (Decimal(amount), "estimated")
    assert result.price_source.startswith("stagelight@20")


def test_groq_bills_ten_seconds_at_least() -> None:
    """Shorter audio costs as much as ten seconds of it, none costs nothing."""
    short, shortest = (price("groq", "whisper-large-v3", Usage(audio_seconds=s)) for s in (10.0, 0.5))

    assert isinstance(short, Priced)
    assert shortest == short
    assert price("groq", "whisper-large-v3", Usage(audio_seconds=0.0)) == short._replace(
        amount=Decimal(0), components={}
    )


@pytest.fixture(autouse=True)
def _no_overrides() -> Iterator[None]:
    cost.configure(None)
    yield
    cost.configure(None)
