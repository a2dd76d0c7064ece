"""Charts as SVG: sparklines, stacked bars and lines over time.

Places along the time axis are percentages, so that a chart follows the width of the page without scaling its text.
Each step of time carries a ``title``: a browser shows it without any script.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stagelight.embedded.pages import scales, svg, units
from stagelight.sources.model import Bucket, Window

__all__ = ["Chart", "Key", "bars_over_time", "lines_over_time", "sparkline"]

_TOP, _FLOOR, _HEIGHT = 10, 150, 176  # of a chart, in CSS pixels
_SPARK_HEIGHT = 32


@dataclass(frozen=True, slots=True)
class Key:
    """One series of a chart."""

    name: str
    style: str
    """CSS class that gives its colour."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart in two pieces: the labels of its vertical axis, of fixed width, and the plot, which takes the rest."""

    axis: Markup
    plot: Markup
    is_logarithmic: bool = False


def sparkline(values: Sequence[float | None], *, style: str = "bars") -> Markup:
    """Small picture of a series without axes: ``bars`` for counts and sums, ``line`` for levels (gaps stay gaps)."""
    scale = scales.linear(value for value in values if value is not None)
    shapes = _spark_bars(values, scale) if style == "bars" else _runs(values, scale, _SPARK_HEIGHT, 2)
    return svg.element(
        "svg",
        *shapes,
        class_="spark",
        viewBox=f"0 0 1000 {_SPARK_HEIGHT}",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def _spark_bars(values: Sequence[float | None], scale: scales.Scale) -> list[Markup]:
    step = 1000 / max(len(values), 1)
    shapes = [svg.element("rect", x=0, y=_SPARK_HEIGHT - 1, width=1000, height=1, class_="spark-base")]
    for index, value in enumerate(values):
        if value:
            height = max(scale.at(value) * (_SPARK_HEIGHT - 2), 2.0)
            shapes.append(
                svg.element("rect", x=index * step, y=_SPARK_HEIGHT - height, width=step * 0.72, height=height)
            )
    return shapes


def _runs(values: Sequence[float | None], scale: scales.Scale, height: float, margin: float) -> list[Markup]:
    """Lines through neighbouring values; a value without neighbours becomes a short dash."""
    step = 1000 / max(len(values), 1)
    shapes: list[Markup] = []
    run: list[tuple[float, float]] = []
    for index, value in enumerate([*values, None]):
        if value is not None:
            y = height - margin - scale.at(value) * (height - 2 * margin)
            run.append(((index + 0.5) * step, y))
        elif run:
            if len(run) == 1:
                (x, y), reach = run[0], step * 0.3
                run = [(x - reach, y), (x + reach, y)]
            shapes.append(svg.element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in run)))
            run = []
    return shapes


def bars_over_time(
    buckets: Sequence[Bucket], keys: Sequence[Key], *, window: Window, label: str, figure: Callable[[float], str]
) -> Chart:
    """Stacked bars, the first key at the bottom; keys that are not listed stack on top in one piece (style ``rest``).

    Args:
        buckets: equal steps over ``window``.
        keys: the series in order, with their styles.
        window: time covered, for the labels below.
        label: what a screen reader says in place of the picture.
        figure: writes a value, with its unit.
    """
    scale = scales.linear(sum(bucket.values.values()) for bucket in buckets)
    pieces = [
        _stack(bucket, keys, scale, (index / len(buckets), 1 / len(buckets))) for index, bucket in enumerate(buckets)
    ]
    return _chart(scale, pieces, _hits(buckets, keys, window, figure), window=window, label=label, figure=figure)


def _stack(bucket: Bucket, keys: Sequence[Key], scale: scales.Scale, place: tuple[float, float]) -> Markup:
    listed = {key.name for key in keys}
    amounts = [(bucket.values.get(key.name, 0.0), key.style) for key in keys]
    amounts.append((sum(value for name, value in bucket.values.items() if name not in listed), "rest"))
    left, width = place
    shapes, base = [], 0.0
    for amount, style in amounts:
        if amount > 0 and math.isfinite(amount):
            top, bottom = _y(scale, base + amount), _y(scale, base)
            shapes.append(
                svg.element(
                    "rect",
                    x=svg.percent(left + width * 0.12),
                    width=svg.percent(width * 0.76),
                    y=top,
                    height=max(bottom - top, 0.75),
                    class_=style,
                )
            )
            base += amount
    return Markup().join(shapes)


def lines_over_time(
    buckets: Sequence[Bucket], keys: Sequence[Key], *, window: Window, label: str, figure: Callable[[float], str]
) -> Chart:
    """One line per key, broken where there is no value; arguments as in `bars_over_time`.

    The axis is logarithmic when the values span more than a factor of 20, so that fast stages stay readable.
    """
    values = [value for bucket in buckets for value in bucket.values.values() if value > 0]
    is_wide = bool(values) and max(values) / min(values) > 20
    scale = scales.logarithmic(values) if is_wide else scales.linear(values)
    lines = [
        svg.element(
            "g",
            *_runs([bucket.values.get(key.name) for bucket in buckets], scale, _FLOOR - _TOP, 0),
            class_=key.style,
        )
        for key in keys
    ]
    plot = svg.element(
        "svg",
        *lines,
        class_="lines",
        y=_TOP,
        width="100%",
        height=_FLOOR - _TOP,
        viewBox=f"0 0 1000 {_FLOOR - _TOP}",
        preserveAspectRatio="none",
    )
    return _chart(scale, [plot], _hits(buckets, keys, window, figure), window=window, label=label, figure=figure)


def _chart(
    scale: scales.Scale,
    shapes: Sequence[Markup],
    hits: Sequence[Markup],
    *,
    window: Window,
    label: str,
    figure: Callable[[float], str],
) -> Chart:
    grid, names = [], []
    for tick in scale.ticks:
        y = _y(scale, tick)
        grid.append(svg.element("line", x1=0, x2="100%", y1=y, y2=y, class_="floor" if tick == scale.low else "grid"))
        names.append(svg.element("text", figure(tick), x="100%", y=y + 4, text_anchor="end"))
    times = [
        svg.element("text", text, x=svg.percent(place), y=_HEIGHT - 6, text_anchor="middle")
        for place, text in scales.time_ticks(window)
        if 0.03 < place < 0.97  # a label at the edge would be cut
    ]
    axis = svg.element("svg", *names, class_="axis", height=_HEIGHT, aria_hidden="true")
    plot = svg.element(
        "svg", *grid, *shapes, *times, *hits, class_="plot", width="100%", height=_HEIGHT, role="img", aria_label=label
    )
    return Chart(axis, plot, scale.is_logarithmic)


def _hits(
    buckets: Sequence[Bucket], keys: Sequence[Key], window: Window, figure: Callable[[float], str]
) -> list[Markup]:
    """One transparent column per step that answers the pointer with time and values."""
    step_ns = (window.until_ns - window.since_ns) // max(len(buckets), 1)
    hits = []
    for index, bucket in enumerate(buckets):
        lines = [scales.time_span(bucket.start_ns, step_ns), *_values(bucket.values, keys, figure)]
        column = svg.element(
            "rect",
            x=svg.percent(index / len(buckets)),
            width=svg.percent(1 / len(buckets)),
            y=_TOP,
            height=_FLOOR - _TOP,
        )
        hits.append(svg.element("g", svg.title("\n".join(lines)), column, class_="hit"))
    return hits


def _values(values: Mapping[str, float], keys: Sequence[Key], figure: Callable[[float], str]) -> list[str]:
    listed = {key.name for key in keys}
    lines = [f"{units.visible(key.name, 60)}  {figure(values[key.name])}" for key in keys if values.get(key.name)]
    rest = sum(value for name, value in values.items() if name not in listed)
    if rest > 0:
        lines.append(f"other  {figure(rest)}")
    return lines or ["nothing"]


def _y(scale: scales.Scale, value: float) -> float:
    return _FLOOR - scale.at(value) * (_FLOOR - _TOP)
