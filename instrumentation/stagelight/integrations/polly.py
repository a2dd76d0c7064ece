"""Amazon Polly through ``boto3``: speech, watched while the caller reads it; also ``aiobotocore`` 3."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from stagelight.facts import Request, Response, Usage
from stagelight.integrations._audio import Pcm
from stagelight.integrations._botocore import Asked, Given, request_id, targets
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target
from stagelight.integrations._reading import count, text
from stagelight.integrations._watching import AudioBytes, Chunks, UnreadBytes

__all__ = ["OPERATIONS", "PollyInstrumentor", "read"]

_PROVIDER: Final = "aws.polly"
_ENGINE: Final = "standard"
"""What speaks when no engine is named: https://docs.aws.amazon.com/polly/latest/dg/API_SynthesizeSpeech.html"""

_RATES: Final[Mapping[str, tuple[int, int]]] = {"pcm": (16_000, 2), "mulaw": (8_000, 1), "alaw": (8_000, 1)}
"""Formats without a header: usual samples per second, bytes per sample; one channel. Same source."""

_TAG: Final = re.compile(r"<[^>]*>")
_MARKS: Final = "json"


class _Marks(UnreadBytes):
    """Times of words: they are billed as speech, and no sound."""

    def take(self, chunk: Any) -> bool:
        del chunk
        return False


def _characters(given: Given) -> int | None:
    """Length of what is spoken; the tags of SSML are not."""
    spoken = given.get("Text")
    if not isinstance(spoken, str):
        return None
    return len(html.unescape(_TAG.sub("", spoken))) if given.get("TextType") == "ssml" else len(spoken)


def _rate(given: Given) -> int | None:
    told = given.get("SampleRate")
    if isinstance(told, str) and told.isdecimal() and len(told) < 8:
        return int(told)
    usual = _RATES.get(str(given.get("OutputFormat")))
    return None if usual is None else usual[0]


def _synthesize(given: Given) -> Asked:
    engine, audio_format = text(given.get("Engine")), text(given.get("OutputFormat"))
    rate, samples = _rate(given), _RATES.get(audio_format or "")
    request = Request(
        provider=_PROVIDER,
        model=engine,
        output_type="json" if audio_format == _MARKS else "speech",
        voice=text(given.get("VoiceId")),
        audio_format=audio_format,
        sample_rate=rate,
        characters=_characters(given),
    )

    def chunks(_: Any) -> Chunks:
        if audio_format == _MARKS:
            return _Marks()
        return AudioBytes(None if samples is None or rate is None else Pcm(rate * samples[1]))

    def response(result: Given) -> Response | None:
        told = read(result)
        return told if told is None or engine is not None else told._replace(model=_ENGINE)

    return Asked("tts", request, response, member="AudioStream", chunks=chunks)


def read(response: Any) -> Response | None:
    """The facts of an answer, whose characters are those that are billed; ``None`` for anything else."""
    if not isinstance(response, dict) or "AudioStream" not in response:
        return None
    characters = count(response.get("RequestCharacters"))
    return Response(id=request_id(response), usage=None if characters is None else Usage(characters=characters))


OPERATIONS: Final[Mapping[str, Callable[[Given], Asked | None]]] = {"SynthesizeSpeech": _synthesize}
"""What is recorded, by operation."""


class PollyInstrumentor(Instrumentor):
    """Records the speech of Polly's clients made by ``boto3``, ``botocore`` and ``aiobotocore``."""

    distribution = "botocore"
    supported = "botocore >= 1.38, < 2"
    package = "builtins"  # answers are plain records
    coverage = Coverage(
        title="Amazon Polly (boto3)",
        calls={"synthesize_speech": "tts"},
        ways="sync, and async by `aiobotocore` 3; read whole, in pieces or as lines; the call ends at the last byte",
        recorded=(
            "Voice, format, sample rate, billed characters, bytes, and first audio.",
            "Characters are those that Polly bills (`RequestCharacters`): tags of SSML are not among them.",
            "The model is the engine, `standard` where none is named, as Polly's documentation has it.",
            "Seconds of audio are counted from `pcm`, `mulaw` and `alaw` as the bytes pass.",
            "Speech marks (`json`) are billed as speech; they are no audio.",
        ),
        not_recorded=(
            "Seconds of `mp3` and `ogg`, whose length is only known when they are decoded.",
            "Tasks that write to S3 (`start_speech_synthesis_task`), and the bidirectional stream.",
        ),
    )

    @property
    def targets(self) -> Sequence[Target]:
        return targets("polly", OPERATIONS)
