"""What the page Turn shows: one trace as a waterfall, and everything about one of its spans."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from markupsafe import Markup

from stagelight.conventions import attributes as names
from stagelight.embedded.pages import arithmetic, lanes, span_facts, strips, units
from stagelight.embedded.pages.waterfall import SELECTIONS, Row, Selection, Waterfall, arrange
from stagelight.sources.model import LogRow, SpanEvent, Trace, TurnRow

__all__ = ["ROWS", "Detail", "LogLine", "TurnView", "detail", "view"]

ROWS = 250
"""Rows on one page of a waterfall: a larger trace has several pages."""
_LOG_LINES = 200
_EVENTS = 100
_PAIRS, _LONGEST_VALUE = 20, 300  # of the attributes of a log line; the JSON has all


@dataclass(frozen=True, slots=True)
class LogLine:
    """A log record with its attributes as text."""

    row: LogRow
    pairs: tuple[str, ...]
    """``name=value``; the kind of the record is left out."""


@dataclass(frozen=True, slots=True)
class Detail:
    """Everything about one span."""

    row: Row
    trace_start_ns: int
    facts: span_facts.Group
    price: arithmetic.Price | None
    strip: Markup | None
    events: tuple[tuple[SpanEvent, tuple[tuple[str, str], ...]], ...]
    """Events with their attributes as text."""
    logs: tuple[LogLine, ...]
    """Log lines of this span."""
    other_logs: tuple[LogLine, ...]
    """Log lines of the trace that belong to other spans."""
    hidden: int
    """Events and log lines left out because there are too many."""


@dataclass(frozen=True, slots=True)
class TurnView:
    """One page of a trace."""

    trace: Trace
    turn: TurnRow | None
    """The turn whose figures head the page: the first one."""
    fall: Waterfall
    marks: tuple[lanes.Mark, ...]
    ruler: Markup
    show: Selection
    counts: dict[Selection, int]
    page: int
    pages: int
    rows: tuple[tuple[Row, Markup, Decimal | None], ...]
    """Rows of this page with their bar and what the call itself cost."""
    first_row: int
    selected: Detail | None


def view(trace: Trace, *, show: Selection = "all", page: int | None = None, span_id: str | None = None) -> TurnView:
    """Arrange a trace.

    Args:
        trace: the spans and log lines.
        show: which rows.
        page: number of the page from 1; None is the one with the selected span. Numbers past the end give the last.
        span_id: the selected span; None or an unknown one selects the first turn, or the first row.
    """
    fall = arrange(trace.spans)
    counts = {selection: len(fall.selected(selection)) for selection in SELECTIONS}
    rows = fall.selected(show)
    pages = max(math.ceil(len(rows) / ROWS), 1)
    turn = trace.turns[0] if trace.turns else None
    wanted = _find(fall, span_id) or _find(fall, turn.span_id if turn else None) or next(iter(fall.rows), None)
    if page is None:
        place = next((index for index, row in enumerate(rows) if row is wanted), 0)
        page = place // ROWS + 1
    page = min(max(page, 1), pages)
    shown = rows[(page - 1) * ROWS : page * ROWS]
    marks = lanes.marks(fall, trace.turns[:3])  # more would hide the bars
    return TurnView(
        trace=trace,
        turn=turn,
        fall=fall,
        marks=tuple(marks),
        ruler=lanes.ruler(fall, marks),
        show=show,
        counts=counts,
        page=page,
        pages=pages,
        rows=tuple((row, lanes.lane(row, fall), arithmetic.cost(row.span)) for row in shown),
        first_row=(page - 1) * ROWS + 1,
        selected=None if wanted is None else _detail(trace, fall, wanted),
    )


def detail(trace: Trace, span_id: str) -> Detail | None:
    """Everything about one span; None when the trace has no such span."""
    fall = arrange(trace.spans)
    row = _find(fall, span_id)
    return None if row is None else _detail(trace, fall, row)


def _find(fall: Waterfall, span_id: str | None) -> Row | None:
    return next((row for row in fall.rows if row.span.span_id == span_id), None) if span_id else None


def _detail(trace: Trace, fall: Waterfall, row: Row) -> Detail:
    own = [log for log in trace.logs if log.span_id == row.span.span_id]
    others = [log for log in trace.logs if log.span_id != row.span.span_id]
    events = row.span.events[:_EVENTS]
    hidden = len(row.span.events) - len(events)
    hidden += max(len(own) - _LOG_LINES, 0) + max(len(others) - _LOG_LINES, 0)
    return Detail(
        row=row,
        trace_start_ns=fall.start_ns,
        facts=span_facts.group(row.span),
        price=arithmetic.price(
            row.span.attributes,
            [below.span for below in fall.below(row)],
            next((entry.components for entry in trace.ledger if entry.span_id == row.span.span_id), {}),
        ),
        strip=strips.score_strip(row.span.attributes),
        events=tuple(
            (event, tuple((key, span_facts.written(value)) for key, value in sorted(event.attributes.items())))
            for event in events
        ),
        logs=tuple(map(_line, own[:_LOG_LINES])),
        other_logs=tuple(map(_line, others[:_LOG_LINES])),
        hidden=hidden,
    )


def _line(row: LogRow) -> LogLine:
    pairs = [(key, value) for key, value in sorted(row.attributes.items()) if key != names.STAGELIGHT_RECORD_KIND]
    written = (f"{units.visible(key, 100)}={span_facts.written(value)[:_LONGEST_VALUE]}" for key, value in pairs)
    return LogLine(row, tuple(written)[:_PAIRS])
