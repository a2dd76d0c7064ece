"""What OpenAI's audio endpoints are asked and answer: speech, and what is heard in a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from stagelight.facts import Request, Response, Usage
from stagelight.integrations._audio import Pcm, Wav
from stagelight.integrations._reading import amount, count, part, text
from stagelight.integrations._requests import Operation
from stagelight.integrations._watching import AudioBytes, Chunks, UnreadBytes

__all__ = ["SPEECH", "TRANSCRIPTION", "heard"]

Body = Mapping[str, Any]

_BILLED_PER_CHARACTER = ("tts-1", "tts-1-hd")
"""Models whose billed quantity is the input's length, which the request itself tells."""

_KNOWN_PCM = frozenset({"openai", "azure.ai.openai"})
"""Providers whose raw samples have the rate that OpenAI documents; another server's may have any."""


# speech


def _speech_request(sent: Body) -> Request:
    spoken, voice = sent.get("input"), sent.get("voice")
    return Request(
        model=text(sent.get("model")),
        output_type="speech",
        voice=text(voice) or text(part(voice, "id")),
        audio_format=text(sent.get("response_format")),
        characters=len(spoken) if isinstance(spoken, str) else None,
    )


def _speech_response(_audio: Any, request: Request) -> Response:
    is_billed = (request.model or "").startswith(_BILLED_PER_CHARACTER)
    return Response(usage=Usage(characters=request.characters) if is_billed else None)


def _speech_bytes(request: Request, headers: Mapping[str, str]) -> Chunks:
    if headers.get("content-encoding", "identity") == "identity":
        if request.audio_format == "wav" or "wav" in headers.get("content-type", ""):
            return AudioBytes(Wav())
        if request.audio_format == "pcm" and request.provider in _KNOWN_PCM:
            return AudioBytes(Pcm())
        return AudioBytes()
    return UnreadBytes()


class _SpeechEvents:
    """Speech sent as events (``stream_format="sse"``): the last one tells the tokens."""

    streamed: ClassVar[bool] = True
    failure: str | None = None

    def __init__(self) -> None:
        self.finished = False
        self._usage: Usage | None = None

    def take(self, chunk: Any) -> bool:
        kind = part(chunk, "type")
        if kind == "speech.audio.done":
            self.finished = True
            asked, made = count(part(chunk, "usage", "input_tokens")), count(part(chunk, "usage", "output_tokens"))
            self._usage = Usage(
                input_tokens=asked, output_tokens=made, text_input_tokens=asked, audio_output_tokens=made
            )
        return kind == "speech.audio.delta" and bool(part(chunk, "audio"))

    def response(self) -> Response | None:
        return None if self._usage is None else Response(usage=self._usage)


# what is heard


def _heard_request(sent: Body) -> Request:
    return Request(
        model=text(sent.get("model")),
        stream=True if sent.get("stream") is True else None,
        temperature=amount(sent.get("temperature")),
    )


def heard(answer: Any, _request: Request | None = None) -> Response:
    """The usage of an answer, or of the last event of a stream: tokens, or the seconds that are billed."""
    told = part(answer, "usage")
    details = part(told, "input_token_details")
    seconds = _seconds(part(told, "seconds"))
    usage = Usage(
        input_tokens=count(part(told, "input_tokens")),
        output_tokens=count(part(told, "output_tokens")),
        audio_input_tokens=count(part(details, "audio_tokens")),
        text_input_tokens=count(part(details, "text_tokens")),
        audio_seconds=_seconds(part(answer, "duration")) if seconds is None else seconds,
    )
    return Response(usage=None if usage == Usage() else usage)


def _seconds(value: Any) -> float | None:
    if isinstance(value, str):  # as some servers, and the client's early models, have it
        try:
            value = float(value)
        except ValueError:
            return None
    found = amount(value)
    return found if found is not None and found >= 0 else None


class _HeardEvents:
    streamed: ClassVar[bool] = True
    failure: str | None = None

    def __init__(self) -> None:
        self.finished = False
        self._told: Response | None = None

    def take(self, chunk: Any) -> bool:
        kind = part(chunk, "type")
        if kind == "transcript.text.done":
            self.finished = True
            self._told = heard(chunk)
        return kind == "transcript.text.delta" and bool(part(chunk, "delta"))

    def response(self) -> Response | None:
        return self._told


def _has_text(answer: Any) -> bool:
    return bool(answer if isinstance(answer, str) else part(answer, "text"))


SPEECH = Operation("tts", _speech_request, _speech_response, items=_SpeechEvents, binary=_speech_bytes)
TRANSCRIPTION = Operation("stt", _heard_request, heard, has_content=_has_text, items=_HeardEvents)
"""Transcription and translation."""
