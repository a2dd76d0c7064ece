"""Transcription and translation: what was heard is billed by tokens or by seconds, and told in different ways."""

from __future__ import annotations

import io
import wave
from decimal import Decimal
from typing import Any

import openai
import pytest
import stagelight
from openai_client import needs_streamed_transcripts
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.facts import Response, Usage
from stagelight.integrations.openai import OPERATIONS, read
from stagelight.testing import Clock, capture

pytestmark = pytest.mark.usefixtures("recorded")

SECONDS = 2.5


def sound(seconds: float = SECONDS) -> tuple[str, bytes]:
    """A silent WAV of some length."""
    into = io.BytesIO()
    with wave.open(into, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(16_000)
        audio.writeframes(bytes(2 * round(16_000 * seconds)))
    return "speech.wav", into.getvalue()


def test_tokens(world: Any, script: Any) -> None:
    """A model billed by tokens tells which of them were audio."""

    async def scenario(client: Any) -> None:
        await script.now(
            client.audio.transcriptions.create(
                model="gpt-4o-transcribe", file=sound(), prompt="About the sea.", temperature=0.5
            )
        )

    call = world.run(scenario, clock=Clock()).call("stt")
    said = call.attributes[a.GEN_AI_USAGE_OUTPUT_TOKENS]
    asked = call.attributes[a.GEN_AI_USAGE_TEXT_INPUT_TOKENS]
    amount = (asked * Decimal("2.5") + 25 * Decimal(6) + said * Decimal(10)) / 10**6

    assert call.name == "stt gpt-4o-transcribe"
    assert call.attributes == {
        a.STAGELIGHT_STAGE: "stt",
        a.GEN_AI_PROVIDER_NAME: "openai",
        a.GEN_AI_REQUEST_MODEL: "gpt-4o-transcribe",
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: world.port,
        a.GEN_AI_REQUEST_TEMPERATURE: 0.5,
        a.GEN_AI_USAGE_INPUT_TOKENS: 25 + asked,
        a.GEN_AI_USAGE_TEXT_INPUT_TOKENS: asked,
        a.GEN_AI_USAGE_AUDIO_INPUT_TOKENS: 25,
        a.GEN_AI_USAGE_OUTPUT_TOKENS: said,
        **{key: value for key, value in call.attributes.items() if ".cost." in key},
        a.STAGELIGHT_OUTCOME: "completed",
    }
    assert call.cost_status == "exact"
    assert call.cost == amount


@pytest.mark.parametrize(
    ("form", "seconds", "status"),
    [("json", 3.0, "exact"), ("verbose_json", 3.0, "exact"), ("text", None, "unpriced"), ("vtt", None, "unpriced")],
)
def test_seconds(world: Any, script: Any, form: str, seconds: float | None, status: str) -> None:
    """A model billed by the second tells the billed ones; a transcript without JSON tells nothing."""

    async def scenario(client: Any) -> None:
        await script.now(client.audio.transcriptions.create(model="whisper-1", file=sound(), response_format=form))

    captured = world.run(scenario)
    call = captured.call("stt")

    assert call.attributes.get(a.STAGELIGHT_STT_AUDIO_SECONDS) == seconds
    assert (call.outcome, call.cost_status) == ("completed", status)
    assert [point.value for point in captured.metric(m.STAGELIGHT_STT_AUDIO_SECONDS)] == [seconds][: status == "exact"]
    assert captured.metric(m.GEN_AI_CLIENT_OPERATION_DURATION) == ()


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the newest client says so of the endpoint
def test_translation(world: Any, script: Any) -> None:
    """A translation is the same stage."""

    async def scenario(client: Any) -> None:
        await script.now(
            client.audio.translations.create(model="whisper-1", file=sound(), response_format="verbose_json")
        )

    call = world.run(scenario).call("stt")

    assert (call.attributes[a.STAGELIGHT_STT_AUDIO_SECONDS], call.cost) == (3.0, Decimal("0.0003"))


@needs_streamed_transcripts
def test_streamed(world: Any, script: Any) -> None:
    """A streamed transcript ends with its usage, and the call with the stream."""
    texts: list[str] = []

    async def scenario(client: Any) -> None:
        stream = await script.now(
            client.audio.transcriptions.create(model="gpt-4o-mini-transcribe", file=sound(), stream=True)
        )
        texts.extend([event.delta async for event in script.each(stream) if event.type == "transcript.text.delta"])

    call = world.run(scenario).call("stt")

    assert call.attributes[a.GEN_AI_USAGE_OUTPUT_TOKENS] == len(texts) > 3
    assert call.attributes[a.STAGELIGHT_STREAM_CHUNKS] == len(texts) + 1
    assert (call.outcome, call.cost_status, call.attributes[a.GEN_AI_REQUEST_STREAM]) == ("completed", "exact", True)


@needs_streamed_transcripts
def test_a_stream_that_is_left(world: Any, script: Any) -> None:
    """A transcript that nobody reads to its end was abandoned."""

    async def scenario(client: Any) -> None:
        stream = await script.now(
            client.audio.transcriptions.create(model="gpt-4o-transcribe", file=sound(), stream=True)
        )
        await script.next(stream)
        await script.now(stream.close())

    assert world.run(scenario).call("stt").outcome == "client_abandoned"


@pytest.mark.parametrize("way", ["with_raw_response", "with_streaming_response"])
def test_other_ways(world: Any, script: Any, way: str) -> None:
    """Raw and streaming responses are read for their usage all the same."""

    async def scenario(client: Any) -> None:
        asked = getattr(client.audio.transcriptions, way).create(model="whisper-1", file=sound())
        if way == "with_raw_response":
            raw = await script.now(asked)
            assert raw.parse().text
        else:
            async with script.inside(asked) as response:
                assert b"usage" in b"".join([data async for data in script.each(response.iter_bytes())])

    call = world.run(scenario).call("stt")

    assert (call.attributes[a.STAGELIGHT_STT_AUDIO_SECONDS], call.outcome) == (3.0, "completed")


def test_refused(world: Any, script: Any) -> None:
    """A refused file is an error with its status, without a price."""

    async def scenario(client: Any) -> None:
        with pytest.raises(openai.BadRequestError):
            await script.now(
                client.audio.transcriptions.create(model="gpt-4o-transcribe", file=sound(), response_format="srt")
            )

    call = world.run(scenario).call("stt")

    assert (call.outcome, call.error_type, call.cost_status) == ("error", "openai.BadRequestError", None)
    assert call.attributes[a.HTTP_RESPONSE_STATUS_CODE] == 400


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        ({"text": "Hi", "duration": "2.5"}, Usage(audio_seconds=2.5)),
        ({"text": "Hi", "duration": 2.5, "usage": {"type": "duration", "seconds": 3}}, Usage(audio_seconds=3)),
        ({"text": "Hi", "duration": "long"}, None),
        ({"text": "Hi", "duration": -1}, None),
        ({"text": "Hi"}, None),
    ],
)
def test_durations(answer: dict[str, Any], usage: Usage | None) -> None:
    """Billed seconds come before the file's length; what is no length is not known."""
    assert OPERATIONS["/audio/transcriptions"].response(answer, stagelight.facts.Request()) == Response(usage=usage)


def test_record_reads_a_transcript(simulator: Any) -> None:
    """A transcript recorded by hand takes its facts from the client's own object."""
    with openai.OpenAI(base_url=simulator.url, api_key="key") as client, capture() as captured:
        answer = client.audio.transcriptions.create(model="whisper-1", file=sound())
        with stagelight.stt(provider="openai", model="whisper-1") as call:
            call.record(answer)

    assert read(answer) == Response(usage=Usage(audio_seconds=3.0))
    assert captured.calls[-1].cost == Decimal("0.0003")
