"""A trace as rows: who called whom, where each span lies in time, and which of them the whole waited for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, TypeAlias

from stagelight.sources.model import SpanRow

__all__ = ["SELECTIONS", "Row", "Segment", "Selection", "Waterfall", "arrange", "critical_path"]

Selection = Literal["all", "stages", "critical", "errors"]
SELECTIONS: tuple[Selection, ...] = ("all", "stages", "critical", "errors")

Segment: TypeAlias = tuple[int, int]
"""Start and end in unix nanoseconds."""

_DEEPEST = 12  # levels of indentation; deeper rows say their level instead of leaving the screen


@dataclass(frozen=True, slots=True)
class Row:
    """One span of a waterfall."""

    span: SpanRow
    level: int
    """1 for a root."""
    children: int
    critical: tuple[Segment, ...]
    """Pieces of the critical path that this span itself holds, not its children."""

    @property
    def indent(self) -> int:
        """Levels to indent by, bounded."""
        return min(self.level - 1, _DEEPEST)

    @property
    def is_failed(self) -> bool:
        """Whether the span ended with an error status."""
        return self.span.status == "ERROR"


@dataclass(frozen=True, slots=True)
class Waterfall:
    """All rows of a trace in the order of a depth-first walk, and its ends."""

    rows: tuple[Row, ...]
    start_ns: int
    end_ns: int

    @property
    def length_ns(self) -> int:
        """From the first start to the last end, at least 1."""
        return max(self.end_ns - self.start_ns, 1)

    def place(self, moment_ns: int) -> float:
        """Where a moment lies between start (0) and end (1)."""
        return min(max((moment_ns - self.start_ns) / self.length_ns, 0.0), 1.0)

    def below(self, row: Row) -> list[Row]:
        """Everything that hangs below a row."""
        place = self.rows.index(row)
        return list(takewhile(lambda later: later.level > row.level, self.rows[place + 1 :]))

    def selected(self, selection: Selection) -> list[Row]:
        """Rows of one kind: ``all``, those with a ``stage``, on the ``critical`` path, or with ``errors``."""
        if selection == "stages":
            return [row for row in self.rows if row.span.stage]
        if selection == "critical":
            return [row for row in self.rows if row.critical]
        if selection == "errors":
            return [row for row in self.rows if row.is_failed]
        return list(self.rows)


def arrange(spans: Sequence[SpanRow]) -> Waterfall:
    """Order the spans of a trace as a tree; orphans become roots and circles of parents are cut."""
    ordered = sorted(spans, key=lambda span: (span.start_ns, -span.duration_ns))
    children = _children(ordered)
    path = critical_path(ordered)
    rows = tuple(
        Row(span, level, len(children.get(span.span_id, ())), tuple(path.get(span.span_id, ())))
        for span, level in _walk(ordered, children)
    )
    start_ns = min((span.start_ns for span in ordered), default=0)
    return Waterfall(rows, start_ns, max((_end(span) for span in ordered), default=start_ns))


def _end(span: SpanRow) -> int:
    return span.start_ns + span.duration_ns


def _children(spans: Iterable[SpanRow]) -> dict[str, list[SpanRow]]:
    children: dict[str, list[SpanRow]] = {}
    for span in spans:
        if span.parent_id and span.parent_id != span.span_id:
            children.setdefault(span.parent_id, []).append(span)
    return children


def _roots(spans: Sequence[SpanRow]) -> list[SpanRow]:
    known = {span.span_id for span in spans}
    return [span for span in spans if span.parent_id not in known or span.parent_id == span.span_id]


def _walk(spans: Sequence[SpanRow], children: Mapping[str, Sequence[SpanRow]]) -> Iterator[tuple[SpanRow, int]]:
    seen: set[str] = set()
    for start in [*_roots(spans), *spans]:  # the second half reaches what hangs in a circle of parents
        stack = [(start, 1)]
        while stack:
            span, level = stack.pop()
            if span.span_id not in seen:
                seen.add(span.span_id)
                yield span, level
                stack.extend((child, level + 1) for child in reversed(children.get(span.span_id, ())))


def critical_path(spans: Sequence[SpanRow]) -> dict[str, list[Segment]]:
    """Pieces of time that decided when the trace ended, per span id.

    Walks back from the end: each instant belongs to the child that ended last before it, or to the span itself while
    no child ran.
    """
    children = _children(spans)
    by_end = {parent: sorted(group, key=_end, reverse=True) for parent, group in children.items()}
    path: dict[str, list[Segment]] = {}
    stack: list[tuple[str | None, Sequence[SpanRow], int, int]] = []
    roots = sorted(_roots(spans), key=_end, reverse=True)
    if roots:
        stack.append((None, roots, min(span.start_ns for span in roots), _end(roots[0])))
    while stack:
        span_id, below, start_ns, cursor = stack.pop()
        own: list[Segment] = []
        for child in below:
            if cursor <= start_ns:
                break
            ended = min(_end(child), cursor)
            if child.start_ns >= ended or ended <= start_ns:
                continue
            own.append((ended, cursor))
            began = max(child.start_ns, start_ns)
            stack.append((child.span_id, by_end.get(child.span_id, ()), began, ended))
            cursor = began
        own.append((start_ns, cursor))
        if span_id is not None:
            path.setdefault(span_id, []).extend(piece for piece in reversed(own) if piece[0] < piece[1])
    return {span_id: pieces for span_id, pieces in path.items() if pieces}
