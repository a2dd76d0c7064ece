"""Prices shows what a call of a model costs, by which price, and what is wrong with a price file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Run

pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    """A price file of a user."""
    path = tmp_path / "prices.yaml"
    path.write_text(
        "prices:\n"
        "  - {provider: acme, model: house-model, prices: {input_per_1m_tokens: 2, output_per_1m_tokens: 8.5}}\n"
    )
    return path


def test_prices_shows_the_price_and_the_arithmetic(run: Run, prices: Path) -> None:
    """Where a price is from, what each unit costs, and one call of it multiplied out."""
    words = ("--input-tokens", "1500", "--output-tokens", "200", "--prices", prices)
    result = run("prices", "house-model", "--provider", "acme", *words)

    assert (result.status, result.err) == (0, "")
    assert result.out == (
        "house-model at acme\n"
        "  exact, from override\n"
        "\n"
        "unit     USD   per\n"
        "input      2   1M tokens\n"
        "output   8.5   1M tokens\n"
        "\n"
        "This call\n"
        "  input: 1,500 x 2 / 1,000,000 = 0.003 USD\n"
        "  output: 200 x 8.5 / 1,000,000 = 0.0017 USD\n"
        "  total 0.0047 USD (exact)\n"
    )


def test_prices_in_json_keeps_amounts_as_text(run: Run, prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a program, with the file named by the environment."""
    monkeypatch.setenv("STAGELIGHT_PRICES", str(prices))
    document = json.loads(run("prices", "house-model", "--provider", "acme", "--input-tokens", "9", "--json").out)

    assert set(document) == {"model", "currency", "rows", "call"}
    assert [(row["provider"], row["status"], row["wins"]) for row in document["rows"]] == [("acme", "exact", True)]
    assert document["call"]["amount"] == "0.000018"
    assert set(document["call"]) == {"amount", "status", "reason", "lines"}


def test_prices_of_an_unknown_model_is_not_zero(run: Run) -> None:
    """No price is said as such, with the next step, and as exit code 1."""
    result = run("prices", "no-such-model", "--provider", "acme", "--characters", "7")

    assert result.status == 1
    assert result.out == (
        "No price is known for 'no-such-model' at 'acme': its calls are unpriced, not free.\n"
        "Put your own price into a YAML file and name it in STAGELIGHT_PRICES: see docs/pricing.md.\n"
    )


def test_prices_says_where_a_price_file_is_wrong(run: Run, tmp_path: Path) -> None:
    """The error of a file names file, line, field and what is accepted."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("prices:\n  - {provider: acme, model: m, prices: {input_per_1m_tokens: cheap}}\n")

    result = run("prices", "m", "--prices", wrong)

    assert (result.status, result.out) == (1, "")
    assert result.err.startswith(f"stagelight: {wrong}, line 2: ")
