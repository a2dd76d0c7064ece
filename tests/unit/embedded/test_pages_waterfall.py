"""A trace as rows: the tree, the critical path, and traces that make no sense."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from stagelight.embedded.pages.waterfall import arrange, critical_path
from stagelight.sources.model import SpanRow


def span(span_id: str, start: int, end: int, parent: str | None = None, **more: Any) -> SpanRow:
    """A span from ``start`` to ``end``, in nanoseconds."""
    fields: Mapping[str, Any] = {
        "name": f"span {span_id}",
        "service": "app",
        "kind": "INTERNAL",
        "status": "UNSET",
        "status_message": None,
        "stage": None,
        "attributes": {},
        "events": (),
        "links": (),
        "resource": {},
        "scope": "tests",
        **more,
    }
    return SpanRow(
        trace_id="0" * 32, span_id=span_id, parent_id=parent, start_ns=start, duration_ns=end - start, **fields
    )


def outline(spans: list[SpanRow]) -> list[tuple[str, int]]:
    """Ids and levels of the rows."""
    return [(row.span.span_id, row.level) for row in arrange(spans).rows]


def test_callees_follow_their_caller_in_order_of_start() -> None:
    """Rows are a depth-first walk, whatever the order in which spans came."""
    spans = [span("c", 50, 90, "a"), span("d", 20, 25, "b"), span("a", 0, 100), span("b", 10, 40, "a")]

    assert outline(spans) == [("a", 1), ("b", 2), ("d", 3), ("c", 2)]


def test_orphans_and_circles_are_shown_once() -> None:
    """A span whose caller is missing is a root; circles of callers are cut; none is lost or doubled."""
    spans = [span("a", 0, 9, "gone"), span("b", 1, 2, "c"), span("c", 2, 3, "b"), span("s", 4, 5, "s")]

    assert sorted(outline(spans)) == [("a", 1), ("b", 1), ("c", 2), ("s", 1)]


def test_critical_path_is_what_the_end_waited_for() -> None:
    """From the end back, each instant belongs to the callee that ended last, or to the caller itself."""
    spans = [
        span("turn", 0, 100),
        span("early", 5, 30, "turn"),
        span("hidden", 35, 60, "turn"),
        span("long", 30, 90, "turn"),
        span("inner", 40, 80, "long"),
    ]

    assert critical_path(spans) == {
        "turn": [(0, 5), (90, 100)],
        "early": [(5, 30)],
        "long": [(30, 40), (80, 90)],
        "inner": [(40, 80)],
    }


def test_callee_that_outlives_its_caller_counts_to_the_callers_end() -> None:
    """A stream that goes on after its caller ended holds only the caller's part."""
    assert critical_path([span("a", 0, 50), span("b", 10, 80, "a")]) == {"a": [(0, 10)], "b": [(10, 50)]}


@st.composite
def trees(draw: st.DrawFn) -> list[SpanRow]:
    """Traces with any shape of callers, times included that make no sense."""
    count = draw(st.integers(1, 25))
    spans = []
    for index in range(count):
        start = draw(st.integers(0, 100))
        parent = draw(st.none() | st.integers(0, count + 1))
        spans.append(
            span(f"{index}", start, start + draw(st.integers(0, 100)), None if parent is None else f"{parent}")
        )
    return spans


@given(trees())
def test_any_trace_is_arranged(spans: list[SpanRow]) -> None:
    """Every span has exactly one row, and the pieces of the critical path never overlap."""
    fall = arrange(spans)
    pieces = sorted(piece for row in fall.rows for piece in row.critical)

    assert sorted(row.span.span_id for row in fall.rows) == sorted(one.span_id for one in spans)
    assert all(start < end for start, end in pieces)
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(pieces))
    assert all(fall.start_ns <= start and end <= fall.end_ns for start, end in pieces)


def test_selections_are_parts_of_the_whole() -> None:
    """Stages, critical path and errors each keep only their rows."""
    fall = arrange(
        [
            span("a", 0, 100),
            span("b", 10, 20, "a", stage="llm"),
            span("c", 10, 15, "a", status="ERROR"),
        ]
    )
    shown = {
        name: [row.span.span_id for row in fall.selected(name)] for name in ("all", "stages", "critical", "errors")
    }

    assert shown == {"all": ["a", "b", "c"], "stages": ["b"], "critical": ["a", "b"], "errors": ["c"]}


def test_below_is_everything_under_a_row() -> None:
    """Callees of callees are below, siblings are not."""
    fall = arrange([span("a", 0, 9), span("b", 1, 5, "a"), span("c", 2, 3, "b"), span("d", 6, 7, "a")])

    assert [row.span.span_id for row in fall.below(fall.rows[1])] == ["c"]


def test_a_chain_of_twenty_thousand_is_arranged() -> None:
    """Depth does not exhaust the stack, and indentation stays on the screen."""
    chain = [span(str(index), index, 40_000 - index, str(index - 1) if index else None) for index in range(20_000)]
    random.Random(1).shuffle(chain)
    rows = arrange(chain).rows

    assert [rows[0].level, rows[-1].level, rows[-1].indent] == [1, 20_000, 12]
