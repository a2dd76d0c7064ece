"""Length of audio, counted while its bytes pass: constant memory, no byte kept but an unfinished header."""

from __future__ import annotations

import struct
from typing import Final, Protocol

__all__ = ["PCM_BYTES_PER_S", "Length", "Pcm", "Wav"]

PCM_BYTES_PER_S: Final = 48_000
"""OpenAI's ``pcm``: 24 kHz, 16 bit, one channel. https://platform.openai.com/docs/guides/text-to-speech"""

_LONGEST_HEADER: Final = 65_536  # a WAV header with its optional chunks; beyond it this is no audio we can read
_UNKNOWN_SIZES: Final = frozenset({0, 0x7FFF_FFFF, 0xFFFF_FFFF})  # written before the length is known
_RIFF_BYTES: Final = 12
_CHUNK_BYTES: Final = 8


class Length(Protocol):
    """Takes audio bytes and knows how long they last."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""

    @property
    def seconds(self) -> float | None:
        """Duration so far in seconds; ``None`` when it cannot be told."""


class Pcm:
    """Raw samples at a known rate."""

    def __init__(self, bytes_per_s: int = PCM_BYTES_PER_S) -> None:
        self._bytes_per_s = bytes_per_s
        self._bytes = 0

    def feed(self, data: bytes) -> None:
        self._bytes += len(data)

    @property
    def seconds(self) -> float | None:
        return self._bytes / self._bytes_per_s if self._bytes else None


class Wav:
    """WAV: the rate is in the header, the length is what really came."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._total = 0
        self._begin: int | None = None
        self._bytes_per_s = 0
        self._declared: int | None = None

    def feed(self, data: bytes) -> None:
        self._total += len(data)
        if self._begin is None:
            self._header += data[: _LONGEST_HEADER - len(self._header)]
            self._begin = self._samples_begin(bytes(self._header))
            if self._begin is not None:
                self._header.clear()

    def _samples_begin(self, header: bytes) -> int | None:
        """Where the samples begin; ``None`` while the header is not complete."""
        at = _RIFF_BYTES
        if len(header) < at:
            return None
        if header[:4] != b"RIFF" or header[8:12] != b"WAVE":
            return 0  # no WAV: no rate, so no seconds
        while at + _CHUNK_BYTES <= len(header):
            size: int = struct.unpack_from("<I", header, at + 4)[0]
            name = header[at : at + 4]
            if name == b"data":
                self._declared = size if size not in _UNKNOWN_SIZES else None
                return at + _CHUNK_BYTES
            if name == b"fmt " and at + 20 <= len(header):
                self._bytes_per_s = struct.unpack_from("<I", header, at + 16)[0]
            at += _CHUNK_BYTES + size + size % 2
        if len(header) >= _LONGEST_HEADER:
            self._bytes_per_s = 0
            return 0
        return None

    @property
    def seconds(self) -> float | None:
        if not self._bytes_per_s or self._begin is None or self._total <= self._begin:
            return None
        samples = self._total - self._begin
        return (samples if self._declared is None else min(samples, self._declared)) / self._bytes_per_s
