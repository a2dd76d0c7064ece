"""Whom the calls of a turn are billed to, when, and that ids are kept as pseudonyms only."""

from __future__ import annotations

import gc
import json
from decimal import Decimal
from typing import Any

import pytest
import stagelight
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.testing import Captured, capture

KEY = "a key of the tests that is long enough"
LLM = {"provider": "acme", "model": "acme-1"}


def _owners(captured: Captured) -> list[tuple[Any, ...]]:
    keys = (a.STAGELIGHT_TENANT, a.STAGELIGHT_FEATURE, a.USER_HASH, a.SESSION_ID, a.GEN_AI_CONVERSATION_ID)
    return [tuple(event.attributes.get(key) for key in keys) for event in captured.ledger]


def _everything(captured: Captured) -> str:
    return repr(([json.loads(span.to_json()) for span in captured.spans], captured.events, captured.metrics()))


@pytest.mark.parametrize("when", ["at the start", "before", "between", "after"])
def test_every_call_of_a_turn_is_billed_to_its_owner(when: str) -> None:
    """Whenever ``identify`` comes, ledger and cost metric of all calls of the turn name the owner."""
    owner = {"user_id": "user-1", "session_id": "session-1", "tenant": "acme", "feature": "help"}
    pseudonym, session = "h1:", "h1:"
    with capture(id_key=KEY) as captured:
        with stagelight.turn("answer", conversation_id="c-1", **(owner if when == "at the start" else {})):
            if when == "before":
                stagelight.identify(**owner)
            with stagelight.llm(**LLM) as call:
                call.cost("0.25")
            if when == "between":
                stagelight.identify(tenant="acme")
                stagelight.identify(**owner)
            with stagelight.llm(**LLM) as call:
                call.cost("0.25")
            if when == "after":
                stagelight.identify(**owner)
        rows = _owners(captured)
        cost = [
            (point.attributes[a.STAGELIGHT_TENANT], point.attributes[a.STAGELIGHT_FEATURE], point.value)
            for point in captured.metric(m.STAGELIGHT_USAGE_COST)
            if point.value
        ]

        assert len(set(rows)) == 1
        assert len(rows) == 2
        tenant, feature, user, session_hash, conversation = rows[0]
        assert (tenant, feature, conversation) == ("acme", "help", "c-1")
        assert user.startswith(pseudonym)
        assert session_hash.startswith(session)
        assert cost == [("acme", "help", 0.5)]
        assert "user-1" not in _everything(captured)
        assert "session-1" not in _everything(captured)


def test_without_a_key_ids_are_dropped() -> None:
    """No key, no id: neither raw nor hashed, and nothing is complained about."""
    with capture() as captured:
        with stagelight.turn("answer", user_id="user-1", session_id="session-1"), stagelight.llm(**LLM) as call:
            call.cost("0.1")

        assert _owners(captured) == [(None, None, None, None, None)]
        assert "user-1" not in _everything(captured)
        assert "session-1" not in _everything(captured)


def test_a_pseudonym_is_the_same_everywhere() -> None:
    """The same id and key give the same pseudonym, another key another; a pseudonym passes unchanged."""

    def users(key: str, user: str) -> set[Any]:
        with capture(id_key=key) as captured:
            with stagelight.turn("answer", user_id=user), stagelight.llm(**LLM) as call:
                call.cost("0.1")
            spans = [(span.attributes or {}).get(a.USER_HASH) for span in captured.spans]
        return {*spans, *(row[2] for row in _owners(captured))}

    (one,) = users(KEY, "user-1")
    (again,) = users(KEY, "user-1")
    (passed,) = users(KEY, one)
    (other,) = users(KEY[::-1], "user-1")

    assert one == again == passed != other
    assert [len(part) for part in one.split(":")] == [2, 8, 32]


def test_a_flush_bills_what_waits() -> None:
    """Calls of a running turn wait for its owner until a flush, which sends everything recorded so far."""
    with capture() as captured:
        with stagelight.turn("answer"):
            with stagelight.llm(**LLM) as call:
                call.cost("0.5")
            waiting = len(captured._logs.get_finished_logs())
            stagelight.flush(60)
            flushed = len(captured._logs.get_finished_logs())

        assert (waiting, flushed, len(captured.ledger)) == (0, 1, 1)


def test_a_job_bills_at_once() -> None:
    """The calls of a job, which may run for hours, are in the ledger while it runs."""
    with capture() as captured, stagelight.job("ingest", tenant="acme"):
        with stagelight.embedding(**LLM) as call:
            call.cost("0.5")

        assert len(captured._logs.get_finished_logs()) == 1


def test_a_turn_of_very_many_calls_does_not_hoard() -> None:
    """More than a thousand waiting bills are sent with what is known, so that memory stays bounded."""
    with capture() as captured:
        with stagelight.turn("answer"):
            for _ in range(1500):
                with stagelight.tool("x") as call:
                    call.cost("0.001")
            waiting = 1500 - len(captured._logs.get_finished_logs())

        assert 0 < waiting <= 1000
        assert captured.turn("answer").cost == Decimal("1.5")


def test_a_turn_dropped_without_an_end_is_billed() -> None:
    """Its span is lost with it, but what its calls cost is not."""
    with capture() as captured:
        turn = stagelight.turn.start("answer", tenant="acme")
        with turn.active(), stagelight.llm(provider="openai", model="gpt-4o-mini") as call:
            call.usage(input_tokens=1000)
        del turn, call
        gc.collect()

        [entry] = captured.ledger
        assert entry.attributes[a.STAGELIGHT_TENANT] == "acme"
        assert captured.cost == Decimal("0.00015")
