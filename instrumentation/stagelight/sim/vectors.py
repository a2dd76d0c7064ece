"""Embeddings for which similar texts are near: hashed words and letter groups, normalised."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from math import sqrt
from zlib import crc32

from stagelight.sim.language import stems

__all__ = ["embed"]

# Each feature is spread over several places, so that a vector shortened to a few dimensions still holds all of them.
_PLACES = 8


def embed(text: str, *, size: int, dimensions: int) -> array[float]:
    """Embed a text as a unit vector of 32-bit floats.

    Args:
        text: Any text; texts that share words or parts of words are near, in any language that has letters.
        size: Length of the model's full vector.
        dimensions: Length returned, 1 to ``size``: the beginning of the full vector, made a unit vector again.
    """
    vector = [0.0] * size
    for feature, weight in Counter(_features(text)).items():
        share = (1.0 if feature[0] == "w" else 0.35) * sqrt(weight)
        for place, sign in _places(feature, size):
            vector[place] += share * sign
    vector = vector[:dimensions]
    length = sqrt(sum(value * value for value in vector))
    if length == 0.0:
        vector[crc32(text.encode()) % dimensions] = length = 1.0
    return array("f", [value / length for value in vector])


def _features(text: str) -> Iterator[str]:
    words = stems(text) or text.lower().split()
    for word in words:
        yield "w" + word
        padded = f"<{word}>"
        for start in range(len(padded) - 2):
            yield "t" + padded[start : start + 3]


@lru_cache(maxsize=20_000)
def _places(feature: str, size: int) -> tuple[tuple[int, int], ...]:
    code = feature.encode()
    hashes = [crc32(code + bytes([place])) for place in range(_PLACES)]
    return tuple((value % size, 1 if value & 0x80000000 else -1) for value in hashes)
