"""ElevenLabs: speech in one piece, streamed, with times and by websocket, and transcription of recordings."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from math import ceil
from typing import Any, Final

from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from stagelight.sim.audio import pcm, seconds_of, silent_mp3, wav_header
from stagelight.sim.faults import Faults
from stagelight.sim.holds import Holds
from stagelight.sim.models import LATENCIES
from stagelight.sim.wire import Call, Chunk, Dialect, OpenAIError, Reply, compact

__all__ = ["ELEVENLABS", "ENDPOINTS", "STREAM_INPUT", "converse"]

_USUAL: Final = "eleven_multilingual_v2"
_FORMAT: Final = "mp3_44100_128"
_TYPES: Final = {"mp3": "audio/mpeg", "pcm": "audio/pcm", "wav": "audio/wav"}
_LONGEST: Final = 10_000
_HEARD: Final = "The tide comes in, the tide goes out."
_BYTES_PER_S: Final = 32_000  # recordings are taken for samples of 16 kHz, 16 bit, one channel

_STATES: Final = {
    400: "invalid_request", 401: "invalid_api_key", 403: "only_for_creator+", 404: "voice_not_found",
    429: "too_many_concurrent_requests",
}  # fmt: skip


def _refusal(error: OpenAIError, id_: str) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    headers = {"request-id": id_.removeprefix("req_")[:20]}
    if error.status == 422:
        place = ["body", error.error["param"]]
        return {"detail": [{"loc": place, "msg": str(error), "type": error.error["code"], "input": None}]}, headers
    state = error.error["code"] if error.status == 400 and error.error["code"] else _STATES.get(error.status)
    return {"detail": {"status": state or "internal_server_error", "message": str(error)}}, headers


ELEVENLABS: Final = Dialect(
    is_authorised=lambda headers: bool(headers.get("xi-api-key")),
    refusal=_refusal,
    model=lambda fields: str(fields.get("model_id") or _USUAL),
    in_query=("output_format",),
)


# speech by HTTP


def _text(call: Call) -> str:
    text = call.body.get("text")
    if not isinstance(text, str):
        kind, message = (
            ("missing", "Field required") if text is None else ("string_type", "Input should be a valid string")
        )
        raise OpenAIError(422, message, kind="invalid_request_error", param="text", code=kind)
    if len(text) > _LONGEST:
        message = f"The text has {len(text)} characters; the model takes {_LONGEST}."
        raise OpenAIError.invalid(message, code="max_character_limit_exceeded")
    return text


def _format(call: Call) -> tuple[str, int]:
    told = call.optional("output_format", str) or _FORMAT
    codec, rate = ([*told.split("_"), ""])[:2]
    if codec not in _TYPES or not rate.isdecimal():
        raise OpenAIError.invalid(f"The simulator does not speak {told!r}.", code="output_format_not_allowed")
    return codec, int(rate)


def _headers(call: Call, text: str) -> dict[str, str]:
    per_character = 0.5 if any(kind in call.model for kind in ("flash", "turbo")) else 1.0
    identity = {"request-id": call.id("", "request", length=20), "history-item-id": call.id("", "history", length=20)}
    return {**identity, "character-cost": str(ceil(len(text) * per_character))}


def _audio(text: str, voice: str, codec: str, rate: int) -> Iterator[tuple[bytes, float]]:
    """Blocks of audio and how long each lasts."""
    if codec == "mp3":
        blocks = list(silent_mp3(text))
        yield from ((block, seconds_of(text) / len(blocks)) for block in blocks)
        return
    header = wav_header(rate) if codec == "wav" else b""
    for block in pcm(text, voice=voice, rate=rate):
        yield header + block, len(block) / 2 / rate
        header = b""


def _speech(call: Call) -> Reply:
    text, (codec, rate) = _text(call), _format(call)
    chunks = (Chunk(block, lasts) for block, lasts in _audio(text, str(call.body["voice"]), codec, rate))
    return Reply(_TYPES[codec], chunks, LATENCIES["speech"], streamed=True, headers=_headers(call, text))


def _times(text: str, begin_s: float = 0.0) -> dict[str, Any]:
    return {
        "characters": list(text),
        "character_start_times_seconds": [begin_s + seconds_of(text[:at]) for at in range(len(text))],
        "character_end_times_seconds": [begin_s + seconds_of(text[: at + 1]) for at in range(len(text))],
    }


def _timed_speech(call: Call) -> Reply:
    text, (codec, rate) = _text(call), _format(call)
    audio = b"".join(block for block, _ in _audio(text, str(call.body["voice"]), codec, rate))
    body = {"audio_base64": b64encode(audio).decode(), "alignment": _times(text), "normalized_alignment": _times(text)}
    chunks = [Chunk(compact(body), seconds_of(text))]
    return Reply("application/json", chunks, LATENCIES["speech"], headers=_headers(call, text))


def _timed_stream(call: Call) -> Reply:
    text, (codec, rate) = _text(call), _format(call)
    lines = _lines(text, str(call.body["voice"]), codec, rate)
    return Reply("text/event-stream", lines, LATENCIES["speech"], streamed=True, headers=_headers(call, text))


def _lines(text: str, voice: str, codec: str, rate: int) -> Iterator[Chunk]:
    said, at_s = 0, 0.0
    for block, lasts in _audio(text, voice, codec, rate):
        ends = min(len(text), round((at_s + lasts) / seconds_of(text) * len(text)))
        times = _times(text[said:ends], seconds_of(text[:said])) if ends > said else None
        line = {"audio_base64": b64encode(block).decode(), "alignment": times, "normalized_alignment": times}
        yield Chunk(compact(line) + b"\n\n", lasts)
        said, at_s = ends, at_s + lasts


# transcription


def _transcription(call: Call) -> Reply:
    heard = call.body.get("file")
    if not isinstance(heard, bytes):
        raise OpenAIError(422, "Field required", kind="invalid_request_error", param="file", code="missing")
    seconds = len(heard) / _BYTES_PER_S
    spoken = _HEARD.split(" ")
    words = [
        {
            "text": word,
            "start": round(seconds * at / len(spoken), 3),
            "end": round(seconds * (at + 1) / len(spoken), 3),
            "type": "word",
            "speaker_id": None,
            "logprob": 0.0,
            "characters": None,
        }
        for at, word in enumerate(spoken)
    ]
    body = {
        "language_code": "eng",
        "language_probability": 0.99,
        "text": _HEARD,
        "words": words,
        "transcription_id": call.id("", "transcription", length=20),
        "audio_duration_secs": seconds,
    }
    headers = {"request-id": call.id("", "request", length=20)}
    return Reply("application/json", [Chunk(compact(body), 1.0)], LATENCIES["embedding"], headers=headers)


_PLACE: Final = "/v1/text-to-speech/{voice}"
STREAM_INPUT: Final = f"{_PLACE}/stream-input"
ENDPOINTS: Final[Mapping[str, Callable[[Call], Reply]]] = {
    _PLACE: _speech,
    f"{_PLACE}/stream": _speech,
    f"{_PLACE}/with-timestamps": _timed_speech,
    f"{_PLACE}/stream/with-timestamps": _timed_stream,
    "/v1/speech-to-text": _transcription,
}
"""What answers each path."""


# speech by websocket


async def converse(socket: WebSocket, faults: Faults, holds: Holds) -> None:
    """Speak text as it comes in, one message of audio for each message of text."""
    if not ELEVENLABS.is_authorised(socket.headers):
        await socket.send_denial_response(Response(compact({"detail": {"status": "invalid_api_key"}}), 401))
        return
    await socket.accept()
    refused = faults.get("rate_limit") or faults.get("quota")
    if refused is not None:
        await _fail(socket, 1008, "This request exceeds your quota of concurrent requests.")
        return
    with suppress(WebSocketDisconnect):  # the client may leave
        await _speak(socket, faults, holds)


async def _speak(socket: WebSocket, faults: Faults, holds: Holds) -> None:
    failing, cut = faults.get("stream_error"), faults.get("stream_cut")
    codec, rate = ([*(socket.query_params.get("output_format") or _FORMAT).split("_"), ""])[:2]
    voice, number = str(socket.path_params["voice"]), 0
    await socket.receive_json()  # the first message opens the stream
    while text := (await socket.receive_json()).get("text"):
        number += 1
        await holds.passed("chunk", number, socket.url.path)
        if failing is not None and number == failing["after"] + 1:
            await _fail(socket, 1011, "The server had an error.")
            return
        if cut is not None and number == cut["after"] + 1:
            await socket.close(1011)
            return
        audio = b"".join(block for block, _ in _audio(text, voice, codec, int(rate)))
        times = _milliseconds(text)
        await socket.send_text(
            json.dumps({"audio": b64encode(audio).decode(), "normalizedAlignment": times, "alignment": times})
        )
    await socket.send_text(json.dumps({"isFinal": True}))
    await socket.close(1000)


def _milliseconds(text: str) -> dict[str, Any]:
    each = seconds_of("x") * 1000
    return {
        "charStartTimesMs": [round(at * each) for at in range(len(text))],
        "charDurationsMs": [round(each)] * len(text),
        "chars": list(text),
    }


async def _fail(socket: WebSocket, code: int, message: str) -> None:
    await socket.send_text(json.dumps({"message": message, "error": "error", "code": code}))
    await socket.close(code)
