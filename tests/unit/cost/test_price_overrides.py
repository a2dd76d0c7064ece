"""The user's price file: what it can say, which item wins, and what its errors tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from stagelight import cost
from stagelight.facts import Cost, Priced, Unpriced, Usage

Load = Callable[[str], Path]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Write a price file and use it until the end of the test."""

    def write(text: str) -> Path:
        path = tmp_path / "prices.yaml"
        path.write_text(text, "utf-8")
        cost.configure(path)
        return path

    yield write
    cost.configure(None)


def price(provider: str, model: str, usage: Usage | None = None, **more: Any) -> Cost:
    """Price a thousand input tokens, or ``usage``."""
    return cost.price(usage or Usage(input_tokens=1000), provider=provider, request_model=model, **more)


def amount(result: Cost) -> Decimal:
    """The amount of a priced call."""
    assert isinstance(result, Priced), result
    return result.amount


def test_an_override_wins_over_every_list(load: Load) -> None:
    """The user's price is used, for dated names of the model too, and says so."""
    load("""
        prices:
          - provider: openai
            model: gpt-4o
            prices: {input_per_1m_tokens: 2.125, output_per_1m_tokens: "8.5"}
    """)

    assert price("openai", "gpt-4o-2024-11-20", Usage(input_tokens=1000, output_tokens=10)) == Priced(
        amount=Decimal("0.00221"),
        components={"input": Decimal("0.002125"), "output": Decimal("0.000085")},
        status="exact",
        price_source="override",
        model="openai/gpt-4o",
    )
    assert amount(price("openai", "gpt-4o-mini")) == Decimal("0.00015")


def test_the_most_specific_item_wins(load: Load) -> None:
    """A named model wins over patterns, a longer pattern over a shorter one; a pattern is an estimate."""
    load("""
        prices:
          - {provider: "*", model: "acme-*", prices: {input_per_1m_tokens: 1}}
          - {provider: acme, model: "acme-large*", prices: {input_per_1m_tokens: 2}}
          - {provider: acme, model: acme-large-2, prices: {input_per_1m_tokens: 3}}
    """)
    results = [price("acme", model) for model in ("acme-large-2", "acme-large-3", "acme-small", "other")]

    assert [(amount(r), r.status) for r in results if isinstance(r, Priced)] == [
        (Decimal("0.003"), "exact"),
        (Decimal("0.002"), "estimated"),
        (Decimal("0.001"), "estimated"),
    ]
    assert results[3] == Unpriced("unknown_provider")


def test_items_hold_from_their_day(load: Load) -> None:
    """A later ``from`` replaces an earlier price on its day, and before the first one the list price holds."""
    load("""
        prices:
          - {provider: openai, model: gpt-4o-mini, from: 2026-03-01, prices: {input_per_1m_tokens: 0.2}}
          - {provider: openai, model: gpt-4o-mini, from: 2026-01-01, prices: {input_per_1m_tokens: 0.1}}
    """)
    days = [datetime(2025, 12, 31, 23, 59), datetime(2026, 1, 1), datetime(2026, 2, 28), datetime(2026, 3, 1)]  # noqa: DTZ001
    amounts = [amount(price("openai", "gpt-4o-mini", at=day.replace(tzinfo=UTC).timestamp())) for day in days]

    assert amounts == [Decimal("0.00015"), Decimal("0.0001"), Decimal("0.0001"), Decimal("0.0002")]


def test_a_discount_multiplies_the_list_price_in_every_tier(load: Load) -> None:
    """A multiplier alone takes the price from the lists, whose name stays visible."""
    load("""
        prices:
          - {provider: openai, model: "gpt-*", multiplier: 0.85}
    """)
    result = price("openai", "gpt-5", Usage(input_tokens=1000, output_tokens=100), service_tier="batch")

    assert amount(result) == Decimal("0.85") * (Decimal("0.000625") + Decimal("0.0005"))
    assert isinstance(result, Priced)
    assert result.price_source.startswith("override+genai-prices@")
    assert price("openai", "gpt-unheard") == Unpriced("unknown_model")
    assert price("openai", "gpt-4o-mini", server_address="localhost") == Unpriced("no_rate")


def test_tiers_and_long_context_steps(load: Load) -> None:
    """An item prices its own tier only, and a step holds above its number of input tokens."""
    load("""
        prices:
          - provider: acme
            model: large
            prices: {input_per_1m_tokens: 1, output_per_1m_tokens: 4}
            steps:
              - {above_input_tokens: 1_000, prices: {input_per_1m_tokens: 2}}
              - {above_input_tokens: 2000, prices: {input_per_1m_tokens: 3, output_per_1m_tokens: 8}}
          - {provider: acme, model: large, tier: batch, prices: {input_per_1m_tokens: 0.5}}
    """)
    usages = [Usage(input_tokens=tokens, output_tokens=1000) for tokens in (1000, 1001, 2000, 2001)]

    assert [amount(price("acme", "large", usage)) for usage in usages] == [
        Decimal("0.005"), Decimal("0.006002"), Decimal("0.008"), Decimal("0.014003"),
    ]  # fmt: skip
    assert amount(price("acme", "large", service_tier="batch")) == Decimal("0.0005")
    assert price("acme", "large", service_tier="flex") == Unpriced("unknown_context")


def test_other_currencies_are_converted_at_a_dated_rate(load: Load) -> None:
    """Amounts are in USD whatever the currency of the contract."""
    load("""
        prices:
          - provider: mistral
            model: mistral-large-latest
            currency: EUR
            usd_rate: 1.08
            usd_rate_date: 2026-11-01
            multiplier: 0.5
            prices: {input_per_1m_tokens: 2}
    """)
    result = price("mistral_ai", "mistral-large-latest")

    assert isinstance(result, Priced)
    assert (result.amount, result.currency) == (Decimal("0.00108"), "USD")


def test_self_hosted_hardware_has_a_rate(load: Load) -> None:
    """Busy seconds x GPUs x rate per GPU hour / 3600 x share, tokens being another measure of the same work."""
    load("""
        prices:
          - {provider: vllm, model: "*", prices: {per_gpu_hour: 2.5}, gpu_count: 4, share: 0.25}
          - {provider: ollama, model: gemma, free: true}
    """)
    busy = price("vllm", "gpt-oss-120b", Usage(input_tokens=100, compute_seconds=7.2), server_address="10.0.0.7")
    free = price("ollama", "gemma", Usage(input_tokens=100, output_tokens=5), server_address="localhost")

    assert isinstance(busy, Priced)
    assert busy.components == {"compute": Decimal("0.005")}
    assert isinstance(free, Priced)
    assert (free.amount, free.status) == (Decimal(0), "exact")
    assert price("vllm", "gpt-oss-120b") == Unpriced("unit_not_priced", ("input",))
    assert price("ollama", "llama") == Unpriced("no_rate")


def test_every_unit_has_a_price_key(load: Load) -> None:
    """All units can be priced, each in its own component."""
    load("""
        prices:
          - provider: acme
            model: everything
            minimum_audio_seconds: 60
            prices:
              input_per_1m_tokens: 1
              cache_read_per_1m_tokens: 0.1
              audio_cache_read_per_1m_tokens: 0.2
              cache_write_per_1m_tokens: 1.25
              cache_write_1h_per_1m_tokens: 2
              output_per_1m_tokens: 4
              reasoning_per_1m_tokens: 3
              audio_input_per_1m_tokens: 10
              audio_output_per_1m_tokens: 20
              image_input_per_1m_tokens: 5
              image_output_per_1m_tokens: 30
              per_1m_characters: 15
              per_audio_hour: 0.36
              per_1k_searches: 10
              per_1k_tool_calls: 30
              per_1k_requests: 5
              per_gpu_hour: 3.6
    """)
    usage = Usage(
        input_tokens=7000, output_tokens=4000, cache_read_tokens=2000, cache_write_tokens={"5m": 1000, "1h": 1000},
        reasoning_tokens=1000, audio_input_tokens=2000, audio_output_tokens=1000, image_input_tokens=1000,
        image_output_tokens=1000, audio_cache_read_tokens=1000, characters=1000, audio_seconds=2.5, searches=1, tools=1,
        compute_seconds=1.5,
    )  # fmt: skip
    result = price("acme", "everything", usage)

    assert isinstance(result, Priced)
    assert result.components == {
        "input": Decimal("0.001"),
        "cache_read": Decimal("0.0003"),
        "cache_write": Decimal("0.00325"),
        "audio_input": Decimal("0.01"),
        "image_input": Decimal("0.005"),
        "output": Decimal("0.004"),
        "reasoning": Decimal("0.003"),
        "audio_output": Decimal("0.02"),
        "image_output": Decimal("0.03"),
        "characters": Decimal("0.015"),
        "audio_seconds": Decimal("0.006"),
        "search": Decimal("0.01"),
        "tools": Decimal("0.03"),
        "requests": Decimal("0.005"),
        "compute": Decimal("0.0015"),
    }


def test_the_requested_deployment_wins_over_the_list_price_of_its_model(load: Load) -> None:
    """A price given for the name of a deployment is used although the answer names a listed model."""
    load("""
        prices:
          - {provider: azure, model: my-deployment, prices: {input_per_1m_tokens: 7}}
    """)
    result = price("azure.ai.openai", "my-deployment", response_model="gpt-4o-2024-11-20")

    assert isinstance(result, Priced)
    assert (result.amount, result.status, result.price_source) == (Decimal("0.007"), "estimated", "override")


ITEM = "prices:\n  - provider: acme\n    model: large\n"
PRICED = ITEM + "    prices: {input_per_1m_tokens: 1}\n"
ERRORS = [
    ("prices: [", 1, "file", "expected the node content, but found '<stream end>'", "valid YAML"),
    ("- 1", 1, "file", "a list", "fields: prices"),
    ("price: []", 1, "file.price", "an unknown field", "prices"),
    ("prices: 3", 1, "prices", "3", "a list"),
    ("prices:\n  - 3", 2, "prices[0]", "3", "fields: provider, model"),
    ("prices:\n  - model: x\n", 2, "prices[0].provider", "nothing", "a value for provider"),
    (ITEM, 2, "prices[0]", "no prices", "prices, multiplier or free: true"),
    (ITEM + "    prices: {}\n", 4, "prices[0].prices", "nothing", "at least one of input_per_1m_tokens"),
    (
        ITEM + "    prices: {input_per_1k_tokens: 1}\n",
        4,
        "prices[0].prices.input_per_1k_tokens",
        "an unknown field",
        "input_per_1m_tokens",
    ),
    (
        ITEM + "    prices:\n      input_per_1m_tokens: cheap\n",
        5,
        "prices[0].prices.input_per_1m_tokens",
        "cheap",
        "a number of at least 0",
    ),
    (
        ITEM + "    prices: {input_per_1m_tokens: -1}\n",
        4,
        "prices[0].prices.input_per_1m_tokens",
        "-1",
        "a number of at least 0",
    ),
    (
        ITEM + "    prices: {input_per_1m_tokens: .nan}\n",
        4,
        "prices[0].prices.input_per_1m_tokens",
        ".nan",
        "a number of at least 0",
    ),
    (
        ITEM + "    prices: {input_per_1m_tokens: }\n",
        4,
        "prices[0].prices.input_per_1m_tokens",
        "nothing",
        "a single value",
    ),
    (PRICED + "    multiplier: 0\n", 5, "prices[0].multiplier", "0", "a number above 0"),
    (PRICED + "    from: soon\n", 5, "prices[0].from", "soon", "a date such as 2026-01-31"),
    (PRICED + "    from: 2026-02-30\n", 5, "prices[0].from", "2026-02-30", "a date such as 2026-01-31"),
    (PRICED + "    estimate: maybe\n", 5, "prices[0].estimate", "maybe", "true or false"),
    (PRICED + "    free: true\n", 5, "prices[0].free", "true beside prices", "free: true alone"),
    (
        PRICED + "    currency: EUR\n",
        2,
        "prices[0].usd_rate",
        "nothing, with currency EUR",
        "usd_rate (USD for 1 EUR) and usd_rate_date",
    ),
    (
        PRICED + "    currency: EUR\n    usd_rate: 1.1\n",
        2,
        "prices[0].usd_rate_date",
        "nothing, with currency EUR",
        "usd_rate_date",
    ),
    (PRICED + "    usd_rate: 1.1\n", 5, "prices[0].usd_rate", "1.1", "no usd_rate for prices in USD"),
    (PRICED + "    share: 2\n", 5, "prices[0].share", "2", "a number above 0, at most 1"),
    (
        PRICED + "    steps: [{prices: {input_per_1m_tokens: 1}}]\n",
        5,
        "prices[0].steps[0].above_input_tokens",
        "nothing",
        "a value for above_input_tokens",
    ),
    (
        PRICED + "    steps: [{above_input_tokens: x, prices: {input_per_1m_tokens: 1}}]\n",
        5,
        "prices[0].steps[0].above_input_tokens",
        "x",
        "a whole number above 0",
    ),
    (PRICED + "    model: small\n", 5, "prices[0].model", "the field a second time", "each field once"),
    (
        PRICED + PRICED.removeprefix("prices:\n"),
        5,
        "model",
        "acme large a second time (first on line 2)",
        "one item for each",
    ),
]


@pytest.mark.parametrize(("text", "line", "field", "received", "accepted"), ERRORS)
def test_errors_name_file_line_field_and_values(
    load: Load, text: str, line: int, field: str, received: str, accepted: str
) -> None:
    """A wrong value is found by what the error says, and the prices used before stay."""
    load(PRICED)
    with pytest.raises(cost.PriceFileError) as caught:
        load(text)
    error = caught.value

    assert (error.line, error.field, error.received) == (line, field, received)
    assert error.accepted.startswith(accepted) or accepted in error.accepted
    assert str(error) == f"{error.path}, line {line}: {field}: received {received!r}; accepted: {error.accepted}"
    assert amount(price("acme", "large")) == Decimal("0.001")


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    """A missing file, a folder and bytes that are no text are named."""
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.yaml", tmp_path, binary):
        with pytest.raises(cost.PriceFileError, match="a readable UTF-8 file") as caught:
            cost.configure(path)

        assert (caught.value.path, caught.value.line) == (path, None)


def test_an_empty_file_has_no_prices(load: Load) -> None:
    """A file of comments is fine and changes nothing."""
    load("# nothing yet\n")

    assert amount(price("openai", "gpt-4o-mini")) == Decimal("0.00015")


def test_the_example_of_the_documentation_is_accepted(load: Load) -> None:
    """The price file shown to users loads and prices what it says."""
    text = (Path(__file__).parents[3] / "docs" / "pricing.md").read_text("utf-8")
    load(text.split("```yaml\n")[1].split("```")[0])

    assert amount(price("openai", "gpt-4o", service_tier="batch")) == Decimal("0.0010625")
    assert amount(price("anthropic", "claude-haiku-4-5")) == Decimal("0.00085")
    assert amount(price("vllm", "any", Usage(compute_seconds=3.6))) == Decimal("0.00125")
    assert amount(price("ollama", "any")) == 0
    assert amount(price("mistral", "mistral-large-latest", Usage(input_tokens=200_000))) == Decimal("0.7776")
