"""Transcription, speech as events and Azure's paths: every body holds exactly what the client's models know."""

import io
import json
import wave
from collections.abc import Iterator
from typing import Any

import pytest
from exactness import assert_exact
from openai import AzureOpenAI, BadRequestError, OpenAI
from openai.types.audio import Transcription, TranscriptionStreamEvent, TranscriptionVerbose
from openai.types.chat import ChatCompletion
from stagelight.sim import Simulator


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(seed=7, latency="instant") as simulator:
        yield simulator


@pytest.fixture(scope="module")
def client(sim: Simulator) -> Iterator[OpenAI]:
    with OpenAI(base_url=sim.url, api_key="any", max_retries=0, timeout=30) as made:
        yield made


def sound(seconds: float = 2.5) -> tuple[str, bytes]:
    """A silent WAV."""
    into = io.BytesIO()
    with wave.open(into, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(16_000)
        audio.writeframes(bytes(2 * round(16_000 * seconds)))
    return "speech.wav", into.getvalue()


@pytest.mark.parametrize(
    ("model", "extra", "kind"),
    [
        ("whisper-1", {}, Transcription),
        ("whisper-1", {"response_format": "verbose_json"}, TranscriptionVerbose),
        ("gpt-4o-transcribe", {"prompt": "About the sea.", "temperature": 0.2}, Transcription),
    ],
)
def test_transcripts(client: OpenAI, model: str, extra: dict[str, Any], kind: Any) -> None:
    """A transcript is what the client's models know, and says for what it is billed."""
    answer = client.audio.transcriptions.with_raw_response.create(model=model, file=sound(), **extra)
    body = json.loads(answer.text)

    assert_exact({key: value for key, value in body.items() if key != "task"}, kind)
    assert body["usage"]["type"] == ("duration" if model == "whisper-1" else "tokens")


def test_a_streamed_transcript(client: OpenAI) -> None:
    """Its events are those the client knows; the deltas are the text."""
    raw = client.audio.transcriptions.with_raw_response.create(model="gpt-4o-transcribe", file=sound(), stream=True)
    lines = raw.http_response.read().decode().splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    for event in events:
        assert_exact(event, TranscriptionStreamEvent)

    assert "".join(event["delta"] for event in events[:-1]) == events[-1]["text"]


@pytest.mark.parametrize(("form", "begin"), [("text", "The tide"), ("srt", "1\n00:00:00,000"), ("vtt", "WEBVTT\n")])
def test_plain_transcripts(client: OpenAI, form: Any, begin: str) -> None:
    """Transcripts that are no JSON are text."""
    said = client.audio.transcriptions.create(model="whisper-1", file=sound(), response_format=form)

    assert isinstance(said, str)
    assert said.startswith(begin)


@pytest.mark.parametrize(
    ("model", "extra"),
    [("gpt-4o-transcribe", {"response_format": "srt"}), ("whisper-1", {"response_format": "wrong"})],
)
def test_refused_transcripts(client: OpenAI, model: str, extra: Any) -> None:
    """A format that the model does not have is refused as the provider does."""
    with pytest.raises(BadRequestError, match=r"response_format|Supported values"):
        client.audio.transcriptions.create(model=model, file=sound(), **extra)


def test_speech_as_events(client: OpenAI) -> None:
    """Audio comes in base64, and the last event says what it was billed for."""
    asked = {"model": "gpt-4o-mini-tts", "voice": "coral", "input": "Tides.", "response_format": "pcm"}
    heard = client.audio.speech.create(**asked, stream_format="sse")
    events = [json.loads(line.removeprefix("data: ")) for line in heard.text.splitlines() if line]

    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    assert (events[-1]["type"], sorted(events[-1]["usage"])) == (
        "speech.audio.done",
        ["input_tokens", "output_tokens", "total_tokens"],
    )
    with pytest.raises(BadRequestError, match="stream_format"):
        client.audio.speech.create(**{**asked, "model": "tts-1"}, stream_format="sse")


def test_azure(sim: Simulator) -> None:
    """A deployment answers as the model that its name contains, and takes Azure's header for the key."""
    with AzureOpenAI(azure_endpoint=sim.origin, api_key="any", api_version="2025-04-01-preview") as client:
        messages: Any = [{"role": "user", "content": "Hi"}]
        raw = client.chat.completions.with_raw_response.create(model="our-gpt-4o-mini", messages=messages)
        assert_exact(json.loads(raw.text), ChatCompletion)

    assert json.loads(raw.text)["model"] == "gpt-4o-mini-2024-07-18"
    assert sim.requests[-1].path == "/openai/deployments/our-gpt-4o-mini/chat/completions"
    assert sim.requests[-1].header("authorization") is None


@pytest.mark.parametrize("new_ids", [False, True])
def test_ids_of_a_request_that_came_before(new_ids: bool) -> None:
    """The same request has the same id, or one of its own where that is wanted; two simulators agree."""
    seen: list[list[str]] = []
    for _ in range(2):
        with (
            Simulator(seed=7, latency="instant", new_ids=new_ids) as simulator,
            OpenAI(base_url=simulator.url, api_key="any", timeout=30) as client,
        ):
            asked: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
            seen.append([client.chat.completions.create(**asked).id for _ in range(3)])

    assert seen[0] == seen[1]
    assert len(set(seen[0])) == (3 if new_ids else 1)
