"""How streams end: once and with one outcome, whatever the caller or the server does."""

from __future__ import annotations

import asyncio
import gc
from functools import partial
from typing import Any

import httpx
import openai
import pytest
from integrations.cancelling import cancel_while_held
from integrations.stream_uses import (
    break_out_of_a_block,
    check_ended_once,
    close_at_once,
    exhaust,
    raise_inside_a_block,
    take_two,
    take_two_and_close,
    use,
)
from openai_client import needs_responses
from stagelight.conventions import attributes as a
from stagelight.testing import capture

pytestmark = pytest.mark.usefixtures("recorded")

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What do tides do?"}], "stream": True}


def fault(text: str) -> dict[str, Any]:
    """The keyword that makes the simulator fail."""
    return {"extra_headers": {"x-stagelight-fault": text}}


async def stop_at_the_last_word(script: Any, stream: Any) -> None:
    async with script.inside(stream) as entered:
        async for chunk in script.each(entered):
            if chunk.choices and chunk.choices[0].finish_reason:
                break


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
    captured = world.run(lambda client: use(script, partial(client.chat.completions.create, **CHAT), act))

    check_ended_once(captured, outcome)


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

        await cancel_while_held(reading(), hold, begun=two)
        await client.close()

    with capture() as captured:
        asyncio.run(scenario())
    call = captured.call("llm")

    assert (call.outcome, call.error_type) == ("cancelled", None)
    assert call.attributes[a.STAGELIGHT_STREAM_CHUNKS] == 2
