"""``POST /v1/audio/speech``: audio bytes at the pace of a model that speaks."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator

from stagelight.sim.audio import SAMPLE_RATE, pcm, wav_header
from stagelight.sim.language import tokens
from stagelight.sim.models import LATENCIES, model
from stagelight.sim.wire import Call, Chunk, OpenAIError, Reply, event

__all__ = ["speech"]

_LONGEST = 4096
_AUDIO_TOKENS_PER_S = 20
_CONTENT_TYPES = {"wav": "audio/wav", "pcm": "audio/pcm"}


def speech(call: Call) -> Reply:
    """Speak a text as WAV or raw PCM."""
    row = model(call.model, kind="speech")
    text = call.required("input", str)
    if not 0 < len(text) <= _LONGEST:
        side, bound = ("at least", 1) if not text else ("at most", _LONGEST)
        code = "string_below_min_length" if not text else "string_above_max_length"
        message = f"Invalid 'input': string has {len(text)} characters. Expected {side} {bound}."
        raise OpenAIError.invalid(message, param="input", code=code)
    speed = call.number("speed", float, 0.25, 4) or 1.0
    voice = _voice(call.body.get("voice"))
    audio_format = call.optional("response_format", str) or "mp3"
    if audio_format not in _CONTENT_TYPES:
        message = f"The simulator does not speak '{audio_format}'. Supported values are: 'wav' and 'pcm'."
        raise OpenAIError.invalid(message, param="response_format", code="unsupported_value")
    chunks = _chunks(text, voice, speed, with_header=audio_format == "wav")
    headers = call.headers(len(text) // 4)
    if call.choice("stream_format", ("audio", "sse")) == "sse":
        if row.id.startswith("tts-1"):
            message = f"stream_format 'sse' is not supported for model '{row.id}'."
            raise OpenAIError.invalid(message, param="stream_format", code="unsupported_value")
        events = _events(text, chunks)
        return Reply("text/event-stream", events, LATENCIES[row.latency], streamed=True, headers=headers)
    return Reply(_CONTENT_TYPES[audio_format], chunks, LATENCIES[row.latency], streamed=True, headers=headers)


def _events(text: str, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    seconds = 0.0
    for chunk in chunks:
        seconds += chunk.work
        audio = b64encode(chunk.data).decode()
        yield Chunk(event({"type": "speech.audio.delta", "audio": audio}), chunk.work)
    asked, made = len(tokens(text)), round(seconds * _AUDIO_TOKENS_PER_S)
    usage = {"input_tokens": asked, "output_tokens": made, "total_tokens": asked + made}
    yield Chunk(event({"type": "speech.audio.done", "usage": usage}))


def _voice(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("id")
    if not isinstance(value, str) or not value:
        raise OpenAIError.invalid(
            "Missing required parameter: 'voice'.", param="voice", code="missing_required_parameter"
        )
    return value


def _chunks(text: str, voice: str, speed: float, *, with_header: bool) -> Iterator[Chunk]:
    blocks = pcm(text, voice=voice, speed=speed)
    if with_header:
        first = next(blocks)
        yield Chunk(wav_header() + first, len(first) / 2 / SAMPLE_RATE)
    for block in blocks:
        yield Chunk(block, len(block) / 2 / SAMPLE_RATE)
