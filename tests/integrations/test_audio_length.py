"""The length of audio, counted while it passes, whatever the pieces it comes in."""

from __future__ import annotations

import io
import struct
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stagelight.integrations._audio import Pcm, Wav


def a_wav(seconds: float, rate: int = 8_000, channels: int = 2) -> bytes:
    """A WAV file as the standard library writes it."""
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(round(seconds * rate) * channels * 2))
    return written.getvalue()


def length(data: bytes, cuts: list[int]) -> float | None:
    """The length of data that comes cut into pieces."""
    wav, last = Wav(), 0
    for cut in [*sorted(cuts), len(data)]:
        wav.feed(data[last:cut])
        last = max(last, cut)
    return wav.seconds


@given(st.lists(st.integers(0, 600), max_size=20))
def test_any_pieces_give_the_same_length(cuts: list[int]) -> None:
    """However a file is cut, it lasts as long."""
    assert length(a_wav(0.25), cuts) == 0.25


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_length_that_was_not_known_in_time(size: int) -> None:
    """A header written before the end says nothing about the length; what came does."""
    data = bytearray(a_wav(0.5))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)

    assert length(bytes(data), [3, 50]) == 0.5


def test_what_follows_the_samples_is_no_sound() -> None:
    """Chunks after the samples are not counted, and those before them are skipped."""
    plain = a_wav(0.5)
    at = plain.index(b"data")
    listed = b"LIST" + struct.pack("<I", 5) + b"title\0"
    data = plain[:at] + listed + plain[at:] + listed

    assert length(data, [10, 40, 41, 60]) == 0.5


@pytest.mark.parametrize("data", [b"", b"RIFF", b"ID3 this is no wav at all, but mp3", bytes(200_000), a_wav(1)[:44]])
def test_what_is_no_wav_has_no_length(data: bytes) -> None:
    """What cannot be read, or has no samples yet, has no length."""
    assert length(data, [1, 5, 70_000]) is None


def test_a_header_without_end_is_given_up() -> None:
    """A header is held up to 64 KiB, not for ever."""
    endless = b"RIFF\0\0\0\0WAVE" + b"junk" + struct.pack("<I", 1 << 30) + bytes(300_000)
    wav = Wav()
    for at in range(0, len(endless), 1000):
        wav.feed(endless[at : at + 1000])

    assert wav.seconds is None
    assert len(wav._header) == 0


def test_raw_samples() -> None:
    """Raw samples of OpenAI are 48,000 bytes per second."""
    pcm = Pcm()
    assert pcm.seconds is None
    pcm.feed(bytes(24_000))
    pcm.feed(bytes(12_000))

    assert pcm.seconds == 0.75
