"""Calls of Bedrock's runtime in one piece: what they leave behind, however they are made and end."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from io import BytesIO
from typing import Any

import pytest
import stagelight
from aws_clients import ASK, FAMILIES, HAIKU, KINDS, LONG, AwsWorld, knows
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.response import StreamingBody
from botocore.stub import Stubber
from opentelemetry import trace
from retrying import check_retried, refusing
from stagelight.conventions import attributes as a
from stagelight.facts import Usage
from stagelight.integrations._bedrock_answers import answer, speaks
from stagelight.integrations.bedrock import BedrockInstrumentor
from stagelight.sim import Simulator
from stagelight.testing import Captured, Clock, capture


@pytest.fixture
def recorded() -> Iterator[BedrockInstrumentor]:
    """Bedrock's clients are instrumented."""
    instrumentor = BedrockInstrumentor()
    assert instrumentor.switch_on()
    yield instrumentor
    instrumentor.uninstrument()


pytestmark = pytest.mark.usefixtures("recorded")


@pytest.fixture(params=KINDS)
def bedrock(request: pytest.FixtureRequest, simulator: Simulator) -> AwsWorld:
    """The simulator, by a sync and by an async client."""
    simulator.forget()
    return AwsWorld(request.param, simulator, "bedrock-runtime", "aws.bedrock")


def without_cost(call: Any) -> dict[str, Any]:
    """The attributes of a call, without its price."""
    return {key: value for key, value in call.attributes.items() if ".cost." not in key}


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


@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [
        ("rate_limit", "ThrottlingException", 429),
        ("unauthorized", "UnrecognizedClientException", 401),
        ("model_not_found", "ResourceNotFoundException", 404),
        ("server_error;status=503", "ServiceUnavailableException", 503),
    ],
)
def test_refused_calls(bedrock: AwsWorld, script: Any, fault: str, kind: str, status: int) -> None:
    """The caller gets the client's exception; the call is an error with its class and the HTTP status."""
    errors: list[ClientError] = []

    async def scenario(client: Any) -> None:
        try:
            await script.now(client.converse(**ASK))
        except ClientError as error:
            errors.append(error)

    call = bedrock.run(scenario, headers={"x-stagelight-fault": fault}).call("llm")
    name = (
        "botocore.errorfactory." + kind if kind != "UnrecognizedClientException" else "botocore.exceptions.ClientError"
    )

    assert errors[0].response["Error"]["Code"] == kind
    assert (call.outcome, call.error_type, call.cost) == ("error", name, None)
    assert call.attributes[a.HTTP_RESPONSE_STATUS_CODE] == status


async def asked(client: Any, script: Any) -> None:
    await script.now(client.converse(**ASK))


async def streamed(client: Any, script: Any) -> None:
    answer = await script.now(client.converse_stream(**ASK))
    async for _ in script.each(answer["stream"]):
        pass


async def invoked(client: Any, script: Any) -> None:
    answer = await script.now(client.invoke_model(modelId=HAIKU, body=json.dumps(FAMILIES[HAIKU][0])))
    await script.now(answer["body"].read())


@pytest.mark.parametrize("use", [asked, streamed, invoked])
@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
def test_repeated_requests_are_one_call(bedrock: AwsWorld, script: Any, use: Any, mode: str) -> None:
    """The client's own repetitions belong to one call, which counts them."""
    with refusing(503) as simulator:
        world = AwsWorld(bedrock.kind, simulator, bedrock.service, bedrock.provider)
        patient = Config(retries={"total_max_attempts": 3, "mode": mode})
        captured = world.run(lambda client: use(client, script), config=patient)

        check_retried(captured, simulator, 2)


def test_requests_repeated_in_vain_are_one_call(bedrock: AwsWorld, script: Any) -> None:
    """A call that fails for good knows how often it was sent."""

    async def scenario(client: Any) -> None:
        with pytest.raises(ClientError):
            await asked(client, script)

    with refusing(429, 500) as simulator:
        world = AwsWorld(bedrock.kind, simulator, bedrock.service, bedrock.provider)
        captured = world.run(scenario, config=Config(retries={"total_max_attempts": 2, "mode": "standard"}))

        check_retried(captured, simulator, 2, outcome="error")


def test_a_wrong_request(bedrock: AwsWorld, script: Any) -> None:
    """A request that Bedrock refuses, and one that the client refuses to send, are errors."""

    async def scenario(client: Any) -> None:
        for wrong in ([], "no list"):
            with pytest.raises(Exception, match=r"Validation|validation"):
                await script.now(client.converse(modelId=HAIKU, messages=wrong))

    calls = bedrock.run(scenario).calls

    assert [call.error_type for call in calls] == [
        "botocore.errorfactory.ValidationException", "botocore.exceptions.ParamValidationError",
    ]  # fmt: skip
    assert [call.attributes.get(a.HTTP_RESPONSE_STATUS_CODE) for call in calls] == [400, None]


def test_a_server_that_is_not_there(bedrock: AwsWorld, script: Any) -> None:
    """A call that reaches nobody is an error of the client's class."""

    async def scenario(client: Any) -> None:
        with pytest.raises(Exception, match="Could not connect"):
            await script.now(client.converse(**ASK))

    call = bedrock.run(scenario, endpoint_url="http://127.0.0.1:9").call("llm")

    assert (call.outcome, call.error_type) == ("error", "botocore.exceptions.EndpointConnectionError")


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


def test_bodies_that_cannot_be_read(simulator: Simulator) -> None:
    """A body that is a file is the client's to read: the model and what the answer tells are known all the same."""
    world = AwsWorld("sync", simulator, "bedrock-runtime", "")
    sent = BytesIO(json.dumps(FAMILIES[HAIKU][0]).encode())

    with capture() as captured:
        world.sync_client().invoke_model(modelId=HAIKU, body=sent)["body"].read()
    call = captured.call("llm")

    assert (call.name, call.outcome) == (f"chat {HAIKU}", "completed")
    assert call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS] > 0
    assert a.GEN_AI_REQUEST_MAX_TOKENS not in call.attributes


@pytest.mark.filterwarnings(
    "ignore:.*(socket|Connection):pytest.PytestUnraisableExceptionWarning"
)  # the client's, without us too
def test_a_body_that_nobody_reads(bedrock: AwsWorld, script: Any) -> None:
    """A body that is dropped unread was abandoned; its tokens are in the headers and its cost is known."""

    async def scenario(client: Any) -> None:
        await script.now(client.invoke_model(modelId=HAIKU, body=json.dumps(FAMILIES[HAIKU][0])))
        gc.collect()

    call = bedrock.run(scenario).call("llm")

    assert (call.outcome, call.error_type, call.cost_status) == ("client_abandoned", None, "exact")


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


def test_reading_an_answer_by_hand() -> None:
    """``record`` reads the answer of a conversation in a block of the caller's own."""
    BedrockInstrumentor().uninstrument()
    with capture() as captured, stagelight.llm(provider="aws.bedrock", model=HAIKU) as call:
        call.record(conversed())
    BedrockInstrumentor().switch_on()

    assert captured.call("llm").attributes[a.GEN_AI_USAGE_INPUT_TOKENS] == 4
    assert captured.call("llm").attributes[a.STAGELIGHT_RESPONSE_SERVER_TIME] == 0.25
