"""Event streams of Bedrock: the client's own objects, watched in place."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
import stagelight
from aws_clients import ASK, FAMILIES, HAIKU, LONG, AwsWorld
from integrations.stream_uses import exhaust
from stagelight.conventions import attributes as a
from stagelight.sim import Simulator
from stagelight.testing import Clock, capture

CLIENT = "bedrock"
pytestmark = [
    pytest.mark.usefixtures("recorded"),
    # The client leaves the socket of an unread answer to the garbage collection, without us as well.
    pytest.mark.filterwarnings("ignore:.*(socket|Connection):pytest.PytestUnraisableExceptionWarning"),
]

CONVERSE = f"/model/{HAIKU}/converse-stream"


def without_cost(call: Any) -> dict[str, Any]:
    """The attributes of a call, without its price."""
    return {key: value for key, value in call.attributes.items() if ".cost." not in key}


def test_a_whole_stream(bedrock: AwsWorld, script: Any) -> None:
    """A stream read to its end leaves one span with its events, its tokens and its exact price."""
    events: list[Any] = []

    async def scenario(client: Any) -> None:
        with stagelight.turn("answer"):
            answer = await script.now(client.converse_stream(**ASK))
            events.append(answer["ResponseMetadata"]["RequestId"])
            events.extend([event async for event in script.each(answer["stream"])])

    captured = bedrock.run(scenario, clock=Clock())
    call = captured.call("llm")
    usage, metrics = (events[-1]["metadata"][name] for name in ("usage", "metrics"))

    assert without_cost(call) == {
        a.STAGELIGHT_STAGE: "llm",
        a.GEN_AI_OPERATION_NAME: "chat",
        a.GEN_AI_PROVIDER_NAME: "aws.bedrock",
        a.GEN_AI_REQUEST_MODEL: HAIKU,
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: bedrock.port,
        a.GEN_AI_REQUEST_STREAM: True,
        a.GEN_AI_RESPONSE_ID: events[0],
        a.GEN_AI_RESPONSE_FINISH_REASONS: ("end_turn",),
        a.STAGELIGHT_RESPONSE_SERVER_TIME: metrics["latencyMs"] / 1000,
        a.GEN_AI_USAGE_INPUT_TOKENS: usage["inputTokens"],
        a.GEN_AI_USAGE_OUTPUT_TOKENS: usage["outputTokens"],
        a.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: 0,
        a.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: 0,
        a.STAGELIGHT_OUTCOME: "completed",
        a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 0.0,
        a.STAGELIGHT_STREAM_CHUNKS: len(events) - 1,
        a.STAGELIGHT_STREAM_LONGEST_GAP: 0.0,
    }
    assert call.cost_status == "exact"
    assert captured.turn("answer").time_to_first_token_s == 0.0


@pytest.mark.parametrize("model", FAMILIES)
def test_streams_of_families(bedrock: AwsWorld, script: Any, model: str) -> None:
    """Each family's chunks are read for tokens and reason; Bedrock adds its own count to the last."""
    body, operation, reason = FAMILIES[model]
    chunks: list[Any] = []

    async def scenario(client: Any) -> None:
        with stagelight.turn("answer"):
            answer = await script.now(client.invoke_model_with_response_stream(modelId=model, body=json.dumps(body)))
            chunks.extend([json.loads(event["chunk"]["bytes"]) async for event in script.each(answer["body"])])

    captured = bedrock.run(scenario, clock=Clock())
    call = captured.call("llm")
    metrics = chunks[-1]["amazon-bedrock-invocationMetrics"]

    assert (call.name, call.outcome) == (f"{operation} {model}", "completed")
    assert call.attributes[a.GEN_AI_RESPONSE_FINISH_REASONS] == (reason,)
    assert call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS] == metrics["inputTokenCount"]
    assert call.attributes[a.GEN_AI_USAGE_OUTPUT_TOKENS] == metrics["outputTokenCount"]
    assert call.attributes[a.STAGELIGHT_RESPONSE_SERVER_TIME] == metrics["invocationLatency"] / 1000
    assert call.attributes[a.STAGELIGHT_STREAM_CHUNKS] == len(chunks)
    assert captured.turn("answer").time_to_first_token_s == 0.0


def test_cached_tokens_of_a_stream(bedrock: AwsWorld, script: Any) -> None:
    """The last event has the cached tokens apart; the input is their sum."""

    async def scenario(client: Any) -> None:
        answer = await script.now(
            client.converse_stream(**ASK, system=[{"text": LONG}, {"cachePoint": {"type": "default"}}])
        )
        async for _ in script.each(answer["stream"]):
            pass

    call = bedrock.run(scenario).call("llm")
    written = call.attributes[a.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS]

    assert call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS] > written > 1024
    assert call.cost_status == "exact"


def test_a_guardrail_that_stops_a_stream(bedrock: AwsWorld, script: Any) -> None:
    """A stream that a guardrail cut says so."""
    guarded = {"guardrailConfig": {"guardrailIdentifier": "abc", "guardrailVersion": "1", "trace": "enabled"}}

    async def scenario(client: Any) -> None:
        answer = await script.now(client.converse_stream(**ASK, **guarded))
        async for _ in script.each(answer["stream"]):
            pass

    stopped = bedrock.run(scenario, headers={"x-stagelight-fault": "content_filter;after=2"}).call("llm")
    passed = bedrock.run(scenario).call("llm")

    assert stopped.attributes[a.GEN_AI_RESPONSE_FINISH_REASONS] == ("guardrail_intervened",)
    assert stopped.attributes[a.STAGELIGHT_RESPONSE_GUARDRAIL] == "intervened"
    assert passed.attributes[a.STAGELIGHT_RESPONSE_GUARDRAIL] == "passed"


def test_usage_that_never_comes(bedrock: AwsWorld, script: Any) -> None:
    """Without usage there is no price, and nothing is guessed."""

    async def scenario(client: Any) -> None:
        await exhaust(script, (await script.now(client.converse_stream(**ASK)))["stream"])

    call = bedrock.run(scenario, headers={"x-stagelight-fault": "missing_usage"}).call("llm")

    assert (call.outcome, call.attributes[a.STAGELIGHT_COST_REASON]) == ("completed", "no_usage")


def test_a_length_cut(bedrock: AwsWorld, script: Any) -> None:
    """An answer that stops at the token limit is cut, however it is asked for."""
    body = json.dumps({**FAMILIES[HAIKU][0], "max_tokens": 2})

    async def scenario(client: Any) -> None:
        limited = {"inferenceConfig": {"maxTokens": 2}}
        await exhaust(script, (await script.now(client.converse_stream(**ASK, **limited)))["stream"])
        await script.now(client.converse(**ASK, **limited))
        await exhaust(
            script, (await script.now(client.invoke_model_with_response_stream(modelId=HAIKU, body=body)))["body"]
        )
        await script.now((await script.now(client.invoke_model(modelId=HAIKU, body=body)))["body"].read())

    assert [call.outcome for call in bedrock.run(scenario).calls] == ["length_cut"] * 4


def test_nothing_is_held_back(bedrock: AwsWorld, script: Any) -> None:
    """The first event reaches the caller while the server keeps the second."""
    hold = bedrock.simulator.hold("chunk", 2, path=CONVERSE)
    clock = Clock()

    async def scenario(client: Any) -> None:
        answer = await script.now(client.converse_stream(**ASK))
        events = aiter(script.each(answer["stream"]))
        assert "messageStart" in await anext(events)
        assert hold.wait_reached(30)
        clock.advance(2.0)
        hold.release()
        async for _ in events:
            pass

    call = bedrock.run(scenario, clock=clock).call("llm")

    assert call.attributes[a.STAGELIGHT_STREAM_LONGEST_GAP] == 2.0


def test_streams_side_by_side(bedrock: AwsWorld, script: Any) -> None:
    """Two streams read in turns are two calls."""

    async def scenario(client: Any) -> None:
        answers = [await script.now(client.converse_stream(**{**ASK, "modelId": name})) for name in ("one", "two")]
        sources = [aiter(script.each(answer["stream"])) for answer in answers]
        for _ in range(3):
            for source in sources:
                await anext(source)
        for source in sources:
            async for _ in source:
                pass

    calls = bedrock.run(scenario).calls

    assert [call.attributes[a.GEN_AI_REQUEST_MODEL] for call in calls] == ["one", "two"]
    assert {call.outcome for call in calls} == {"completed"}


def test_a_stream_in_a_manual_block(bedrock: AwsWorld, script: Any) -> None:
    """A block that gives its stream away ends with the stream."""
    answers: list[Any] = []

    async def scenario(client: Any) -> None:
        with stagelight.llm(provider="aws.bedrock", model="mine"):
            answers.append(await script.now(client.converse_stream(**ASK)))
        await exhaust(script, answers[0]["stream"])

    call = bedrock.run(scenario).call("llm")

    assert (call.outcome, call.attributes[a.GEN_AI_RESPONSE_FINISH_REASONS]) == ("completed", ("end_turn",))


def test_nothing_is_kept_of_a_long_stream(simulator: Simulator) -> None:
    """What is held while a stream passes does not grow with it."""
    client = AwsWorld("sync", simulator, "bedrock-runtime", "").sync_client(headers={"x-stagelight-tokens": "8000"})
    with capture() as captured:
        events = iter(client.converse_stream(**ASK)["stream"])
        for _ in range(500):
            next(events)
        tracemalloc.start()
        for _ in events:
            pass
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()

    assert captured.call("llm").attributes[a.STAGELIGHT_STREAM_CHUNKS] > 8000
    assert grown < 500_000
