"""Every question of the reading interface, answered over a small scene and compared with answers made by hand."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from datetime import timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from stagelight.embedded.retention import Retention
from stagelight.sources import Source, SourceUnavailable, Window, open_source
from stagelight.sources.model import (
    SERIES,
    Bucket,
    CostRow,
    ErrorRow,
    LatencyRow,
    LogRow,
    SpanEvent,
    SpanLink,
    SpanRow,
    StageBar,
    Totals,
    Trace,
    TraceRow,
    TurnRow,
)
from stored import T0, S, identifier, logs, pairs, record, span, store, traces, usage

ALL = Window(T0, T0 + 100 * S)
_TRACE = "0" * 31


def call(number: int, stage: str, *, trace: int, parent: int, at: float, lasts: float, **more: object) -> Span:
    """A call of a stage, as the instrumentation sends it."""
    attributes = {"stagelight.stage": stage, "stagelight.outcome": "completed", **more.pop("attributes", {})}  # type: ignore[dict-item]
    return span(number, trace=trace, parent=parent, at=at, lasts=lasts, attributes=attributes, **more)


def turn(number: int, *, trace: int, at: float, lasts: float, **more: object) -> Span:
    """A turn, as the instrumentation sends it."""
    attributes = {
        "stagelight.stage": "turn",
        "gen_ai.workflow.name": "answer",
        "stagelight.outcome": "completed",
        **more.pop("attributes", {}),  # type: ignore[dict-item]
    }
    return span(
        number, trace=trace, at=at, lasts=lasts, name="invoke_workflow answer", attributes=attributes, **more
    )  # fmt: skip


def _spans() -> list[Span]:
    """Trace 1: a server span over a turn over three calls, one nested. Trace 2: a turn in a turn, the inner one fails.
    Trace 3: a plain call. Trace 4: a root that failed by itself."""
    broken = {"error.type": "openai.RateLimitError", "stagelight.outcome": "error"}
    return [
        span(1, at=0, lasts=5, name="POST /ask", kind=Span.SPAN_KIND_SERVER),
        turn(
            2,
            trace=1,
            parent=1,
            at=0.5,
            lasts=4,
            attributes={
                "stagelight.feature": "help",
                "stagelight.tenant": "acme",
                "user.hash": "h1:k:1",
                "gen_ai.conversation.id": "c1",
                "stagelight.turn.time_to_first_token": 1.25,
                "stagelight.turn.time_to_first_audio": 2.5,
                "stagelight.turn.cost": 0.000412,
                "stagelight.turn.cost_status": "exact",
                "stagelight.turn.calls": 3,
                "stagelight.turn.input_tokens": 900,
                "stagelight.turn.output_tokens": 120,
                "stagelight.turn.share.llm": 0.75,
                "stagelight.turn.share.other": 0.25,
            },
        ),
        span(3, parent=2, at=1, lasts=3, name="work"),
        call(
            4,
            "llm",
            trace=1,
            parent=3,
            at=1,
            lasts=2,
            attributes={"gen_ai.request.model": "gpt", "gen_ai.response.time_to_first_chunk": 0.5},
        ),
        call(5, "embedding", trace=1, parent=2, at=0.5, lasts=0.25, attributes={"gen_ai.request.model": "emb"}),
        call(6, "tts", trace=1, parent=3, at=3, lasts=1, attributes={"gen_ai.request.model": "tts-1"}),
        turn(1, trace=2, at=10, lasts=2, error=True, attributes={**broken, "stagelight.turn.calls": 1}),
        turn(2, trace=2, parent=1, at=10.5, lasts=1, error=True, attributes=broken),
        call(
            3,
            "llm",
            trace=2,
            parent=2,
            at=10.5,
            lasts=1,
            error=True,
            attributes={**broken, "gen_ai.request.model": "gpt", "gen_ai.provider.name": "openai"},
        ),
        span(4, trace=2, parent=3, at=10.5, lasts=1, name="POST", kind=Span.SPAN_KIND_CLIENT, error=True),
        span(1, trace=3, at=20, lasts=4, attributes={"stagelight.stage": "llm", "gen_ai.request.model": "gpt"}),
        span(1, trace=4, at=30, lasts=1, name="job", error=True),
    ]


def _usage() -> list[object]:
    return [
        usage(
            2, trace=1, stage="llm", model="gpt", feature="help", tenant="acme", user="h1:k:1", cost=0.1,
            status="exact", input_tokens=900, output_tokens=120, cached_tokens=512,
        ),
        usage(3, trace=1, stage="tts", model="tts-1", feature="help", cost=0.2, status="estimated", characters=1200,
              audio_seconds=2.5),
        usage(11, trace=2, stage="llm", model="gpt", user="h1:k:1", cost=0.0000001, status="partial",
              missing=["audio_output"], input_tokens=10),
        usage(21, trace=3, stage="llm", model="new", status="unpriced", reason="unknown_model"),
        usage(22, stage="llm", status="unpriced", reason="no_usage"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the scene."""
    path = tmp_path_factory.mktemp("scene") / "store.db"
    store(
        path,
        traces(*_spans()),
        logs(*_usage(), record("hello", at=1, trace=1, severity_number=17), record({"k": [1]}, at=40), service="app"),
        logs(record("other", at=41, event_name="tick"), service="other"),
    )
    return path


@pytest.fixture
def source(path: Path) -> Iterator[Source]:
    """A source over it."""
    source = open_source(str(path))
    yield source
    source.close()


_FIRST_TURN = TurnRow(
    trace_id=_TRACE + "1",
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
        _TRACE + "2", "0000000000000001", "error", "openai.RateLimitError", 1, {},
    )  # fmt: skip
    assert second.bars == (StageBar("llm", T0 + 21 * S // 2, T0 + 23 * S // 2, None),)
    assert (second.cost, second.time_to_first_token_s, second.feature) == (None, None, None)


def test_turns_by_order_limit_and_window(source: Source) -> None:
    """Slowest first on request; the end of a window is not part of it."""
    assert [row.duration_ns // S for row in source.turns(ALL, order="slowest")] == [4, 2]
    assert [row.trace_id for row in source.turns(ALL, 1)] == [_TRACE + "2"]
    assert [row.trace_id for row in source.turns(Window(T0 + S // 2, T0 + 10 * S))] == [_TRACE + "1"]
    assert source.turns(Window(T0 + S // 2 + 1, T0 + 10 * S)) == []
    with pytest.raises(ValueError, match="order='best': accepted are newest, slowest"):
        source.turns(ALL, order="best")  # type: ignore[arg-type]


def test_traces_are_listed_with_or_without_turns(source: Source) -> None:
    """Newest first, with the sum of their ledger; no price is no amount."""
    assert source.traces(ALL) == [
        TraceRow(_TRACE + "4", "job", "app", T0 + 30 * S, S, 1, 1, None),
        TraceRow(_TRACE + "3", "span 1", "app", T0 + 20 * S, 4 * S, 1, 0, None),
        TraceRow(_TRACE + "2", "invoke_workflow answer", "app", T0 + 10 * S, 2 * S, 4, 4, Decimal("1E-7")),
        TraceRow(_TRACE + "1", "POST /ask", "app", T0, 5 * S, 6, 0, Decimal("0.3")),
    ]
    assert [row.trace_id for row in source.traces(ALL, 2)] == [_TRACE + "4", _TRACE + "3"]
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

    trace = _one(tmp_path / "store.db", _TRACE + "5")

    assert trace.spans == (
        SpanRow(
            trace_id=_TRACE + "5",
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
    trace = source.trace(_TRACE + "1")

    assert trace is not None
    assert [int(row.span_id, 16) for row in trace.spans] == [1, 2, 5, 3, 4, 6]
    assert [(row.body, row.severity) for row in trace.logs] == [("hello", "ERROR")]
    assert trace.turns == (_FIRST_TURN,)


def _cost(key: str, calls: int, cost: str, turns: int, **more: object) -> CostRow:
    nothing = dict.fromkeys(("input_tokens", "output_tokens", "cached_tokens", "characters"), 0)
    statuses = dict.fromkeys(("exact", "estimated", "partial", "unpriced"), 0)
    given = {**nothing, "audio_seconds": 0.0, **statuses, "reasons": {}, "missing": {}, **more}
    return CostRow(key=key, calls=calls, cost=Decimal(cost), turns=turns, **given)  # type: ignore[arg-type]


def test_cost_by_model_and_stage(source: Source) -> None:
    """Exact sums from the ledger, unpriced calls with their reasons, the turns of the whole window."""
    gpt = {"input_tokens": 910, "output_tokens": 120, "cached_tokens": 512, "missing": {"audio_output": 1}}
    tts = {"characters": 1200, "audio_seconds": 2.5, "estimated": 1}

    assert source.cost(ALL, "model") == [
        _cost("tts-1", 1, "0.2", 2, **tts),
        _cost("gpt", 2, "0.1000001", 2, exact=1, partial=1, **gpt),
        _cost("-", 1, "0", 2, unpriced=1, reasons={"no_usage": 1}),
        _cost("new", 1, "0", 2, unpriced=1, reasons={"unknown_model": 1}),
    ]
    reasons = {"no_usage": 1, "unknown_model": 1}
    assert source.cost(ALL, "stage") == [
        _cost("tts", 1, "0.2", 2, **tts),
        _cost("llm", 4, "0.1000001", 2, exact=1, partial=1, unpriced=2, reasons=reasons, **gpt),
    ]


def test_cost_by_feature_tenant_and_user_counts_their_own_turns(source: Source) -> None:
    """What has no value is under a dash, with the turns that have none either."""
    found = {
        by: [(row.key, row.calls, row.cost, row.turns) for row in source.cost(ALL, by)]
        for by in ("feature", "tenant", "user")
    }

    rest = Decimal("0.0000001")
    assert found == {
        "feature": [("help", 2, Decimal("0.3"), 1), ("-", 3, rest, 1)],
        "tenant": [("-", 4, Decimal("0.2") + rest, 1), ("acme", 1, Decimal("0.1"), 1)],
        "user": [("-", 3, Decimal("0.2"), 1), ("h1:k:1", 2, Decimal("0.1") + rest, 1)],
    }


def test_cost_by_day_follows_the_time_zone(tmp_path: Path) -> None:
    """A day begins at midnight of the zone; the calls and turns of a day are its own."""
    midnight = 35_200  # seconds from T0 to the next midnight in UTC
    path = tmp_path / "store.db"
    store(
        path,
        logs(
            usage(midnight - 1, cost=1.0, status="exact"),
            usage(midnight, cost=2.0, status="exact"),
            usage(midnight + 86_400 * 2, cost=4.0, status="exact"),
        ),
        traces(turn(1, trace=1, at=midnight - 1, lasts=1), turn(1, trace=2, at=midnight + 5, lasts=1)),
    )
    source = open_source(str(path))

    for window in (Window(T0, T0 + 10**6 * S), Window(0, 2**63 - 1)):
        assert [(row.key, row.cost, row.turns) for row in source.cost(window, "day")] == [
            ("2026-09-21", 1, 1), ("2026-09-22", 2, 1), ("2026-09-24", 4, 0),
        ]  # fmt: skip
    behind = source.cost(Window(T0, T0 + 10**6 * S), "day", tz=timezone(timedelta(hours=-1)))
    assert [(row.key, row.cost) for row in behind] == [("2026-09-21", 3), ("2026-09-23", 4)]
    source.close()


def test_turns_per_cost_are_unknown_when_their_spans_are_gone(tmp_path: Path) -> None:
    """The ledger is kept longer than spans: then no figure per turn can be right."""
    path = tmp_path / "store.db"
    store(path, traces(turn(1, trace=1, at=5, lasts=1)), logs(usage(1, model="m", cost=1.0, status="exact")))
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO meta VALUES ('pruned_until_ns', ?)", (T0 + 2 * S,))
    connection.commit()
    connection.close()
    source = open_source(str(path))

    assert source.cost(ALL, "model") == [_cost("m", 1, "1.0", 0, exact=1)]
    store(path, logs(usage(10, model="m", cost=1.0, status="exact")))
    assert source.cost(Window(T0 + 3 * S, ALL.until_ns), "model") == [_cost("m", 1, "1.0", 1, exact=1)]
    source.close()


def test_sums_of_money_are_exact(tmp_path: Path) -> None:
    """Ten thousand small amounts beside a large one, and amounts no binary sum gets right."""
    path = tmp_path / "store.db"
    amounts = [0.1, 0.2, 1e-12, 123456789.125, *([0.000412] * 10_000), 3.3e-20, 7e22]
    store(path, logs(*(usage(number / 1000, cost=amount, status="exact") for number, amount in enumerate(amounts))))
    source = open_source(str(path))

    expected = Decimal("70000000000000123456793.545000000001000000033")
    assert source.cost(ALL, "model")[0].cost == expected
    assert source.totals(ALL).spend == expected
    source.close()


def test_latency_by_stage_and_model(source: Source) -> None:
    """Nearest-rank percentiles; turns have their first token, calls their first chunk; failures are counted."""
    assert source.latency(ALL, "stage") == [
        LatencyRow("llm", 3, 1, 2.0, 4.0, 4.0, 0.5, 0.5),
        LatencyRow("turn", 3, 2, 2.0, 4.0, 4.0, 1.25, 1.25),
        LatencyRow("tts", 1, 0, 1.0, 1.0, 1.0, None, None),
        LatencyRow("embedding", 1, 0, 0.25, 0.25, 0.25, None, None),
    ]
    assert source.latency(ALL, "model") == [
        LatencyRow("gpt", 3, 1, 2.0, 4.0, 4.0, 0.5, 0.5),
        LatencyRow("tts-1", 1, 0, 1.0, 1.0, 1.0, None, None),
        LatencyRow("emb", 1, 0, 0.25, 0.25, 0.25, None, None),
    ]


def test_percentiles_are_exact(tmp_path: Path) -> None:
    """Of 1 to 200 ms the p50 is 100, the p95 190, the p99 198 ms."""
    path = tmp_path / "store.db"
    store(path, traces(*(span(n, lasts=n / 1000, attributes={"stagelight.stage": "tool"}) for n in range(1, 201))))
    source = open_source(str(path))

    assert source.latency(ALL, "stage") == [LatencyRow("tool", 200, 0, 0.1, 0.19, 0.198, None, None)]
    source.close()


def test_an_error_is_counted_where_it_arose(source: Source) -> None:
    """Not again in the turns around it, nor in the HTTP span below it; a failed root without a stage counts."""
    assert source.errors(ALL) == [
        ErrorRow("-", None, None, None, None, 1, T0 + 30 * S, _TRACE + "4"),
        ErrorRow(
            "llm", "openai", "gpt", "openai.RateLimitError", "error", 1, T0 + 21 * S // 2, _TRACE + "2"
        ),
    ]  # fmt: skip


def test_errors_are_grouped_by_kind(tmp_path: Path) -> None:
    """Most frequent first; the database of a search is its provider; the last trace is named."""
    path = tmp_path / "store.db"
    search = {"stagelight.stage": "retrieval", "db.system.name": "qdrant", "error.type": "timeout"}
    own = {"stagelight.stage": "turn", "error.type": "KeyError"}
    store(
        path,
        traces(
            *(span(1, trace=number, at=number, attributes=search) for number in (1, 2)),
            turn(1, trace=3, at=5, lasts=1, error=True, attributes=own),
            call(2, "llm", trace=3, parent=1, at=5, lasts=1),
        ),
    )
    source = open_source(str(path))

    assert source.errors(ALL) == [
        ErrorRow("retrieval", "qdrant", None, "timeout", None, 2, T0 + 2 * S, _TRACE + "2"),
        ErrorRow("turn", None, None, "KeyError", "completed", 1, T0 + 5 * S, _TRACE + "3"),
    ]
    source.close()


def test_series_have_equal_steps(source: Source) -> None:
    """Counts are 0 where nothing happened; other keys are absent there."""
    window = Window(T0, T0 + 40 * S)
    starts = [T0, T0 + 10 * S, T0 + 20 * S, T0 + 30 * S]

    assert {name: source.series(name, window, 4) for name in SERIES} == {
        "spend": _buckets(starts, {"gpt": 0.1, "tts-1": 0.2}, {"gpt": 1e-7}, {}, {}),
        "latency": _buckets(starts, {"llm": 2.0, "embedding": 0.25, "tts": 1.0}, {"llm": 1.0}, {"llm": 4.0}, {}),
        "turns": _buckets(starts, {"turns": 1.0}, {"turns": 1.0}, {"turns": 0.0}, {"turns": 0.0}),
        "errors": _buckets(starts, {"errors": 0.0}, {"errors": 1.0}, {"errors": 0.0}, {"errors": 1.0}),
        "first_token": _buckets(starts, {"p95": 1.25}, {}, {}, {}),
    }  # fmt: skip
    assert [bucket.start_ns - T0 for bucket in source.series("turns", Window(T0, T0 + 10), 3)] == [0, 4, 8]
    with pytest.raises(ValueError, match="name='rain': accepted are spend"):
        source.series("rain", window, 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps=0"):
        source.series("turns", window, 0)


def _buckets(starts: list[int], *values: dict[str, float]) -> list[Bucket]:
    return [Bucket(start_ns, given) for start_ns, given in zip(starts, values, strict=True)]


def test_totals(source: Source) -> None:
    """The figures of the window agree with the tables."""
    assert source.totals(ALL) == Totals(
        spend=Decimal("0.3000001"), calls=5, unpriced=2, partial=1, turns=2, failed_turns=1, errors=2,
        first_token_p95_s=1.25,
    )  # fmt: skip
    assert source.totals(Window(0, 1)) == Totals(Decimal(0), 0, 0, 0, 0, 0, 0, None)


def test_logs_are_newest_first(source: Source) -> None:
    """By window, service, and what arrived after a record; usage events are not among them."""
    rows = source.logs(ALL)

    assert [(row.body, row.severity, row.service, row.event_name) for row in rows] == [
        ("other", "INFO", "other", "tick"), ('{"k":[1]}', "INFO", "app", None), ("hello", "ERROR", "app", None),
    ]  # fmt: skip
    assert rows[2].trace_id == _TRACE + "1"
    assert [row.body for row in source.logs(ALL, 1)] == ["other"]
    assert [row.body for row in source.logs(ALL, service="app")] == ['{"k":[1]}', "hello"]
    assert [row.body for row in source.logs(ALL, after=rows[1].id)] == ["other"]
    assert [row.body for row in source.logs(Window(T0, T0 + 40 * S))] == ["hello"]


def test_tail_gives_what_arrives(tmp_path: Path) -> None:
    """From now on, in order of time, each record once, in portions, and on after everything was deleted."""
    path = tmp_path / "store.db"
    store(path, traces(span(1)), logs(record("old")))
    source = open_source(str(path))
    nothing, cursor = source.tail()
    assert nothing == []

    store(path, traces(span(2, at=3), span(3, at=1)), logs(record("new", at=2)))
    records, cursor = source.tail(cursor)
    assert [record.body if isinstance(record, LogRow) else record.name for record in records] == [
        "span 3", "new", "span 2",
    ]  # fmt: skip
    assert source.tail(cursor) == ([], cursor)

    store(path, traces(*(span(number) for number in range(10, 15))))
    portions = []
    for _ in range(3):
        records, cursor = source.tail(cursor, limit=2)
        portions.append([record.name for record in records if isinstance(record, SpanRow)])
    assert portions == [["span 10", "span 11"], ["span 12", "span 13"], ["span 14"]]

    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM spans")
    connection.commit()
    connection.close()
    _, cursor = source.tail(cursor)
    store(path, traces(span(1)))
    records, _ = source.tail(cursor)
    assert len(records) == 1
    for wrong in ("", "1", "1.x", "-1.2", "9" * 30 + ".1"):
        with pytest.raises(ValueError, match="cursor"):
            source.tail(wrong)
    source.close()


def test_it_describes_itself(source: Source, path: Path) -> None:
    """Where, how much, from when to when."""
    described = source.describe()

    assert (described.location, described.spans, described.logs, described.usage, described.points) == (
        str(path), 12, 3, 5, 0,
    )  # fmt: skip
    assert (described.oldest_ns, described.newest_ns) == (T0, T0 + 41 * S)
    assert described.size_bytes >= path.stat().st_size > 0


def test_an_empty_store_has_an_answer_to_everything(tmp_path: Path) -> None:
    """No data is no error."""
    path = tmp_path / "store.db"
    store(path)
    source = open_source(str(path))

    assert (source.turns(ALL), source.traces(ALL), source.trace("0" * 32), source.errors(ALL)) == ([], [], None, [])
    assert (source.cost(ALL, "day"), source.cost(ALL, "user"), source.latency(ALL, "model")) == ([], [], [])
    assert source.describe().oldest_ns is None
    source.close()


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


def test_it_reads_while_another_writes_and_from_several_threads(tmp_path: Path) -> None:
    """Answers are consistent: spans of one batch are seen together."""
    path = tmp_path / "store.db"
    store(path, traces(span(1), span(2)))
    source = open_source(str(path))
    wrong: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            if (spans := source.describe().spans) % 2:
                wrong.append(spans)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    requests = [traces(span(number), span(number + 1)) for number in range(3, 200, 2)]
    store(path, *requests, retention=Retention(age_s=10**9))
    done.set()
    for reader in readers:
        reader.join()

    assert wrong == []
    assert source.describe().spans == 200
    source.close()


def test_a_closed_source_says_so(path: Path) -> None:
    """Closing twice is fine, reading afterwards is not."""
    source = open_source(str(path))
    source.close()
    source.close()

    with pytest.raises(SourceUnavailable, match="closed"):
        source.describe()


def test_what_cannot_be_opened_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file: what to start. An address: what is accepted. Not ours: why."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    with pytest.raises(SourceUnavailable, match=r"no telemetry yet: .*share/stagelight/stagelight\.db.*stagelight up"):
        open_source(None)
    with pytest.raises(SourceUnavailable, match="no telemetry yet"):
        open_source(str(tmp_path / "missing.db"))
    with pytest.raises(SourceUnavailable, match="an address cannot be read"):
        open_source("http://localhost:4318")
    (tmp_path / "text").write_text("hello " * 100)
    with pytest.raises(SourceUnavailable, match="is not a database"):
        open_source(str(tmp_path / "text"))

    store(tmp_path / "share" / "stagelight" / "stagelight.db", traces(span(1)))
    source = open_source(None)
    assert source.describe().spans == 1
    source.close()


def test_a_file_that_is_damaged_later_is_explained(tmp_path: Path) -> None:
    """Not a traceback of the database."""
    path = tmp_path / "store.db"
    store(path, traces(*(span(number) for number in range(1, 300))))
    source = open_source(str(path))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)

    with pytest.raises(SourceUnavailable, match="cannot be read"):
        source.turns(ALL)
    source.close()
