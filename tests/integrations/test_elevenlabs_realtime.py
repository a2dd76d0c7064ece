"""ElevenLabs' websocket: text goes in while audio comes out; one call from its opening to the last message."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from inspect import isgenerator
from typing import Any

import httpx
import pytest
import stagelight
from elevenlabs import VoiceSettings
from elevenlabs.core.api_error import ApiError
from elevenlabs.realtime_tts import text_chunker
from elevenlabs_clients import PLAIN, client_of
from stagelight.conventions import attributes as a
from stagelight.integrations.elevenlabs import ElevenLabsInstrumentor
from stagelight.sim import Simulator
from stagelight.testing import Captured, Clock, capture
from websockets.exceptions import InvalidStatus

PIECES = ["The tide comes in, ", "the tide goes out. ", "So it goes. "]
SENT = sum(map(len, text_chunker(iter(PIECES))))  # the client adds a blank here and there
SECONDS = SENT / 15  # the simulator speaks 15 characters per second
SPEECH = {
    "voice_id": "Rachel",
    "model_id": "eleven_flash_v2_5",
    "output_format": "pcm_16000",
    "voice_settings": VoiceSettings(stability=0.5),
}

CLIENT = "elevenlabs"
pytestmark = [
    pytest.mark.usefixtures("recorded"),
    pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning"),  # the client reads its code
]


def fault(text: str) -> dict[str, Any]:
    """The keyword that makes the simulator fail."""
    return {"request_options": {"additional_headers": {"x-stagelight-fault": text}}}


def recorded_of(simulator: Simulator, act: Any, *, clock: Clock | None = None) -> Captured:
    """What was recorded of an act with a client."""
    host = simulator.origin.split("//")[1]
    with capture(provider_hosts={host: "elevenlabs"}, clock=clock) as captured:
        with httpx.Client(verify=PLAIN) as http:
            act(client_of(simulator.origin, http).text_to_speech)
        gc.collect()
    return captured


def test_a_whole_conversation(simulator: Simulator) -> None:
    """The client's generator of audio, read to its end, leaves one span."""
    heard: list[bytes] = []

    def act(speech: Any) -> None:
        with stagelight.turn("speak"):
            audio = speech.convert_realtime(text=iter(PIECES), **SPEECH)
            assert isgenerator(audio)
            heard.extend(audio)

    captured = recorded_of(simulator, act, clock=Clock())
    call = captured.call("tts")

    assert {key: value for key, value in call.attributes.items() if ".cost." not in key} == {
        a.STAGELIGHT_STAGE: "tts",
        a.GEN_AI_OPERATION_NAME: "text_to_speech",
        a.GEN_AI_PROVIDER_NAME: "elevenlabs",
        a.GEN_AI_REQUEST_MODEL: "eleven_flash_v2_5",
        a.GEN_AI_REQUEST_STREAM: True,
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: int(simulator.origin.rpartition(":")[2]),
        a.GEN_AI_OUTPUT_TYPE: "speech",
        a.STAGELIGHT_TTS_VOICE: "Rachel",
        a.STAGELIGHT_TTS_FORMAT: "pcm_16000",
        a.STAGELIGHT_TTS_SAMPLE_RATE: 16_000,
        a.STAGELIGHT_TTS_CHARACTERS: SENT,
        a.STAGELIGHT_USAGE_CHARACTERS: SENT,
        a.STAGELIGHT_USAGE_COUNTED: True,
        a.STAGELIGHT_TTS_AUDIO_BYTES: sum(map(len, heard)),
        a.STAGELIGHT_TTS_AUDIO_SECONDS: sum(map(len, heard)) / 32_000,
        a.STAGELIGHT_USAGE_AUDIO_SECONDS: sum(map(len, heard)) / 32_000,
        a.STAGELIGHT_TTS_REAL_TIME_FACTOR: 0.0,
        a.STAGELIGHT_OUTCOME: "completed",
        a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 0.0,
        a.STAGELIGHT_STREAM_CHUNKS: len(heard),
        a.STAGELIGHT_STREAM_LONGEST_GAP: 0.0,
    }
    assert call.attributes[a.STAGELIGHT_TTS_AUDIO_SECONDS] == pytest.approx(SECONDS, abs=0.01)
    assert call.cost_status == "estimated"
    assert captured.turn("speak").time_to_first_audio_s == 0.0


def test_times_tell_how_long_mp3_lasts(simulator: Simulator) -> None:
    """Each message has the times of its characters, counted from its own beginning."""

    def act(speech: Any) -> None:
        list(speech.convert_realtime(text=iter(PIECES), **{**SPEECH, "output_format": "mp3_44100_128"}))

    call = recorded_of(simulator, act).call("tts")

    assert call.attributes[a.STAGELIGHT_TTS_AUDIO_SECONDS] == pytest.approx(SECONDS, abs=0.05)


def test_nothing_is_opened_before_the_caller_asks(simulator: Simulator) -> None:
    """A generator that nobody reads opens no websocket and leaves nothing."""
    simulator.forget()

    captured = recorded_of(simulator, lambda speech: speech.convert_realtime(text=iter(PIECES), **SPEECH))

    assert (captured.spans, simulator.requests) == ((), [])


def test_text_is_asked_for_while_audio_comes(simulator: Simulator) -> None:
    """The first audio reaches the caller before the last text is asked for."""
    order: list[str] = []

    def pieces() -> Iterator[str]:
        while len(order) < 2000 and "audio" not in order[:-1]:
            order.append("text")
            yield f"Piece {len(order)}. "

    def act(speech: Any) -> None:
        for _ in speech.convert_realtime(text=pieces(), **SPEECH):
            order.append("audio")  # noqa: PERF401 - while it is read elsewhere

    recorded_of(simulator, act)

    assert order.index("audio") < len(order) - 1 - order[::-1].index("text")


def test_a_caller_who_stops_listening(simulator: Simulator) -> None:
    """A generator that is left was abandoned; the characters sent so far are counted."""

    def act(speech: Any) -> None:
        for _ in speech.convert_realtime(text=iter(PIECES), **SPEECH):
            break

    call = recorded_of(simulator, act).call("tts")

    assert (call.outcome, call.error_type) == ("client_abandoned", None)
    assert 0 < call.attributes[a.STAGELIGHT_USAGE_CHARACTERS] <= SENT


def test_text_that_fails(simulator: Simulator) -> None:
    """An error in the caller's own text is the caller's, and no failure of the provider."""

    def pieces() -> Iterator[str]:
        yield PIECES[0]
        yield PIECES[1]
        raise ZeroDivisionError

    def act(speech: Any) -> None:
        with pytest.raises(ZeroDivisionError):
            list(speech.convert_realtime(text=pieces(), **SPEECH))

    call = recorded_of(simulator, act).call("tts")

    assert (call.outcome, call.error_type) == ("error", "ZeroDivisionError")


@pytest.mark.parametrize(
    ("name", "outcome"), [("rate_limit", "provider_aborted"), ("stream_error;after=1", "provider_aborted"),
                          ("stream_cut;after=1", "provider_aborted")],
)  # fmt: skip
def test_a_server_that_fails(simulator: Simulator, name: str, outcome: str) -> None:
    """A connection that the server closes with an error is its failure."""

    def act(speech: Any) -> None:
        with pytest.raises(ApiError):
            list(speech.convert_realtime(text=iter(PIECES), **SPEECH, **fault(name)))

    call = recorded_of(simulator, act).call("tts")

    assert (call.outcome, call.error_type) == (outcome, "elevenlabs.core.api_error.ApiError")
    assert a.HTTP_RESPONSE_STATUS_CODE not in call.attributes  # the code of a websocket is none


def test_a_refused_websocket(simulator: Simulator) -> None:
    """A websocket that is not opened is an error with the HTTP status, and costs nothing."""
    with httpx.Client(verify=PLAIN) as http, capture() as captured, pytest.raises(InvalidStatus):
        list(client_of(simulator.origin, http, "").text_to_speech.convert_realtime(text=iter(PIECES), **SPEECH))
    call = captured.call("tts")

    assert (call.outcome, call.error_type, call.cost) == ("error", "websockets.exceptions.InvalidStatus", None)
    assert call.attributes[a.HTTP_RESPONSE_STATUS_CODE] == 401


def test_the_caller_hears_the_same_without_us(simulator: Simulator) -> None:
    """Pieces of audio, and the requests that opened the websocket, are those of the client alone."""

    def run() -> tuple[bytes, list[Any]]:
        simulator.forget()
        heard: list[bytes] = []
        recorded_of(simulator, lambda speech: heard.extend(speech.convert_realtime(text=iter(PIECES), **SPEECH)))
        # The key of a websocket is made by chance.
        sent = [[pair for pair in one.headers if pair[0] != "sec-websocket-key"] for one in simulator.requests]
        return b"".join(heard), sent

    observed = run()
    ElevenLabsInstrumentor().uninstrument()
    alone = run()
    ElevenLabsInstrumentor().switch_on()

    assert observed == alone
