"""Speech: watched while the caller reads it, never buffered; characters, voice, format and seconds."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import stagelight
from openai_client import needs_speech_events
from stagelight.conventions import attributes as a
from stagelight.testing import Clock, capture

pytestmark = pytest.mark.usefixtures("recorded")

TEXT = "The tide comes in, the tide goes out."
SECONDS = len(TEXT) / 15  # the simulator speaks 15 characters per second
SPEECH = {"model": "tts-1", "voice": "coral", "input": TEXT}


def spoken(world: Any, audio_format: str, **more: Any) -> dict[str, Any]:
    """The attributes of a whole speech, without its price."""
    return {
        a.STAGELIGHT_STAGE: "tts",
        a.GEN_AI_OPERATION_NAME: "text_to_speech",
        a.GEN_AI_PROVIDER_NAME: "openai",
        a.GEN_AI_REQUEST_MODEL: "tts-1",
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: world.port,
        a.GEN_AI_OUTPUT_TYPE: "speech",
        a.STAGELIGHT_TTS_VOICE: "coral",
        a.STAGELIGHT_TTS_FORMAT: audio_format,
        a.STAGELIGHT_TTS_CHARACTERS: len(TEXT),
        a.STAGELIGHT_USAGE_CHARACTERS: len(TEXT),
        a.STAGELIGHT_TTS_AUDIO_BYTES: pytest.approx(SECONDS * 48_000, abs=500),
        a.STAGELIGHT_TTS_AUDIO_SECONDS: pytest.approx(SECONDS, abs=0.01),
        a.STAGELIGHT_USAGE_AUDIO_SECONDS: pytest.approx(SECONDS, abs=0.01),
        a.STAGELIGHT_TTS_REAL_TIME_FACTOR: 0.0,
        a.STAGELIGHT_OUTCOME: "completed",
        **more,
    }


def without_cost(call: Any) -> dict[str, Any]:
    """The attributes of a call, without its price."""
    return {key: value for key, value in call.attributes.items() if ".cost." not in key}


@pytest.mark.parametrize("audio_format", ["wav", "pcm"])
def test_speech_in_one_piece(world: Any, script: Any, audio_format: str) -> None:
    """A whole answer has characters, their price, and seconds."""
    results: list[Any] = []

    async def scenario(client: Any) -> None:
        with stagelight.turn("speak"):
            results.append(await script.now(client.audio.speech.create(**SPEECH, response_format=audio_format)))

    captured = world.run(scenario, clock=Clock())
    call = captured.call("tts")

    assert call.name == "text_to_speech tts-1"
    assert without_cost(call) == spoken(world, audio_format)
    assert (call.cost, call.cost_status) == (len(TEXT) * Decimal(15) / 10**6, "exact")
    assert captured.turn("speak").time_to_first_audio_s == 0.0
    assert len(results[0].content) > 48_000


@pytest.mark.parametrize("audio_format", ["wav", "pcm"])
@pytest.mark.parametrize("way", ["iter_bytes", "small", "read", "stream_to_file"])
def test_streamed_speech(world: Any, script: Any, tmp_path: Path, audio_format: str, way: str) -> None:
    """However a streaming response is read, chunks, first audio and seconds are those of what passed."""
    heard: list[bytes] = []

    async def scenario(client: Any) -> None:
        block = client.audio.speech.with_streaming_response.create(**SPEECH, response_format=audio_format)
        async with script.inside(block) as response:
            if way == "read":
                heard.append(await script.now(response.read()))
            elif way == "stream_to_file":
                await script.now(response.stream_to_file(tmp_path / "speech"))
                heard.append((tmp_path / "speech").read_bytes())
            else:
                size = 7 if way == "small" else None
                heard.extend([data async for data in script.each(response.iter_bytes(size))])

    call = world.run(scenario, clock=Clock()).call("tts")
    chunks = call.attributes[a.STAGELIGHT_STREAM_CHUNKS]

    assert chunks > 1
    assert without_cost(call) == spoken(
        world,
        audio_format,
        **{
            a.GEN_AI_REQUEST_STREAM: True,
            a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 0.0,
            a.STAGELIGHT_STREAM_CHUNKS: chunks,
            a.STAGELIGHT_STREAM_LONGEST_GAP: 0.0,
        },
    )
    assert len(b"".join(heard)) == pytest.approx(SECONDS * 48_000, abs=500)


def test_audio_is_not_held_back(world: Any, script: Any) -> None:
    """The caller hears the first block while the server keeps the second, and the turn's first audio is that moment."""
    hold = world.simulator.hold("chunk", 2, path="/v1/audio/speech")
    clock = Clock()

    async def scenario(client: Any) -> None:
        with stagelight.turn("speak"):
            clock.advance(1.0)
            block = client.audio.speech.with_streaming_response.create(**SPEECH, response_format="wav")
            async with script.inside(block) as response:
                blocks = aiter(script.each(response.iter_bytes()))
                first = await anext(blocks)
                assert first[:4] == b"RIFF"
                assert hold.wait_reached(60)
                clock.advance(2.0)
                hold.release()
                async for _ in blocks:
                    pass

    captured = world.run(scenario, clock=clock)

    assert captured.turn("speak").time_to_first_audio_s == 1.0
    assert captured.call("tts").attributes[a.STAGELIGHT_STREAM_LONGEST_GAP] == 2.0


def test_speech_that_is_cut_short(world: Any, script: Any) -> None:
    """A caller who stops listening abandons the call: the whole text is billed, the seconds are those heard."""

    async def scenario(client: Any) -> None:
        block = client.audio.speech.with_streaming_response.create(**SPEECH, response_format="pcm")
        async with script.inside(block) as response:
            async for _ in script.each(response.iter_bytes()):
                break

    call = world.run(scenario).call("tts")

    assert (call.outcome, call.error_type, call.cost_status) == ("client_abandoned", None, "exact")
    assert 0 < call.attributes[a.STAGELIGHT_TTS_AUDIO_SECONDS] < SECONDS


def test_speech_that_breaks(world: Any, script: Any) -> None:
    """A connection that is lost while audio comes is the provider's failure."""

    async def scenario(client: Any) -> None:
        block = client.audio.speech.with_streaming_response.create(
            **SPEECH, response_format="pcm", extra_headers={"x-stagelight-fault": "stream_cut;after=2"}
        )

        async def reading() -> None:
            async with script.inside(block) as response:
                async for _ in script.each(response.iter_bytes()):
                    pass

        with pytest.raises(Exception, match="closed"):
            await reading()

    call = world.run(scenario).call("tts")

    assert (call.outcome, call.attributes[a.STAGELIGHT_STREAM_CHUNKS]) == ("provider_aborted", 2)
    assert call.error_type is not None
    assert call.error_type.endswith("RemoteProtocolError")


def test_a_refused_speech_costs_nothing(world: Any, script: Any) -> None:
    """Characters are billed when the provider accepted them."""

    async def scenario(client: Any) -> None:
        with pytest.raises(Exception, match="mp3"):
            await script.now(client.audio.speech.create(**SPEECH, response_format="mp3"))

    call = world.run(scenario).call("tts")

    assert (call.outcome, call.cost) == ("error", None)
    assert a.STAGELIGHT_USAGE_CHARACTERS not in call.attributes


def test_models_billed_by_tokens_are_not_priced_by_characters(world: Any, script: Any) -> None:
    """The service reports no tokens for bytes, so a model billed by them has no price, and no wrong one."""

    async def scenario(client: Any) -> None:
        await script.now(client.audio.speech.create(**{**SPEECH, "model": "gpt-4o-mini-tts"}, response_format="pcm"))

    call = world.run(scenario).call("tts")

    assert (call.cost, call.cost_status) == (None, "unpriced")
    assert call.attributes[a.STAGELIGHT_TTS_CHARACTERS] == len(TEXT)


def test_a_raw_speech(world: Any, script: Any) -> None:
    """A raw response of speech has been read by the client and is counted whole."""

    async def scenario(client: Any) -> None:
        raw = await script.now(client.audio.speech.with_raw_response.create(**SPEECH, response_format="wav"))
        assert raw.content[:4] == b"RIFF"

    call = world.run(scenario).call("tts")

    assert call.attributes[a.STAGELIGHT_TTS_AUDIO_SECONDS] == pytest.approx(SECONDS, abs=0.01)


def test_nothing_is_kept_of_long_audio(world: Any, script: Any) -> None:
    """What is held while audio passes does not grow with it."""
    import tracemalloc

    async def scenario(client: Any) -> None:
        block = client.audio.speech.with_streaming_response.create(
            **{**SPEECH, "input": TEXT * 100, "speed": 0.5}, response_format="wav"
        )
        async with script.inside(block) as response:
            blocks = aiter(script.each(response.iter_bytes()))
            await anext(blocks)
            tracemalloc.start()
            async for _ in blocks:
                pass
            grown.append(tracemalloc.get_traced_memory()[0])
            tracemalloc.stop()

    grown: list[int] = []
    with capture() as captured:
        world.play(scenario)

    assert captured.call("tts").attributes[a.STAGELIGHT_TTS_AUDIO_SECONDS] > 400
    assert grown[0] < 1_000_000


@needs_speech_events
@pytest.mark.parametrize("way", ["streaming", "plain"])
def test_speech_as_events(world: Any, script: Any, way: str) -> None:
    """Speech sent as events tells its tokens, so that models billed by them have a price."""

    async def scenario(client: Any) -> None:
        speech, asked = client.audio.speech, {**SPEECH, "model": "gpt-4o-mini-tts", "response_format": "pcm"}
        if way == "plain":
            heard = await script.now(speech.create(**asked, stream_format="sse"))
            assert b"speech.audio.done" in heard.content
            return
        async with script.inside(speech.with_streaming_response.create(**asked, stream_format="sse")) as response:
            lines = [line async for line in script.each(response.iter_lines())]
        assert '"type":"speech.audio.done"' in lines[-2]

    call = world.run(scenario).call("tts")
    used = {key: call.attributes[key] for key in (a.GEN_AI_USAGE_TEXT_INPUT_TOKENS, a.GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS)}
    amount = sum(Decimal(rate) * count for rate, count in zip(("0.6", "12"), used.values(), strict=True)) / 10**6

    assert used[a.GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS] == round(SECONDS * 20)
    assert (call.outcome, call.cost_status, call.cost) == ("completed", "exact", amount)
