"""Speech-like sound: one short tone per letter, silence between words."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from functools import lru_cache
from math import pi, sin
from sys import byteorder
from zlib import crc32

__all__ = ["SAMPLE_RATE", "pcm", "seconds_of", "silent_mp3", "wav_header"]

SAMPLE_RATE = 24_000
"""Samples per second; 16-bit, one channel, as OpenAI's ``pcm`` and ``wav``."""
_CHARACTERS_PER_S = 15  # about 150 English words per minute
_VOWELS = "aeiouyäöüáàâéèêíìîóòôúùû"
_CHUNK_BYTES = 9_600  # 0.2 s
_MP3_RATE, _MP3_SAMPLES, _MP3_FRAMES = 44_100, 1152, 32
_MP3_FRAME = b"\xff\xfb\x90\xc4" + bytes(413)  # header of 128 kbit/s, 44.1 kHz, one channel; nothing in it sounds


def seconds_of(text: str, speed: float = 1.0) -> float:
    """Duration of a spoken text."""
    return len(text) / _CHARACTERS_PER_S / speed


def pcm(text: str, *, voice: str, speed: float = 1.0, rate: int = SAMPLE_RATE) -> Iterator[bytes]:
    """Speak a text in blocks of 9,600 bytes, 0.2 s at the usual rate: 16-bit little-endian samples, one channel.

    Args:
        text: What is spoken; one second of sound per 15 characters.
        voice: Any name; it decides the pitch.
        speed: 0.25 to 4; 2 speaks in half the time.
        rate: Samples per second.
    """
    base = 6 + crc32(voice.encode()) % 8
    samples = round(rate / _CHARACTERS_PER_S / speed)
    pending = bytearray()
    for letter in text.lower():
        pending += _tone(letter, base, samples)
        while len(pending) >= _CHUNK_BYTES:
            yield bytes(pending[:_CHUNK_BYTES])
            del pending[:_CHUNK_BYTES]
    if pending:
        yield bytes(pending)


def wav_header(rate: int = SAMPLE_RATE) -> bytes:
    """Header of a WAV whose length is not known yet: both sizes are the maximum, as OpenAI sends it."""
    layout = struct.pack("<HHIIHH", 1, 1, rate, rate * 2, 2, 16)
    return b"RIFF\xff\xff\xff\xffWAVEfmt \x10\x00\x00\x00" + layout + b"data\xff\xff\xff\xff"


def silent_mp3(text: str) -> Iterator[bytes]:
    """Silence as long as the spoken text, 32 frames of MPEG-1 layer III at a time: no encoder is needed for it."""
    frames = round(seconds_of(text) * _MP3_RATE / _MP3_SAMPLES)
    for begun in range(0, frames, _MP3_FRAMES):
        yield _MP3_FRAME * min(_MP3_FRAMES, frames - begun)


@lru_cache(maxsize=4096)
def _tone(letter: str, base: int, samples: int) -> bytes:
    if not letter.isalnum():
        return bytes(2 * samples)
    is_vowel = letter in _VOWELS
    cycles = base + ord(letter) % 5 if is_vowel else 3 * base + ord(letter) % 11
    loudness = 9000 if is_vowel else 2500
    wave = array("h", (_sample(position / samples, cycles, loudness) for position in range(samples)))
    if byteorder == "big":
        wave.byteswap()
    return wave.tobytes()


def _sample(position: float, cycles: int, loudness: int) -> int:
    """One sample of a tone that swells and fades; whole cycles, so that tones join without a click."""
    angle = 2 * pi * cycles * position
    return round(loudness * sin(pi * position) * (0.7 * sin(angle) + 0.2 * sin(2 * angle) + 0.1 * sin(3 * angle)))
