"""The official ``elevenlabs`` client, 2.x: speech in every way it has, and transcription of recordings.

Wrapped are the function that all streamed requests pass, the two requests in one piece, and the opening of the
websocket. What the caller gets, generators included, is the client's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from stagelight._lifecycle import Attachment
from stagelight.facts import Request, Response, Stage, Usage
from stagelight.integrations._elevenlabs_audio import Lines, Messages, audio_chunks, rate_of, timed
from stagelight.integrations._elevenlabs_blocks import Streamed, around_socket, around_stream
from stagelight.integrations._engine import Observation, Observed, around, around_async
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target
from stagelight.integrations._reading import amount, count, integer, part, parts, text
from stagelight.integrations._watching import Chunks, UnreadBytes

__all__ = ["ElevenLabsInstrumentor", "read"]

_PROVIDER: Final = "elevenlabs"
_SPEECH: Final = re.compile(r"/?v1/text-to-speech/(?P<voice>[^/]+)(?:/stream)?(?P<timed>/with-timestamps)?")
_SOCKET: Final = re.compile(r".*/v1/text-to-speech/(?P<voice>[^/]+)/stream-input")
_NOT_SENT: Final = frozenset({"Ellipsis", "None"})
"""What the first versions of the client write for a parameter that was not given."""

_MOST_DIGITS: Final = 16


# what was asked


def _server(request: Request, url: Any) -> Request:
    server = urlsplit(url if isinstance(url, str) else "")
    return request._replace(server_address=server.hostname, server_port=None if server.port == 443 else server.port)


def _spoken(voice: Any, sent: Mapping[str, Any], audio_format: Any) -> Request:
    spoken = sent.get("text")
    return Request(
        provider=_PROVIDER,
        model=text(sent.get("model_id")),
        output_type="speech",
        voice=text(voice),
        audio_format=text(audio_format),
        sample_rate=rate_of(text(audio_format)),
        characters=len(spoken) if isinstance(spoken, str) else None,
        seed=integer(sent.get("seed")),
    )


def _base_url(client: Any) -> Any:
    """Where a client sends its requests; the first versions know a place by what is asked."""
    wrapper = part(client, "_client_wrapper")
    told = part(wrapper, "get_base_url")
    return told() if told is not None else wrapper.get_environment().base


def _streamed(client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Streamed | None:
    path = _SPEECH.fullmatch(str(args[0] if args else kwargs.get("path")))
    if path is None:
        return None
    sent = kwargs.get("json")
    request = _spoken(
        unquote(path["voice"]), sent if isinstance(sent, dict) else {}, part(kwargs, "params", "output_format")
    )
    request = _server(request._replace(stream=True), kwargs.get("base_url") or client.base_url())

    def chunks(headers: Any) -> Chunks:
        if path["timed"] is None:
            return audio_chunks(request.audio_format, headers.get("content-encoding"))
        return Lines(request.audio_format) if not headers.get("content-encoding") else UnreadBytes()

    return Streamed(request, lambda headers: _accepted(headers, request), chunks)


def _opened(address: str) -> tuple[Request, Messages] | None:
    url = urlsplit(address)
    path = _SOCKET.fullmatch(url.path)
    if path is None:
        return None
    asked = {name: values[-1] for name, values in parse_qs(url.query).items() if values[-1] not in _NOT_SENT}
    request = _spoken(unquote(path["voice"]), asked, asked.get("output_format"))._replace(stream=True)
    return _server(request, address), Messages(request.audio_format)


class _InOnePiece:
    """A request that is answered at once."""

    def __init__(self, stage: Stage, request: Request) -> None:
        self._observed = Observed(stage, request)
        self._request = request

    def active(self) -> Attachment:
        return Attachment(self._observed.call.context)

    def returned(self, result: Any) -> None:
        observed, answer = self._observed, part(result, "data")
        observed.absorb(_accepted(part(result, "headers") or {}, self._request))
        observed.absorb(_timed(answer, self._request) if self._request.output_type == "speech" else read(answer))
        observed.call.content()
        observed.end()

    def failed(self, error: BaseException) -> None:
        self._observed.fail(error)


def _speech_begun(client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Observation:
    voice = args[0] if args else kwargs.get("voice_id")
    return _InOnePiece("tts", _server(_spoken(voice, kwargs, kwargs.get("output_format")), _base_url(client)))


def _transcription_begun(client: Any, _: tuple[Any, ...], kwargs: dict[str, Any]) -> Observation:
    request = Request(
        provider=_PROVIDER,
        model=text(kwargs.get("model_id")),
        temperature=amount(kwargs.get("temperature")),
        seed=integer(kwargs.get("seed")),
    )
    return _InOnePiece("stt", _server(request, _base_url(client)))


# what came back


def _accepted(headers: Any, request: Request) -> Response:
    """The headers of an answer: its characters are spoken and billed, whatever credits they take from the plan."""
    cost = headers.get("character-cost", "")
    return Response(
        id=text(headers.get("request-id")),
        usage=None if request.characters is None else Usage(characters=request.characters),
        credits=count(int(cost)) if cost.isdecimal() and len(cost) <= _MOST_DIGITS else None,
    )


def _timed(answer: Any, request: Request) -> Response | None:
    return timed(answer, request.audio_format)


def read(response: Any) -> Response | None:
    """The facts of a transcription, or of speech with times; ``None`` for anything else the client returns."""
    if part(response, "audio_base_64") is not None:
        return timed(response, None)
    tracks = parts(response, "transcripts") or [response]
    if part(tracks[0], "words") is None and part(tracks[0], "audio_duration_secs") is None:
        return None
    lengths = [length for track in tracks if (length := _length(track)) is not None]
    return Response(
        id=text(part(response, "transcription_id")),
        usage=Usage(audio_seconds=max(lengths)) if lengths else None,
    )


def _length(track: Any) -> float | None:
    """Seconds of a recording: told by newer answers, else when its last word ends."""
    told = amount(part(track, "audio_duration_secs"))
    words = parts(track, "words")
    return amount(part(words[-1], "end")) if told is None and words else told


# the table


class ElevenLabsInstrumentor(Instrumentor):
    """Records the calls of the official ``elevenlabs`` client."""

    distribution = "elevenlabs"
    supported = "elevenlabs >= 2, < 3"
    coverage = Coverage(
        title="ElevenLabs",
        calls={
            "text_to_speech.convert": "tts",
            "text_to_speech.stream": "tts",
            "text_to_speech.convert_with_timestamps": "tts",
            "text_to_speech.stream_with_timestamps": "tts",
            "text_to_speech.convert_realtime": "tts",
            "speech_to_text.convert": "stt",
        },
        ways="sync and async (`convert_realtime` is sync only); `with_raw_response`; generators stay generators, and"
        " nothing is sent before you ask for the first item",
        recorded=(
            "Speech: voice, format, sample rate, characters, credits, bytes, seconds, and first audio.",
            "Characters are those of the text, which ElevenLabs bills; what the answer says they took from the plan"
            " (`character-cost`) is recorded as credits, whose worth depends on model, voice and plan.",
            "Seconds of audio are counted from `pcm`, `ulaw`, `alaw` and `wav`, and elsewhere read from the times of"
            " the characters where you ask for them.",
            "Characters sent into a websocket are counted by us, because nobody tells what is billed: their cost is an"
            " estimate.",
            "Transcription: the seconds that the answer tells, else the end of its last word.",
        ),
        not_recorded=(
            "The model of a call that names none: ElevenLabs chooses it and does not tell, so such a call is"
            " `unpriced`.",
            "Seconds of `mp3` and `opus` without times of the characters.",
            "Dialogues, sound effects, music, voice changing, dubbing, agents, realtime transcription, and websockets"
            " that you open yourself.",
        ),
    )

    @property
    def targets(self) -> Sequence[Target]:
        stream, http = around_stream(_streamed), "elevenlabs.core.http_client"
        speech, heard = "elevenlabs.text_to_speech.raw_client", "elevenlabs.speech_to_text.raw_client"
        speak = (around(_speech_begun), around_async(_speech_begun))
        hear = (around(_transcription_begun), around_async(_transcription_begun))
        return (
            Target(http, "HttpClient.stream", stream),
            Target(http, "AsyncHttpClient.stream", stream),
            Target(speech, "RawTextToSpeechClient.convert_with_timestamps", *speak),
            Target(speech, "AsyncRawTextToSpeechClient.convert_with_timestamps", *speak),
            Target(heard, "RawSpeechToTextClient.convert", *hear),
            Target(heard, "AsyncRawSpeechToTextClient.convert", *hear),
            Target("elevenlabs.realtime_tts", "connect", around_socket(_opened)),
        )
