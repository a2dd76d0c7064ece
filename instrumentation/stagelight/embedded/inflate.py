"""Request bodies as they arrive: decompressed step by step, never beyond a cap, and counted while they are held."""

from __future__ import annotations

import zlib
from typing import Self

from stagelight.embedded.refusal import BUSY_RETRY_S, Busy, Malformed, TooLarge

__all__ = ["Body", "Budget", "Holding", "inflate"]

_STEP = 1 << 18  # bytes decompressed at a time: a bomb is noticed at most this far beyond the cap
_SLICE = 1 << 16  # bytes given to zlib at a time: it copies what it leaves over, with every step and every member
_MOST_MEMBERS = 16  # OTLP clients send one; each costs as much as a whole small body
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
        self._members = 1
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
            Malformed: the piece is not valid gzip or zlib data, or has too many members.
        """
        self._wire_bytes += len(piece)
        if self._wire_bytes > self._wire_limit:
            raise TooLarge(f"the request is larger than {self._wire_limit} bytes as sent")
        if self._inflater is None:
            self._keep(piece)
            return
        view = memoryview(piece)
        for start in range(0, len(view), _SLICE):
            self._inflater = self._inflate(self._inflater, bytes(view[start : start + _SLICE]))

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

    def _inflate(self, inflater: zlib._Decompress, piece: bytes) -> zlib._Decompress:
        """Decompress a small piece; the inflater of the member it ends in."""
        while piece:
            if inflater.eof:  # a gzip file may have several members
                self._members += 1
                if self._members > _MOST_MEMBERS:
                    raise Malformed(f"the body cannot be decompressed: it has more than {_MOST_MEMBERS} gzip members")
                inflater = zlib.decompressobj(_AUTO)
            try:
                self._keep(inflater.decompress(piece, _STEP))
            except zlib.error as error:
                raise Malformed(f"the body cannot be decompressed: {error}") from None
            piece = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
        return inflater

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
