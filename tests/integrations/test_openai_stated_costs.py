"""What a provider says it charged: the cost where its word counts, and only there."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from integrations.openai_answers import ask, completion
from stagelight.conventions import attributes as a
from stagelight.integrations.openai import OPERATIONS

OPENROUTER = {"prompt_tokens": 14, "completion_tokens": 163, "total_tokens": 177, "cost": 0.00014}


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("usage", "amount"),
    [
        (OPENROUTER, "0.00014"),
        ({**OPENROUTER, "cost": 0}, "0"),
        (
            {**OPENROUTER, "cost": 0.00001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.00019}},
            "0.0002",
        ),
        ({**OPENROUTER, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}, None),
        ({**OPENROUTER, "cost": -1}, None),
        ({**OPENROUTER, "cost": "free"}, None),
    ],
)
def test_openrouter_states_its_cost(usage: dict[str, Any], amount: str | None) -> None:
    """What OpenRouter says it charged is the cost; with the caller's own key the provider's share is added."""
    call = ask(completion(usage=usage, provider="OpenAI"), base_url="https://openrouter.ai/api/v1")

    assert call.attributes[a.GEN_AI_PROVIDER_NAME] == "openrouter"
    if amount is None:
        assert call.attributes.get(a.STAGELIGHT_COST_SOURCE) != "provider"
    else:
        assert (call.cost, call.cost_status) == (Decimal(amount), "exact")
        assert call.attributes[a.STAGELIGHT_COST_SOURCE] == "provider"


def test_openrouter_states_it_at_the_end_of_a_stream() -> None:
    """The last chunk of a stream has the cost beside the usage."""
    items = OPERATIONS["/chat/completions"].items()
    for chunk in (
        {"id": "gen-1", "model": "m-1", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]},
        {"id": "gen-1", "model": "m-1", "choices": [], "usage": OPENROUTER},
    ):
        items.take(chunk)
    told = items.response()

    assert told is not None
    assert told.stated_cost == Decimal("0.00014")


@pytest.mark.usefixtures("recorded")
def test_perplexity_states_its_cost() -> None:
    """Perplexity's fee per request depends on how much it searched, which only its own total knows."""
    cost = {"input_tokens_cost": 0.00001, "output_tokens_cost": 0.00002, "request_cost": 0.005, "total_cost": 0.00503}
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30, "search_context_size": "low"}
    call = ask(completion(usage={**usage, "cost": cost}), base_url="https://api.perplexity.ai")

    assert (call.cost, call.cost_status) == (Decimal("0.00503"), "exact")
    assert call.attributes[a.STAGELIGHT_COST_SOURCE] == "provider"


@pytest.mark.usefixtures("recorded")
def test_x_ai_states_its_cost() -> None:
    """xAI counts in ticks of a ten-billionth of a dollar, searches of its own tools included."""
    usage = {"prompt_tokens": 900, "completion_tokens": 300, "total_tokens": 1200, "cost_in_usd_ticks": 318_319_000}
    call = ask(completion(usage=usage), base_url="https://api.x.ai/v1")
    other = ask(completion(usage=usage), base_url="https://llm.example/v1")

    assert (call.cost, call.cost_status) == (Decimal("0.0318319"), "exact")
    assert call.attributes[a.STAGELIGHT_COST_SOURCE] == "provider"
    assert other.cost is None


def test_a_cost_is_stated_when_the_stream_has_ended() -> None:
    """Perplexity's chunks all have usage; the cost in them is 0 until the last one."""
    items = OPERATIONS["/chat/completions"].items()
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12, "cost": {"total_cost": 0}}
    said = {"index": 0, "delta": {"content": "Hi"}}
    items.take({"id": "c1", "model": "sonar", "choices": [said], "usage": usage})
    before = items.response()
    ended = {**usage, "cost": {"total_cost": 0.005}}
    items.take({"id": "c1", "model": "sonar", "choices": [{**said, "finish_reason": "stop"}], "usage": ended})
    after = items.response()

    assert (before.stated_cost, after.stated_cost) == (None, Decimal("0.005"))


@pytest.mark.usefixtures("recorded")
def test_a_cost_stated_by_others_is_no_dollars() -> None:
    """A figure of that name in another server's answer may be anything."""
    call = ask(completion(usage=OPENROUTER), base_url="https://llm.example/v1")

    assert (call.cost, call.cost_status) == (None, "unpriced")
