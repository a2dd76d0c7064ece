"""Calls of ElevenLabs that are cut short, break, are refused, repeated or cancelled."""

from __future__ import annotations

import inspect
from typing import Any

import httpx
import pytest
from elevenlabs.core.api_error import ApiError
from elevenlabs.core.http_client import HttpClient
from elevenlabs_clients import PLAIN, client_of
from integrations.cancelling import cancel_while_held
from integrations.elevenlabs_speeches import SECONDS, SPEECH, Voices
from retrying import check_retried, refusing
from stagelight.conventions import attributes as a
from stagelight.sim import Simulator
from stagelight.testing import capture

CLIENT = "elevenlabs"
pytestmark = pytest.mark.usefixtures("recorded")


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

        await cancel_while_held(reading(), hold)

    call = Voices("async", simulator).run(scenario).call("tts")

    assert (call.outcome, call.error_type) == ("cancelled", None)
