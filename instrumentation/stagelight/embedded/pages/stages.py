"""How a stage looks: its colour, as the name of a CSS class, and bars made of stages."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from stagelight.embedded.pages import svg, units
from stagelight.facts import STAGES
from stagelight.sources.model import StageBar, TurnRow

__all__ = ["in_order", "ordered_shares", "share_bar", "style", "turn_bar"]

_STYLED = frozenset((*STAGES, "turn", "job"))


def style(stage: str | None) -> str:
    """CSS class of a stage; whatever telemetry invents looks like ``other``."""
    return f"s-{stage}" if stage in _STYLED else "s-other"


def ordered_shares(turn: TurnRow) -> dict[str, float]:
    """Shares of a turn's time in the order of its stages."""
    return {stage: turn.shares[stage] for stage in in_order(turn.shares)}


def turn_bar(turn: TurnRow) -> Markup:
    """The calls of a turn as pieces of one thin bar, each at its place in the turn's time."""
    length = max(turn.duration_ns, 1)
    pieces = [_piece(bar, turn.start_ns, length) for bar in turn.bars]
    track = svg.element("rect", x=0, y=3, width="100%", height=8, rx=2, class_="track")
    return svg.element(
        "svg", track, *pieces, class_="turn-bar", width="100%", height=14, role="img", aria_label=_told(turn)
    )


def _piece(bar: StageBar, start_ns: int, length: int) -> Markup:
    left = min(max((bar.start_ns - start_ns) / length, 0.0), 1.0)
    width = min(max((bar.end_ns - bar.start_ns) / length, 0.004), 1.0 - left)
    took = f"{units.visible(bar.stage, 60)}  {units.duration(bar.end_ns - bar.start_ns)}"
    rect = svg.element(
        "rect", x=svg.percent(left), y=3, width=svg.percent(max(width, 0.0)), height=8, class_=style(bar.stage)
    )
    return svg.element("g", svg.title(took), rect, class_="hit")


def _told(turn: TurnRow) -> str:
    if not turn.shares:
        return "stages: " + (", ".join(dict.fromkeys(bar.stage for bar in turn.bars)) or "none")
    return "share of time: " + ", ".join(
        f"{stage} {units.percent(share)}" for stage, share in ordered_shares(turn).items()
    )


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Stages in the order of a turn, unknown ones behind them, the remainder ``other`` last."""
    known = {stage: index for index, stage in enumerate(("turn", "job", *STAGES))}
    return tuple(sorted(names, key=lambda name: (known.get(name, len(known) + (name == "other")), name)))


def share_bar(turn: TurnRow) -> Markup:
    """One bar of a turn's time divided by stage."""
    shares = ordered_shares(turn)
    pieces, left = [], 0.0
    for stage, share in shares.items():
        rect = svg.element(
            "rect", x=svg.percent(left), y=0, width=svg.percent(max(share, 0.0)), height=12, class_=style(stage)
        )
        pieces.append(
            svg.element("g", svg.title(f"{units.visible(stage, 60)}  {units.percent(share)}"), rect, class_="hit")
        )
        left += share
    told = ", ".join(f"{stage} {units.percent(share)}" for stage, share in shares.items())
    return svg.element(
        "svg", *pieces, class_="share-bar", width="100%", height=12, role="img", aria_label=f"share of time: {told}"
    )
