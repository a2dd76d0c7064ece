"""The simulator against the official ElevenLabs client: every body and message matches the client's models."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from elevenlabs.types import (
    AudioOutput,
    AudioWithTimestampsResponse,
    FinalOutput,
    HttpValidationError,
    SpeechToTextChunkResponseModel,
    StreamingAudioChunkWithTimestampsResponse,
)
from exactness import assert_exact
from stagelight.sim import Simulator
from websockets.sync.client import connect

TEXT = "The tide comes in, the tide goes out."
PLACE = "/v1/text-to-speech/Rachel"


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(seed=7, latency="instant") as simulator:
        yield simulator


@pytest.fixture(scope="module")
def http(sim: Simulator) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sim.origin, headers={"xi-api-key": "any"}, timeout=30) as client:
        yield client


def speak(http: httpx.Client, path: str = "", audio_format: str = "pcm_16000", **more: Any) -> httpx.Response:
    """Ask for speech."""
    asked = {"text": TEXT, "model_id": "eleven_multilingual_v2", **more}
    return http.post(f"{PLACE}{path}", params={"output_format": audio_format}, json=asked)


@pytest.mark.parametrize(
    ("audio_format", "size"),
    [("pcm_16000", 32_000), ("pcm_24000", 48_000), ("wav_16000", 32_000), ("mp3_44100_128", 16_000)],
)
@pytest.mark.parametrize("path", ["", "/stream"])
def test_audio_has_the_length_of_its_text(http: httpx.Client, path: str, audio_format: str, size: int) -> None:
    """One second for 15 characters in every format; the headers say what it took."""
    answer = speak(http, path, audio_format)

    assert len(answer.content) / size == pytest.approx(len(TEXT) / 15, abs=0.05)
    assert answer.headers["character-cost"] == str(len(TEXT))
    assert answer.headers["request-id"]


def test_bodies_with_times_match_the_models(http: httpx.Client) -> None:
    """The whole answer and every line of a streamed one have the fields of the client, and the same audio and times."""
    whole = speak(http, "/with-timestamps").json()
    lines = [json.loads(line) for line in speak(http, "/stream/with-timestamps").text.splitlines() if line]

    assert_exact(whole, AudioWithTimestampsResponse, complete=True)
    for line in lines:
        assert_exact(line, StreamingAudioChunkWithTimestampsResponse, complete=True)
    assert b"".join(b64decode(line["audio_base64"]) for line in lines) == b64decode(whole["audio_base64"])
    spoken = [letter for line in lines if line["alignment"] for letter in line["alignment"]["characters"]]
    assert spoken == whole["alignment"]["characters"] == list(TEXT)
    ends = [line["alignment"]["character_end_times_seconds"][-1] for line in lines if line["alignment"]]
    assert ends[-1] == pytest.approx(whole["alignment"]["character_end_times_seconds"][-1])


def test_a_transcription_matches_the_model(http: httpx.Client) -> None:
    """A recording is heard with words, times and its length."""
    answer = http.post("/v1/speech-to-text", data={"model_id": "scribe_v1"}, files={"file": ("a.pcm", bytes(64_000))})

    assert_exact(answer.json(), SpeechToTextChunkResponseModel)
    assert answer.json()["audio_duration_secs"] == 2.0


def test_the_websocket_speaks_the_models(sim: Simulator) -> None:
    """Messages are those of the client's models: audio for each text, the final one, and an orderly end."""
    address = f"{sim.origin.replace('http', 'ws')}{PLACE}/stream-input?output_format=pcm_16000"
    with connect(address, additional_headers={"xi-api-key": "any"}) as socket:
        for text in (" ", "The tide comes in, ", "the tide goes out. ", ""):
            socket.send(json.dumps({"text": text}))
        told = [json.loads(message) for message in socket]  # ends only when the server closes in order

    for message in told[:-1]:
        assert_exact(message, AudioOutput, complete=True)
    assert_exact(told[-1], FinalOutput, complete=True)
    assert len(told) == 3


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [("", {"text": None}, 422), ("/with-timestamps", {"text": 5}, 422), ("", {"fault": 1}, 401)],
)
def test_errors(http: httpx.Client, path: str, more: dict[str, Any], status: int) -> None:
    """A missing field is a validation error as the client's model has it; a wrong key is told with its status."""
    headers = {"xi-api-key": ""} if status == 401 else {}
    answer = http.post(f"{PLACE}{path}", json={"text": TEXT, **more}, headers=headers)

    assert answer.status_code == status
    if status == 422:
        HttpValidationError.model_validate(answer.json())
    else:
        assert answer.json()["detail"]["status"] == "invalid_api_key"
