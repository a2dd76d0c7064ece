"""The structlog processors."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
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


PEOPLE = {"user_id": "alice@example.com", "session_id": "s-1"}
KEY = "0123456789abcdef" * 2


@pytest.mark.parametrize("form", [str, str.upper, lambda key: key.replace("_", "."), lambda key: key.replace("_", "-")])
def test_ids_of_people_are_sent_as_the_pseudonyms_of_turns(lines: StringIO, form: Callable[[str], str]) -> None:
    """A line has the pseudonyms of the turn it is in; without a key it has none."""
    given = {form(key): value for key, value in PEOPLE.items()}

    with capture(id_key=KEY) as captured, stagelight.turn("answer", **PEOPLE):
        structlog.get_logger().info("asked", **given)
    with capture() as without_key:
        structlog.get_logger().info("asked", **given)

    [record], turn = captured.events, captured.turn("answer")
    kept = {key: record.attributes[key] for key in (a.USER_HASH, a.SESSION_ID)}
    assert kept == {key: turn.attributes[key] for key in kept}
    assert len(set(kept.values())) == 2
    assert set(record.attributes) == {*kept, "turn", a.STAGELIGHT_RECORD_KIND}
    assert dict(without_key.events[0].attributes) == {a.STAGELIGHT_RECORD_KIND: "app"}
    assert all(json.loads(line).items() >= given.items() for line in lines.getvalue().splitlines())


def test_an_id_that_is_a_number_has_the_pseudonym_of_its_digits(lines: StringIO) -> None:
    """Numbers and text of the same digits are the same user; an id of another kind is dropped."""
    with capture(id_key=KEY) as captured:
        for user in (7, "7", ["7"]):
            structlog.get_logger().info("asked", user_id=user)

    number, text, other = (record.attributes for record in captured.events)
    assert number[a.USER_HASH] == text[a.USER_HASH]
    assert dict(other) == {a.STAGELIGHT_RECORD_KIND: "app"}


@pytest.mark.parametrize(
    "key",
    [
        "authorization", "Authorization", "Proxy-Authorization", "cookie", "Set-Cookie", "password", "db_passwd", "pwd",
        "passphrase", "token", "access_token", "accessToken", "X-Auth-Token", "secret", "client_secret", "api_key",
        "apikey", "API.KEY", "x-api-key", "openai_api_key", "private_key", "aws_secret_access_key", "credentials",
        "jwt", "bearer",
    ],
)  # fmt: skip
def test_credentials_are_not_sent(lines: StringIO, key: str) -> None:
    """A value whose name says that it opens a door stays in the printed line."""
    with capture() as captured:
        structlog.get_logger().info("called", **{key: "CANARY"})

    assert dict(captured.events[0].attributes) == {a.STAGELIGHT_RECORD_KIND: "app"}
    assert json.loads(lines.getvalue())[key] == "CANARY"


def test_quantities_are_no_credentials(lines: StringIO) -> None:
    """Words that only resemble names of credentials are sent."""
    known = {"tokens": 3, "max_tokens": 4, "input_tokens": 5, "time_to_first_token": 0.5, "cost_per_token": 1e-6,
             "tokenizer": "bpe", "key": "k", "cache_key": "c", "author": "Ada", "keyboard": True}  # fmt: skip
    with capture() as captured:
        structlog.get_logger().info("called", **known)

    assert dict(captured.events[0].attributes) == {**known, a.STAGELIGHT_RECORD_KIND: "app"}


def test_long_text_is_cut_and_impossible_values_are_named(lines: StringIO) -> None:
    """Text ends after 8 KB, at the end of a character; what no format holds does not stop the rest."""
    with capture() as captured:
        structlog.get_logger().info("é" * 5000, text="x" * 100_000, wide="é" * 5000, huge=10**30, broken="a\ud800b")

    [record] = captured.events
    [sent] = captured._logs.get_finished_logs()
    assert sent.log_record.body == "é" * 4096
    assert dict(record.attributes) == {
        "text": "x" * 8192,
        "wide": "é" * 4096,
        "huge": "int",
        "broken": "a?b",
        a.STAGELIGHT_RECORD_KIND: "app",
    }
