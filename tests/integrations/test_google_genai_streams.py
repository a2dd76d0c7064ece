"""Streams of the Google Gen AI client: same chunks, same time; one end and one outcome whatever the caller does."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import stagelight
from google.genai import errors, version
from integrations.stream_uses import check_ended_once, exhaust, read_in_turns, read_past, take_two, use
from stagelight.conventions import attributes as a
from stagelight.testing import Clock, capture

CLIENT = "google_genai"
pytestmark = pytest.mark.usefixtures("recorded")

ASK = {"model": "gemini-2.5-flash", "contents": "What do tides do?"}
LONG = "Tides come and go with the moon, and the moon does not know. " * 150


def fault(text: str, **more: Any) -> dict[str, Any]:
    """The configuration that makes the simulator fail."""
    return {"config": {"http_options": {"headers": {"x-stagelight-fault": text}, **more}}}


def test_a_whole_stream(world: Any, script: Any) -> None:
    """A stream read to its end leaves one span with its chunks, the usage of its last one and its price."""
    chunks: list[Any] = []

    async def scenario(client: Any) -> None:
        chunks.extend(await exhaust(script, await script.now(client.models.generate_content_stream(**ASK))))

    call = world.run(scenario, clock=Clock()).call("llm")
    usage = chunks[-1].usage_metadata
    known = {
        key: value
        for key, value in call.attributes.items()
        if ".cost." not in key and key != a.STAGELIGHT_RESPONSE_SERVER_TIME
    }

    assert known == {
        a.STAGELIGHT_STAGE: "llm",
        a.GEN_AI_OPERATION_NAME: "generate_content",
        a.GEN_AI_PROVIDER_NAME: "gcp.gemini",
        a.GEN_AI_REQUEST_MODEL: "gemini-2.5-flash",
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: world.port,
        a.GEN_AI_REQUEST_STREAM: True,
        a.GEN_AI_RESPONSE_MODEL: "gemini-2.5-flash",
        a.GEN_AI_RESPONSE_ID: chunks[0].response_id,
        a.GEN_AI_RESPONSE_FINISH_REASONS: ("stop",),
        a.GEN_AI_USAGE_INPUT_TOKENS: usage.prompt_token_count,
        a.GEN_AI_USAGE_OUTPUT_TOKENS: usage.candidates_token_count + usage.thoughts_token_count,
        a.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: usage.thoughts_token_count,
        a.STAGELIGHT_OUTCOME: "completed",
        a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 0.0,
        a.STAGELIGHT_STREAM_CHUNKS: len(chunks),
        a.STAGELIGHT_STREAM_LONGEST_GAP: 0.0,
    }
    assert call.cost_status == "exact"


@pytest.mark.parametrize(
    ("model", "config"),
    [
        ("gemini-2.5-flash", {}),
        ("gemini-2.5-flash", {"thinking_config": {"include_thoughts": True}}),
        ("gemini-2.5-flash-lite", {"max_output_tokens": 2}),
        ("gemini-2.5-flash-lite", {"candidate_count": 2}),
        ("gemini-2.5-flash-lite", {"system_instruction": LONG}),
        ("gemini-2.5-flash-lite", {"tools": [{"google_search": {}}]}),
        ("gemini-2.5-flash-lite", fault("content_filter;after=3")["config"]),
        ("gemini-2.5-flash-lite", fault("content_filter;after=0")["config"]),
    ],
)
def test_a_stream_is_recorded_as_the_plain_answer_is(world: Any, script: Any, model: str, config: Any) -> None:
    """Plain and streamed, the same question has the same facts and the same exact price."""
    asked = {"model": model, "contents": ASK["contents"], "config": config}

    async def scenario(client: Any) -> None:
        await script.now(client.models.generate_content(**asked))
        world.simulator.forget()
        await exhaust(script, await script.now(client.models.generate_content_stream(**asked)))

    calls = world.run(scenario).calls
    own = {a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, a.GEN_AI_RESPONSE_ID, a.STAGELIGHT_RESPONSE_SERVER_TIME}
    told = [
        {
            key: value
            for key, value in call.attributes.items()
            if key not in own and ("usage" in key or "response" in key)
        }
        for call in calls
    ]

    assert told[0] == told[1]
    assert [(call.cost, call.cost_status) for call in calls] == [(calls[0].cost, "exact")] * 2
    assert calls[0].outcome == calls[1].outcome


def test_a_streamed_chat(world: Any, script: Any) -> None:
    """A message of a chat that is streamed is one call."""

    async def scenario(client: Any) -> None:
        chat = client.chats.create(model="gemini-2.5-flash")
        await exhaust(script, await script.now(chat.send_message_stream("What do tides do?")))

    call = world.run(scenario).call("llm")

    assert (call.outcome, call.cost_status) == ("completed", "exact")


def test_a_stream_nobody_asks_for_sends_nothing(world: Any, script: Any) -> None:
    """A stream sends its request when the first chunk is asked for, and is no call before that."""

    async def scenario(client: Any) -> None:
        stream = await script.now(client.models.generate_content_stream(**ASK))
        assert captured.spans == ()
        assert world.simulator.requests == []
        if world.kind == "sync":
            stream.close()

    with capture() as captured:
        world.play(scenario)

    assert captured.calls == ()


async def take_two_and_close(script: Any, stream: Any) -> None:
    await take_two(script, stream)
    await script.now(stream.aclose() if hasattr(stream, "aclose") else stream.close())


async def stop_at_the_last_word(script: Any, stream: Any) -> None:
    async for chunk in script.each(stream):
        if chunk.candidates[0].finish_reason:
            break


async def raise_inside(script: Any, stream: Any) -> None:
    async def reading() -> None:
        async for _ in script.each(stream):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await reading()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the client's own asynchronous generators
@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (exhaust, "completed"),
        (take_two, "client_abandoned"),
        (take_two_and_close, "client_abandoned"),
        (stop_at_the_last_word, "completed"),
        (raise_inside, "client_abandoned"),
    ],
)
def test_outcomes_of_what_the_caller_does(world: Any, script: Any, act: Any, outcome: str) -> None:
    """Every way of leaving a stream ends its call once, with an outcome that is no error."""
    captured = world.run(lambda client: use(script, partial(client.models.generate_content_stream, **ASK), act))

    check_ended_once(captured, outcome)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stream_left_early_is_priced_by_what_was_told(world: Any, script: Any) -> None:
    """Every chunk tells the input so far, so a stream that was left has an estimate; its output stays unknown."""

    async def scenario(client: Any) -> None:
        stream = await script.now(client.models.generate_content_stream(**ASK))
        await take_two_and_close(script, stream)

    call = world.run(scenario).call("llm")

    assert (call.outcome, call.cost_status) == ("client_abandoned", "estimated")
    assert call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS] > 0
    assert a.GEN_AI_USAGE_OUTPUT_TOKENS not in call.attributes


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("stream_cut;after=2", Exception),
        ("stream_error;after=2", errors.APIError),
        ("malformed_chunk;after=2", Exception),
    ],
)
def test_streams_that_break(world: Any, script: Any, what: str, kind: Any) -> None:
    """A stream that breaks gives the caller the client's exception, and its call the class of it."""
    if "error" in what and version.__version__.startswith("1."):
        pytest.skip("older clients pass the error over in silence")
    seen: list[BaseException] = []

    async def scenario(client: Any) -> None:
        stream = await script.now(client.models.generate_content_stream(**ASK, **fault(what)))
        with pytest.raises(kind) as raised:
            await exhaust(script, stream)
        seen.append(raised.value)

    call = world.run(scenario).call("llm")
    error = type(seen[0])
    name = error.__qualname__ if error.__module__ == "builtins" else f"{error.__module__}.{error.__qualname__}"

    assert (call.outcome, call.error_type) == ("provider_aborted", name)
    assert 1 <= call.attributes[a.STAGELIGHT_STREAM_CHUNKS] <= 2
    assert call.attributes[a.GEN_AI_RESPONSE_MODEL] == "gemini-2.5-flash"


def test_a_stream_that_times_out(world: Any, script: Any) -> None:
    """A read timeout inside a stream is a timeout."""
    hold = world.simulator.hold("chunk", 3)
    config = {"http_options": {"timeout": 300}}
    seen: list[str] = []

    async def scenario(client: Any) -> None:
        stream = await script.now(client.models.generate_content_stream(**ASK, config=config))
        try:
            await exhaust(script, stream)
        except Exception as error:  # noqa: BLE001 - the one of the HTTP library in use
            seen.append(type(error).__name__)

    with hold:
        call = world.run(scenario).call("llm")

    assert seen == ["ReadTimeout"]
    assert call.outcome == "timeout"


def test_the_first_chunk_is_not_held_back(world: Any, script: Any) -> None:
    """The caller has the first chunk while the server keeps the third."""
    hold = world.simulator.hold("chunk", 3)

    async def scenario(client: Any) -> None:
        stream = await script.now(client.models.generate_content_stream(**ASK))
        first = await read_past(script, stream, hold=hold, captured=captured)
        assert first.candidates[0].content.parts[0].text

    with capture() as captured:
        world.play(scenario)

    assert captured.call("llm").outcome == "completed"


def test_first_token_of_the_turn(world: Any, script: Any) -> None:
    """A turn's first token is the first text that is no thought."""
    clock = Clock()
    asked = {**ASK, "config": {"thinking_config": {"include_thoughts": True}}}

    async def scenario(client: Any) -> None:
        with stagelight.turn("answer"):
            stream = await script.now(client.models.generate_content_stream(**asked))
            first = await script.next(stream)
            assert first.candidates[0].content.parts[0].thought
            clock.advance(3.0)
            await exhaust(script, stream)

    turn = world.run(scenario, clock=clock).turn("answer")

    assert turn.time_to_first_token_s == 3.0
    assert turn.calls[0].attributes[a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] == 0.0


def test_streams_at_the_same_time(world: Any, script: Any) -> None:
    """Two streams read in turns keep their facts apart."""

    async def scenario(client: Any) -> None:
        first = await script.now(client.models.generate_content_stream(**{**ASK, "model": "gemini-2.5-flash"}))
        second = await script.now(client.models.generate_content_stream(**{**ASK, "model": "gemini-2.5-pro"}))
        await read_in_turns(script, first, second)

    captured = world.run(scenario)

    assert [call.name for call in captured.calls] == [
        "generate_content gemini-2.5-pro", "generate_content gemini-2.5-flash",
    ]  # fmt: skip
    assert [call.cost_status for call in captured.calls] == ["exact", "exact"]


def test_requests_are_sent_below_the_call(world: Any, script: Any) -> None:
    """What the client does to send a request happens inside the call's span, and the caller's span stands again."""
    current: list[Any] = []

    async def scenario(client: Any) -> None:
        from opentelemetry import trace

        tracer = captured.tracer_provider.get_tracer("host")
        with tracer.start_as_current_span("outer") as outer:
            stream = await script.now(client.models.generate_content_stream(**ASK))
            current.extend([trace.get_current_span() is outer async for _ in script.each(stream)])

    with capture() as captured:
        world.play(scenario)
    inner, outer = captured.spans

    assert all(current)
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id
