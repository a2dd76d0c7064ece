"""``POST /v1/audio/transcriptions`` and ``/translations``: as many words as fit into the audio, never what was said."""

from __future__ import annotations

import io
import math
import wave
from collections.abc import Iterator
from typing import Any

from stagelight.sim.language import tokens
from stagelight.sim.models import LATENCIES, Model, model
from stagelight.sim.wire import Call, Chunk, OpenAIError, Reply, compact, event

__all__ = ["transcription", "translation"]

_CHARACTERS_PER_S = 15  # as the simulator speaks
_AUDIO_TOKENS_PER_S = 10
_BYTES_PER_S = 16_000  # of what is no WAV: 128 kbit/s
_SAID = "The tide comes in and the tide goes out, and nobody knows how long that has been so. "
_FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
_PLAIN = {"text": "text/plain; charset=utf-8", "srt": "text/plain; charset=utf-8", "vtt": "text/plain; charset=utf-8"}


def transcription(call: Call) -> Reply:
    """Transcribe a file; models billed by tokens can stream."""
    return _heard(call, "transcribe")


def translation(call: Call) -> Reply:
    """Translate a file to English."""
    if model(call.model, kind="transcription").id != "whisper-1":
        raise OpenAIError.invalid(f"Model {call.model} does not support translation.", param="model")
    return _heard(call, "translate")


def _heard(call: Call, task: str) -> Reply:
    row = model(call.model, kind="transcription")
    by_duration = row.id.startswith("whisper")
    upload = call.body.get("file")
    if not isinstance(upload, bytes):
        message = "Missing required parameter: 'file'."
        raise OpenAIError.invalid(message, param="file", code="missing_required_parameter")
    form = call.choice("response_format", _FORMATS) or "json"
    if not by_duration and form not in {"json", "text"}:
        message = f"response_format '{form}' is not compatible with model '{row.id}'. Use 'json' or 'text' instead."
        raise OpenAIError.invalid(message, param="response_format", code="unsupported_value")
    seconds = _seconds(upload)
    length = round(seconds * _CHARACTERS_PER_S)
    text = (_SAID * (1 + length // len(_SAID)))[:length].strip()
    usage = _usage(call, seconds, text, by_duration=by_duration) if call.faults.get("missing_usage") is None else None
    if call.body.get("stream") == "true" and not by_duration:
        return _reply(call, "text/event-stream; charset=utf-8", _events(text, usage), row, streamed=True)
    kind, body = _answer(form, task, text, seconds, usage)
    return _reply(call, kind, iter([Chunk(body, len(tokens(text)))]), row)


def _reply(call: Call, kind: str, chunks: Iterator[Chunk], row: Model, *, streamed: bool = False) -> Reply:
    return Reply(kind, chunks, LATENCIES[row.latency], streamed=streamed, headers=call.headers(0))


def _seconds(upload: bytes) -> float:
    try:
        with wave.open(io.BytesIO(upload)) as audio:
            # A header written before the length was known says the maximum.
            frames = min(audio.getnframes(), len(upload) // (audio.getsampwidth() * audio.getnchannels()))
            return float(frames / audio.getframerate())
    except (wave.Error, EOFError):
        return len(upload) / _BYTES_PER_S


def _usage(call: Call, seconds: float, text: str, *, by_duration: bool) -> dict[str, Any]:
    if by_duration:
        return {"type": "duration", "seconds": math.ceil(seconds)}
    heard = round(seconds * _AUDIO_TOKENS_PER_S)
    asked, said = len(tokens(str(call.body.get("prompt", "")))), len(tokens(text))
    return {
        "type": "tokens",
        "input_tokens": heard + asked,
        "input_token_details": {"text_tokens": asked, "audio_tokens": heard},
        "output_tokens": said,
        "total_tokens": heard + asked + said,
    }


def _events(text: str, usage: dict[str, Any] | None) -> Iterator[Chunk]:
    for token in tokens(text):
        yield Chunk(event({"type": "transcript.text.delta", "delta": token}), 1)
    done: dict[str, Any] = {"type": "transcript.text.done", "text": text}
    yield Chunk(event(done if usage is None else {**done, "usage": usage}))


def _answer(form: str, task: str, text: str, seconds: float, usage: dict[str, Any] | None) -> tuple[str, bytes]:
    if form in _PLAIN:
        end = f"00:00:{seconds:06.3f}"
        cues = {
            "text": f"{text}\n",
            "srt": f"1\n00:00:00,000 --> {end.replace('.', ',')}\n{text}\n\n",
            "vtt": f"WEBVTT\n\n00:00.000 --> {end.removeprefix('00:')}\n{text}\n\n",
        }
        return _PLAIN[form], cues[form].encode()
    body: dict[str, Any] = {"text": text}
    if form == "verbose_json":
        segment = {
            "id": 0, "seek": 0, "start": 0.0, "end": seconds, "text": text, "tokens": [50364], "temperature": 0.0,
            "avg_logprob": -0.25, "compression_ratio": 1.2, "no_speech_prob": 0.01,
        }  # fmt: skip
        body = {"task": task, "language": "english", "duration": seconds, "text": text, "segments": [segment]}
    return "application/json", compact(body if usage is None else {**body, "usage": usage})
