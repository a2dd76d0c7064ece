"""Tables and lines for people: styled on a terminal, aligned plain text in a pipe, the same words in both."""

from __future__ import annotations

import re
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from stagelight.sources.format import ago, clock, safe_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["BAD", "DIM", "STAGE_STYLES", "STRONG", "WARN", "Cell", "Column", "Content", "Screen", "cell_width", "hint"]

BAD: Final = "red"
WARN: Final = "yellow"
DIM: Final = "dim"
STRONG: Final = "bold"

# Apart for colour-blind readers too, and never the only mark: the stage's name stands beside its bar.
STAGE_STYLES: Final = {
    "turn": "bold",
    "job": "bold",
    "embedding": "bright_blue",
    "retrieval": "cyan",
    "rerank": "cyan",
    "llm": "magenta",
    "tts": "yellow",
    "stt": "yellow",
    "tool": "green",
}

_GAP: Final = 3
_TERMINAL_GAP: Final = 2


class Cell(NamedTuple):
    """A piece of text with a Rich style; made harmless when it is shown."""

    text: str
    style: str = ""


Content: TypeAlias = "str | Cell | tuple[Cell, ...]"
"""What a cell of a table or a part of a line may be given as."""

_Row: TypeAlias = "list[tuple[Cell, ...]]"


class Column(NamedTuple):
    """A column of a table."""

    title: str
    right: bool = False
    wrap: int | None = None
    """Width down to which it may be broken over several lines where the terminal is narrow."""
    prefix: int | None = None
    """First characters shown on a terminal, for ids of which a prefix is enough; a pipe gets all."""
    spare: int = 0
    """Left out where the terminal is narrow, the largest number first; 0 never."""


def cell_width(text: str) -> int:
    """Columns that printable text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def hint(sentence: str) -> None:
    """Say something beside the answer: it goes to standard error, so that a pipe gets the answer only."""
    print(safe_text(sentence), file=sys.stderr)


class Screen:
    """Standard output of one command."""

    def __init__(self) -> None:
        self._console = _console() if sys.stdout.isatty() else None

    @property
    def is_terminal(self) -> bool:
        """Whether lines are styled and fitted to a width."""
        return self._console is not None

    @property
    def width(self) -> int:
        """Columns of the terminal; a pipe has room for 120."""
        return self._console.width if self._console is not None else 120

    def moment(self, moment_ns: int, *, utc: bool) -> str:
        """A moment for a row: how long ago on a terminal, the clock in a pipe and where UTC was asked for."""
        return clock(moment_ns, utc) if utc or not self.is_terminal else ago(moment_ns, time.time_ns())

    def line(self, *parts: Content) -> None:
        """Print pieces of text as one line; one too long for the terminal goes on below its first word.

        A word that is longer than the terminal is wide is left to the terminal, so that it can be copied whole.
        """
        cells = tuple(cell for part in parts for cell in _safe(part))
        if self._console is None:
            print(_text(cells).rstrip())
        else:
            _print_wrapped(self._console, _styled(cells))

    def table(
        self, columns: Sequence[Column], rows: Sequence[Sequence[Content]], total: Sequence[Content] | None = None
    ) -> set[str]:
        """Print rows under their titles, with a row of totals if given.

        A terminal too narrow for the columns that cannot be spared gets one block per row, never cut figures.

        Returns:
            The titles of the columns that were shown.
        """
        body = [[self._cell(column, part) for column, part in zip(columns, row, strict=True)] for row in rows]
        last = [self._cell(column, part) for column, part in zip(columns, total, strict=True)] if total else None
        if self._console is None:
            _print_plain(columns, body if last is None else [*body, last])
            return {column.title for column in columns}
        kept = _kept(columns, body if last is None else [*body, last], self.width)
        left_out = ", ".join(column.title for index, column in enumerate(columns) if index not in kept)
        columns = [columns[index] for index in kept]
        body = [[row[index] for index in kept] for row in body]
        last = None if last is None else [last[index] for index in kept]
        everything = body if last is None else [*body, last]
        if _narrowest(columns, everything) <= self.width:
            _print_rich(self._console, columns, body, last)
        else:
            self._print_blocks(columns, everything)
        if left_out:
            self.line(Cell(f"left out on {self.width} columns: {left_out}", DIM))
        return {column.title for column in columns}

    def _cell(self, column: Column, part: Content) -> tuple[Cell, ...]:
        cells = _safe(part)
        if self.is_terminal and column.prefix is not None:
            return tuple(Cell(cell.text[: column.prefix], cell.style) for cell in cells)
        return cells

    def _print_blocks(self, columns: Sequence[Column], rows: Sequence[_Row]) -> None:
        margin = max(len(column.title) for column in columns) + 2
        for number, row in enumerate(rows):
            if number:
                self.line("")
            for column, cells in zip(columns, row, strict=True):
                if _text(cells).strip():
                    self.line(Cell(column.title.ljust(margin), DIM), cells)


def _console() -> Console | None:
    try:
        from rich.console import Console
    except ImportError:
        hint("For tables that fit the terminal: pip install 'stagelight[server]'")
        return None
    return Console(highlight=False, markup=False, emoji=False)


def _safe(part: Content) -> tuple[Cell, ...]:
    if isinstance(part, str):
        return (Cell(safe_text(part)),)
    cells = (part,) if isinstance(part, Cell) else part
    return tuple(Cell(safe_text(cell.text), cell.style) for cell in cells)


def _text(cells: Iterable[Cell]) -> str:
    return "".join(cell.text for cell in cells)


def _styled(cells: Iterable[Cell]) -> Text:
    from rich.text import Text

    return Text.assemble(*((cell.text, cell.style) for cell in cells))


def _print_wrapped(console: Console, text: Text) -> None:
    text.rstrip()
    margin = min(len(text.plain) - len(text.plain.lstrip()), console.width // 2)
    text = text[margin:]
    for line in text.divide(_breaks(text.plain, console.width - margin)):
        line.rstrip()
        line.pad_left(margin)
        console.print(line, soft_wrap=True)


def _breaks(text: str, width: int) -> list[int]:
    """Where lines of at most ``width`` begin, but the first: at words, of which none is cut."""
    breaks, used = [], 0
    for word in re.finditer(r"\S+\s*", text):
        if used and used + cell_width(word[0].rstrip()) > width:
            breaks.append(word.start())
            used = 0
        used += cell_width(word[0])
    return breaks


def _pad(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - cell_width(text))
    return space + text if right else text + space


def _widths(columns: Sequence[Column], rows: Sequence[_Row]) -> list[int]:
    return [
        max(len(column.title), max((cell_width(_text(row[index])) for row in rows), default=0))
        for index, column in enumerate(columns)
    ]


def _least(column: Column, width: int) -> int:
    return width if column.wrap is None else min(width, max(column.wrap, len(column.title)))


def _narrowest(columns: Sequence[Column], rows: Sequence[_Row]) -> int:
    least = map(_least, columns, _widths(columns, rows))
    return sum(least) + _TERMINAL_GAP * (len(columns) - 1)


def _fitted(columns: Sequence[Column], rows: Sequence[_Row], width: int) -> list[int]:
    """Widths that fill at most ``width``; the column with most to give is narrowed first."""
    widths = _widths(columns, rows)
    excess = sum(widths) + _TERMINAL_GAP * (len(columns) - 1) - width
    slack = {index: widths[index] - _least(column, widths[index]) for index, column in enumerate(columns)}
    for index in sorted(slack, key=lambda index: -slack[index]):
        given = min(slack[index], max(excess, 0))
        widths[index] -= given
        excess -= given
    return widths


def _kept(columns: Sequence[Column], rows: Sequence[_Row], width: int) -> list[int]:
    """Indices of the columns that stay, after leaving out spare ones until the rest fits."""
    kept = list(range(len(columns)))
    while _narrowest([columns[i] for i in kept], [[row[i] for i in kept] for row in rows]) > width:
        most = max(kept, key=lambda index: columns[index].spare)
        if not columns[most].spare:
            break
        kept.remove(most)
    return kept


def _print_plain(columns: Sequence[Column], rows: Sequence[_Row]) -> None:
    widths = _widths(columns, rows)
    titles: _Row = [(Cell(column.title),) for column in columns]
    for row in (titles, *rows):
        pieces = (
            _pad(_text(cells), width, right=column.right)
            for column, cells, width in zip(columns, row, widths, strict=True)
        )
        print((" " * _GAP).join(pieces).rstrip())


def _print_rich(console: Console, columns: Sequence[Column], rows: Sequence[_Row], total: _Row | None) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # The box puts one space between columns, the padding another.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), header_style=STRONG)
    widths = _fitted(columns, rows if total is None else [*rows, total], console.width)
    for column, width in zip(columns, widths, strict=True):
        table.add_column(
            Text(column.title),
            justify="right" if column.right else "left",
            no_wrap=column.wrap is None,
            overflow="fold",
            width=width,
        )
    for row in rows:
        table.add_row(*map(_styled, row))
    if total is not None:
        table.add_row(*map(_styled, total), style=STRONG)
    console.print(table)
