"""What is read of Bedrock's answers: cached tokens, guardrails, the model that answered and its price."""

from __future__ import annotations

import json
from decimal import Decimal
from io import BytesIO
from typing import Any

import pytest
import stagelight
from aws_clients import ASK, HAIKU, LONG, AwsWorld, knows
from botocore.response import StreamingBody
from botocore.stub import Stubber
from stagelight.conventions import attributes as a
from stagelight.facts import Usage
from stagelight.integrations._bedrock_answers import answer, speaks
from stagelight.integrations.bedrock import BedrockInstrumentor
from stagelight.sim import Simulator
from stagelight.testing import Captured, capture

CLIENT = "bedrock"
pytestmark = pytest.mark.usefixtures("recorded")


def stubbed(response: dict[str, Any], parameters: dict[str, Any], operation: str = "converse") -> Captured:
    """What is recorded of one call whose answer is given by the client's own stubber."""
    with capture() as captured:
        client = AwsWorld("sync", Simulator(), "bedrock-runtime", "").sync_client(
            endpoint_url="https://bedrock.example"
        )
        with Stubber(client) as stubber:
            stubber.add_response(operation, response)
            answer = getattr(client, operation)(**parameters)
            if "body" in answer:
                answer["body"].read()
    return captured


def conversed(**more: Any) -> dict[str, Any]:
    """An answer of Converse."""
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": "Tides rise."}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 4, "outputTokens": 2, "totalTokens": 6},
        "metrics": {"latencyMs": 250},
        **more,
    }


def test_cached_tokens_are_added_to_the_input(bedrock: AwsWorld, script: Any) -> None:
    """Bedrock reports new, cached and written tokens apart: the input is their sum, and each has its price."""
    usages: list[Any] = []

    async def scenario(client: Any) -> None:
        system = [{"text": LONG}, {"cachePoint": {"type": "default"}}]
        answers = [await script.now(client.converse(**ASK, system=system)) for _ in range(2)]
        usages.extend(answer["usage"] for answer in answers)

    calls = bedrock.run(scenario).calls

    assert usages[0]["cacheWriteInputTokens"] == usages[1]["cacheReadInputTokens"] > 1024
    for call, usage in zip(calls, usages, strict=True):
        new, read, written = usage["inputTokens"], usage["cacheReadInputTokens"], usage["cacheWriteInputTokens"]
        assert call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS] == new + read + written
        assert usage["totalTokens"] == new + read + written + usage["outputTokens"]
        # 1.10, 0.11 and 1.375 USD per million tokens
        amount = new * Decimal("1.1") + read * Decimal("0.11") + written * Decimal("1.375")
        assert call.cost == (amount + usage["outputTokens"] * Decimal("5.5")) / 10**6


@pytest.mark.skipif(not knows("TokenUsage", "cacheDetails"), reason="this version of the client does not tell it")
def test_an_hour_in_the_cache_has_its_own_price() -> None:
    """What is written to the cache for an hour is told apart, and costs more."""
    usage = {"inputTokens": 4, "outputTokens": 2, "totalTokens": 1006, "cacheReadInputTokens": 0}
    costs = []
    for ttl in ("5m", "1h"):
        written = {"cacheWriteInputTokens": 1000, "cacheDetails": [{"ttl": ttl, "inputTokens": 1000}]}
        costs.append(stubbed(conversed(usage=usage | written), ASK).call("llm").cost)

    # 1.375 and 2.20 USD per million tokens
    assert costs[1] - costs[0] == Decimal("0.000825")


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        ({}, "passed"),
        ({"stopReason": "guardrail_intervened"}, "intervened"),
        ({"trace": {"guardrail": {"inputAssessment": {}}}}, "passed"),
    ],
)
def test_guardrails_of_converse(told: dict[str, Any], outcome: str) -> None:
    """What a guardrail did is recorded: asked for in the request, or told by the trace."""
    guarded = {"guardrailConfig": {"guardrailIdentifier": "abc", "guardrailVersion": "1"}}

    call = stubbed(conversed(**told), {**ASK, **({} if "trace" in told else guarded)}).call("llm")

    assert call.attributes[a.STAGELIGHT_RESPONSE_GUARDRAIL] == outcome


@pytest.mark.parametrize(("action", "outcome"), [("INTERVENED", "intervened"), ("NONE", "passed")])
def test_guardrails_of_a_body(action: str, outcome: str) -> None:
    """InvokeModel tells in the body what a guardrail did."""
    told = {"generation": "No.", "stop_reason": "stop", "amazon-bedrock-guardrailAction": action}
    data = json.dumps(told).encode()
    response = {"body": StreamingBody(BytesIO(data), len(data)), "contentType": "application/json"}

    call = stubbed(response, {"modelId": "meta.llama3-8b-instruct-v1:0", "body": "{}"}, "invoke_model").call("llm")

    assert call.attributes[a.STAGELIGHT_RESPONSE_GUARDRAIL] == outcome
    assert call.outcome == "completed"


@pytest.mark.parametrize(
    ("told", "reasons", "tokens"),
    [
        # Titan behind a guardrail
        (
            {"inputTextTokenCount": 28.0, "results": [{"tokenCount": 197.0, "completionReason": "FINISH"}]},
            ("FINISH",),
            (28, 197),
        ),
        ({"inputTextTokenCount": 28, "results": [{"completionReason": "FINISH"}]}, ("FINISH",), (28, None)),
        # AI21's Jurassic
        (
            {"id": 7, "completions": [{"data": {"text": "Tides rise."}, "finishReason": {"reason": "endoftext"}}]},
            ("endoftext",),
            (None, None),
        ),
    ],
)
def test_rare_bodies(told: dict[str, Any], reasons: tuple[str, ...], tokens: tuple[int | None, int | None]) -> None:
    """Whole numbers with a fraction of zero are counts, what is not told is not 0, and reasons may be records."""
    answered = answer(told)
    usage = answered.usage or Usage()

    assert (answered.finish_reasons, (usage.input_tokens, usage.output_tokens)) == (reasons, tokens)
    assert speaks(told) == ("completions" in told)


def test_a_router_tells_the_model_that_answered() -> None:
    """The model that a prompt router chose is the one that is billed."""
    router = "arn:aws:bedrock:us-east-1:123456789012:default-prompt-router/anthropic.claude:1"
    chosen = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-3-haiku-20240307-v1:0"

    told = conversed(trace={"promptRouter": {"invokedModelId": chosen}})
    call = stubbed(told, {**ASK, "modelId": router}).call("llm")

    assert call.attributes[a.GEN_AI_RESPONSE_MODEL] == chosen
    assert call.cost == (4 * Decimal("0.25") + 2 * Decimal("1.25")) / 10**6


@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("anthropic.claude-haiku-4-5-20251001-v1:0", "exact"),
        (f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/{HAIKU}", "exact"),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3", "unknown_model"),
        ("anthropic.claude-unheard-of-v1:0", "unknown_model"),
    ],
)
def test_resource_names(model: str, status: str) -> None:
    """A name with a region's prefix or a whole resource name has the model's price; one without a model has none."""
    call = stubbed(conversed(), {**ASK, "modelId": model}).call("llm")

    assert call.attributes[a.GEN_AI_REQUEST_MODEL] == model
    assert status in {call.cost_status, call.attributes.get(a.STAGELIGHT_COST_REASON)}


def test_latency_optimised_answers_have_a_price_of_their_own() -> None:
    """Optimised latency is billed otherwise, and no list says how: no price is better than the wrong one."""
    told = conversed(performanceConfig={"latency": "optimized"})

    call = stubbed(told, {**ASK, "performanceConfig": {"latency": "optimized"}}).call("llm")

    assert call.attributes[a.STAGELIGHT_COST_REASON] == "unknown_context"


def test_reading_an_answer_by_hand() -> None:
    """``record`` reads the answer of a conversation in a block of the caller's own."""
    BedrockInstrumentor().uninstrument()
    with capture() as captured, stagelight.llm(provider="aws.bedrock", model=HAIKU) as call:
        call.record(conversed())
    BedrockInstrumentor().switch_on()

    assert captured.call("llm").attributes[a.GEN_AI_USAGE_INPUT_TOKENS] == 4
    assert captured.call("llm").attributes[a.STAGELIGHT_RESPONSE_SERVER_TIME] == 0.25
