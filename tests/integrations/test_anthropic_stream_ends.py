"""How streams of the Anthropic client end: once and with one outcome, whatever the caller or the server does."""

from __future__ import annotations

import asyncio
import importlib
from functools import partial
from typing import Any

import anthropic
import pytest
from integrations.cancelling import cancel_while_held
from integrations.stream_uses import (
    break_out_of_a_block,
    check_ended_once,
    close_at_once,
    exhaust,
    forget,
    raise_inside_a_block,
    take_two,
    take_two_and_close,
    use,
)
from stagelight.conventions import attributes as a
from stagelight.testing import capture

CLIENT = "anthropic"
pytestmark = pytest.mark.usefixtures("recorded")

ASK = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "What do tides do?"}]}


def fault(text: str) -> dict[str, Any]:
    """The keyword that makes the simulator fail."""
    return {"extra_headers": {"x-stagelight-fault": text}}


async def stop_at_the_last_word(script: Any, stream: Any) -> None:
    async with script.inside(stream) as entered:
        async for event in script.each(entered):
            if event.type == "message_delta":
                break


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (exhaust, "completed"),
        (take_two, "client_abandoned"),
        (take_two_and_close, "client_abandoned"),
        pytest.param(break_out_of_a_block, "client_abandoned", id="break_out-client_abandoned"),
        (close_at_once, "client_abandoned"),
        (stop_at_the_last_word, "completed"),
        pytest.param(raise_inside_a_block, "client_abandoned", id="raise_inside-client_abandoned"),
        (forget, "client_abandoned"),
    ],
)
def test_outcomes_of_what_the_caller_does(world: Any, script: Any, act: Any, outcome: str) -> None:
    """Every way of leaving a stream ends its call once, with an outcome that is no error."""
    captured = world.run(lambda client: use(script, partial(client.messages.create, **ASK, stream=True), act))

    check_ended_once(captured, outcome)


def test_a_stream_left_early_is_priced_by_what_was_told(world: Any, script: Any) -> None:
    """The first event tells the input, so a stream that was left has an estimate; its output stays unknown."""

    async def scenario(client: Any) -> None:
        async with script.inside(client.messages.stream(**ASK)) as stream:
            await take_two(script, stream)

    call = world.run(scenario).call("llm")

    assert (call.outcome, call.cost_status) == ("client_abandoned", "estimated")
    assert call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS] > 0
    assert a.GEN_AI_USAGE_OUTPUT_TOKENS not in call.attributes


def _library() -> Any:
    """The HTTP library that the client uses: ``httpx`` or ``httpx2``."""
    return importlib.import_module(anthropic.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("stream_cut;after=4", anthropic.APIError),
        ("stream_error;after=4", anthropic.APIStatusError),
        ("malformed_chunk;after=4", ValueError),
    ],
)
def test_streams_that_break(world: Any, script: Any, what: str, kind: Any) -> None:
    """A stream that breaks gives the caller the client's exception, and its call the class of it."""
    seen: list[BaseException] = []

    async def scenario(client: Any) -> None:
        stream = await script.now(client.messages.create(**ASK, stream=True, **fault(what)))
        with pytest.raises((kind, _library().TransportError)) as raised:
            await exhaust(script, stream)
        seen.append(raised.value)

    call = world.run(scenario).call("llm")
    error = type(seen[0])

    assert (call.outcome, call.error_type) == ("provider_aborted", f"{error.__module__}.{error.__qualname__}")
    assert call.attributes[a.STAGELIGHT_STREAM_CHUNKS] == 3
    assert call.attributes[a.GEN_AI_RESPONSE_MODEL] == "claude-haiku-4-5-20251001"


CUT = b"""event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-haiku-4-5",\
"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":9,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Tides"}}

""".replace(b"\\\n", b"")


def test_a_stream_that_ends_without_its_end(world: Any, script: Any) -> None:
    """A stream that the server ends before its answer does failed, although nobody raises."""
    library = _library()
    transport = library.MockTransport(
        lambda _: library.Response(200, headers={"content-type": "text/event-stream"}, content=CUT)
    )
    make = anthropic.DefaultAsyncHttpxClient if world.kind == "async" else anthropic.DefaultHttpxClient

    async def scenario(client: Any) -> None:
        assert len(await exhaust(script, await script.now(client.messages.create(**ASK, stream=True)))) == 3

    call = world.run(scenario, http_client=make(transport=transport)).call("llm")

    assert (call.outcome, call.error_type) == ("provider_aborted", "incomplete_stream")
    assert call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS] == 9


def test_a_stream_that_times_out(world: Any, script: Any) -> None:
    """A read timeout inside a stream is a timeout."""

    async def scenario(client: Any, patience_s: float) -> None:
        stream = await script.now(client.messages.create(**ASK, stream=True, timeout=patience_s))
        with pytest.raises((anthropic.APITimeoutError, _library().TransportError)):
            await exhaust(script, stream)

    with world.simulator.hold("chunk", 5, path="/v1/messages"):
        call = world.run_with_patience(scenario, anthropic.APITimeoutError).call("llm")

    assert call.outcome == "timeout"


def test_a_cancelled_stream(simulator: Any) -> None:
    """A task that is cancelled while it waits for an event ends its call as cancelled."""

    async def scenario() -> None:
        client = anthropic.AsyncAnthropic(base_url=simulator.origin, api_key="key", max_retries=0)
        hold = simulator.hold("chunk", 5, path="/v1/messages")
        started = asyncio.Event()

        async def reading() -> None:
            async for event in await client.messages.create(**ASK, stream=True):
                if event.type == "content_block_delta":
                    started.set()

        await cancel_while_held(reading(), hold, begun=started)
        await client.close()

    with capture() as captured:
        asyncio.run(scenario())
    call = captured.call("llm")

    assert (call.outcome, call.error_type) == ("cancelled", None)
