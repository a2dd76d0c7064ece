"""A manual call around an instrumented client is one call; a fallback between providers is one child each."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import stagelight
from stagelight._calls import Call
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.facts import Request, Response, Stage, Usage
from stagelight.integrations._engine import Observed
from stagelight.testing import Captured, capture

OPENAI = Request(provider="openai", model="gpt-4o-mini")
ANTHROPIC = Request(provider="anthropic", model="claude-3-5-haiku-latest")
USED = Response(model="answering", id="r-1", usage=Usage(input_tokens=1000, output_tokens=100))


def _client(stage: Stage, request: Request, response: Response | None = USED, error: Exception | None = None) -> None:
    """What an integration does around one call of its client."""
    observed = Observed(stage, request)
    if error is not None:
        observed.fail(error)
        raise error
    observed.absorb(response)
    observed.end()


def _spans(captured: Captured) -> list[tuple[str, str | None]]:
    names = {span.context.span_id: span.name for span in captured.spans if span.context}
    return [(span.name, names.get(span.parent.span_id) if span.parent else None) for span in captured.spans]


def test_a_client_inside_a_manual_call_is_that_call() -> None:
    """One span, one cost, one duration: the client fills in what the caller did not say."""
    with capture() as captured:
        with stagelight.llm(provider="openai", model="gpt-4o-mini", temperature=0.5) as call:
            _client(
                "llm", OPENAI._replace(stream=True, max_tokens=50, temperature=0.9, server_address="api.openai.com")
            )
            call.usage(output_tokens=200)
        found = captured.call("llm")

        assert _spans(captured) == [("chat gpt-4o-mini", None)]
        assert {
            key: found.attributes.get(key)
            for key in (
                a.GEN_AI_REQUEST_TEMPERATURE,
                a.GEN_AI_REQUEST_MAX_TOKENS,
                a.SERVER_ADDRESS,
                a.GEN_AI_RESPONSE_MODEL,
                a.GEN_AI_USAGE_INPUT_TOKENS,
                a.GEN_AI_USAGE_OUTPUT_TOKENS,
            )
        } == {
            a.GEN_AI_REQUEST_TEMPERATURE: 0.5,
            a.GEN_AI_REQUEST_MAX_TOKENS: 50,
            a.SERVER_ADDRESS: "api.openai.com",
            a.GEN_AI_RESPONSE_MODEL: "answering",
            a.GEN_AI_USAGE_INPUT_TOKENS: 1000,
            a.GEN_AI_USAGE_OUTPUT_TOKENS: 200,
        }
        assert len(captured.ledger) == 1
        assert [point.count for point in captured.metric(m.GEN_AI_CLIENT_OPERATION_DURATION)] == [1]
        assert {point.value for point in captured.metric(m.STAGELIGHT_CALLS_IN_FLIGHT)} == {0}


def test_a_joined_search_is_named_after_what_was_searched() -> None:
    """A span that was named before its collection was known takes the full name."""
    with capture() as captured:
        with stagelight.retrieval(provider="qdrant"):
            _client("retrieval", Request(provider="qdrant", source="docs"), None)

        assert _spans(captured) == [("retrieval docs", None)]


@pytest.mark.parametrize(
    ("stage", "request_"), [("embedding", OPENAI), ("llm", ANTHROPIC)], ids=["another stage", "another provider"]
)
def test_another_call_is_a_child(stage: Stage, request_: Request) -> None:
    """A client of another stage or provider has its own span inside, with its own cost."""
    with capture() as captured:
        with stagelight.llm(provider="openai", model="gpt-4o-mini"):
            _client(stage, request_)

        assert [parent for _, parent in _spans(captured)] == ["chat gpt-4o-mini", None]


def test_a_fallback_costs_on_the_children_only() -> None:
    """Two providers inside one block of a third name: one child each; the parent carries no cost and bills nothing."""
    with capture() as captured:
        with stagelight.turn("answer"), stagelight.llm(provider="router", model="best") as call:
            with pytest.raises(ConnectionError):
                _client("llm", OPENAI, error=ConnectionError())
            _client("llm", ANTHROPIC)
            call.usage(input_tokens=1000, output_tokens=100)
        names = [event.attributes[a.GEN_AI_PROVIDER_NAME] for event in captured.ledger]
        parent = next(one for one in captured.calls if one.attributes[a.GEN_AI_PROVIDER_NAME] == "router")

        assert names == ["anthropic"]
        assert (parent.cost, parent.cost_status) == (None, None)
        assert captured.turn("answer").cost == captured.cost


def test_a_second_attempt_is_a_child_and_the_first_keeps_its_cost() -> None:
    """After a fallback to another provider the joined first attempt still costs what it used, once."""
    with capture() as captured:
        with stagelight.turn("answer"), stagelight.llm(provider="openai", model="gpt-4o-mini"):
            _client("llm", OPENAI)
            _client("llm", ANTHROPIC)

        assert sorted(event.attributes[a.GEN_AI_PROVIDER_NAME] for event in captured.ledger) == ["anthropic", "openai"]
        assert captured.turn("answer").cost == captured.cost > Decimal(0)


def test_a_failed_first_attempt_that_was_joined_bills_nothing() -> None:
    """The first provider failed inside the manual call, the second answered: only the second is billed."""
    with capture() as captured:
        with stagelight.llm(provider="openai", model="gpt-4o-mini"):
            with pytest.raises(ConnectionError):
                _client("llm", OPENAI, error=ConnectionError())
            _client("llm", ANTHROPIC)

        assert [event.attributes[a.GEN_AI_PROVIDER_NAME] for event in captured.ledger] == ["anthropic"]


@pytest.mark.parametrize("make", [lambda: stagelight.turn("sub"), lambda: stagelight.tool("t")], ids=["turn", "tool"])
def test_only_the_innermost_call_is_joined(make: Any) -> None:
    """A client inside a tool or a turn inside the manual call is a call of its own."""
    with capture() as captured:
        with stagelight.llm(provider="openai", model="gpt-4o-mini"), make():
            _client("llm", OPENAI)

        assert len([span for span in captured.spans if span.name == "chat gpt-4o-mini"]) == 2


def test_an_ended_call_is_not_joined() -> None:
    """A client called where an ended call is still current is a call of its own."""
    with capture() as captured:
        ended = stagelight.llm.start(provider="openai", model="gpt-4o-mini")
        with ended.active():
            ended.end()
            _client("llm", OPENAI)

        assert len(captured.calls) == 2
        assert isinstance(ended, Call)
