"""Figures, times and foreign text as people read them."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stagelight.sources import format as written

NOW = 1_795_264_666 * 1_000_000_000


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "-"),
        ("0", "0.000 00"),
        ("0.41231", "0.412 31"),
        ("0.0003", "0.000 30"),
        ("0.00000025", "0.000 000 25"),
        ("1204.5", "1,204.500 00"),
        ("-3.2", "-3.200 00"),
        ("1E-12", "<0.000 000 001"),
        ("-1E-12", ">-0.000 000 001"),
        ("1E+300", "1.000E+300"),
        ("NaN", "-"),
    ],
)
def test_money_is_grouped_and_never_rounded_to_nothing(amount: str | None, text: str) -> None:
    """Five places or more, in groups of three; an amount that is not zero does not read as zero."""
    assert written.money(None if amount is None else Decimal(amount)) == text


def test_a_column_of_money_has_one_number_of_places() -> None:
    """The smallest amount of a column decides, so that decimal points stand below each other."""
    amounts = [Decimal("0.5"), None, Decimal(0), Decimal("0.00000024")]

    assert written.money_places(amounts) == 8
    assert [written.money(amount, 8) for amount in amounts] == ["0.500 000 00", "-", "0.000 000 00", "0.000 000 24"]
    assert written.money_places([]) == 5


@given(st.decimals(min_value=Decimal("1E-9"), max_value=Decimal("1E9"), places=9))
def test_money_reads_back_within_its_last_place(amount: Decimal) -> None:
    """What is shown is the amount, rounded to the places shown."""
    shown = written.money(amount)
    places = len(shown.partition(".")[2].replace(" ", ""))

    assert abs(Decimal(shown.replace(",", "").replace(" ", "")) - amount) <= Decimal(1).scaleb(-places) / 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (math.nan, "-"), (0, "0 s"), (1e-7, "<1 µs"), (3.4e-4, "340 µs"), (0.000_999_6, "1.00 ms"),
        (0.0034, "3.40 ms"), (0.0824, "82.4 ms"), (0.42, "420 ms"), (0.9996, "1.00 s"), (1.24, "1.24 s"),
        (59.96, "1 min 00 s"), (125, "2 min 05 s"), (3725, "1 h 02 min"), (400_000, "111 h 06 min"), (-0.5, "-500 ms"),
    ],
)  # fmt: skip
def test_a_duration_has_three_digits_and_its_unit(seconds: float | None, text: str) -> None:
    """The unit follows the size."""
    assert written.duration(seconds) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(None, "-"), (0, "0 %"), (0.0001, "<0.1 %"), (0.004, "0.4 %"), (0.41, "41 %"), (0.9999, ">99 %"), (1, "100 %")],
)
def test_a_ratio_reads_as_all_or_nothing_only_if_it_is(ratio: float | None, text: str) -> None:
    """Neither a little is none, nor almost everything all."""
    assert written.percent(ratio) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "now"), (5, "5 s ago"), (65, "1 min ago"), (3700, "1 h ago"), (90_000, "1 d ago"), (-70, "in 1 min")],
)
def test_ago_uses_the_largest_whole_unit(seconds: int, text: str) -> None:
    """Also when a sender's clock runs ahead."""
    assert written.ago(NOW - seconds * 1_000_000_000, NOW) == text


def test_clock_names_utc_and_survives_any_clock() -> None:
    """A moment outside the calendar is written as its number."""
    assert written.clock(NOW, utc=True) == "2026-11-21 12:37:46Z"
    assert written.clock(10**30) == f"{10**30} ns"
    assert written.clock(None) == "-"


def test_counts_group_thousands() -> None:
    """With and without a noun."""
    assert (written.count(1_083_118), written.count(None)) == ("1,083,118", "-")
    assert (written.counted(1, "call"), written.counted(1204, "call")) == ("1 call", "1,204 calls")


@given(st.text(st.characters()))
def test_safe_text_is_one_printable_line(text: str) -> None:
    """Nothing that moves the cursor, changes direction or hides survives; printable text is not touched."""
    safe = written.safe_text(text)

    assert not any(character in safe for character in "\x1b\x9b\r\n\u202e\u2066\u200f\u2028\ufeff")
    assert safe == text or not text.isprintable()
    assert len(safe.splitlines()) <= 1


def test_safe_text_keeps_joined_letters() -> None:
    """Joiners that build emoji and letters are not taken apart."""
    assert written.safe_text("👩\u200d🚀 \ud800") == "👩\u200d🚀 \\ud800"
