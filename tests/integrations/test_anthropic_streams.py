"""Streams of the Anthropic client: its own objects, watched in place, however they are made and read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
import stagelight
from integrations.stream_uses import exhaust, read_in_turns, read_past, take_two
from stagelight.conventions import attributes as a
from stagelight.testing import Clock, capture

CLIENT = "anthropic"
pytestmark = pytest.mark.usefixtures("recorded")

ASK = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "What do tides do?"}]}
THINK = {"max_tokens": 2000, "extra_body": {"thinking": {"type": "enabled", "budget_tokens": 1024}}}
LONG = "Tides come and go with the moon, and the moon does not know. " * 150


def fault(text: str) -> dict[str, Any]:
    """The keyword that makes the simulator fail."""
    return {"extra_headers": {"x-stagelight-fault": text}}


def test_a_whole_stream(world: Any, script: Any) -> None:
    """A stream read to its end leaves one span with its chunks, the usage of its last events and its price."""
    events: list[Any] = []

    async def scenario(client: Any) -> None:
        stream = await script.now(client.messages.create(**ASK, stream=True))
        events.extend(await exhaust(script, stream))

    call = world.run(scenario, clock=Clock()).call("llm")
    message, last = events[0].message, events[-2]

    assert {key: value for key, value in call.attributes.items() if ".cost." not in key} == {
        a.STAGELIGHT_STAGE: "llm",
        a.GEN_AI_OPERATION_NAME: "chat",
        a.GEN_AI_PROVIDER_NAME: "anthropic",
        a.GEN_AI_REQUEST_MODEL: "claude-haiku-4-5",
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: world.port,
        a.GEN_AI_REQUEST_STREAM: True,
        a.GEN_AI_REQUEST_MAX_TOKENS: 100,
        a.GEN_AI_RESPONSE_MODEL: message.model,
        a.GEN_AI_RESPONSE_ID: message.id,
        a.GEN_AI_RESPONSE_FINISH_REASONS: ("stop",),
        a.GEN_AI_USAGE_INPUT_TOKENS: message.usage.input_tokens,
        a.GEN_AI_USAGE_OUTPUT_TOKENS: last.usage.output_tokens,
        a.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: 0,
        a.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: 0,
        a.STAGELIGHT_OUTCOME: "completed",
        a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 0.0,
        a.STAGELIGHT_STREAM_CHUNKS: len(events),
        a.STAGELIGHT_STREAM_LONGEST_GAP: 0.0,
    }
    assert last.usage.output_tokens > 1
    assert call.cost_status == "exact"


@pytest.mark.parametrize(
    "more",
    [
        {},
        THINK,
        {"system": [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
        {"tools": [{"name": "tides", "description": "What tides do", "input_schema": {"type": "object"}}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        fault("content_filter;after=3"),
        {"max_tokens": 2},
    ],
)
def test_a_stream_is_recorded_as_the_plain_answer_is(world: Any, script: Any, more: dict[str, Any]) -> None:
    """Plain, as raw events and by the helper, the same question has the same facts and the same exact price."""

    async def scenario(client: Any) -> None:
        await script.now(client.messages.create(**{**ASK, **more}))
        world.simulator.forget()
        await exhaust(script, await script.now(client.messages.create(**{**ASK, **more}, stream=True)))
        world.simulator.forget()
        async with script.inside(client.messages.stream(**{**ASK, **more})) as stream:
            await script.now(stream.get_final_message())

    calls = world.run(scenario).calls
    told = [
        {
            key: value
            for key, value in call.attributes.items()
            if ".usage." in key or ".response." in key or "cost" in key
        }
        for call in calls
    ]
    for one in told:
        one.pop(a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, None)

    assert told[0] == told[1] == told[2]
    assert [call.cost_status for call in calls] == ["exact"] * 3
    assert len({call.outcome for call in calls}) == 1


async def read_texts(script: Any, stream: Any) -> str:
    return "".join([text async for text in script.each(stream.text_stream)])


async def read_events(script: Any, stream: Any) -> int:
    return len(await exhaust(script, stream))


async def wait_for_the_message(script: Any, stream: Any) -> Any:
    return (await script.now(stream.get_final_message())).content


async def wait_for_the_end(script: Any, stream: Any) -> Any:
    await script.now(stream.until_done())
    return await script.now(stream.get_final_text())


@pytest.mark.parametrize("read", [read_texts, read_events, wait_for_the_message, wait_for_the_end])
def test_the_helper_however_it_is_read(world: Any, script: Any, read: Any) -> None:
    """The stream helper is the client's own, whatever one takes from it, and one call."""
    helpers: list[Any] = []

    async def scenario(client: Any) -> None:
        async with script.inside(client.messages.stream(**ASK)) as stream:
            helpers.append(stream)
            assert await read(script, stream)

    call = world.run(scenario).call("llm")
    kind = anthropic.AsyncMessageStream if world.kind == "async" else anthropic.MessageStream

    assert type(helpers[0]) is kind
    assert (call.outcome, call.cost_status) == ("completed", "exact")


def test_the_beta_helper(world: Any, script: Any) -> None:
    """The helper of the beta endpoint is a call like any other."""

    async def scenario(client: Any) -> None:
        async with script.inside(client.beta.messages.stream(**ASK)) as stream:
            await exhaust(script, stream)

    call = world.run(scenario).call("llm")

    assert (call.outcome, call.cost_status) == ("completed", "exact")


def test_streams_of_raw_and_streaming_responses(world: Any, script: Any) -> None:
    """A stream that the caller makes from a raw or streaming response is watched as well."""

    async def scenario(client: Any) -> None:
        raw = await script.now(client.messages.with_raw_response.create(**ASK, stream=True))
        await exhaust(script, await script.now(raw.parse()))
        async with script.inside(client.messages.with_streaming_response.create(**ASK, stream=True)) as response:
            await exhaust(script, await script.now(response.parse()))

    captured = world.run(scenario)

    assert [(call.outcome, call.cost_status) for call in captured.calls] == [("completed", "exact")] * 2


def test_a_stream_read_as_lines(world: Any, script: Any) -> None:
    """Events that the caller takes apart are read while they pass."""

    async def scenario(client: Any) -> None:
        async with script.inside(client.messages.with_streaming_response.create(**ASK, stream=True)) as response:
            assert "event: message_stop" in [line async for line in script.each(response.iter_lines())]

    call = world.run(scenario).call("llm")

    assert (call.outcome, call.attributes[a.STAGELIGHT_COST_STATUS]) == ("completed", "exact")
    assert call.attributes[a.STAGELIGHT_STREAM_CHUNKS] > 0


def test_the_first_event_is_not_held_back(world: Any, script: Any) -> None:
    """The caller has the first event while the server keeps the next."""
    hold = world.simulator.hold("chunk", 2, path="/v1/messages")

    async def scenario(client: Any) -> None:
        stream = await script.now(client.messages.create(**ASK, stream=True))
        assert (await read_past(script, stream, hold=hold, captured=captured)).type == "message_start"

    with capture() as captured:
        world.play(scenario)

    assert captured.call("llm").outcome == "completed"


def test_first_token_of_the_turn(world: Any, script: Any) -> None:
    """A turn's first token is the first text: neither the first event nor a thought."""
    clock = Clock()

    async def scenario(client: Any) -> None:
        with stagelight.turn("answer"):
            async with script.inside(client.messages.stream(**{**ASK, **THINK})) as stream:
                async for event in script.each(_until_text(script, stream, clock)):
                    assert event

    turn = world.run(scenario, clock=clock).turn("answer")

    assert turn.time_to_first_token_s == 3.0
    assert turn.calls[0].attributes[a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] == 0.0


async def _until_text(script: Any, stream: Any, clock: Clock) -> AsyncIterator[Any]:
    """The events; three seconds pass before the first text begins."""
    async for event in script.each(stream):
        if event.type == "content_block_start" and event.content_block.type == "text":
            clock.advance(3.0)
        yield event


def test_a_stream_that_outlives_its_block(world: Any, script: Any) -> None:
    """A manual call stays open until the stream it returned has ended."""

    async def answer(client: Any) -> Any:
        with stagelight.llm(provider="anthropic", model="claude-haiku-4-5"):
            return await script.now(client.messages.create(**ASK, stream=True))

    async def scenario(client: Any) -> None:
        stream = await answer(client)
        assert captured.calls == ()
        await exhaust(script, stream)
        assert len(captured.calls) == 1

    with capture(provider_hosts={world.host: "anthropic"}) as captured:
        world.play(scenario)

    assert (captured.call("llm").outcome, captured.call("llm").cost_status) == ("completed", "exact")


def test_streams_at_the_same_time(world: Any, script: Any) -> None:
    """Two streams read in turns keep their facts apart."""

    async def scenario(client: Any) -> None:
        first = await script.now(client.messages.create(**{**ASK, "model": "claude-haiku-4-5"}, stream=True))
        second = await script.now(client.messages.create(**{**ASK, "model": "claude-opus-5-5"}, stream=True))
        await read_in_turns(script, first, second)

    captured = world.run(scenario)

    assert [call.name for call in captured.calls] == ["chat claude-opus-5-5", "chat claude-haiku-4-5"]
    assert [call.cost_status for call in captured.calls] == ["exact", "exact"]


def test_beside_the_tracing_of_the_client_itself(world: Any, script: Any) -> None:
    """A client that traces its own calls has its spans below ours, and everything is read as without them."""
    if not hasattr(anthropic.Anthropic, "_gen_ai_provider_name"):
        pytest.skip("this version of the client has no tracing of its own")

    async def scenario(client: Any) -> None:
        traced = client.with_options(open_telemetry={"tracer_provider": captured.tracer_provider})
        await script.now(traced.messages.create(**ASK))
        await exhaust(script, await script.now(traced.messages.create(**ASK, stream=True)))
        raw = await script.now(traced.messages.with_raw_response.create(**ASK, stream=True))
        await exhaust(script, await script.now(raw.parse()))
        async with script.inside(traced.messages.stream(**ASK)) as stream:
            await take_two(script, stream)

    with capture(provider_hosts={world.host: "anthropic"}) as captured:
        world.play(scenario)
    ours = [call.span for call in captured.calls]
    theirs = [span for span in captured.spans if span.name == "anthropic.messages.create"]

    assert [call.outcome for call in captured.calls] == [*["completed"] * 3, "client_abandoned"]
    assert [call.cost_status for call in captured.calls] == [*["exact"] * 3, "estimated"]
    assert {span.parent.span_id for span in theirs if span.parent} == {span.context.span_id for span in ours}
    assert len(theirs) == 4
