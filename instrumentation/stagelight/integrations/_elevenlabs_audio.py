"""Audio as ElevenLabs sends it: bytes, lines of JSON, or messages of a websocket; what its format and times tell."""

from __future__ import annotations

import json
from typing import Any, Final

from stagelight.facts import Response, Usage
from stagelight.integrations._audio import Length, Pcm, Wav
from stagelight.integrations._reading import amount, part, parts
from stagelight.integrations._watching import AudioBytes, Chunks, UnreadBytes

__all__ = ["Lines", "Messages", "audio_chunks", "parsed", "rate_of", "timed"]

_BYTES_PER_SAMPLE: Final = {"pcm": 2, "ulaw": 1, "alaw": 1}
"""Formats without a header, one channel: https://elevenlabs.io/docs/api-reference/text-to-speech/convert"""

_LONGEST_LINE: Final = 8_388_608
_MS: Final = 1000


def rate_of(audio_format: str | None) -> int | None:
    """Samples per second that a format names: ``mp3_44100_128``."""
    told = (audio_format or "").split("_")
    return int(told[1]) if len(told) > 1 and told[1].isdecimal() and len(told[1]) < 8 else None


def _length_of(audio_format: str | None) -> Length | None:
    codec, rate = (audio_format or "").partition("_")[0], rate_of(audio_format)
    if codec == "wav":
        return Wav()
    return Pcm(rate * _BYTES_PER_SAMPLE[codec]) if codec in _BYTES_PER_SAMPLE and rate is not None else None


def audio_chunks(audio_format: str | None, encoding: str | None) -> Chunks:
    """What takes the bytes of an answer that is audio."""
    return AudioBytes(_length_of(audio_format)) if encoding in {None, "", "identity"} else UnreadBytes()


class _Timed(UnreadBytes):
    """Takes pieces of audio in base64 and the times of their characters."""

    def __init__(self, audio_format: str | None) -> None:
        codec, rate = (audio_format or "").partition("_")[0], rate_of(audio_format)
        samples = _BYTES_PER_SAMPLE.get(codec)
        self._bytes_per_s = None if samples is None or rate is None else samples * rate
        self._bytes = 0
        self._end_s = 0.0

    def piece(self, audio: Any, end_s: float | None) -> bool:
        """Take one piece and when its last character ends, in seconds from the beginning of the audio."""
        length = len(audio) * 3 // 4 - audio[-2:].count("=") if isinstance(audio, str) else 0
        self._bytes += length
        self._end_s = max(self._end_s, end_s or 0.0)
        return length > 0

    def response(self) -> Response | None:
        counted = self._bytes / self._bytes_per_s if self._bytes_per_s is not None else self._end_s
        usage = Usage(audio_seconds=counted) if counted else None
        return Response(usage=usage, audio_bytes=self._bytes or None)


def _ends_at(told: Any) -> float | None:
    """When the last character of a piece ends, in seconds; the times of the spoken text, else of the given one."""
    for name in ("normalized_alignment", "alignment"):
        ends = part(told, name, "character_end_times_seconds")
        if isinstance(ends, list) and ends:
            return amount(ends[-1])
    return None


def timed(told: Any, audio_format: str | None) -> Response | None:
    """What a whole answer with times tells."""
    audio = part(told, "audio_base_64") or part(told, "audio_base64")
    chunks = _Timed(audio_format)
    chunks.piece(audio, _ends_at(told))
    return chunks.response()


class Lines(_Timed):
    """Takes the bytes of an answer in lines of JSON."""

    def __init__(self, audio_format: str | None) -> None:
        super().__init__(audio_format)
        self._line = bytearray()

    def take(self, chunk: Any) -> bool:
        *ended, rest = chunk.split(b"\n")
        has_audio = False
        for line in ended:
            has_audio = self._read(bytes(self._line) + line) or has_audio
            self._line.clear()
        if len(self._line) <= _LONGEST_LINE:
            self._line += rest
        return has_audio

    def _read(self, line: bytes) -> bool:
        try:
            told = json.loads(line)
        except ValueError:  # the client leaves such a line out
            return False
        return self.piece(part(told, "audio_base64"), _ends_at(told))

    def response(self) -> Response | None:
        if self._line:
            self._read(bytes(self._line))
            self._line.clear()
        return super().response()


class Messages(_Timed):
    """Takes the records of a websocket that have audio, and counts the characters sent into it."""

    def __init__(self, audio_format: str | None) -> None:
        super().__init__(audio_format)
        self._sent = 0
        self._begun = False

    def sent(self, message: Any) -> None:
        """The client sent a message; the first one is a blank that opens the stream."""
        spoken = part(parsed(message), "text")
        if self._begun and isinstance(spoken, str):
            self._sent += len(spoken)
        self._begun = True

    def take(self, chunk: Any) -> bool:
        lasts = _lasts(chunk)  # times count from the beginning of each piece
        return self.piece(part(chunk, "audio"), None if lasts is None else self._end_s + lasts)

    def response(self) -> Response | None:
        told = super().response() or Response()
        usage = told.usage or Usage()
        # Nobody tells what is billed, so the cost is an estimate.
        counted = usage._replace(characters=self._sent, counted=True) if self._sent else told.usage
        return told._replace(usage=counted)


def _lasts(told: Any) -> float | None:
    for name in ("normalizedAlignment", "alignment"):
        starts, durations = (parts(part(told, name), key) for key in ("charStartTimesMs", "charDurationsMs"))
        start, duration = (amount(times[-1]) if times else None for times in (starts, durations))
        if start is not None and duration is not None:
            return (start + duration) / _MS
    return None


def parsed(message: Any) -> Any:
    """The record in a message; ``None`` when there is none."""
    try:
        return json.loads(message)
    except (ValueError, TypeError):
        return None
