"""The structlog processors."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest
import stagelight
import structlog
from stagelight.conventions import attributes as a
from stagelight.logs import to_opentelemetry, trace_context
from stagelight.testing import Clock, capture


@pytest.fixture
def lines() -> Iterator[StringIO]:
    """structlog with our processors, printing JSON into a buffer."""
    printed = StringIO()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            trace_context,
            to_opentelemetry,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.PrintLoggerFactory(printed),
    )
    yield printed
    structlog.reset_defaults()


def test_a_line_inside_a_turn_carries_its_trace_and_is_a_log_record(lines: StringIO) -> None:
    """The printed line and the record have the same ids, and the record has the line's values."""
    with capture(clock=Clock(), ids=True) as captured, stagelight.turn("answer"):
        structlog.get_logger().info("found", passages=5, source="docs")

    printed = json.loads(lines.getvalue())
    [record] = captured.events
    assert printed == {
        "event": "found",
        "level": "info",
        "passages": 5,
        "source": "docs",
        "span_id": f"{record.span_id:016x}",
        "trace_id": f"{record.trace_id:032x}",
        "turn": "answer",
    }
    assert dict(record.attributes) == {
        "passages": 5,
        "source": "docs",
        "turn": "answer",
        a.STAGELIGHT_RECORD_KIND: "app",
    }


def test_an_exception_is_sent_as_its_class_only(lines: StringIO) -> None:
    """Messages and stack traces carry prompts and keys: they stay in the printed line."""
    with capture() as captured:
        try:
            raise ValueError("sk-secret in the prompt")
        except ValueError:
            structlog.get_logger().exception("failed")

    [record] = captured.events
    assert dict(record.attributes) == {a.EXCEPTION_TYPE: "ValueError", a.STAGELIGHT_RECORD_KIND: "app"}
    assert "sk-secret" not in repr(record)


def test_a_line_outside_a_span_has_no_ids(lines: StringIO) -> None:
    """Nothing is invented where there is no span, and a value of an unknown kind is sent as its class."""
    with capture() as captured:
        structlog.get_logger().warning("alone", error=ValueError)

    [record] = captured.events
    assert "trace_id" not in json.loads(lines.getvalue())
    assert (record.trace_id, record.span_id) == (0, 0)
    assert dict(record.attributes) == {"error": "type", a.STAGELIGHT_RECORD_KIND: "app"}
