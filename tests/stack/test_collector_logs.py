"""Log records through the Collector: one spelling of levels, a kind, and nothing else changed."""

from __future__ import annotations

import pytest
from stack.native import Stack
from stack.outputs import Outputs, attributes, log_request, put, send, value
from stack.waiting import eventually
from stagelight.conventions import attributes as a

LEVELS = (
    # number and text as sent, and as they come out
    ((1, ""), (1, "TRACE")),
    ((5, "debug"), (5, "DEBUG")),
    ((9, "Information"), (9, "INFO")),
    ((13, "WARNING"), (13, "WARN")),
    ((14, "WARN2"), (14, "WARN")),
    ((17, "error"), (17, "ERROR")),
    ((24, "CRITICAL"), (24, "FATAL")),
    ((0, "warning"), (13, "WARN")),
    ((0, "Err"), (17, "ERROR")),
    ((0, "critical"), (21, "FATAL")),
    ((0, "notice"), (9, "INFO")),
    ((0, "TRACE"), (1, "TRACE")),
    ((0, "dbg"), (0, "")),
    ((0, ""), (0, "")),
)


def test_levels_have_one_spelling(collector: tuple[Stack, Outputs]) -> None:
    """Retention goes by level, so WARN, WARNING and a bare number are one level."""
    stack, outputs = collector
    request, first = log_request()
    records = request.resource_logs[0].scope_logs[0].log_records
    del records[:]
    for (number, text), _ in LEVELS:
        records.add(time_unix_nano=first.time_unix_nano, severity_number=number, severity_text=text)
    send(stack, "logs", request)
    found = eventually(outputs.records, lambda found: len(found) == len(LEVELS))

    assert [(record.severity_number, record.severity_text) for record in found] == [wanted for _, wanted in LEVELS]
    kept = [attributes(record).get("log.level") for record in found]
    assert dict(zip([text for (_, text), _ in LEVELS], kept, strict=True)) == {
        text: "dbg" if text == "dbg" else None for (_, text), _ in LEVELS
    }, "a word that is no level is no index label, and not lost"


@pytest.mark.parametrize(
    ("sent", "kept"), [(None, "app"), ("app", "app"), ("usage", "usage"), ("audit", "audit"), ("forever", "app")]
)
def test_every_record_has_a_kind(sent: str | None, kept: str, collector: tuple[Stack, Outputs]) -> None:
    """Retention goes by kind: a record without one, or with one that does not exist, is the application's."""
    stack, outputs = collector
    request, record = log_request()
    if sent is not None:
        put(record, a.STAGELIGHT_RECORD_KIND, sent)
    send(stack, "logs", request)
    (record,) = eventually(outputs.records, bool)

    assert attributes(record) == {a.STAGELIGHT_RECORD_KIND: kept}


def test_records_come_out_whole(collector: tuple[Stack, Outputs]) -> None:
    """A usage event keeps its ids, times, name, numbers and resource."""
    stack, outputs = collector
    request, record = log_request({"service.instance.id": "i-1", "deployment.environment": "test"})
    record.event_name = "stagelight.usage.recorded"
    record.trace_id, record.span_id, record.observed_time_unix_nano = b"t" * 16, b"s" * 8, record.time_unix_nano + 5
    fields = {a.STAGELIGHT_RECORD_KIND: "usage", a.STAGELIGHT_COST_AMOUNT: 0.000412, a.GEN_AI_USAGE_INPUT_TOKENS: 900}
    for key, content in fields.items():
        put(record, key, content)
    record.body.kvlist_value.values.add(key="event").value.string_value = "paid"
    send(stack, "logs", request)
    (found,) = eventually(outputs.records, bool)

    assert (found.event_name, attributes(found), value(found.body)) == (
        "stagelight.usage.recorded",
        {**fields, "event.name": "stagelight.usage.recorded"},  # Loki does not store the field
        {"event": "paid"},
    )
    assert (found.trace_id, found.span_id, found.time_unix_nano, found.observed_time_unix_nano) == (
        b"t" * 16,
        b"s" * 8,
        record.time_unix_nano,
        record.observed_time_unix_nano,
    )
    assert attributes(outputs.logs.resource_logs[0].resource) == {
        "service.name": "shop",
        "service.instance.id": "i-1",
        "deployment.environment": "test",
        a.DEPLOYMENT_ENVIRONMENT_NAME: "test",
    }
