"""ElevenLabs: speech in all its ways and transcription; characters, credits, voice, format, bytes and seconds."""

from __future__ import annotations

import inspect
from base64 import b64decode
from decimal import Decimal
from typing import Any

import pytest
import stagelight
from elevenlabs.core.unchecked_base_model import construct_type
from elevenlabs.types import AudioWithTimestampsResponse
from integrations.elevenlabs_speeches import SECONDS, SPEECH, TEXT, Voices
from stagelight.conventions import attributes as a
from stagelight.testing import Clock, capture

CLIENT = "elevenlabs"
pytestmark = pytest.mark.usefixtures("recorded")


def spoken(voices: Voices, **more: Any) -> dict[str, Any]:
    """The attributes of a whole speech, without its price and its id."""
    return {
        a.STAGELIGHT_STAGE: "tts",
        a.GEN_AI_OPERATION_NAME: "text_to_speech",
        a.GEN_AI_PROVIDER_NAME: "elevenlabs",
        a.GEN_AI_REQUEST_MODEL: "eleven_multilingual_v2",
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: int(voices.host.rpartition(":")[2]),
        a.GEN_AI_OUTPUT_TYPE: "speech",
        a.STAGELIGHT_TTS_VOICE: "Rachel",
        a.STAGELIGHT_TTS_FORMAT: "pcm_16000",
        a.STAGELIGHT_TTS_SAMPLE_RATE: 16_000,
        a.STAGELIGHT_TTS_CHARACTERS: len(TEXT),
        a.STAGELIGHT_USAGE_CHARACTERS: len(TEXT),
        a.STAGELIGHT_USAGE_CREDITS: len(TEXT),
        a.STAGELIGHT_TTS_AUDIO_SECONDS: pytest.approx(SECONDS, abs=0.01),
        a.STAGELIGHT_USAGE_AUDIO_SECONDS: pytest.approx(SECONDS, abs=0.01),
        a.STAGELIGHT_TTS_AUDIO_BYTES: pytest.approx(SECONDS * 32_000, abs=500),
        a.STAGELIGHT_TTS_REAL_TIME_FACTOR: 0.0,
        a.STAGELIGHT_OUTCOME: "completed",
        **more,
    }


def without_cost(call: Any) -> dict[str, Any]:
    """The attributes of a call, without its price and its id."""
    left_out = (a.GEN_AI_RESPONSE_ID, a.STAGELIGHT_STREAM_CHUNKS)
    return {key: value for key, value in call.attributes.items() if ".cost." not in key and key not in left_out}


STREAMED = {
    a.GEN_AI_REQUEST_STREAM: True,
    a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 0.0,
    a.STAGELIGHT_STREAM_LONGEST_GAP: 0.0,
}


@pytest.mark.parametrize("way", ["convert", "stream"])
def test_speech(voices: Voices, script: Any, way: str) -> None:
    """A generator of audio, read to its end, leaves one span with characters, credits, bytes and seconds."""
    heard: list[bytes] = []

    async def scenario(client: Any) -> None:
        with stagelight.turn("speak"):
            audio = getattr(client.text_to_speech, way)(**SPEECH)
            assert inspect.isgenerator(audio) or inspect.isasyncgen(audio)
            heard.extend([data async for data in script.each(audio)])

    captured = voices.run(scenario, clock=Clock())
    call = captured.call("tts")

    assert call.name == "text_to_speech eleven_multilingual_v2"
    assert without_cost(call) == spoken(voices, **STREAMED)
    assert call.attributes[a.STAGELIGHT_TTS_AUDIO_BYTES] == len(b"".join(heard))
    # 100 USD per million characters, which depends on the plan: https://elevenlabs.io/pricing/api
    assert (call.cost, call.cost_status) == (len(TEXT) * Decimal(100) / 10**6, "estimated")
    assert captured.turn("speak").time_to_first_audio_s == 0.0


def test_speech_with_times_in_one_piece(voices: Voices, script: Any) -> None:
    """An answer with the times of its characters is one call in one piece."""

    async def scenario(client: Any) -> None:
        answer = await script.now(client.text_to_speech.convert_with_timestamps(**SPEECH))
        assert answer.alignment.characters == list(TEXT)

    call = voices.run(scenario, clock=Clock()).call("tts")

    assert without_cost(call) == spoken(voices)


def test_streamed_speech_with_times(voices: Voices, script: Any) -> None:
    """Items with times reach the caller, and their audio is counted."""
    heard: list[Any] = []

    async def scenario(client: Any) -> None:
        heard.extend([item async for item in script.each(client.text_to_speech.stream_with_timestamps(**SPEECH))])

    call = voices.run(scenario, clock=Clock()).call("tts")

    assert without_cost(call) == spoken(voices, **STREAMED)
    audio = b"".join(b64decode(item.audio_base_64) for item in heard)
    assert call.attributes[a.STAGELIGHT_TTS_AUDIO_BYTES] == len(audio)


def test_times_tell_how_long_mp3_lasts(voices: Voices, script: Any) -> None:
    """The length of MP3 is only known when the characters' times are asked for."""
    asked = {**SPEECH, "output_format": "mp3_44100_128"}

    async def scenario(client: Any) -> None:
        async for _ in script.each(client.text_to_speech.stream(**asked)):
            pass
        async for _ in script.each(client.text_to_speech.stream_with_timestamps(**asked)):
            pass
        await script.now(client.text_to_speech.convert_with_timestamps(**asked))

    calls = voices.run(scenario).calls
    seconds = [call.attributes.get(a.STAGELIGHT_TTS_AUDIO_SECONDS) for call in calls]

    assert seconds == [None, pytest.approx(SECONDS, abs=0.01), pytest.approx(SECONDS, abs=0.01)]
    assert all(call.attributes[a.STAGELIGHT_TTS_SAMPLE_RATE] == 44_100 for call in calls)


@pytest.mark.parametrize("audio_format", ["wav_16000", "pcm_24000"])
def test_formats_whose_length_is_told(voices: Voices, script: Any, audio_format: str) -> None:
    """WAV and raw samples of any rate have their seconds."""

    async def scenario(client: Any) -> None:
        async for _ in script.each(client.text_to_speech.convert(**{**SPEECH, "output_format": audio_format})):
            pass

    call = voices.run(scenario).call("tts")

    assert call.attributes[a.STAGELIGHT_TTS_AUDIO_SECONDS] == pytest.approx(SECONDS, abs=0.01)


def test_credits_are_no_characters(voices: Voices, script: Any) -> None:
    """What a call takes from the plan depends on the model; its characters are those of the text."""

    async def scenario(client: Any) -> None:
        async for _ in script.each(client.text_to_speech.convert(**{**SPEECH, "model_id": "eleven_flash_v2_5"})):
            pass

    call = voices.run(scenario).call("tts")

    assert call.attributes[a.STAGELIGHT_USAGE_CHARACTERS] == len(TEXT)
    assert call.attributes[a.STAGELIGHT_USAGE_CREDITS] == (len(TEXT) + 1) // 2
    assert call.cost == len(TEXT) * Decimal(50) / 10**6


def test_a_call_without_a_model_has_no_price(voices: Voices, script: Any) -> None:
    """Nobody tells which model was taken, so nothing is guessed."""

    async def scenario(client: Any) -> None:
        async for _ in script.each(client.text_to_speech.convert(voice_id="Rachel", text=TEXT)):
            pass

    call = voices.run(scenario).call("tts")

    assert (call.name, call.attributes[a.STAGELIGHT_COST_REASON]) == ("text_to_speech", "unknown_model")
    assert a.STAGELIGHT_TTS_FORMAT not in call.attributes


def test_raw_responses(voices: Voices, script: Any) -> None:
    """Raw responses, whose headers the caller wants, are the same calls."""

    async def scenario(client: Any) -> None:
        raw = client.text_to_speech.with_raw_response
        async with script.inside(raw.convert(**SPEECH)) as response:
            assert response.headers["character-cost"] == str(len(TEXT))
            async for _ in script.each(response.data):
                pass
        answer = await script.now(raw.convert_with_timestamps(**SPEECH))
        assert answer.data.audio_base_64

    assert [call.outcome for call in voices.run(scenario).calls] == ["completed"] * 2


def test_a_manual_block_is_that_call(voices: Voices, script: Any) -> None:
    """A client inside a manual block of the same stage fills it: one span, one cost."""

    async def scenario(client: Any) -> None:
        with stagelight.tts(provider="elevenlabs", model="eleven_v3", voice="mine"):
            async for _ in script.each(client.text_to_speech.convert(**SPEECH)):
                pass

    call = voices.run(scenario).call("tts")

    assert (call.attributes[a.STAGELIGHT_TTS_VOICE], call.outcome) == ("mine", "completed")
    assert call.cost == len(TEXT) * Decimal(100) / 10**6


def test_two_speeches_side_by_side(voices: Voices, script: Any) -> None:
    """Two generators read in turns are two calls."""

    async def scenario(client: Any) -> None:
        both = [script.each(client.text_to_speech.convert(**{**SPEECH, "voice_id": one})) for one in ("Ada", "Bob")]
        for source in both:
            await anext(source)
        for source in both:
            async for _ in source:
                pass

    calls = voices.run(scenario).calls

    assert sorted(call.attributes[a.STAGELIGHT_TTS_VOICE] for call in calls) == ["Ada", "Bob"]
    assert {call.outcome for call in calls} == {"completed"}


def test_transcription(voices: Voices, script: Any) -> None:
    """A recording is one call with its seconds."""
    heard: list[Any] = []

    async def scenario(client: Any) -> None:
        recording = ("speech.pcm", bytes(64_000))
        heard.append(await script.now(client.speech_to_text.convert(model_id="scribe_v1", file=recording)))

    call = voices.run(scenario, clock=Clock()).call("stt")

    assert without_cost(call) == {
        a.STAGELIGHT_STAGE: "stt",
        a.GEN_AI_PROVIDER_NAME: "elevenlabs",
        a.GEN_AI_REQUEST_MODEL: "scribe_v1",
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: int(voices.host.rpartition(":")[2]),
        a.STAGELIGHT_STT_AUDIO_SECONDS: 2.0,
        a.STAGELIGHT_USAGE_AUDIO_SECONDS: 2.0,
        a.STAGELIGHT_OUTCOME: "completed",
    }
    assert heard[0].text == TEXT
    assert call.attributes[a.STAGELIGHT_COST_REASON] == "unknown_model"


def test_reading_an_answer_by_hand() -> None:
    """``record`` reads an answer with times in a block of the caller's own."""
    times = {"characters": ["a"], "character_start_times_seconds": [0.0], "character_end_times_seconds": [0.5]}
    told = {"audio_base64": "AAAA", "alignment": times}
    answer = construct_type(type_=AudioWithTimestampsResponse, object_=told)
    with capture() as captured, stagelight.tts(provider="elevenlabs", model="eleven_v3") as call:
        call.record(answer)

    assert captured.call("tts").attributes[a.STAGELIGHT_TTS_AUDIO_SECONDS] == 0.5
    assert captured.call("tts").attributes[a.STAGELIGHT_TTS_AUDIO_BYTES] == 3
