"""What is written: rows, twice the same, hostile input."""

from __future__ import annotations

import json
import math
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from stagelight.embedded.batch import WriteResult
from stagelight.embedded.decoding import (
    MAX_ATTRIBUTE_CHARACTERS,
    MAX_NAME_CHARACTERS,
    MAX_PROMOTED_CHARACTERS,
    MAX_RESOURCE_BYTES,
    Plans,
)
from stagelight.embedded.schema import SPAN_COLUMNS
from stagelight.embedded.transform import logs_batch, traces_batch
from stagelight.embedded.writer import Writer
from stored import T0, S, any_value, batch_of, identifier, logs, pairs, query, record, span, store, traces, usage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database that does not exist yet."""
    return tmp_path / "data" / "store.db"


def test_a_span_becomes_a_row(path: Path) -> None:
    """Promoted attributes get their column, the others stay in the JSON, and nothing is kept twice."""
    sent = span(
        2,
        trace=7,
        parent=1,
        at=1.5,
        lasts=0.25,
        name="chat gpt",
        kind=Span.SPAN_KIND_CLIENT,
        status=Status(code=Status.STATUS_CODE_ERROR, message="no"),
        attributes={
            "stagelight.stage": "llm",
            "gen_ai.request.model": "gpt",
            "gen_ai.usage.input_tokens": 900,
            "stagelight.cost.amount": 0.000412,
            "gen_ai.response.time_to_first_chunk": 0.125,
            "server.port": 443,
            "gen_ai.response.finish_reasons": ["stop"],
            "stagelight.retrieval.empty": False,
            "deep": {"a": [1, {"b": None}], "raw": b"\x00\xff"},
        },
    )

    assert store(path, traces(sent)) == [WriteResult(spans=1)]

    row = query(
        path,
        "SELECT hex(trace_id), hex(span_id), hex(parent_id), spans.name, kind, start_ns, duration_ns, status, "
        "status_message, failed, entry, stage, model, input_tokens, cost, first_chunk_s, operation, service "
        "FROM spans JOIN resource ON resource.id = resource_id",
    )[0]
    assert row == (
        "00000000000000000000000000000007", "0000000000000002", "0000000000000001", "chat gpt", 3,
        T0 + 3 * S // 2, S // 4, 2, "no", 1, 0, "llm", "gpt", 900, 0.000412, 0.125, None, "app",
    )  # fmt: skip
    assert json.loads(query(path, "SELECT attributes FROM spans")[0][0]) == {
        "server.port": 443,
        "gen_ai.response.finish_reasons": ["stop"],
        "stagelight.retrieval.empty": False,
        "deep": {"a": [1, {"b": None}], "raw": "AP8="},
    }


def test_attributes_of_another_type_are_not_promoted(path: Path) -> None:
    """A column never holds what its readers do not expect; whole numbers count as seconds."""
    store(
        path,
        traces(
            span(
                1, attributes={"stagelight.stage": 5, "gen_ai.usage.input_tokens": "many", "gen_ai.request.model": ""}
            ),
            span(2, attributes={"gen_ai.request.model": "m" * (MAX_PROMOTED_CHARACTERS + 1)}),
            span(3, attributes={"gen_ai.response.time_to_first_chunk": 2, "gen_ai.usage.input_tokens": 0}),
        ),
    )

    assert query(path, "SELECT stage, input_tokens, model, first_chunk_s FROM spans ORDER BY span_id") == [
        (None, None, "", None),
        (None, None, None, None),
        (None, 0, None, 2.0),
    ]
    first, second, third = (json.loads(row[0]) for row in query(path, "SELECT attributes FROM spans ORDER BY span_id"))
    assert first == {"stagelight.stage": 5, "gen_ai.usage.input_tokens": "many"}
    assert second == {"gen_ai.request.model": "m" * (MAX_PROMOTED_CHARACTERS + 1)}
    assert third == {}


def test_the_same_batch_twice_is_stored_once(path: Path) -> None:
    """A retry after a lost answer, an overlapping batch and a batch in other company add nothing."""
    spans = traces(span(1), span(2))
    records = logs(record("a", at=1), record("b", at=1), usage(2, cost=0.5, status="exact"))

    results = store(
        path, spans, spans, traces(span(2), span(3)), records, records, logs(record("b", at=1), record("c"))
    )

    assert results == [
        WriteResult(spans=2),
        WriteResult(),
        WriteResult(spans=1),
        WriteResult(logs=2, usage=1),
        WriteResult(),
        WriteResult(logs=1),
    ]


def test_equal_records_of_different_moments_or_programs_are_all_kept(path: Path) -> None:
    """Only content and time and sender together make a log record the same."""
    results = store(path, logs(record("tick", at=1), record("tick", at=2)), logs(record("tick", at=1), service="other"))

    assert results == [WriteResult(logs=2), WriteResult(logs=1)]


def test_a_batch_may_hold_the_same_span_twice(path: Path) -> None:
    """The first one stays."""
    assert store(path, traces(span(1, name="first"), span(1, name="second"))) == [WriteResult(spans=1)]
    assert query(path, "SELECT name FROM spans") == [("first",)]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"trace_id": b"short"}, "trace id"),
        ({"trace_id": bytes(16)}, "trace id"),
        ({"span_id": b""}, "span id"),
        ({"span_id": bytes(8)}, "span id"),
        ({"parent_span_id": b"123"}, "parent id"),
        ({"start_time_unix_nano": 0}, "start or end time"),
        ({"start_time_unix_nano": 2**63}, "start or end time"),
        ({"end_time_unix_nano": 2**64 - 1}, "start or end time"),
        ({"start_time_unix_nano": time.time_ns() + 10**9 * S}, "ahead of this machine's clock"),
        ({"end_time_unix_nano": time.time_ns() + 10**9 * S}, "ahead of this machine's clock"),
        ({"events": [Span.Event(time_unix_nano=2**63)]}, "time of a span event"),
        ({"name": "n" * (MAX_ATTRIBUTE_CHARACTERS + 1)}, "name of a span"),
    ],
)
def test_a_malformed_span_is_left_out(path: Path, broken: dict[str, Any], reason: str) -> None:
    """The others of its request are kept, and the sender learns how many were not and why."""
    bad = span(2)
    for field in broken:
        bad.ClearField(field)  # type: ignore[arg-type]
    bad.MergeFrom(Span(**broken))

    batch = batch_of(traces(span(1), bad, span(3)))

    assert (batch.rejected, len(batch.spans[0].rows)) == (1, 2)
    assert reason in batch.reason


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, [1.0, math.nan], {"deep": [{"er": math.inf}]}, "x" * (1 + (1 << 20))]
)
def test_an_attribute_that_cannot_be_kept_rejects_its_item(value: Any) -> None:
    """Not-a-number, infinities and megabytes: in spans, events, links, log records and usage events."""
    attributes = {"bad": value}
    hostile_event = Span.Event(time_unix_nano=T0)
    hostile_event.attributes.add(key="bad").value.CopyFrom(any_value(value))

    spans = batch_of(traces(span(1, attributes=attributes), span(2, events=[hostile_event]), span(3)))
    records = batch_of(logs(record(attributes=attributes), record("fine")))

    assert (spans.rejected, [len(group.rows) for group in spans.spans]) == (2, [1])
    assert (records.rejected, [len(group.rows) for group in records.logs]) == (1, [1])
    assert "attribute" in spans.reason


def test_a_malformed_resource_rejects_all_it_sent() -> None:
    """Every span of it is counted, and the reason names no content."""
    request = traces(span(1), span(2))
    request.resource_spans[0].resource.attributes.add(key="secret").value.double_value = math.nan

    batch = batch_of(request)

    assert batch.is_empty
    assert (batch.rejected, batch.reason) == (2, "an attribute is not a finite number")


def test_text_of_any_kind_survives(path: Path) -> None:
    """Zero bytes, quotes, markup, other scripts and terminal escapes come back as they were sent."""
    text = "\x00'\";DROP TABLE spans;--<script>\x1b[31m\u202e語🙂"

    store(path, traces(span(1, name=text, attributes={text: text, "stagelight.feature": text})), logs(record(text)))

    assert query(path, "SELECT name, feature FROM spans") == [(text, text)]
    assert json.loads(query(path, "SELECT attributes FROM spans")[0][0]) == {text: text}
    assert query(path, "SELECT body FROM logs") == [(text,)]


def test_a_span_that_ends_before_it_starts_lasts_no_time(path: Path) -> None:
    """Clocks jump; a negative duration would spoil every percentile."""
    store(path, traces(_backwards()))

    assert query(path, "SELECT start_ns, duration_ns FROM spans") == [(T0, 0)]


def _backwards() -> Span:
    sent = span(1)
    sent.end_time_unix_nano = T0 - S
    return sent


def test_usage_amounts_are_kept_as_exact_text(path: Path) -> None:
    """What cannot be summed is unpriced with a reason: another currency, an amount or a status alone."""
    store(
        path,
        logs(
            usage(1, cost=0.1, status="exact", currency="USD"),
            usage(2, cost=1e-07, status="partial", missing=["audio_output"]),
            usage(3, cost=3.0, status="exact", currency="EUR"),
            usage(4, cost=3.0),
            usage(5, status="exact"),
            usage(6, status="unpriced", reason="unknown_model"),
        ),
    )

    assert query(path, "SELECT cost, cost_status, reason, missing FROM usage ORDER BY time_ns") == [
        ("0.1", "exact", None, None),
        ("1e-07", "partial", None, '["audio_output"]'),
        (None, "unpriced", "no_rate", None),
        (None, "unpriced", "bad_usage", None),
        (None, "unpriced", "bad_usage", None),
        (None, "unpriced", "unknown_model", None),
    ]


def test_a_record_from_the_future_is_left_out() -> None:
    """A clock that is up to an hour ahead is taken as it is; beyond, the record is rejected with the reason."""
    ahead_s = (time.time_ns() - T0) / S
    batch = logs_batch(logs(record(at=ahead_s + 3500), record(at=ahead_s + 3700), usage(ahead_s + 10**9)))

    assert (len(batch.logs[0].rows), batch.usage, batch.rejected) == (1, [], 2)
    assert batch.reason == "the time of a log record is more than an hour ahead of this machine's clock"


def test_long_names_are_rejected_or_not_remembered() -> None:
    """A name beyond 1024 characters rejects its item, anywhere; one beyond 128 is stored, but not remembered."""
    long, fine = "n" * (MAX_NAME_CHARACTERS + 1), "n" * MAX_NAME_CHARACTERS
    event = Span.Event(time_unix_nano=T0, attributes=pairs({long: 1}))
    batch = traces_batch(
        traces(
            span(1, attributes={long: 1}), span(2, events=[event]), span(3, attributes={fine: 1, f"{fine[:-1]}x": 2})
        )
    )
    logged = logs_batch(logs(record(attributes={long: 1}), record(attributes={fine: 1})))
    plans = Plans((), {})

    assert ([row[1] for row in batch.spans[0].rows], batch.rejected) == ([identifier(3, 8)], 2)
    assert json.loads(batch.spans[0].rows[0][SPAN_COLUMNS.index("attributes")]) == {fine: 1, f"{fine[:-1]}x": 2}
    assert (len(logged.logs[0].rows), logged.rejected) == (1, 1)
    assert batch.reason == logged.reason == "the name of an attribute is longer than 1024 characters"
    assert [len(name) for name in ("a" * 128, "b" * 129, fine) if plans[name] and name in plans] == [128]


def test_large_resource_is_rejected() -> None:
    """All items of a resource beyond 64 KiB are rejected, with the reason."""
    request = traces(span(1), span(2), service="s" * MAX_RESOURCE_BYTES)

    batch = traces_batch(request)

    assert (batch.is_empty, batch.rejected, batch.reason) == (True, 2, "a resource is longer than 65536 bytes")


def test_owners_take_little_memory(path: Path) -> None:
    """What the writer remembers of programs does not grow with the length of what they say of themselves."""
    requests = [traces(span(number), service=f"{number:03}" + "s" * 60_000) for number in range(1, 101)]
    batches = [traces_batch(request) for request in requests]
    writer = Writer(path)
    writer.start()
    writer.submit(batches[0]).result(timeout=20)
    tracemalloc.start()
    while batches:
        writer.submit(batches.pop()).result(timeout=20)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert writer.close(timeout=20)

    assert held < 1 << 20
