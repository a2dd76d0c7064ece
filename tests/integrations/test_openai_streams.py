"""Streams: the caller's own objects, watched in place; one end and one outcome whatever the caller does."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import httpx
import openai
import pytest
import stagelight
from openai_client import HAS_RESPONSES, helpers, needs_responses
from stagelight.conventions import attributes as a
from stagelight.testing import Clock, capture

pytestmark = pytest.mark.usefixtures("recorded")

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What do tides do?"}], "stream": True}
USAGE = {"stream_options": {"include_usage": True}}


def fault(text: str) -> dict[str, Any]:
    """The keyword that makes the simulator fail."""
    return {"extra_headers": {"x-stagelight-fault": text}}


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


async def exhaust(script: Any, stream: Any) -> None:
    async for _ in script.each(stream):
        pass


async def take_two(script: Any, stream: Any) -> None:
    await script.next(stream)
    await script.next(stream)


async def take_two_and_close(script: Any, stream: Any) -> None:
    await take_two(script, stream)
    await script.now(stream.close())
    await script.now(stream.close())


async def break_out_of_a_block(script: Any, stream: Any) -> None:
    async with script.inside(stream) as entered:
        async for _ in script.each(entered):
            break


async def close_at_once(script: Any, stream: Any) -> None:
    await script.now(stream.close())


async def stop_at_the_last_word(script: Any, stream: Any) -> None:
    async with script.inside(stream) as entered:
        async for chunk in script.each(entered):
            if chunk.choices and chunk.choices[0].finish_reason:
                break


async def raise_inside_a_block(script: Any, stream: Any) -> None:
    async def reading() -> None:
        async with script.inside(stream) as entered:
            await script.next(entered)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await reading()


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (exhaust, "completed"),
        (take_two, "client_abandoned"),
        (take_two_and_close, "client_abandoned"),
        (break_out_of_a_block, "client_abandoned"),
        (close_at_once, "client_abandoned"),
        (stop_at_the_last_word, "completed"),
        (raise_inside_a_block, "client_abandoned"),
    ],
)
def test_whatever_the_caller_does(world: Any, script: Any, act: Any, outcome: str) -> None:
    """Every way of leaving a stream ends its call once, with an outcome that is no error."""

    async def scenario(client: Any) -> None:
        stream = await script.now(client.chat.completions.create(**CHAT))
        try:
            await act(script, stream)
        finally:
            del stream
            gc.collect()
            await asyncio.sleep(0)

    captured = world.run(scenario)
    call = captured.call("llm")

    assert (call.outcome, call.error_type, call.span.status.is_unset) == (outcome, None, True)
    assert [point.value for point in captured.metric("stagelight.stream.outcomes")] == [1]
    assert [point.value for point in captured.metric("stagelight.calls.in_flight")] == [0]


def test_a_stream_nobody_reads(world: Any, script: Any) -> None:
    """A stream that is dropped without a look at it is abandoned when it is collected."""

    async def scenario(client: Any) -> None:
        await script.now(client.chat.completions.create(**CHAT))
        gc.collect()

    call = world.run(scenario).call("llm")

    assert (call.outcome, call.attributes[a.STAGELIGHT_STREAM_CHUNKS]) == ("client_abandoned", 0)


@pytest.mark.parametrize(
    ("what", "kind", "outcome"),
    [
        ("stream_cut;after=2", (openai.APIError, httpx.TransportError), "provider_aborted"),
        ("stream_error;after=2", openai.APIError, "provider_aborted"),
        ("malformed_chunk;after=2", ValueError, "provider_aborted"),
    ],
)
def test_streams_that_break(world: Any, script: Any, what: str, kind: Any, outcome: str) -> None:
    """A stream that breaks gives the caller the client's exception, and its call the class of it."""
    seen: list[BaseException] = []

    async def scenario(client: Any) -> None:
        stream = await script.now(client.chat.completions.create(**CHAT, **fault(what)))
        with pytest.raises(kind) as raised:
            await exhaust(script, stream)
        seen.append(raised.value)

    call = world.run(scenario).call("llm")
    error = type(seen[0])

    assert (call.outcome, call.error_type) == (outcome, f"{error.__module__}.{error.__qualname__}")
    assert call.attributes[a.STAGELIGHT_STREAM_CHUNKS] == 2
    assert call.attributes[a.GEN_AI_RESPONSE_MODEL] == "gpt-4o-mini-2024-07-18"


def test_a_stream_that_times_out(world: Any, script: Any) -> None:
    """A read timeout inside a stream is a timeout."""

    async def scenario(client: Any, patience_s: float) -> None:
        stream = await script.now(client.chat.completions.create(**CHAT, timeout=patience_s))
        with pytest.raises((openai.APITimeoutError, httpx.TimeoutException)):
            await exhaust(script, stream)

    with world.simulator.hold("chunk", 3, path="/v1/chat/completions"):
        call = world.run_with_patience(scenario, openai.APITimeoutError).call("llm")

    assert call.outcome == "timeout"


@needs_responses
def test_a_failure_told_inside_a_stream(world: Any, script: Any) -> None:
    """An error event of the responses API fails the call, whatever the client makes of it."""

    async def scenario(client: Any) -> None:
        stream = await script.now(
            client.responses.create(model="gpt-4o-mini", input="Hi", stream=True, **fault("stream_error;after=3"))
        )
        try:
            await exhaust(script, stream)
        except openai.APIError:
            return

    call = world.run(scenario).call("llm")

    assert call.outcome == "provider_aborted"
    assert call.error_type in {"server_error", "openai.APIError"}


def test_a_cancelled_stream(simulator: Any) -> None:
    """A task that is cancelled while it waits for a chunk ends its call as cancelled."""

    async def scenario() -> None:
        client = openai.AsyncOpenAI(base_url=simulator.url, api_key="key", max_retries=0)
        hold = simulator.hold("chunk", 3, path="/v1/chat/completions")

        two = asyncio.Event()

        async def reading() -> None:
            seen = 0
            async for _ in await client.chat.completions.create(**CHAT):
                seen += 1
                if seen == 2:
                    two.set()

        task = asyncio.ensure_future(reading())
        await two.wait()
        assert await asyncio.to_thread(hold.wait_reached, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        hold.release()
        await client.close()

    with capture() as captured:
        asyncio.run(scenario())
    call = captured.call("llm")

    assert (call.outcome, call.error_type) == ("cancelled", None)
    assert call.attributes[a.STAGELIGHT_STREAM_CHUNKS] == 2


def test_the_first_chunk_is_not_held_back(world: Any, script: Any) -> None:
    """The caller has the first chunk while the server keeps the second."""
    hold = world.simulator.hold("chunk", 2, path="/v1/chat/completions")

    async def scenario(client: Any) -> None:
        stream = await script.now(client.chat.completions.create(**CHAT))
        first = await script.next(stream)
        assert first.choices[0].delta.role == "assistant"
        assert hold.wait_reached(60)
        assert captured.calls == ()
        hold.release()
        await exhaust(script, stream)

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
        await script.next(first)
        await script.next(second)
        await exhaust(script, second)
        await exhaust(script, first)

    captured = world.run(scenario)

    assert [call.name for call in captured.calls] == ["chat gpt-4o", "chat gpt-4o-mini"]
    assert [call.cost_status for call in captured.calls] == ["exact", "exact"]
