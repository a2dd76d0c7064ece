"""Bodies of Bedrock's answers: read in every way, left, or never looked at."""

from __future__ import annotations

import gc
import json
from io import BytesIO
from typing import Any
from weakref import ref

import pytest
from aws_clients import FAMILIES, HAIKU, AwsWorld
from botocore.response import StreamingBody
from stagelight.conventions import attributes as a
from stagelight.sim import Simulator
from stagelight.testing import capture

CLIENT = "bedrock"
pytestmark = [
    pytest.mark.usefixtures("recorded"),
    # The client leaves the socket of an unread answer to the garbage collection, without us as well.
    pytest.mark.filterwarnings("ignore:.*(socket|Connection):pytest.PytestUnraisableExceptionWarning"),
]


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


def test_a_body_that_nobody_reads(bedrock: AwsWorld, script: Any) -> None:
    """A body that is dropped unread was abandoned; its tokens are in the headers and its cost is known."""

    async def scenario(client: Any) -> None:
        await script.now(client.invoke_model(modelId=HAIKU, body=json.dumps(FAMILIES[HAIKU][0])))
        gc.collect()

    call = bedrock.run(scenario).call("llm")

    assert (call.outcome, call.error_type, call.cost_status) == ("client_abandoned", None, "exact")
