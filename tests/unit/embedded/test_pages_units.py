"""Numbers, text and axes of the pages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal

import pytest
from markupsafe import Markup
from stagelight.embedded.pages import scales, svg, units
from stagelight.sources.model import Window

THIN, JOIN = "\u202f", "\u00a0"
MINUTE = 60_000_000_000
NOON = 1_795_262_400 * 1_000_000_000


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("0.41231", "0.412 31"),
        ("0.00034", "0.000 34"),
        ("0.00000028", "0.000 000 28"),
        ("1204.5", "1,204.500 00"),
        ("0", "0.000 00"),
    ],
)
def test_money_is_readable_and_does_not_break(amount: str, expected: str) -> None:
    """Decimals are grouped by three with spaces at which no line breaks."""
    assert units.money(Decimal(amount)) == expected.replace(" ", THIN)


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("0.0000582", "0.000 058 2"),
        ("0.15", "0.15"),
        ("15", "15.00"),
        ("1E+2", "100.00"),
        ("0", "0.00"),
        ("0.00011235", "0.000 112 35"),
        ("0.000000000000000001", "0.000 000 000 000 000 001"),
        ("Infinity", "-"),
    ],
)
def test_exact_money_has_every_digit(amount: str, expected: str) -> None:
    """Nothing is rounded, and whole amounts still look like money."""
    assert units.exact_money(Decimal(amount)) == expected.replace(" ", THIN)


def test_durations_keep_their_unit_on_the_line() -> None:
    """Number and unit are joined; what is not known is a hyphen."""
    assert [units.duration(412_000_000), units.seconds(1.24), units.seconds(None), units.axis_seconds(10.0)] == [
        f"412{JOIN}ms",
        f"1.24{JOIN}s",
        "-",
        f"10{JOIN}s",
    ]


@pytest.mark.parametrize(
    ("amount", "expected"), [(0, "0"), (0.002, "0.002"), (1.5, "1.5"), (0.000025, f"0.000{THIN}025"), (100, "100")]
)
def test_axis_money_is_short(amount: float, expected: str) -> None:
    """A line of a chart carries no digit more than it needs."""
    assert units.axis_money(amount) == expected


def test_counted_agrees_with_its_noun() -> None:
    """One is singular, everything else plural."""
    assert [units.counted(number, "turn") for number in (0, 1, 1204)] == [
        f"0{JOIN}turns",
        f"1{JOIN}turn",
        f"1,204{JOIN}turns",
    ]


def test_sizes_have_a_fitting_unit() -> None:
    """Bytes are told in powers of a thousand."""
    assert [units.bytes_size(size) for size in (0, 820_000, 12_340_000, 2_000_000_000)] == [
        f"0{JOIN}kB",
        f"820{JOIN}kB",
        f"12.3{JOIN}MB",
        f"2.0{JOIN}GB",
    ]


def test_times_are_exact_and_survive_nonsense() -> None:
    """Milliseconds and the offset are shown; a time that no calendar holds is told in nanoseconds."""
    assert units.exact_time(NOON + 5_123_456_789) == "2026-11-21 12:00:05.123+00:00"
    assert units.iso_time(NOON) == "2026-11-21T12:00:00.000+00:00"
    assert units.exact_time(2**200) == f"{2**200} ns"
    assert units.iso_time(2**200) == ""


def test_hidden_characters_are_written_out() -> None:
    """Controls, escapes and overrides of the reading direction become visible; lines stay lines."""
    assert units.visible("a\u202eb\x1b[0m\nc") == "a\\u202eb\\x1b[0m\nc"


def test_long_text_is_cut_and_says_so() -> None:
    """A label ends with an ellipsis, a long text says how much is missing."""
    assert units.visible("x" * 70, 60) == "x" * 60 + "…"
    assert units.visible("x" * 5_000, 4_000) == "x" * 4_000 + "… (1,000 more characters)"


def test_elements_escape_text_and_attributes() -> None:
    """Neither a text nor an attribute can leave its place; None is left out."""
    made = svg.element("text", "<b>&", x=1.5, y=None, class_='a"b', stroke_width="\u202e")

    assert made == Markup('<text x="1.5" class="a&#34;b" stroke-width="\\u202e">&lt;b&gt;&amp;</text>')


@pytest.mark.parametrize(
    ("largest", "high", "ticks"),
    [(0.0168, 0.02, 5), (7, 8, 5), (100, 100, 5), (0.9, 1.0, 5), (1e-9, 1e-9, 5), (0, 1.0, 1)],
)
def test_linear_axes_end_at_round_numbers(largest: float, high: float, ticks: int) -> None:
    """The axis starts at 0, ends at or above the largest value, and has a few round steps."""
    scale = scales.linear([largest / 3, largest])

    assert scale.high == pytest.approx(high)
    assert len(scale.ticks) == ticks
    assert scale.at(0) == 0
    assert scale.at(scale.high * 2) == 1


def test_logarithmic_axes_hold_whole_powers() -> None:
    """The axis spans whole powers of ten around the values, with at most six labels."""
    scale = scales.logarithmic([0.046, 2.45, 0.0])

    assert scale.ticks == pytest.approx((0.01, 0.1, 1, 10))
    assert scale.at(0.1) == pytest.approx(1 / 3)
    assert scale.at(0) == 0
    assert len(scales.logarithmic([1e-9, 1e9]).ticks) <= 6
    assert scales.logarithmic([]).ticks == (1, 10)


@pytest.mark.parametrize(
    ("minutes", "labels"),
    [
        (15, ["12:00", "12:05", "12:10"]),
        (60, ["12:00", "12:10", "12:20", "12:30", "12:40", "12:50"]),
        (1_440, ["12:00", "16:00", "20:00", "00:00", "04:00", "08:00"]),
        (10_080, ["22 Nov", "24 Nov", "26 Nov", "28 Nov"]),
        (43_200, ["22 Nov", "27 Nov", "2 Dec", "7 Dec", "12 Dec", "17 Dec"]),
    ],
)
def test_times_below_a_chart_are_round(minutes: int, labels: list[str]) -> None:
    """At most six labels at times people would choose, each inside the chart."""
    ticks = scales.time_ticks(Window(NOON, NOON + minutes * MINUTE))

    assert [label for _, label in ticks][:6] == labels
    assert all(0 <= place < 1 for place, _ in ticks)


def test_steps_of_time_are_told_in_words() -> None:
    """A step names its day and both ends, and the second day only when it is another one."""
    assert scales.time_span(NOON, MINUTE) == "21 Nov 12:00 to 12:01"
    assert scales.time_span(NOON, MINUTE // 4) == "21 Nov 12:00:00 to 12:00:15"
    assert scales.time_span(NOON, 720 * MINUTE) == "21 Nov 12:00 to 22 Nov 00:00"
