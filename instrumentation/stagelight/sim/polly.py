"""Amazon Polly: ``POST /v1/speech``."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Final

from stagelight.sim.audio import pcm, seconds_of, silent_mp3
from stagelight.sim.aws import AWS, request_headers
from stagelight.sim.models import LATENCIES
from stagelight.sim.wire import Call, Chunk, OpenAIError, Reply

__all__ = ["POLLY", "synthesize"]

_LONGEST: Final = 3000
_RATES: Final = (8000, 16000)
_TYPES: Final = {"pcm": "audio/pcm", "mp3": "audio/mpeg", "json": "application/x-json-stream"}
_ENGINES: Final = ("standard", "neural", "long-form", "generative")
_TAG: Final = re.compile(r"<[^>]*>")

POLLY: Final = AWS._replace(model=lambda fields: str(fields.get("Engine") or "standard"))


def synthesize(call: Call) -> Reply:
    """Speak a text as raw samples, as silence in MP3, or tell when its words begin."""
    call.choice("Engine", _ENGINES)
    text = call.required("Text", str)
    voice = call.required("VoiceId", str)
    kind = call.choice("OutputFormat", _TYPES) or ""
    if not kind:
        raise OpenAIError.invalid("1 validation error detected: Value null at 'outputFormat' must not be null")
    if call.choice("TextType", ("text", "ssml")) == "ssml":
        if not text.strip().startswith("<speak"):
            raise OpenAIError.invalid("Invalid SSML request", code="InvalidSsmlException")
        text = html.unescape(_TAG.sub("", text))
    if len(text) > _LONGEST:
        raise OpenAIError.invalid("Maximum text length has been exceeded", code="TextLengthExceededException")
    rate = int(call.optional("SampleRate", str) or 16_000)
    if kind == "pcm" and rate not in _RATES:
        message = f"Unsupported sample rate: {rate}"
        raise OpenAIError.invalid(message, code="InvalidSampleRateException")
    headers = {**request_headers(call), "x-amzn-requestcharacters": str(len(text))}
    return Reply(_TYPES[kind], _chunks(kind, text, voice, rate), LATENCIES["speech"], streamed=True, headers=headers)


def _chunks(kind: str, text: str, voice: str, rate: int) -> Iterator[Chunk]:
    if kind == "pcm":
        yield from (Chunk(block, len(block) / 2 / rate) for block in pcm(text, voice=voice, rate=rate))
    elif kind == "mp3":
        blocks = list(silent_mp3(text))
        yield from (Chunk(block, seconds_of(text) / len(blocks)) for block in blocks)
    else:
        for word in re.finditer(r"\w+", text):
            at_ms = round(seconds_of(text[: word.start()]) * 1000)
            mark = {"time": at_ms, "type": "word", "start": word.start(), "end": word.end(), "value": word[0]}
            yield Chunk(json.dumps(mark).encode() + b"\n")
