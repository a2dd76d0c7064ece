"""How event streams of Bedrock end: one end and one outcome, whatever the caller or the server does."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from aws_clients import ASK, HAIKU, KINDS, AwsWorld
from integrations.cancelling import cancel_while_held
from integrations.stream_uses import exhaust
from stagelight.conventions import attributes as a
from stagelight.sim import Simulator
from stagelight.testing import capture

CLIENT = "bedrock"
pytestmark = [
    pytest.mark.usefixtures("recorded"),
    # The client leaves the socket of an unread answer to the garbage collection, without us as well.
    pytest.mark.filterwarnings("ignore:.*(socket|Connection):pytest.PytestUnraisableExceptionWarning"),
]

CONVERSE = f"/model/{HAIKU}/converse-stream"


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

        await cancel_while_held(reading(), hold)

    call = world.run(scenario).call("llm")

    assert (call.outcome, call.error_type) == ("cancelled", None)
