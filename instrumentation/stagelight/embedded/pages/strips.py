"""Scores of a retrieval on one line: how good the best was, how far behind the second, how low the last."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise

from markupsafe import Markup

from stagelight.conventions import attributes as names
from stagelight.embedded.pages import scales, svg
from stagelight.embedded.pages.span_facts import number, written
from stagelight.sources.model import AttributeValue

__all__ = ["score_strip"]

_LINE = 26
_NEAREST = 0.3  # labels nearer than this would touch


def score_strip(given: Mapping[str, AttributeValue]) -> Markup | None:
    """Strip of the scores a span knows; None when it carries none."""
    best = number(given.get(names.STAGELIGHT_RETRIEVAL_TOP_SCORE))
    if best is None:
        return None
    is_higher_better = given.get(names.STAGELIGHT_RETRIEVAL_HIGHER_IS_BETTER) is not False
    margin = number(given.get(names.STAGELIGHT_RETRIEVAL_MARGIN))
    lowest = number(given.get(names.STAGELIGHT_RETRIEVAL_MIN_SCORE))
    scores = {"best": best}
    if margin is not None:
        scores["second"] = best - margin if is_higher_better else best + margin
    if lowest is not None and is_higher_better:  # where less is better, the lowest score is the best one
        scores["lowest"] = lowest
    metric = given.get(names.STAGELIGHT_RETRIEVAL_METRIC)
    scale = _axis(scores.values(), is_cosine=metric == "cosine")
    told = ", ".join(f"{name} {value:.3g}" for name, value in scores.items())
    return svg.element(
        "svg",
        svg.element("line", x1="0%", x2="100%", y1=_LINE, y2=_LINE, class_="floor"),
        *_ends(scale),
        *_dots(scores, scale),
        class_="strip",
        width="100%",
        height=48,
        role="img",
        aria_label=f"{written(metric or 'score')} scores: {told}",
    )


def _axis(values: Collection[float], *, is_cosine: bool) -> scales.Scale:
    low = min(0.0, *values)
    if is_cosine:
        return scales.Scale(-1.0 if low < 0 else 0.0, 1.0, ())
    return scales.Scale(low, max(scales.linear(values).high, low + 1e-9), ())


def _ends(scale: scales.Scale) -> list[Markup]:
    return [
        svg.element("text", f"{scale.low:.3g}", x="0%", y=_LINE + 16),
        svg.element("text", f"{scale.high:.3g}", x="100%", y=_LINE + 16, text_anchor="end"),
    ]


def _dots(scores: Mapping[str, float], scale: scales.Scale) -> list[Markup]:
    placed = sorted(((scale.at(value), name, value) for name, value in scores.items()), key=lambda dot: -dot[0])
    shapes = [
        svg.element(
            "g",
            svg.title(f"{name}  {value:.6g}"),
            svg.element("circle", cx=svg.percent(place), cy=_LINE, r=5 if name == "best" else 4, class_=f"dot-{name}"),
            class_="hit",
        )
        for place, name, value in reversed(placed)
    ]
    crowded = {later[1] for earlier, later in pairwise(placed) if earlier[0] - later[0] < _NEAREST}
    for place, name, value in placed:
        if name == "best" or (name == "lowest" and name not in crowded):
            anchor = "end" if place > 0.85 else "start" if place < 0.15 else "middle"
            text = f"{name} {value:.3g}"
            shapes.append(svg.element("text", text, x=svg.percent(place), y=14, text_anchor=anchor, class_="told"))
    return shapes
