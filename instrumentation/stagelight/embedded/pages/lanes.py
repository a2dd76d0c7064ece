"""The bars of a waterfall, one small picture per row, and the marks that run through all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stagelight.conventions import attributes as names
from stagelight.embedded.pages import scales, svg, units
from stagelight.embedded.pages.span_facts import number
from stagelight.embedded.pages.stages import style
from stagelight.embedded.pages.waterfall import Row, Segment, Waterfall
from stagelight.sources.model import TurnRow

__all__ = ["Mark", "lane", "marks", "ruler"]

_HEIGHT = 28
_BAR_TOP, _BAR = 8, 10
_NARROWEST = 0.0025  # of the whole; shorter spans are drawn this wide so that they can be seen
_DAY_S = 86_400  # a first chunk later than this is a sender's mistake
_SAME = 0.001  # pieces of the critical path nearer than this are drawn as one


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment worth a line through the whole waterfall."""

    name: str
    style: str
    place: float
    after_s: float
    """From the start of its turn."""


def marks(fall: Waterfall, turns: Sequence[TurnRow]) -> list[Mark]:
    """First token and first audio of the turns of a trace."""
    found = []
    for turn in turns:
        for name, kind, after_s in (
            ("first token", "token", turn.time_to_first_token_s),
            ("first audio", "audio", turn.time_to_first_audio_s),
        ):
            if after_s is not None and 0 <= after_s < _DAY_S:
                found.append(Mark(name, kind, fall.place(turn.start_ns + round(after_s * 1e9)), after_s))
    return found


def ruler(fall: Waterfall, moments: Sequence[Mark]) -> Markup:
    """Head of the bars' column: times since the start, and the lines that every lane repeats (``#lane-marks``)."""
    scale = scales.linear([fall.length_ns / 1e9])
    ticks = [(tick * 1e9 / fall.length_ns, tick) for tick in scale.ticks if tick * 1e9 <= fall.length_ns]
    lines = [
        svg.element("line", x1=svg.percent(place), x2=svg.percent(place), y1=0, y2=_HEIGHT, class_="grid")
        for place, _ in ticks
    ]
    lines += [
        svg.element(
            "line",
            x1=svg.percent(mark.place),
            x2=svg.percent(mark.place),
            y1=0,
            y2=_HEIGHT,
            class_=f"mark-{mark.style}",
        )
        for mark in moments
    ]
    labels = [
        svg.element("text", units.axis_seconds(tick), x=svg.percent(place), dx=4, y=12)
        for place, tick in ticks
        if place < 0.93  # a label at the edge would be cut
    ]
    repeated = svg.element("defs", svg.element("g", *lines, id="lane-marks"))
    flags = [_flag(mark) for mark in moments]
    return svg.element(
        "svg", repeated, *labels, *flags, class_="lane ruler", width="100%", height=_HEIGHT, aria_hidden="true"
    )


def _flag(mark: Mark) -> Markup:
    """Head of a mark's line: a triangle for a token, a circle for audio."""
    shape = (
        svg.element("path", d="M-5 18h10l-5 8z", class_="flag-token")
        if mark.style == "token"
        else svg.element("circle", cx=0, cy=22, r=4, class_="flag-audio")
    )
    return svg.element(
        "svg",
        svg.title(f"{mark.name}  {units.seconds(mark.after_s)}"),
        shape,
        x=svg.percent(mark.place),
        overflow="visible",
    )


def lane(row: Row, fall: Waterfall) -> Markup:
    """The bar of one span, its part of the critical path below it, and the first chunk of its answer as a notch."""
    span = row.span
    left = fall.place(span.start_ns)
    width = max(fall.place(span.start_ns + span.duration_ns) - left, _NARROWEST)
    left = min(left, 1 - width)
    bar = svg.element(
        "rect",
        x=svg.percent(left),
        y=_BAR_TOP,
        width=svg.percent(width),
        height=_BAR,
        rx=2,
        class_=f"bar {style(span.stage)}" + (" failed" if row.is_failed else ""),
    )
    shapes = [svg.element("use", href="#lane-marks"), bar, *_critical(row.critical, fall), *_first_chunk(row, fall)]
    return svg.element("svg", *shapes, class_="lane", width="100%", height=_HEIGHT, aria_hidden="true")


def _critical(pieces: Sequence[Segment], fall: Waterfall) -> list[Markup]:
    drawn: list[tuple[float, float]] = []
    for start, end in sorted((fall.place(piece[0]), fall.place(piece[1])) for piece in pieces):
        if drawn and start - drawn[-1][1] < _SAME:
            drawn[-1] = (drawn[-1][0], max(end, drawn[-1][1]))
        else:
            drawn.append((start, end))
    return [
        svg.element(
            "rect",
            x=svg.percent(min(start, 1 - _NARROWEST)),
            y=_BAR_TOP + _BAR + 2,
            width=svg.percent(max(end - start, _NARROWEST)),
            height=3,
            class_="critical",
        )
        for start, end in drawn
    ]


def _first_chunk(row: Row, fall: Waterfall) -> list[Markup]:
    after_s = number(row.span.attributes.get(names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK))
    if after_s is None or not 0 <= after_s < _DAY_S:
        return []
    x = svg.percent(fall.place(row.span.start_ns + round(after_s * 1e9)))
    return [svg.element("line", x1=x, x2=x, y1=_BAR_TOP - 3, y2=_BAR_TOP + _BAR, class_="notch")]
