"""Every way of using Amazon Polly."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any, Self

from noninterference.aws import kinds, opening
from noninterference.uses import FAULTS, Client, Use, now

__all__ = ["CLIENT"]

SPEECH: dict[str, Any] = {
    "Text": "The tide comes in.", "VoiceId": "Joanna", "OutputFormat": "pcm", "Engine": "neural",
}  # fmt: skip


async def _read(client: Any) -> Any:
    answer = await now(client.synthesize_speech(**SPEECH))
    return await now(answer["AudioStream"].read())


class _Even:
    """Pieces of one size out of pieces that are as long as what had arrived: those differ in any two runs.

    Errors and closing lose what is left over; a piece that is longer than was asked for is an error.
    """

    def __init__(self, stream: AsyncIterable[bytes], size: int) -> None:
        self._pieces: Any = aiter(stream)
        self._size = size
        self._left = b""

    def __repr__(self) -> str:
        return f"{self._size} bytes each of {self._pieces!r}"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while len(self._left) < self._size:
            try:
                piece = await anext(self._pieces)
            except StopAsyncIteration:
                if not self._left:
                    raise
                break
            except Exception:
                self._left = b""
                raise
            assert 0 < len(piece) <= self._size
            self._left += piece
        given, self._left = self._left[: self._size], self._left[self._size :]
        return given

    async def aclose(self) -> None:
        self._left = b""
        await self._pieces.aclose()

    async def athrow(self, error: Exception) -> Any:
        self._left = b""
        return await self._pieces.athrow(error)


def _in_pieces(answer: Any) -> Any:
    pieces = answer["AudioStream"].iter_chunks(512)
    return _Even(pieces, 512) if hasattr(pieces, "__aiter__") else pieces


def _iterated(answer: Any) -> Any:
    audio = answer["AudioStream"]
    return _Even(audio, 1024) if hasattr(audio, "__aiter__") else audio


SPEAK = "synthesize_speech"

USES = (
    Use(SPEAK, _read, "read"),
    Use(SPEAK, lambda client: client.synthesize_speech(**SPEECH), "in pieces", _in_pieces, first=1),
    Use(SPEAK, lambda client: client.synthesize_speech(**SPEECH), "iterated", _iterated),
    Use(SPEAK, lambda client: client.synthesize_speech(**{**SPEECH, "Text": ""}), "refused", fails=True),
)

CLIENT = Client(
    "polly",
    "PollyInstrumentor",
    ("botocore",),
    opening("polly"),
    USES,
    provider="aws.polly",
    faults=FAULTS,
    kinds=kinds,
)
