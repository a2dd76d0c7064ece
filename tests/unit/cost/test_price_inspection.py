"""What people ask about prices: which rows match, how a bill was made, what is out of date."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from stagelight import cost
from stagelight.cost import check, tables
from stagelight.cost.inspection import STALE_AFTER_DAYS
from stagelight.facts import Priced, Unpriced, Usage


def test_lookup_shows_the_price_and_its_source() -> None:
    """The rows of one provider, with units, source, date of change and other tiers."""
    (listing,) = cost.lookup("o3", "openai", at=1_795_000_000)

    assert (listing.provider, listing.model, listing.status, listing.wins) == ("openai", "o3", "exact", True)
    prices = {(p.unit, p.price, p.per, p.label) for p in listing.prices}
    assert ("input", Decimal(2), 1_000_000, "1M tokens") in prices
    assert ("output", Decimal(8), 1_000_000, "1M tokens") in prices
    assert listing.price_source.startswith("genai-prices@")
    assert listing.source_url is not None
    assert (listing.as_of, listing.age_days, listing.since) == (None, None, date(2025, 6, 10))
    assert {"batch", "flex", "priority"} <= set(listing.other_tiers)


def test_lookup_without_a_provider_finds_all_of_them() -> None:
    """A model sold by several providers is listed for each."""
    providers = [listing.provider for listing in cost.lookup("gpt-oss-120b")]

    assert {"azure", "cerebras"} <= set(providers)
    assert providers == sorted(providers)
    assert cost.lookup("unheard-of") == ()


def test_lookup_shows_long_context_steps() -> None:
    """A step appears with the number of input tokens above which it holds."""
    (listing,) = cost.lookup("gemini-2.5-pro", "google")
    steps = {(p.unit, p.above_input_tokens): p.price for p in listing.prices}

    assert (steps["input", None], steps["input", 200_000]) == (Decimal("1.25"), Decimal("2.5"))


def test_lookup_shows_what_an_override_shadows(tmp_path: Path) -> None:
    """The first row is used; the list price stays visible behind it."""
    path = tmp_path / "prices.yaml"
    path.write_text("prices: [{provider: openai, model: tts-1, prices: {per_1m_characters: 12}}]")
    cost.configure(path)
    try:
        own, listed = cost.lookup("tts-1", "openai")
    finally:
        cost.configure(None)

    assert (own.wins, own.price_source, own.prices[0].price) == (True, "override", Decimal(12))
    assert (listed.wins, listed.prices[0].price) == (False, Decimal(15))


def test_bundled_prices_warn_with_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """A price is fine for 180 days and warned about from the next one; an estimate says so at any age."""
    (fresh,) = cost.lookup("eleven_v3", "elevenlabs")
    assert fresh.as_of is not None
    noon = 43_200 + 86_400 * (fresh.as_of - date(1970, 1, 1)).days
    monkeypatch.setattr("stagelight.cost.inspection.time", lambda: noon + 86_400 * STALE_AFTER_DAYS)
    (limit,) = cost.lookup("eleven_v3", "elevenlabs")
    monkeypatch.setattr("stagelight.cost.inspection.time", lambda: noon + 86_400 * (STALE_AFTER_DAYS + 1))
    (old,) = cost.lookup("eleven_v3", "elevenlabs")

    estimate = "estimate: put your own price into STAGELIGHT_PRICES"
    assert limit.warnings == (estimate,)
    assert old.warnings == (
        "price is 181 days old (limit 180): check https://elevenlabs.io/pricing/api",
        estimate,
    )
    assert old.age_days == 181


def test_release_check_finds_old_prices() -> None:
    """The release check names file, line, model, age and where to look."""
    entries = [entry for file in tables.bundled() for entry in file.entries]
    dates = {entry.as_of for entry in entries if entry.as_of is not None}
    last_good = min(dates) + timedelta(days=STALE_AFTER_DAYS)
    found = list(check.old_prices(max(dates) + timedelta(days=STALE_AFTER_DAYS + 1)))

    assert list(check.old_prices(last_good)) == []
    assert len(found) == len(entries)
    assert found[0].startswith("speech.yaml:7: aws.polly standard is 181 days old, check https://")


def test_release_check_is_a_command() -> None:
    """``python -m stagelight.cost.check`` says how many prices are old and exits accordingly."""
    done = subprocess.run(
        [sys.executable, "-m", "stagelight.cost.check"], capture_output=True, text=True, timeout=60, check=False
    )
    old = len(done.stderr.splitlines())

    assert (done.stdout, done.returncode) == (f"{old} bundled prices older than 180 days\n", 1 if old else 0)


def test_bundled_files_are_complete_and_in_range() -> None:
    """Every bundled price is sourced, dated in the past, and within the range seen on the market."""
    for file in tables.bundled():
        for entry in file.entries:
            assert entry.rates is not None
            assert entry.as_of is not None
            assert entry.as_of <= date.today()  # noqa: DTZ011 - a day's difference does not matter
            assert entry.source_url is not None
            assert entry.source_url.startswith("https://")
            assert all(Decimal("0.01") <= p <= 300 for step in entry.rates.steps for p in step.prices.values())


def test_explain_writes_out_the_arithmetic() -> None:
    """Each component's quantity, price and amount, and the row behind them."""
    explanation = cost.explain(
        Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=400),
        provider="openai",
        request_model="gpt-4o-mini",
    )

    assert isinstance(explanation.cost, Priced)
    assert [(line.component, line.quantity, line.price, line.amount) for line in explanation.lines] == [
        ("input", 600, Decimal("0.15"), Decimal("0.00009")),
        ("cache_read", 400, Decimal("0.075"), Decimal("0.00003")),
        ("output", 100, Decimal("0.6"), Decimal("0.00006")),
    ]
    assert explanation.listing is not None
    assert explanation.listing.model == "gpt-4o-mini"


@pytest.mark.parametrize(
    ("usage", "model", "expected"),
    [
        (None, "gpt-4o-mini", Unpriced("no_usage")),
        (Usage(input_tokens=1), "unheard", Unpriced("unknown_model")),
        (Usage(input_tokens=-1), "gpt-4o-mini", Unpriced("bad_usage")),
    ],
)
def test_explain_says_why_there_is_no_price(usage: Usage | None, model: str, expected: Unpriced) -> None:
    """Without a price there are no lines."""
    explanation = cost.explain(usage, provider="openai", request_model=model)

    assert (explanation.cost, explanation.lines) == (expected, ())


def run(program: str) -> str:
    """Output of a program in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "STAGELIGHT_PRICES"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True, env=environment
    )
    return done.stdout.strip()


def test_importing_cost_imports_no_price_data() -> None:
    """The library, its data and YAML are read at the first price."""
    program = """
import sys, stagelight.cost as cost
slow = {"genai_prices", "pydantic", "yaml"}
before = slow & set(sys.modules)
from stagelight.facts import Usage
cost.price(Usage(input_tokens=1), provider="openai", request_model="gpt-4o-mini")
print(sorted(before), sorted(slow & set(sys.modules)))
"""
    assert run(program) == "[] ['genai_prices', 'pydantic', 'yaml']"


def test_random_names_do_not_grow_memory() -> None:
    """100,000 model names never seen before, some of them long, leave memory where it was."""
    program = """
import random
from stagelight import cost
from stagelight.facts import Usage
from stagelight.cost import pricing
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
usage, seed = Usage(input_tokens=1), random.Random(1)
def some(n):
    for i in range(n):
        name = f"{seed.getrandbits(64):x}" + "x" * (200_000 if i % 1000 == 0 else 0)
        cost.price(usage, provider="deepseek" if i % 9 else name, request_model=name, server_address="api.openai.com")
some(5000)
before = resident()
some(95_000)
print(len(pricing._hot) + len(pricing._cold) <= 1024, resident() - before < 3)
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    assert run(program) == "True True"
