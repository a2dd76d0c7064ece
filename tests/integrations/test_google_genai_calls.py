"""Calls of the Google Gen AI client in one piece: what they leave behind, however they are made."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
import stagelight
from opentelemetry import trace
from stagelight.conventions import attributes as a
from stagelight.testing import Clock, capture

CLIENT = "google_genai"
pytestmark = pytest.mark.usefixtures("recorded")

ASK = {"model": "gemini-2.5-flash", "contents": "What do tides do?"}
LONG = "Tides come and go with the moon, and the moon does not know. " * 150


def fault(text: str, **more: Any) -> dict[str, Any]:
    """The configuration that makes the simulator fail."""
    return {"config": {"http_options": {"headers": {"x-stagelight-fault": text}, **more}}}


def test_contents(world: Any, script: Any) -> None:
    """An answer leaves one span with what was asked, what came back, its tokens and its exact price."""
    answers: list[Any] = []
    config = {
        "temperature": 0.2, "top_p": 0.9, "top_k": 40, "max_output_tokens": 500, "seed": 3, "presence_penalty": 0.3,
        "frequency_penalty": 0.1, "stop_sequences": ["END"], "candidate_count": 2, "response_mime_type": "text/plain",
    }  # fmt: skip

    async def scenario(client: Any) -> None:
        answers.append(await script.now(client.models.generate_content(**ASK, config=config)))

    call = world.run(scenario, clock=Clock()).call("llm")
    usage = answers[0].usage_metadata
    made = usage.candidates_token_count + usage.thoughts_token_count
    # 0.30 and 2.50 USD per million tokens, thoughts included: https://ai.google.dev/gemini-api/docs/pricing
    amount = (usage.prompt_token_count * Decimal("0.3") + made * Decimal("2.5")) / 10**6
    known = {
        key: value
        for key, value in call.attributes.items()
        if key not in {a.STAGELIGHT_COST_PRICE_SOURCE, a.STAGELIGHT_RESPONSE_SERVER_TIME}
    }

    assert (call.name, call.span.kind, call.span.status.is_unset) == (
        "generate_content gemini-2.5-flash", trace.SpanKind.CLIENT, True,
    )  # fmt: skip
    assert usage.thoughts_token_count == 128
    assert known == {
        a.STAGELIGHT_STAGE: "llm",
        a.GEN_AI_OPERATION_NAME: "generate_content",
        a.GEN_AI_PROVIDER_NAME: "gcp.gemini",
        a.GEN_AI_REQUEST_MODEL: "gemini-2.5-flash",
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: world.port,
        a.GEN_AI_REQUEST_TEMPERATURE: 0.2,
        a.GEN_AI_REQUEST_TOP_P: 0.9,
        a.GEN_AI_REQUEST_TOP_K: 40,
        a.GEN_AI_REQUEST_MAX_TOKENS: 500,
        a.GEN_AI_REQUEST_SEED: 3,
        a.GEN_AI_REQUEST_CHOICE_COUNT: 2,
        a.GEN_AI_REQUEST_PRESENCE_PENALTY: 0.3,
        a.GEN_AI_REQUEST_FREQUENCY_PENALTY: 0.1,
        a.GEN_AI_OUTPUT_TYPE: "text",
        a.GEN_AI_RESPONSE_MODEL: "gemini-2.5-flash",
        a.GEN_AI_RESPONSE_ID: answers[0].response_id,
        a.GEN_AI_RESPONSE_FINISH_REASONS: ("stop", "stop"),
        a.GEN_AI_USAGE_INPUT_TOKENS: usage.prompt_token_count,
        a.GEN_AI_USAGE_OUTPUT_TOKENS: made,
        a.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: 128,
        a.STAGELIGHT_COST_AMOUNT: float(amount),
        a.STAGELIGHT_COST_CURRENCY: "USD",
        a.STAGELIGHT_COST_SOURCE: "local",
        a.STAGELIGHT_COST_STATUS: "exact",
        a.STAGELIGHT_COST_MODEL: "google/gemini-2.5-flash",
        a.STAGELIGHT_OUTCOME: "completed",
    }


@pytest.mark.parametrize("config", [None, {"output_dimensionality": 256}])
def test_embeddings(world: Any, script: Any, config: Any) -> None:
    """Embeddings carry the length of the vectors and the tokens that the provider counts."""

    async def scenario(client: Any) -> None:
        await script.now(
            client.models.embed_content(model="gemini-embedding-001", contents=["tides", "moon"], config=config)
        )

    call = world.run(scenario, clock=Clock()).call("embedding")
    known = {key: value for key, value in call.attributes.items() if "cost" not in key and "server_time" not in key}

    assert call.name == "embeddings gemini-embedding-001"
    assert known == {
        a.STAGELIGHT_STAGE: "embedding",
        a.GEN_AI_OPERATION_NAME: "embeddings",
        a.GEN_AI_PROVIDER_NAME: "gcp.gemini",
        a.GEN_AI_REQUEST_MODEL: "gemini-embedding-001",
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: world.port,
        a.GEN_AI_EMBEDDINGS_DIMENSION_COUNT: 256 if config else 3072,
        a.GEN_AI_USAGE_INPUT_TOKENS: 2,
        a.STAGELIGHT_OUTCOME: "completed",
    }
    # 0.15 USD per million tokens: https://ai.google.dev/gemini-api/docs/pricing
    assert (call.cost, call.cost_status) == (Decimal("0.15") * 2 / 10**6, "exact")


def test_cached_prompts(world: Any, script: Any) -> None:
    """Cached tokens are part of the prompt and have a price of their own."""
    usages: list[Any] = []

    async def scenario(client: Any) -> None:
        for index in range(2):
            asked = client.models.generate_content(model="gemini-2.5-flash-lite", contents=LONG + str(index))
            usages.append((await script.now(asked)).usage_metadata)

    second = world.run(scenario).calls[1]
    usage = usages[1]
    fresh = usage.prompt_token_count - usage.cached_content_token_count
    amount = fresh * Decimal("0.1") + usage.cached_content_token_count * Decimal("0.01")

    assert usage.cached_content_token_count > 1024
    assert second.attributes[a.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS] == usage.cached_content_token_count
    assert second.attributes[a.GEN_AI_USAGE_INPUT_TOKENS] == usage.prompt_token_count
    assert second.cost == (amount + usage.candidates_token_count * Decimal("0.4")) / 10**6


@pytest.mark.parametrize(
    ("asked", "reasons", "outcome"),
    [
        ({"config": {"max_output_tokens": 2}}, ("length",), "length_cut"),
        (fault("content_filter;after=2"), ("safety",), "completed"),
        (fault("content_filter;after=0"), ("prohibited_content",), "completed"),
        ({"config": {"stop_sequences": ["tides"]}}, ("stop",), "completed"),
    ],
)
def test_reasons_to_stop(world: Any, script: Any, asked: Any, reasons: Any, outcome: str) -> None:
    """Every reason has the word of chat completions for it where there is one; a block is no error."""

    async def scenario(client: Any) -> None:
        await script.now(client.models.generate_content(**{**ASK, "model": "gemini-2.5-flash-lite", **asked}))

    call = world.run(scenario).call("llm")

    assert (call.attributes[a.GEN_AI_RESPONSE_FINISH_REASONS], call.outcome) == (reasons, outcome)
    assert call.cost_status == "exact"


def test_service_tiers(world: Any, script: Any) -> None:
    """The tier that was asked for and the one that served are told; the usual one only when another was asked for."""
    from google.genai import types

    if "service_tier" not in types.GenerateContentConfig.model_fields:
        pytest.skip("this version of the client knows no tiers")

    async def scenario(client: Any) -> None:
        await script.now(client.models.generate_content(**ASK, config={"service_tier": "flex"}))
        await script.now(client.models.generate_content(**ASK))

    flex, plain = world.run(scenario).calls

    assert flex.attributes[a.OPENAI_REQUEST_SERVICE_TIER] == "flex"
    assert flex.attributes[a.OPENAI_RESPONSE_SERVICE_TIER] == "flex"
    assert not {a.OPENAI_REQUEST_SERVICE_TIER, a.OPENAI_RESPONSE_SERVICE_TIER} & plain.attributes.keys()


def test_a_chat(world: Any, script: Any) -> None:
    """Each message of a chat is one call."""

    async def scenario(client: Any) -> None:
        chat = client.chats.create(model="gemini-2.5-flash")
        await script.now(chat.send_message("What do tides do?"))
        await script.now(chat.send_message("And what does the moon do?"))

    first, second = world.run(scenario).calls

    assert first.attributes[a.GEN_AI_USAGE_INPUT_TOKENS] < second.attributes[a.GEN_AI_USAGE_INPUT_TOKENS]
    assert [call.cost_status for call in (first, second)] == ["exact", "exact"]


def test_what_is_no_call_of_a_model(world: Any, script: Any) -> None:
    """Counting tokens is not recorded."""

    async def scenario(client: Any) -> None:
        await script.now(client.models.count_tokens(**ASK))

    assert world.run(scenario).calls == ()


def test_inside_a_block_it_is_the_blocks_call(world: Any, script: Any) -> None:
    """The client fills the facts of the manual block it is called in; a second call in it is one of its own."""

    async def scenario(client: Any) -> None:
        with stagelight.turn("answer"), stagelight.llm(provider="gcp.gemini", model="my-alias"):
            await script.now(client.models.generate_content(**ASK))
            await script.now(client.models.generate_content(**ASK))

    captured = world.run(scenario)

    assert [call.attributes[a.GEN_AI_REQUEST_MODEL] for call in captured.calls] == ["gemini-2.5-flash", "my-alias"]
    assert captured.turn("answer").cost == sum(call.cost for call in captured.calls)


def test_calls_at_the_same_time(world: Any, script: Any) -> None:
    """Calls that run at the same time in two turns find each its own."""

    async def one(client: Any, name: str, model: str) -> None:
        with stagelight.turn(name):
            if world.kind == "async":
                await client.models.generate_content(**{**ASK, "model": model})
            else:
                await asyncio.to_thread(client.models.generate_content, **{**ASK, "model": model})

    async def scenario(client: Any) -> None:
        await asyncio.gather(one(client, "first", "gemini-2.5-flash"), one(client, "second", "gemini-2.5-pro"))

    captured = world.run(scenario)

    assert [call.name for call in captured.turn("first").calls] == ["generate_content gemini-2.5-flash"]
    assert [call.name for call in captured.turn("second").calls] == ["generate_content gemini-2.5-pro"]


def test_nothing_is_said_of_what_was_said(world: Any, script: Any) -> None:
    """Neither question nor answer is in any attribute, name, event or log record."""
    secret = "Wolfgang"

    async def scenario(client: Any) -> None:
        config = {"system_instruction": f"{secret} is a cat.", "stop_sequences": [f"{secret}!"]}
        asked = {"model": "gemini-2.5-flash", "contents": f"Who is {secret}?", "config": config}
        await script.now(client.models.generate_content(**asked))

    captured = world.run(scenario)

    assert secret not in repr([(span.name, dict(span.attributes or {}), span.events) for span in captured.spans])
    assert secret not in repr(list(captured.ledger))


def test_missing_usage_is_unpriced(world: Any, script: Any) -> None:
    """Where the server reports no usage there is no price, and the reason says so."""

    async def scenario(client: Any) -> None:
        await script.now(client.models.generate_content(**ASK, **fault("missing_usage")))

    call = world.run(scenario).call("llm")

    assert call.attributes[a.STAGELIGHT_COST_REASON] == "no_usage"
    assert a.GEN_AI_USAGE_INPUT_TOKENS not in call.attributes


def test_an_answer_read_by_hand(world: Any, script: Any) -> None:
    """``record`` reads the client's answers with the same eyes."""

    async def scenario(client: Any) -> None:
        answer = await script.now(client.models.generate_content(**ASK))
        with stagelight.llm(provider="gcp.gemini", model="gemini-2.5-flash") as call:
            call.record(answer)

    own, by_hand = world.run(scenario).calls

    assert by_hand.cost == own.cost
    assert by_hand.attributes[a.GEN_AI_RESPONSE_ID] == own.attributes[a.GEN_AI_RESPONSE_ID]


def test_answers_as_http(world: Any, script: Any) -> None:
    """A caller who asks the client for the HTTP response alone has the same facts recorded."""
    from google.genai import types

    if "should_return_http_response" not in types.GenerateContentConfig.model_fields:
        pytest.skip("this version of the client cannot give the response")
    answers: list[Any] = []

    async def scenario(client: Any) -> None:
        config = {"should_return_http_response": True}
        answers.append(await script.now(client.models.generate_content(**ASK, config=config)))

    call = world.run(scenario).call("llm")

    assert answers[0].candidates is None
    assert (call.outcome, call.cost_status) == ("completed", "exact")
    assert call.attributes[a.GEN_AI_RESPONSE_FINISH_REASONS] == ("stop",)


def test_other_blocks_know_better(world: Any, script: Any) -> None:
    """A client inside a block of another provider is a call of its own."""

    async def scenario(client: Any) -> None:
        with stagelight.llm(provider="openai", model="gpt-4o"):
            await script.now(client.models.generate_content(**ASK))

    with capture(provider_hosts={world.host: "gcp.gemini"}) as captured:
        world.play(scenario)

    assert [call.attributes[a.GEN_AI_PROVIDER_NAME] for call in captured.calls] == ["gcp.gemini", "openai"]
