"""Event streams and bodies of Bedrock: the client's own objects, watched in place; one end and one outcome each."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any
from weakref import ref

import pytest
import stagelight
from aws_clients import ASK, FAMILIES, HAIKU, KINDS, LONG, AwsWorld
from botocore.response import StreamingBody
from stagelight.conventions import attributes as a
from stagelight.integrations.bedrock import BedrockInstrumentor
from stagelight.sim import Simulator
from stagelight.testing import Clock, capture

CONVERSE = f"/model/{HAIKU}/converse-stream"
pytestmark = [
    pytest.mark.usefixtures("recorded"),
    # The client leaves the socket of an unread answer to the garbage collection, without us as well.
    pytest.mark.filterwarnings("ignore:.*(socket|Connection):pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def recorded() -> Iterator[BedrockInstrumentor]:
    """Bedrock's clients are instrumented."""
    instrumentor = BedrockInstrumentor()
    assert instrumentor.switch_on()
    yield instrumentor
    instrumentor.uninstrument()


@pytest.fixture(params=KINDS)
def bedrock(request: pytest.FixtureRequest, simulator: Simulator) -> AwsWorld:
    """The simulator, by a sync and by an async client."""
    simulator.forget()
    return AwsWorld(request.param, simulator, "bedrock-runtime", "aws.bedrock")


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


async def exhaust(script: Any, stream: Any) -> None:
    async for _ in script.each(stream):
        pass


async def break_out(script: Any, stream: Any) -> None:
    async for _ in script.each(stream):
        break


async def break_out_and_close(script: Any, stream: Any) -> None:
    await break_out(script, stream)
    stream.close()
    stream.close()


async def close_at_once(script: Any, stream: Any) -> None:
    del script
    stream.close()


async def stop_at_the_last_word(script: Any, stream: Any) -> None:
    async for event in script.each(stream):
        if "messageStop" in event:
            break
    stream.close()


async def raise_inside(script: Any, stream: Any) -> None:
    async def reading() -> None:
        async for _ in script.each(stream):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await reading()


async def never_look(script: Any, stream: Any) -> None:
    del script, stream


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (exhaust, "completed"),
        (break_out, "client_abandoned"),
        (break_out_and_close, "client_abandoned"),
        (close_at_once, "client_abandoned"),
        (stop_at_the_last_word, "completed"),
        (raise_inside, "client_abandoned"),
        (never_look, "client_abandoned"),
    ],
)
def test_ends_of_a_stream(bedrock: AwsWorld, script: Any, act: Any, outcome: str) -> None:
    """Whatever the caller does with a stream, its call ends once, and leaving it is no error."""

    async def scenario(client: Any) -> None:
        await act(script, (await script.now(client.converse_stream(**ASK)))["stream"])

    with capture() as captured:
        bedrock.play(scenario)
        gc.collect()  # the client's stream is a cycle
    call = captured.call("llm")

    assert (call.outcome, call.error_type) == (outcome, None)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("stream_error;after=3", "modelStreamErrorException"),
        ("stream_cut;after=3", "ResponseStreamingError|ProtocolError|ClientPayloadError"),
        ("malformed_chunk;after=3", "ChecksumMismatch"),
    ],
)
def test_streams_that_break(bedrock: AwsWorld, script: Any, fault: str, kind: str) -> None:
    """An error inside a stream reaches the caller as it is, and is the provider's failure."""
    errors: list[BaseException] = []
    seen: list[Any] = []

    async def scenario(client: Any) -> None:
        answer = await script.now(client.converse_stream(**ASK))

        async def reading() -> None:
            seen.extend([event async for event in script.each(answer["stream"])])

        try:
            await reading()
        except Exception as error:  # noqa: BLE001 - what it is depends on the fault
            errors.append(error)

    call = bedrock.run(scenario, headers={"x-stagelight-fault": fault}).call("llm")

    assert (call.outcome, call.cost_status) == ("provider_aborted", "unpriced")
    assert call.error_type is not None
    assert any(call.error_type.endswith(name) for name in kind.split("|"))
    assert len(errors) == 1
    assert call.attributes[a.STAGELIGHT_STREAM_CHUNKS] == 3


def test_a_stream_refused_at_once(bedrock: AwsWorld, script: Any) -> None:
    """A stream that never begins is a failed call."""

    async def scenario(client: Any) -> None:
        with pytest.raises(Exception, match="ThrottlingException"):
            await script.now(client.converse_stream(**ASK))

    call = bedrock.run(scenario, headers={"x-stagelight-fault": "rate_limit"}).call("llm")

    assert (call.outcome, call.attributes[a.HTTP_RESPONSE_STATUS_CODE]) == ("error", 429)


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


def test_nothing_is_asked_before_the_caller_reads(bedrock: AwsWorld, script: Any) -> None:
    """An answer whose body the server keeps is returned with its headers, as without us."""
    hold = bedrock.simulator.hold("chunk", 1, path=f"/model/{HAIKU}/invoke")

    async def scenario(client: Any) -> None:
        answer = await script.now(client.invoke_model(modelId=HAIKU, body=json.dumps(FAMILIES[HAIKU][0])))
        assert hold.wait_reached(30)
        hold.release()
        assert json.loads(await script.now(answer["body"].read()))["type"] == "message"

    assert bedrock.run(scenario).call("llm").outcome == "completed"


async def read_whole(body: Any, script: Any) -> bytes:
    return await script.now(body.read())


async def read_small(body: Any, script: Any) -> bytes:
    pieces = []
    while piece := await script.now(body.read(50)):
        pieces.append(piece)
    return b"".join(pieces)


async def read_chunks(body: Any, script: Any) -> bytes:
    return b"".join([piece async for piece in script.each(body.iter_chunks(64))])


async def read_iterated(body: Any, script: Any) -> bytes:
    return b"".join([piece async for piece in script.each(body)])


async def read_lines(body: Any, script: Any) -> bytes:
    return b"".join([line async for line in script.each(body.iter_lines())])


async def read_all_lines(body: Any, script: Any) -> bytes:
    return b"".join(await script.now(body.readlines()))


async def read_into(body: Any, script: Any) -> bytes:
    found, buffer = b"", bytearray(64)
    while size := await script.now(body.readinto(buffer)):
        found += bytes(buffer[:size])
    return found


async def read_raw(body: Any, script: Any) -> bytes:
    del script
    with body as raw:
        return raw.read()


async def read_raw_stream(body: Any, script: Any) -> bytes:
    del script
    with body as raw:
        return b"".join(raw.stream(64))


WAYS = [read_whole, read_small, read_chunks, read_iterated, read_lines, read_all_lines, read_raw, read_raw_stream]
WAYS += [read_into] * hasattr(StreamingBody, "readinto")  # newer versions have it


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_read_a_body(bedrock: AwsWorld, script: Any, way: Any) -> None:
    """However a body is read, the caller gets its bytes and the call its facts, at the last byte."""
    if bedrock.kind == "async" and way in {read_raw, read_raw_stream}:
        way = read_whole  # the async body gives nobody its raw stream
    bodies: list[bytes] = []

    async def scenario(client: Any) -> None:
        answer = await script.now(client.invoke_model(modelId=HAIKU, body=json.dumps(FAMILIES[HAIKU][0])))
        bodies.append(await way(answer["body"], script))

    call = bedrock.run(scenario).call("llm")
    usage = json.loads(bodies[0])["usage"]

    assert (call.outcome, call.cost_status) == ("completed", "exact")
    assert call.attributes[a.GEN_AI_USAGE_OUTPUT_TOKENS] == usage["output_tokens"]
    assert call.attributes[a.GEN_AI_RESPONSE_ID] == json.loads(bodies[0])["id"]


def test_a_body_that_is_left(bedrock: AwsWorld, script: Any) -> None:
    """A body closed before its end was abandoned, one closed after it was not."""

    async def scenario(client: Any) -> None:
        for size in (10, None):
            answer = await script.now(client.invoke_model(modelId=HAIKU, body=json.dumps(FAMILIES[HAIKU][0])))
            await script.now(answer["body"].read(size))
            await script.now(answer["body"].close())

    assert [call.outcome for call in bedrock.run(scenario).calls] == ["client_abandoned", "completed"]


def test_a_body_that_breaks(bedrock: AwsWorld, script: Any) -> None:
    """A connection that is lost inside a body is the provider's failure, with the client's own exception."""

    async def scenario(client: Any) -> None:
        answer = await script.now(client.invoke_model(modelId=HAIKU, body=json.dumps(FAMILIES[HAIKU][0])))
        with pytest.raises(Exception, match=r"broken|closed|payload|read"):
            await script.now(answer["body"].read())

    call = bedrock.run(scenario, headers={"x-stagelight-fault": "stream_cut"}).call("llm")

    assert call.outcome == "provider_aborted"
    assert str(call.error_type).rpartition(".")[2] in {
        "ResponseStreamingError", "IncompleteReadError", "ClientPayloadError",
    }  # fmt: skip


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


def test_a_cancelled_stream(simulator: Simulator) -> None:
    """A task that is cancelled while it waits for an event was cancelled, which is no error."""
    if "async" not in KINDS:
        return  # only a task can be cancelled
    world = AwsWorld("async", simulator, "bedrock-runtime", "aws.bedrock")
    hold = simulator.hold("chunk", 3, path=CONVERSE)

    async def scenario(client: Any) -> None:
        answer = await client.converse_stream(**ASK)

        async def reading() -> None:
            async for _ in answer["stream"]:
                pass

        task = asyncio.create_task(reading())
        await asyncio.to_thread(hold.wait_reached, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        hold.release()

    call = world.run(scenario).call("llm")

    assert (call.outcome, call.error_type) == ("cancelled", None)


def test_bodies_go_when_the_caller_lets_go(simulator: Simulator) -> None:
    """What is watched is held by nobody but the caller: it goes without a garbage collection."""
    client = AwsWorld("sync", simulator, "bedrock-runtime", "").sync_client()
    gc.collect()
    gc.disable()
    try:
        with capture():
            answer = client.invoke_model(modelId=HAIKU, body=json.dumps(FAMILIES[HAIKU][0]))
            held = [ref(answer["body"]), ref(answer["body"]._raw_stream)]
            answer["body"].read()
            del answer
            assert [one() for one in held] == [None, None]
    finally:
        gc.enable()


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
