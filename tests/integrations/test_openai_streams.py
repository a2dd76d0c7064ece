"""Streams: the caller's own objects, watched in place, however they are made and read."""

from __future__ import annotations

from typing import Any

import pytest
import stagelight
from integrations.stream_uses import exhaust, read_in_turns, read_past
from openai_client import HAS_RESPONSES, helpers, needs_responses
from stagelight.conventions import attributes as a
from stagelight.testing import Clock, capture

pytestmark = pytest.mark.usefixtures("recorded")

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What do tides do?"}], "stream": True}
USAGE = {"stream_options": {"include_usage": True}}


def test_a_whole_stream(world: Any, script: Any) -> None:
    """A stream read to its end leaves one span with its chunks, its usage and its price."""
    chunks: list[Any] = []

    async def scenario(client: Any) -> None:
        stream = await script.now(client.chat.completions.create(**CHAT, **USAGE))
        chunks.extend([chunk async for chunk in script.each(stream)])

    call = world.run(scenario, clock=Clock()).call("llm")
    usage = chunks[-1].usage

    assert {key: value for key, value in call.attributes.items() if ".cost." not in key} == {
        a.STAGELIGHT_STAGE: "llm",
        a.GEN_AI_OPERATION_NAME: "chat",
        a.GEN_AI_PROVIDER_NAME: "openai",
        a.GEN_AI_REQUEST_MODEL: "gpt-4o-mini",
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: world.port,
        a.GEN_AI_REQUEST_STREAM: True,
        a.GEN_AI_RESPONSE_MODEL: chunks[0].model,
        a.GEN_AI_RESPONSE_ID: chunks[0].id,
        a.GEN_AI_RESPONSE_FINISH_REASONS: ("stop",),
        a.OPENAI_RESPONSE_SERVICE_TIER: "default",
        a.GEN_AI_USAGE_INPUT_TOKENS: usage.prompt_tokens,
        a.GEN_AI_USAGE_OUTPUT_TOKENS: usage.completion_tokens,
        a.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: usage.prompt_tokens_details.cached_tokens,
        a.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: 0,
        a.STAGELIGHT_OUTCOME: "completed",
        a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 0.0,
        a.STAGELIGHT_STREAM_CHUNKS: len(chunks),
        a.STAGELIGHT_STREAM_LONGEST_GAP: 0.0,
    }
    assert call.cost_status == "exact"


def test_usage_is_read_only_when_the_server_sends_it(world: Any, script: Any) -> None:
    """A stream without usage is unpriced: nothing is asked for and nothing is guessed."""

    async def scenario(client: Any) -> None:
        async for _ in script.each(await script.now(client.chat.completions.create(**CHAT))):
            pass

    call = world.run(scenario).call("llm")

    assert (call.outcome, call.attributes[a.STAGELIGHT_COST_REASON]) == ("completed", "no_usage")
    assert "stream_options" not in world.simulator.requests[0].json()


@needs_responses
def test_a_stream_of_the_responses_api(world: Any, script: Any) -> None:
    """The last event has everything, usage included."""

    async def scenario(client: Any) -> None:
        stream = await script.now(client.responses.create(model="gpt-4o-mini", input="Hi there", stream=True))
        async for _ in script.each(stream):
            pass

    call = world.run(scenario).call("llm")

    assert (call.outcome, call.cost_status) == ("completed", "exact")
    assert call.attributes[a.GEN_AI_RESPONSE_FINISH_REASONS] == ("stop",)


def test_stream_helpers_are_one_call(world: Any, script: Any) -> None:
    """The helpers that accumulate a stream send one request and leave one call."""

    async def scenario(client: Any) -> None:
        asked = {key: value for key, value in CHAT.items() if key != "stream"}
        async with script.inside(helpers(client).stream(**asked, **USAGE)) as stream:
            async for _ in script.each(stream):
                pass
        if not HAS_RESPONSES:
            return
        async with script.inside(client.responses.stream(model="gpt-4o-mini", input="Hi there")) as events:
            async for _ in script.each(events):
                pass

    captured = world.run(scenario)

    assert [(call.outcome, call.cost_status) for call in captured.calls] == [("completed", "exact")] * (
        1 + HAS_RESPONSES
    )


def test_a_raw_stream(world: Any, script: Any) -> None:
    """A stream that the caller makes from a raw response is watched as well."""

    async def scenario(client: Any) -> None:
        raw = await script.now(client.chat.completions.with_raw_response.create(**CHAT, **USAGE))
        async for _ in script.each(raw.parse()):
            pass

    call = world.run(scenario).call("llm")

    assert (call.outcome, call.cost_status) == ("completed", "exact")


def test_a_stream_of_a_streaming_response(world: Any, script: Any) -> None:
    """A stream that the caller makes from a streaming response is watched as well."""

    async def scenario(client: Any) -> None:
        block = client.chat.completions.with_streaming_response.create(**CHAT, **USAGE)
        async with script.inside(block) as response:
            async for _ in script.each(await script.now(response.parse())):
                pass

    call = world.run(scenario).call("llm")

    assert (call.outcome, call.cost_status) == ("completed", "exact")


def test_a_stream_read_as_lines(world: Any, script: Any) -> None:
    """Events that the caller takes apart are read while they pass."""

    async def scenario(client: Any) -> None:
        block = client.chat.completions.with_streaming_response.create(**CHAT, **USAGE)
        async with script.inside(block) as response:
            lines = [line async for line in script.each(response.iter_lines())]
        assert "data: [DONE]" in lines

    call = world.run(scenario).call("llm")

    assert (call.outcome, call.attributes[a.STAGELIGHT_COST_STATUS]) == ("completed", "exact")
    assert call.attributes[a.STAGELIGHT_STREAM_CHUNKS] > 0


def test_the_first_chunk_is_not_held_back(world: Any, script: Any) -> None:
    """The caller has the first chunk while the server keeps the second."""
    hold = world.simulator.hold("chunk", 2, path="/v1/chat/completions")

    async def scenario(client: Any) -> None:
        stream = await script.now(client.chat.completions.create(**CHAT))
        first = await read_past(script, stream, hold=hold, captured=captured)
        assert first.choices[0].delta.role == "assistant"

    with capture() as captured:
        world.play(scenario)

    assert captured.call("llm").outcome == "completed"


def test_first_token_of_the_turn(world: Any, script: Any) -> None:
    """A turn's first token is the first text that is not empty, not the first chunk."""
    hold = world.simulator.hold("chunk", 2, path="/v1/chat/completions")
    clock = Clock()

    async def scenario(client: Any) -> None:
        with stagelight.turn("answer"):
            stream = await script.now(client.chat.completions.create(**CHAT))
            await script.next(stream)
            clock.advance(2.0)
            hold.release()
            await exhaust(script, stream)

    turn = world.run(scenario, clock=clock).turn("answer")

    assert turn.time_to_first_token_s == 2.0
    assert turn.calls[0].attributes[a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] == 0.0


def test_a_stream_that_outlives_its_block(world: Any, script: Any) -> None:
    """A manual call stays open until the stream it returned has ended."""

    async def answer(client: Any) -> Any:
        with stagelight.llm(provider="openai", model="gpt-4o-mini"):
            return await script.now(client.chat.completions.create(**CHAT, **USAGE))

    async def scenario(client: Any) -> None:
        stream = await answer(client)
        assert captured.calls == ()
        await exhaust(script, stream)
        assert len(captured.calls) == 1

    with capture(provider_hosts={world.host: "openai"}) as captured:
        world.play(scenario)

    assert (captured.call("llm").outcome, captured.call("llm").cost_status) == ("completed", "exact")


def test_a_manual_stream_around_the_client_counts_once(world: Any, script: Any) -> None:
    """Chunks that pass the client's stream and ``call.stream`` around it are counted once."""
    chunks: list[Any] = []

    async def scenario(client: Any) -> None:
        with stagelight.llm(provider="openai", model="gpt-4o-mini") as call:
            stream = await script.now(client.chat.completions.create(**CHAT))
            watched = call.stream(stream)
            if world.kind == "async":
                chunks.extend([chunk async for chunk in watched])
            else:
                chunks.extend(watched)

    call = world.run(scenario).call("llm")

    assert (call.outcome, call.attributes[a.STAGELIGHT_STREAM_CHUNKS]) == ("completed", len(chunks))


def test_streams_at_the_same_time(world: Any, script: Any) -> None:
    """Two streams read in turns keep their facts apart."""

    async def scenario(client: Any) -> None:
        first = await script.now(client.chat.completions.create(**{**CHAT, **USAGE, "model": "gpt-4o-mini"}))
        second = await script.now(client.chat.completions.create(**{**CHAT, **USAGE, "model": "gpt-4o"}))
        await read_in_turns(script, first, second)

    captured = world.run(scenario)

    assert [call.name for call in captured.calls] == ["chat gpt-4o", "chat gpt-4o-mini"]
    assert [call.cost_status for call in captured.calls] == ["exact", "exact"]
