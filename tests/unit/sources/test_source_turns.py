"""Turns and traces, read from a small scene and compared with answers made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from scene import ALL, TRACE, call, turn, write_scene
from stagelight.sources import Source, Window, open_source
from stagelight.sources.model import (
    SpanEvent,
    SpanLink,
    SpanRow,
    StageBar,
    Trace,
    TraceRow,
    TurnRow,
)
from stored import T0, S, identifier, logs, pairs, record, span, store, traces


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the scene."""
    path = tmp_path_factory.mktemp("scene") / "store.db"
    write_scene(path)
    return path


@pytest.fixture
def source(path: Path) -> Iterator[Source]:
    """A source over it."""
    source = open_source(str(path))
    yield source
    source.close()


_FIRST_TURN = TurnRow(
    trace_id=TRACE + "1",
    span_id="0000000000000002",
    name="answer",
    service="app",
    start_ns=T0 + S // 2,
    duration_ns=4 * S,
    bars=(
        StageBar("embedding", T0 + S // 2, T0 + 3 * S // 4, None),
        StageBar("llm", T0 + S, T0 + 3 * S, 0.75),
        StageBar("tts", T0 + 3 * S, T0 + 4 * S, None),
    ),
    shares={"llm": 0.75, "other": 0.25},
    time_to_first_token_s=1.25,
    time_to_first_audio_s=2.5,
    cost=Decimal("0.000412"),
    cost_status="exact",
    outcome="completed",
    error_type=None,
    feature="help",
    tenant="acme",
    user="h1:k:1",
    conversation="c1",
    calls=3,
    input_tokens=900,
    output_tokens=120,
)


def test_turns_are_the_outermost_ones_newest_first(source: Source) -> None:
    """With the calls below them as bars, however deep; an inner turn is part of its outer one."""
    second, first = source.turns(ALL)

    assert first == _FIRST_TURN
    assert (second.trace_id, second.span_id, second.outcome, second.error_type, second.calls, second.shares) == (
        TRACE + "2", "0000000000000001", "error", "openai.RateLimitError", 1, {},
    )  # fmt: skip
    assert second.bars == (StageBar("llm", T0 + 21 * S // 2, T0 + 23 * S // 2, None),)
    assert (second.cost, second.time_to_first_token_s, second.feature) == (None, None, None)


def test_turns_by_order_limit_and_window(source: Source) -> None:
    """Slowest first on request; the end of a window is not part of it."""
    assert [row.duration_ns // S for row in source.turns(ALL, order="slowest")] == [4, 2]
    assert [row.trace_id for row in source.turns(ALL, 1)] == [TRACE + "2"]
    assert [row.trace_id for row in source.turns(Window(T0 + S // 2, T0 + 10 * S))] == [TRACE + "1"]
    assert source.turns(Window(T0 + S // 2 + 1, T0 + 10 * S)) == []
    with pytest.raises(ValueError, match="order='best': accepted are newest, slowest"):
        source.turns(ALL, order="best")  # type: ignore[arg-type]


def test_traces_are_listed_with_or_without_turns(source: Source) -> None:
    """Newest first, with the sum of their ledger and errors counted where they arose; no price is no amount."""
    assert source.traces(ALL) == [
        TraceRow(TRACE + "4", "job", "app", T0 + 30 * S, S, 1, 1, None),
        TraceRow(TRACE + "3", "span 1", "app", T0 + 20 * S, 4 * S, 1, 0, None),
        TraceRow(TRACE + "2", "invoke_workflow answer", "app", T0 + 10 * S, 2 * S, 4, 1, Decimal("1E-7")),
        TraceRow(TRACE + "1", "POST /ask", "app", T0, 5 * S, 6, 0, Decimal("0.3")),
    ]
    assert [row.trace_id for row in source.traces(ALL, 2)] == [TRACE + "4", TRACE + "3"]
    assert source.traces(Window(T0 + 40 * S, T0 + 50 * S)) == []


def test_a_trace_has_everything_that_was_sent(tmp_path: Path) -> None:
    """Promoted attributes are back among the others; events, links, resource and scope are there."""
    sent = span(
        7,
        trace=5,
        parent=6,
        name="chat",
        kind=Span.SPAN_KIND_CLIENT,
        status=Status(code=Status.STATUS_CODE_ERROR, message="no"),
        attributes={"stagelight.stage": "llm", "gen_ai.usage.input_tokens": 3, "x": [1, "a"]},
        events=[Span.Event(time_unix_nano=T0 + 1, name="e", attributes=pairs({"k": 1}))],
        links=[Span.Link(trace_id=identifier(8, 16), span_id=identifier(9, 8), attributes=pairs({"l": True}))],
    )
    store(tmp_path / "store.db", traces(sent), logs(record("late", at=2, trace=5), record("early", at=1, trace=5)))

    trace = _one(tmp_path / "store.db", TRACE + "5")

    assert trace.spans == (
        SpanRow(
            trace_id=TRACE + "5",
            span_id="0000000000000007",
            parent_id="0000000000000006",
            name="chat",
            service="app",
            kind="CLIENT",
            start_ns=T0,
            duration_ns=S,
            status="ERROR",
            status_message="no",
            stage="llm",
            attributes={"stagelight.stage": "llm", "gen_ai.usage.input_tokens": 3, "x": [1, "a"]},
            events=(SpanEvent(T0 + 1, "e", {"k": 1}),),
            links=(SpanLink("0" * 31 + "8", "0" * 15 + "9", {"l": True}),),
            resource={"service.name": "app"},
            scope="tests",
        ),
    )
    assert [row.body for row in trace.logs] == ["early", "late"]
    assert trace.turns == ()


def _one(path: Path, trace_id: str) -> Trace:
    source = open_source(str(path))
    trace = source.trace(trace_id)
    source.close()
    assert trace is not None
    return trace


def test_a_trace_is_found_by_a_unique_prefix(tmp_path: Path) -> None:
    """Six digits or more, in any case; what is no id, or the start of several, is said."""
    path = tmp_path / "store.db"
    ids = ["abcdef01" + "0" * 24, "abcdef12" + "0" * 24, "123456" + "7" * 26]
    spans = [span(number + 1) for number in range(3)]
    for sent, trace_id in zip(spans, ids, strict=True):
        sent.trace_id = bytes.fromhex(trace_id)
    store(path, traces(*spans))
    source = open_source(str(path))

    found = [source.trace(prefix) for prefix in ("123456", " ABCDEF0", ids[1])]
    assert [trace.trace_id for trace in found if trace is not None] == [ids[2], ids[0], ids[1]]
    assert source.trace("ffffff") is None
    with pytest.raises(ValueError, match=f"several: {ids[0]}, {ids[1]}$"):
        source.trace("abcdef")
    for wrong in ("12345", "xyzxyz", "", "1" * 33, "12345g"):
        with pytest.raises(ValueError, match="6 to 32 hexadecimal digits"):
            source.trace(wrong)
    source.close()


def test_the_spans_of_a_trace_are_in_order(source: Source) -> None:
    """By start; of those that start together the longest first, so that parents come before children."""
    trace = source.trace(TRACE + "1")

    assert trace is not None
    assert [int(row.span_id, 16) for row in trace.spans] == [1, 2, 5, 3, 4, 6]
    assert [(row.body, row.severity) for row in trace.logs] == [("hello", "ERROR")]
    assert trace.turns == (_FIRST_TURN,)


def test_ids_that_go_in_circles_end(tmp_path: Path) -> None:
    """Parents are what a sender claims: two turns that contain each other, and a span inside itself."""
    path = tmp_path / "store.db"
    store(
        path,
        traces(
            turn(1, trace=1, parent=2, at=0, lasts=1),
            turn(2, trace=1, parent=1, at=0, lasts=1),
            turn(3, trace=2, parent=3, at=1, lasts=1, error=True),
            call(4, "llm", trace=2, parent=3, at=1, lasts=1),
        ),
    )
    source = open_source(str(path))

    assert [(row.span_id[-1], len(row.bars)) for row in source.turns(ALL)] == [("3", 1)]
    assert source.totals(ALL).turns == 1
    assert source.errors(ALL) == []
    source.close()


def test_attributes_of_a_turn_with_wrong_types_are_ignored(tmp_path: Path) -> None:
    """A sender may put anything anywhere; nothing fails and nothing is believed."""
    wrong = {
        f"stagelight.turn.{name}": "much"
        for name in ("cost", "calls", "input_tokens", "time_to_first_token", "time_to_first_audio", "share.llm")
    }
    path = tmp_path / "store.db"
    store(path, traces(turn(1, trace=1, at=0, lasts=1, attributes={**wrong, "gen_ai.workflow.name": 5})))
    source = open_source(str(path))

    (row,) = source.turns(ALL)
    assert (row.cost, row.calls, row.input_tokens, row.time_to_first_token_s, row.shares) == (
        None,
        None,
        None,
        None,
        {},
    )
    assert (row.name, row.time_to_first_audio_s) == ("invoke_workflow answer", None)
    source.close()
