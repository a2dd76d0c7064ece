"""Request bodies as they arrive: decompressed step by step, never beyond a cap, and counted while they are held."""

from __future__ import annotations

import zlib
from typing import Self

from stagelight.embedded.refusal import BUSY_RETRY_S, Busy, Malformed, TooLarge

__all__ = ["Body", "Budget", "Holding", "inflate"]

_STEP = 1 << 18  # bytes decompressed at a time: a bomb is noticed at most this far beyond the cap
_AUTO = 32 + zlib.MAX_WBITS  # gzip or zlib, told apart by their header


class Budget:
    """Bytes of request bodies that may be held at one time, by all requests together."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    def hold(self) -> Holding:
        """A block that holds bytes; they are given back when it ends."""
        return Holding(self)


class Holding:
    """The bytes that one request holds of a budget."""

    __slots__ = ("_budget", "_held")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._held = 0

    def grow_to(self, size: int) -> None:
        """Hold ``size`` bytes from now on.

        Raises:
            Busy: all requests together would hold more than the budget.
        """
        budget = self._budget
        if budget.held_bytes + size - self._held > budget.limit_bytes:
            raise Busy(f"requests under way hold {budget.held_bytes} bytes already", retry_after_s=BUSY_RETRY_S)
        budget.held_bytes += size - self._held
        self._held = size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.held_bytes -= self._held
        self._held = 0


class Body:
    """One body, fed with pieces as sent.

    Args:
        compressed: whether the pieces are gzip or zlib data.
        wire_limit: largest size as sent, bytes.
        limit: largest size after decompression, bytes.
    """

    def __init__(self, *, compressed: bool, wire_limit: int, limit: int) -> None:
        self._inflater = zlib.decompressobj(_AUTO) if compressed else None
        self._wire_limit = wire_limit
        self._limit = limit
        self._wire_bytes = 0
        self._content = bytearray()

    @property
    def size(self) -> int:
        """Bytes held."""
        return len(self._content)

    def feed(self, piece: bytes) -> None:
        """Add a piece.

        Raises:
            TooLarge: a cap is exceeded; nothing beyond it was decompressed.
            Malformed: the piece is not valid gzip or zlib data.
        """
        self._wire_bytes += len(piece)
        if self._wire_bytes > self._wire_limit:
            raise TooLarge(f"the request is larger than {self._wire_limit} bytes as sent")
        if self._inflater is None:
            self._keep(piece)
            return
        while piece:
            try:
                self._keep(self._inflater.decompress(piece, _STEP))
            except zlib.error as error:
                raise Malformed(f"the body cannot be decompressed: {error}") from None
            piece = self._inflater.unconsumed_tail
            if self._inflater.eof:
                piece = self._inflater.unused_data
                if piece:  # a gzip file may have several members
                    self._inflater = zlib.decompressobj(_AUTO)

    def finish(self) -> bytes:
        """The whole body.

        Raises:
            TooLarge, Malformed: as ``feed``; also when compressed data ends too early.
        """
        if self._inflater is not None and self._wire_bytes:
            self._keep(self._inflater.flush())
            if not self._inflater.eof:
                raise Malformed("the body cannot be decompressed: it ends too early")
        return bytes(self._content)

    def _keep(self, part: bytes) -> None:
        if len(self._content) + len(part) > self._limit:
            raise TooLarge(f"the request is larger than {self._limit} bytes when decompressed")
        self._content += part


def inflate(message: bytes, *, wire_limit: int, limit: int) -> bytes:
    """A gRPC message, decompressed when it is gzip or zlib data.

    The kind is read from the first bytes: 0x1f would be an invalid protobuf tag, and 0x78 a field that no OTLP
    request has, so a plain request never looks compressed.

    Raises:
        TooLarge, Malformed: as ``Body``.
    """
    compressed = message[:2] == b"\x1f\x8b" or (
        len(message) > 1 and message[0] == 0x78 and int.from_bytes(message[:2]) % 31 == 0
    )
    body = Body(compressed=compressed, wire_limit=wire_limit, limit=limit)
    body.feed(message)
    return body.finish()
