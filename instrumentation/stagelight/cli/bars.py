"""Bars made of characters: where in a length of time something happened."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from types import MappingProxyType
from typing import Final

from stagelight.cli.output import BAD, STAGE_STYLES, STRONG, Cell
from stagelight.sources.model import TurnRow

__all__ = ["OTHER", "STAGE_LETTERS", "span_bar", "turn_bar"]

OTHER: Final = "."
"""Time of a turn in no stage."""

STAGE_LETTERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "embedding": "e", "retrieval": "r", "rerank": "k", "llm": "l", "tts": "t", "stt": "s", "tool": "o",
        "memory": "m", "parse": "p", "chunk": "c", "enrich": "n", "store": "w",
    }
)  # fmt: skip
"""One letter per stage, readable without colour."""


def turn_bar(turn: TurnRow, width: int) -> tuple[Cell, ...]:
    """The calls of a turn at their places in its time, a letter per stage; short calls stay visible on top."""
    stages: list[str | None] = [None] * width
    for bar in sorted(turn.bars, key=lambda bar: bar.start_ns - bar.end_ns):
        for place in _places(bar.start_ns - turn.start_ns, bar.end_ns - turn.start_ns, turn.duration_ns, width):
            stages[place] = bar.stage
    runs = ((stage, len(list(run))) for stage, run in groupby(stages))
    return tuple(
        Cell((OTHER if stage is None else STAGE_LETTERS.get(stage, "?")) * length, STAGE_STYLES.get(stage or "", ""))
        for stage, length in runs
    )


def span_bar(
    start_ns: int,
    end_ns: int,
    whole_ns: int,
    *,
    width: int,
    marks: Mapping[str, int],
    failed: bool,
    style: str,
    fill: str,
) -> tuple[Cell, ...]:
    """One span as a bar in the time of its trace.

    Args:
        start_ns: start of the span after the start of the trace.
        end_ns: its end, counted from the same moment.
        whole_ns: length of the trace.
        width: characters for the whole trace.
        marks: a character for each moment to mark on the bar, counted from the same moment.
        failed: whether it is drawn as an error.
        style: Rich style of the bar.
        fill: character the bar is made of.
    """
    places = _places(start_ns, end_ns, whole_ns, width)
    characters = [" "] * places.start + [fill] * len(places)
    for mark, moment_ns in marks.items():
        place = min(max(moment_ns, 0) * width // max(whole_ns, 1), width - 1)
        characters.extend(" " * (place + 1 - len(characters)))
        characters[place] = mark
    bar_style = BAD if failed else style
    return tuple(
        Cell("".join(run), STRONG if is_mark else bar_style)
        for is_mark, run in groupby(characters, key=lambda character: character in marks)
    )


def _places(start_ns: int, end_ns: int, whole_ns: int, width: int) -> range:
    """Character places of a stretch of time, at least one, within the width."""
    whole_ns = max(whole_ns, 1)
    first = min(max(start_ns * width // whole_ns, 0), width - 1)
    last = min(max(-(-end_ns * width // whole_ns), first + 1), width)
    return range(first, last)
