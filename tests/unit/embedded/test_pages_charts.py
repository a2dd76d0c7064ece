"""Charts as SVG: the right shapes at the right places, whatever the values."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from markupsafe import Markup
from stagelight.conventions import attributes as names
from stagelight.embedded.pages import charts, scales, units
from stagelight.embedded.pages.strips import score_strip
from stagelight.sources.model import Bucket, Window

MINUTE = 60_000_000_000
WINDOW = Window(0, 4 * MINUTE)


def buckets(*values: dict[str, float]) -> list[Bucket]:
    """One bucket a minute."""
    return [Bucket(index * MINUTE, value) for index, value in enumerate(values)]


def parse(markup: Markup) -> ElementTree.Element:
    """The picture as XML: it must be well formed."""
    return ElementTree.fromstring(str(markup))  # noqa: S314 - our own markup


def test_stacked_bars_lie_on_each_other() -> None:
    """Bars of a step start where the one below ends; what is not listed is one piece on top."""
    chart = charts.bars_over_time(
        buckets({"a": 1.0, "b": 2.0, "x": 0.5, "y": 0.5}, {}, {"a": 4.0}, {"b": 0.0}),
        [charts.Key("a", "m-1"), charts.Key("b", "m-2")],
        window=WINDOW,
        label="spend",
        figure=units.axis_money,
    )
    bars = [bar.attrib for bar in parse(chart.plot).findall("rect")]

    assert [(bar["class"], bar["x"], float(bar["y"]), float(bar["height"])) for bar in bars] == [
        ("m-1", "3%", 115, 35),
        ("m-2", "3%", 45, 70),
        ("rest", "3%", 10, 35),
        ("m-1", "53%", 10, 140),
    ]
    assert [tick.text for tick in parse(chart.axis)] == ["0", "1", "2", "3", "4"]


def test_each_step_tells_its_figures() -> None:
    """Resting on a step shows its time and each value with its unit; an empty one says so."""
    chart = charts.bars_over_time(
        buckets({"a": 1.0, "x": 0.5}, {}),
        [charts.Key("a", "m-1")],
        window=Window(0, 2 * MINUTE),
        label="spend",
        figure=lambda value: f"{units.axis_money(value)} USD",
    )
    told = [title.text or "" for title in parse(chart.plot).iter("title")]

    assert [text.splitlines()[1:] for text in told] == [["a  1 USD", "other  0.5 USD"], ["nothing"]]


def test_lines_break_where_there_is_no_value() -> None:
    """Neighbouring values are joined, a gap stays a gap, a single value is a short dash."""
    chart = charts.lines_over_time(
        buckets({"llm": 1.0}, {"llm": 2.0}, {}, {"llm": 1.0}),
        [charts.Key("llm", "s-llm")],
        window=WINDOW,
        label="latency",
        figure=units.axis_seconds,
    )
    lines = [line.attrib["points"].split() for line in parse(chart.plot).iter("polyline")]

    assert [len(points) for points in lines] == [2, 2]
    assert lines[0] == ["125.0,70.0", "375.0,0.0"]
    assert not chart.is_logarithmic


def test_wide_ranges_get_a_logarithmic_axis() -> None:
    """Fast and slow stages are both readable."""
    chart = charts.lines_over_time(
        buckets({"retrieval": 0.02, "llm": 2.0}),
        [charts.Key("llm", "s-llm")],
        window=WINDOW,
        label="latency",
        figure=units.axis_seconds,
    )

    assert chart.is_logarithmic
    assert [text.text for text in parse(chart.axis)] == ["10\u00a0ms", "100\u00a0ms", "1\u00a0s", "10\u00a0s"]


@pytest.mark.parametrize("values", [[], [None], [0.0, 0.0], [1e-12, 1e12], [math.inf, math.nan, 1.0], [-1.0, 2.0]])
@pytest.mark.parametrize("style", ["bars", "line"])
def test_sparklines_survive_any_values(values: list[float | None], style: str) -> None:
    """Empty, tiny, huge and impossible values give a picture with finite coordinates."""
    picture = charts.sparkline(
        [value if value is None or math.isfinite(value) else None for value in values], style=style
    )

    assert not re.search(r"nan|inf", str(picture))
    assert parse(picture).tag == "svg"


def test_hostile_series_stay_text() -> None:
    """The name of a model cannot leave its place in the picture."""
    hostile = '</title></svg><script>alert(1)</script>"\u202e'
    chart = charts.bars_over_time(
        buckets({hostile: 1.0}),
        [charts.Key(hostile, "m-1")],
        window=Window(0, MINUTE),
        label=hostile,
        figure=units.axis_money,
    )

    assert "<script" not in str(chart.plot)
    assert "\u202e" not in str(chart.plot)
    assert (parse(chart.plot).find("./g/title").text or "").endswith("\\u202e  1")  # type: ignore[union-attr]


def test_scores_are_placed_on_a_strip() -> None:
    """Best, second and lowest lie on an axis from 0 to 1 for cosine and are told to screen readers."""
    strip = score_strip(
        {
            names.STAGELIGHT_RETRIEVAL_TOP_SCORE: 0.84,
            names.STAGELIGHT_RETRIEVAL_MARGIN: 0.07,
            names.STAGELIGHT_RETRIEVAL_MIN_SCORE: 0.41,
            names.STAGELIGHT_RETRIEVAL_METRIC: "cosine",
        }
    )
    assert strip is not None
    dots = {dot.attrib["class"]: dot.attrib["cx"] for dot in parse(strip).iter("circle")}

    assert dots == {"dot-best": "84%", "dot-second": "77%", "dot-lowest": "41%"}
    assert parse(strip).attrib["aria-label"] == "cosine scores: best 0.84, second 0.77, lowest 0.41"


def test_distances_are_better_when_small() -> None:
    """Where lower is better, the second is above the best and no lowest is invented."""
    strip = score_strip(
        {
            names.STAGELIGHT_RETRIEVAL_TOP_SCORE: 2,
            names.STAGELIGHT_RETRIEVAL_MARGIN: 1.0,
            names.STAGELIGHT_RETRIEVAL_MIN_SCORE: 2,
            names.STAGELIGHT_RETRIEVAL_METRIC: "euclid",
            names.STAGELIGHT_RETRIEVAL_HIGHER_IS_BETTER: False,
        }
    )
    assert strip is not None

    assert parse(strip).attrib["aria-label"] == "euclid scores: best 2, second 3"


@pytest.mark.parametrize("score", [None, "0.8", True, math.nan, math.inf])
def test_no_strip_without_a_score(score: object) -> None:
    """Nothing is drawn for what is not a number."""
    assert score_strip({names.STAGELIGHT_RETRIEVAL_TOP_SCORE: score}) is None  # type: ignore[dict-item]


@pytest.mark.parametrize("values", [(5e-324,), (1e-310, 5e-324), (1.7e308, 5e-324), (-1.7e308, 1.7e308), (1e-300,)])
def test_axes_of_extreme_values(values: tuple[float, ...]) -> None:
    """Any finite numbers get an axis with finite ends, and a place on it."""
    for axis in (scales.linear(values), scales.logarithmic(values)):
        assert 0 <= axis.low < axis.high < math.inf
        assert all(0 <= axis.at(value) <= 1 for value in values)


def test_tiny_scores_on_a_strip() -> None:
    """Scores at the edge of what a double holds are drawn."""
    strip = score_strip({names.STAGELIGHT_RETRIEVAL_TOP_SCORE: 5e-324, names.STAGELIGHT_RETRIEVAL_MIN_SCORE: 0.0})
    assert strip is not None

    assert parse(strip).attrib["aria-label"] == "score scores: best 4.94e-324, lowest 0"
