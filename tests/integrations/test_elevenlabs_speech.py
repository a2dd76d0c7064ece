"""ElevenLabs: speech in all its ways and transcription; characters, credits, voice, format, bytes and seconds."""

from __future__ import annotations

import asyncio
import gc
import inspect
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
import pytest
import stagelight
from elevenlabs.core.api_error import ApiError
from elevenlabs.core.http_client import HttpClient
from elevenlabs.core.unchecked_base_model import construct_type
from elevenlabs.types import AudioWithTimestampsResponse
from elevenlabs_clients import PLAIN, client_of
from retrying import check_retried, refusing
from stagelight.conventions import attributes as a
from stagelight.integrations.elevenlabs import ElevenLabsInstrumentor
from stagelight.sim import Simulator
from stagelight.testing import Captured, Clock, capture

TEXT = "The tide comes in, the tide goes out."
SECONDS = len(TEXT) / 15  # the simulator speaks 15 characters per second
SPEECH = {"voice_id": "Rachel", "text": TEXT, "model_id": "eleven_multilingual_v2", "output_format": "pcm_16000"}


@pytest.fixture
def recorded() -> Iterator[ElevenLabsInstrumentor]:
    """The ElevenLabs client is instrumented."""
    instrumentor = ElevenLabsInstrumentor()
    assert instrumentor.switch_on()
    yield instrumentor
    instrumentor.uninstrument()


pytestmark = pytest.mark.usefixtures("recorded")


@dataclass
class Voices:
    """A simulator and one kind of client."""

    kind: str
    simulator: Simulator

    @property
    def host(self) -> str:
        """Address and port of the simulator."""
        return self.simulator.url.split("/")[2]

    def run(self, scenario: Any, *, clock: Clock | None = None, fault: str = "") -> Captured:
        """What was recorded of a scenario."""

        async def played() -> None:
            headers = {"x-stagelight-fault": fault} if fault else {}
            if self.kind == "sync":
                with httpx.Client(verify=PLAIN, headers=headers) as http:
                    await scenario(client_of(self.simulator.origin, http))
            else:
                async with httpx.AsyncClient(verify=PLAIN, headers=headers) as http:
                    await scenario(client_of(self.simulator.origin, http))

        with capture(provider_hosts={self.host: "elevenlabs"}, clock=clock) as captured:
            asyncio.run(played())
            gc.collect()
        return captured


@pytest.fixture(params=["sync", "async"])
def voices(request: pytest.FixtureRequest, simulator: Simulator) -> Voices:
    """The simulator, by a sync and by an async client."""
    simulator.forget()
    return Voices(request.param, simulator)


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


def test_nothing_is_sent_before_the_caller_asks(voices: Voices, script: Any) -> None:
    """A generator that nobody reads sends nothing and leaves nothing."""

    async def scenario(client: Any) -> None:
        client.text_to_speech.convert(**SPEECH)
        client.text_to_speech.stream_with_timestamps(**SPEECH)

    assert voices.run(scenario).spans == ()
    assert voices.simulator.requests == []


@pytest.mark.parametrize("way", ["convert", "stream", "stream_with_timestamps"])
def test_audio_is_not_held_back(voices: Voices, script: Any, way: str) -> None:
    """The caller hears the first block while the server keeps the second, and the turn's first audio is that moment."""
    hold = voices.simulator.hold("chunk", 2)
    clock = Clock()

    async def scenario(client: Any) -> None:
        with stagelight.turn("speak"):
            clock.advance(1.0)
            blocks = aiter(script.each(getattr(client.text_to_speech, way)(**SPEECH)))
            await anext(blocks)
            assert hold.wait_reached(30)
            clock.advance(2.0)
            hold.release()
            async for _ in blocks:
                pass

    captured = voices.run(scenario, clock=clock)

    assert captured.turn("speak").time_to_first_audio_s == 1.0
    assert captured.call("tts").attributes[a.STAGELIGHT_STREAM_LONGEST_GAP] == 2.0


@pytest.mark.parametrize("way", ["close", "drop", "raise"])
def test_speech_that_is_cut_short(voices: Voices, script: Any, way: str) -> None:
    """A caller who stops listening abandons the call: the whole text is billed, the seconds are those heard."""

    async def scenario(client: Any) -> None:
        audio = client.text_to_speech.convert(**SPEECH)

        async def reading() -> None:
            async for _ in script.each(audio):
                if way == "raise":
                    raise ZeroDivisionError
                break

        if way == "raise":
            with pytest.raises(ZeroDivisionError):
                await reading()
        else:
            await reading()
        if way == "close":
            await script.now((getattr(audio, "aclose", None) or audio.close)())

    call = voices.run(scenario).call("tts")

    assert (call.outcome, call.error_type, call.cost_status) == ("client_abandoned", None, "estimated")
    assert 0 < call.attributes[a.STAGELIGHT_TTS_AUDIO_SECONDS] <= SECONDS + 0.01


def test_speech_that_breaks(voices: Voices, script: Any) -> None:
    """A connection that is lost while audio comes is the provider's failure."""

    async def scenario(client: Any) -> None:
        async def reading() -> None:
            async for _ in script.each(client.text_to_speech.convert(**SPEECH)):
                pass

        with pytest.raises(httpx.RemoteProtocolError):
            await reading()

    call = voices.run(scenario, fault="stream_cut;after=2").call("tts")

    assert (call.outcome, call.error_type) == ("provider_aborted", "httpx.RemoteProtocolError")
    assert call.attributes[a.STAGELIGHT_STREAM_CHUNKS] == 2


@pytest.mark.parametrize(
    ("asked", "fault", "kind", "status"),
    [
        ({}, "unauthorized", "elevenlabs.core.api_error.ApiError", 401),
        ({}, "rate_limit", "elevenlabs.core.api_error.ApiError", 429),
        ({"text": None}, "", "UnprocessableEntityError", 422),
        ({"output_format": "opus_48000_32"}, "", "elevenlabs.core.api_error.ApiError", 400),
    ],
)
@pytest.mark.parametrize("way", ["convert", "stream_with_timestamps", "convert_with_timestamps"])
def test_a_refused_speech_costs_nothing(
    voices: Voices, script: Any, way: str, asked: dict[str, Any], fault: str, kind: str, status: int
) -> None:
    """The caller gets the client's exception; the call is an error with its class and the HTTP status."""
    errors: list[ApiError] = []

    async def scenario(client: Any) -> None:
        options = {"request_options": {"max_retries": 0}}
        try:
            result = getattr(client.text_to_speech, way)(**{**SPEECH, **asked}, **options)
            if way == "convert_with_timestamps":
                await script.now(result)
            else:
                async for _ in script.each(result):
                    pass
        except ApiError as error:
            errors.append(error)

    call = voices.run(scenario, fault=fault).call("tts")

    assert errors[0].status_code == call.attributes[a.HTTP_RESPONSE_STATUS_CODE] == status
    assert (call.outcome, call.cost) == ("error", None)
    assert str(call.error_type).endswith(kind)
    assert a.STAGELIGHT_USAGE_CHARACTERS not in call.attributes


def test_a_server_that_is_not_there(script: Any) -> None:
    """A call that reaches nobody is an error of the HTTP client's class."""
    with httpx.Client(verify=PLAIN) as http, capture() as captured:
        client = client_of("http://127.0.0.1:9", http)
        with pytest.raises(httpx.ConnectError):
            list(client.text_to_speech.convert(**SPEECH))

    assert (captured.call("tts").outcome, captured.call("tts").error_type) == ("error", "httpx.ConnectError")


_NO_RETRIES = inspect.signature(HttpClient.request).parameters["retries"].default
"""What the client counts from: its first versions took two retries for done."""


async def timed(client: Any, script: Any, options: Any) -> None:
    await script.now(client.text_to_speech.convert_with_timestamps(**SPEECH, request_options=options))


async def transcribed(client: Any, script: Any, options: Any) -> None:
    recording = ("speech.pcm", bytes(64_000))
    await script.now(client.speech_to_text.convert(model_id="scribe_v1", file=recording, request_options=options))


@pytest.mark.parametrize("use", [timed, transcribed])
@pytest.mark.parametrize(
    ("statuses", "attempts", "outcome"),
    [((429, 503), 3, "completed"), ((500, 500), 2, "error"), ((500,), 1, "error")],
    ids=["at last", "never", "refused"],
)
def test_repeated_requests_are_one_call(
    voices: Voices, script: Any, monkeypatch: pytest.MonkeyPatch, use: Any, statuses: Any, attempts: int, outcome: str
) -> None:
    """What the client sends again belongs to one call, which counts it."""
    monkeypatch.setattr("elevenlabs.core.http_client._retry_timeout", lambda **_: 0.0)  # it would wait for seconds

    async def scenario(client: Any) -> None:
        try:
            await use(client, script, {"max_retries": _NO_RETRIES + attempts - 1})
        except ApiError as error:
            assert (outcome, error.status_code) == ("error", 500)  # noqa: PT017 - the other outcome has no exception

    with refusing(*statuses) as simulator:
        captured = Voices(voices.kind, simulator).run(scenario)

        check_retried(captured, simulator, attempts, outcome=outcome)


def test_a_cancelled_speech(simulator: Simulator) -> None:
    """A task that is cancelled while it waits for audio was cancelled, which is no error."""
    hold = simulator.hold("chunk", 2)

    async def scenario(client: Any) -> None:
        async def reading() -> None:
            async for _ in client.text_to_speech.convert(**SPEECH):
                pass

        task = asyncio.create_task(reading())
        await asyncio.to_thread(hold.wait_reached, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        hold.release()

    call = Voices("async", simulator).run(scenario).call("tts")

    assert (call.outcome, call.error_type) == ("cancelled", None)


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


def test_what_is_sent_is_what_is_sent_without_us(voices: Voices, script: Any) -> None:
    """Types, values and every byte and header on the wire are those of the client alone."""

    async def everything(client: Any) -> list[Any]:
        speech, seen = client.text_to_speech, list[Any]()
        for way in ("convert", "stream", "stream_with_timestamps"):
            source = getattr(speech, way)(**SPEECH)
            seen += [
                type(source),
                [item if isinstance(item, bytes) else repr(item) async for item in script.each(source)],
            ]
        answer = await script.now(speech.convert_with_timestamps(**SPEECH))
        seen += [type(answer), answer.model_dump_json()]
        raw = speech.with_raw_response.convert(**SPEECH)
        async with script.inside(raw) as response:
            seen += [type(raw), type(response), type(response.data), type(response._response.stream).__mro__[-2:]]
            seen += [[data async for data in script.each(response.data)]]
        try:
            await script.now(speech.convert_with_timestamps(**{**SPEECH, "text": None}))
        except ApiError as error:
            seen += [type(error), str(error), type(error.__cause__), type(error.__context__)]
        return seen

    def run() -> tuple[list[Any], list[Any]]:
        voices.simulator.forget()
        seen: list[Any] = []

        async def scenario(client: Any) -> None:
            seen.extend(await everything(client))

        voices.run(scenario)
        return seen, voices.simulator.requests

    observed = run()
    ElevenLabsInstrumentor().uninstrument()
    alone = run()
    ElevenLabsInstrumentor().switch_on()

    assert observed[0] == alone[0]
    assert observed[1] == alone[1]
    assert len(alone[1]) == 6


def test_reading_an_answer_by_hand() -> None:
    """``record`` reads an answer with times in a block of the caller's own."""
    times = {"characters": ["a"], "character_start_times_seconds": [0.0], "character_end_times_seconds": [0.5]}
    told = {"audio_base64": "AAAA", "alignment": times}
    answer = construct_type(type_=AudioWithTimestampsResponse, object_=told)
    with capture() as captured, stagelight.tts(provider="elevenlabs", model="eleven_v3") as call:
        call.record(answer)

    assert captured.call("tts").attributes[a.STAGELIGHT_TTS_AUDIO_SECONDS] == 0.5
    assert captured.call("tts").attributes[a.STAGELIGHT_TTS_AUDIO_BYTES] == 3
