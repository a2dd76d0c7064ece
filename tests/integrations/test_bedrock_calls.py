"""Calls of Bedrock's runtime in one piece: what they leave behind, and what is left alone."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
import stagelight
from aws_clients import ASK, FAMILIES, HAIKU, AwsWorld
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from opentelemetry import trace
from stagelight.conventions import attributes as a
from stagelight.sim import Simulator
from stagelight.testing import Clock, capture

CLIENT = "bedrock"
pytestmark = pytest.mark.usefixtures("recorded")


def without_cost(call: Any) -> dict[str, Any]:
    """The attributes of a call, without its price."""
    return {key: value for key, value in call.attributes.items() if ".cost." not in key}


def test_converse(bedrock: AwsWorld, script: Any) -> None:
    """A conversation leaves one span with what was asked, what came back, its tokens and its exact price."""
    answers: list[Any] = []

    async def scenario(client: Any) -> None:
        config = {"temperature": 0.5, "topP": 0.9, "maxTokens": 100, "stopSequences": ["END"]}
        more = {"additionalModelRequestFields": {"top_k": 40}}
        with stagelight.turn("answer"):
            answers.append(await script.now(client.converse(**ASK, inferenceConfig=config, **more)))

    captured = bedrock.run(scenario, clock=Clock())
    call = captured.call("llm")
    usage = answers[0]["usage"]
    # 1.10 and 5.50 USD per million tokens in a region: https://aws.amazon.com/bedrock/pricing/
    amount = (usage["inputTokens"] * Decimal("1.1") + usage["outputTokens"] * Decimal("5.5")) / 10**6

    assert (call.name, call.span.kind, call.span.status.is_unset) == (f"chat {HAIKU}", trace.SpanKind.CLIENT, True)
    assert without_cost(call) == {
        a.STAGELIGHT_STAGE: "llm",
        a.GEN_AI_OPERATION_NAME: "chat",
        a.GEN_AI_PROVIDER_NAME: "aws.bedrock",
        a.GEN_AI_REQUEST_MODEL: HAIKU,
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: bedrock.port,
        a.GEN_AI_REQUEST_TEMPERATURE: 0.5,
        a.GEN_AI_REQUEST_TOP_P: 0.9,
        a.GEN_AI_REQUEST_TOP_K: 40,
        a.GEN_AI_REQUEST_MAX_TOKENS: 100,
        a.GEN_AI_RESPONSE_ID: answers[0]["ResponseMetadata"]["RequestId"],
        a.GEN_AI_RESPONSE_FINISH_REASONS: ("end_turn",),
        a.STAGELIGHT_RESPONSE_SERVER_TIME: answers[0]["metrics"]["latencyMs"] / 1000,
        a.GEN_AI_USAGE_INPUT_TOKENS: usage["inputTokens"],
        a.GEN_AI_USAGE_OUTPUT_TOKENS: usage["outputTokens"],
        a.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: 0,
        a.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: 0,
        a.STAGELIGHT_OUTCOME: "completed",
    }
    assert (call.cost, call.cost_status) == (amount, "exact")
    assert captured.turn("answer").time_to_first_token_s == 0.0


@pytest.mark.parametrize("model", FAMILIES)
def test_families_of_models(bedrock: AwsWorld, script: Any, model: str) -> None:
    """Each family's body is read for tokens and reason; what it lacks is in the headers."""
    body, operation, reason = FAMILIES[model]
    answers: list[Any] = []

    async def scenario(client: Any) -> None:
        answers.append(await script.now(client.invoke_model(modelId=model, body=json.dumps(body))))
        answers.append(json.loads(await script.now(answers[0]["body"].read())))

    call = bedrock.run(scenario).call("llm")
    headers = answers[0]["ResponseMetadata"]["HTTPHeaders"]

    assert (call.name, call.outcome) == (f"{operation} {model}", "completed")
    assert call.attributes[a.GEN_AI_RESPONSE_FINISH_REASONS] == (reason,)
    assert call.attributes[a.GEN_AI_REQUEST_MAX_TOKENS] == 200
    assert call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS] == int(headers["x-amzn-bedrock-input-token-count"])
    assert call.attributes[a.GEN_AI_USAGE_OUTPUT_TOKENS] == int(headers["x-amzn-bedrock-output-token-count"])
    latency_ms = int(headers["x-amzn-bedrock-invocation-latency"])
    assert call.attributes[a.STAGELIGHT_RESPONSE_SERVER_TIME] == latency_ms / 1000
    assert a.GEN_AI_RESPONSE_MODEL not in call.attributes
    assert call.cost_status == ("unpriced" if "cohere" in model else "exact")


@pytest.mark.parametrize(
    ("model", "body", "size"),
    [
        ("amazon.titan-embed-text-v2:0", {"inputText": "Tides rise.", "dimensions": 256}, 256),
        ("amazon.titan-embed-text-v1", {"inputText": "Tides rise."}, 1024),
        ("cohere.embed-english-v3", {"texts": ["Tides rise."], "input_type": "search_query"}, 1024),
        ("cohere.embed-v4:0", {"texts": ["Tides"], "input_type": "search_query", "embedding_types": ["float"]}, 1024),
    ],
)
def test_embeddings(bedrock: AwsWorld, script: Any, model: str, body: dict[str, Any], size: int) -> None:
    """Embeddings have their tokens and the length of their vectors."""

    async def scenario(client: Any) -> None:
        answer = await script.now(client.invoke_model(modelId=model, body=json.dumps(body)))
        await script.now(answer["body"].read())

    call = bedrock.run(scenario).call("embedding")

    assert (call.name, call.outcome) == (f"embeddings {model}", "completed")
    assert call.attributes[a.GEN_AI_EMBEDDINGS_DIMENSION_COUNT] == size
    assert call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS] > 0
    assert a.GEN_AI_USAGE_OUTPUT_TOKENS not in call.attributes
    assert call.cost_status == ("exact" if "titan-embed-text-v2" in model else call.cost_status)


def test_a_manual_block_is_that_call(bedrock: AwsWorld, script: Any) -> None:
    """A client inside a manual block of the same stage fills it: one span, one cost, read after the block as well."""

    async def scenario(client: Any) -> None:
        with stagelight.llm(provider="aws.bedrock", model="mine"):
            await script.now(client.converse(**ASK))
        with stagelight.llm(provider="aws.bedrock", model="mine"):
            answer = await script.now(client.invoke_model(modelId=HAIKU, body=json.dumps(FAMILIES[HAIKU][0])))
        await script.now(answer["body"].read())

    calls = bedrock.run(scenario).calls

    assert [call.attributes[a.GEN_AI_REQUEST_MODEL] for call in calls] == ["mine", "mine"]
    assert all(call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS] > 0 for call in calls)
    assert [call.outcome for call in calls] == ["completed"] * 2


def test_inside_a_span_of_the_application(bedrock: AwsWorld, script: Any) -> None:
    """The call is a child of the current span, and the context is the caller's again afterwards."""

    async def scenario(client: Any) -> None:
        with stagelight.turn("answer"):
            before = trace.get_current_span()
            await script.now(client.converse(**ASK))
            assert trace.get_current_span() is before

    captured = bedrock.run(scenario)

    assert captured.call("llm").span.parent == captured.turn("answer").span.context


def test_calls_side_by_side(simulator: Simulator) -> None:
    """Calls of one client in several threads are calls of their own."""
    world = AwsWorld("sync", simulator, "bedrock-runtime", "aws.bedrock")
    client = world.sync_client()

    with capture() as captured, ThreadPoolExecutor(4) as threads:
        models = [f"meta.llama3-{number}" for number in range(8)]
        list(threads.map(lambda model: client.converse(**{**ASK, "modelId": model}), models))

    assert sorted(call.attributes[a.GEN_AI_REQUEST_MODEL] for call in captured.calls) == models
    assert {call.outcome for call in captured.calls} == {"completed"}


@pytest.mark.parametrize(
    "body",
    [
        {"taskType": "TEXT_IMAGE", "textToImageParams": {"text": "tides"}},
        {"query": "tides", "documents": ["a", "b"], "top_n": 1},
    ],
)
def test_what_is_no_text_is_left_alone(simulator: Simulator, body: dict[str, Any]) -> None:
    """Models for images and ranking are not recorded as something they are not."""
    world = AwsWorld("sync", simulator, "bedrock-runtime", "")

    with capture() as captured, pytest.raises(ClientError):
        world.sync_client().invoke_model(modelId="any.model-v1:0", body=json.dumps(body))

    assert captured.spans == ()


def test_other_services_are_left_alone(simulator: Simulator) -> None:
    """Calls of other services, and other calls of this one, leave nothing."""
    bucket = AwsWorld("sync", simulator, "s3", "").sync_client()
    runtime = AwsWorld("sync", simulator, "bedrock-runtime", "").sync_client()
    guarded = {
        "guardrailIdentifier": "abc",
        "guardrailVersion": "1",
        "source": "INPUT",
        "content": [{"text": {"text": ""}}],
    }

    with capture() as captured, Stubber(bucket) as buckets, Stubber(runtime) as guardrails:
        buckets.add_response("list_buckets", {"Buckets": []})
        assert bucket.list_buckets()["Buckets"] == []
        guardrails.add_client_error("apply_guardrail", "ThrottlingException")
        with pytest.raises(ClientError):
            runtime.apply_guardrail(**guarded)

    assert captured.spans == ()
