"""Gates: the server stops at a point of a response until the test lets it go on."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Literal, Self

__all__ = ["Hold", "Holds", "Point"]

Point = Literal["response", "chunk"]
"""Where to stop: before the response begins, or before one of its chunks."""

_POLL_S = (
    0.002  # a hold is released from another thread; looking is simpler than waking the loop and as exact as needed
)


class Hold:
    """One gate. As a context manager it releases itself at the end of the block."""

    def __init__(self, point: Point, number: int, path: str | None) -> None:
        self._key = (point, number)
        self._path = path
        self._reached = threading.Event()
        self._released = threading.Event()

    def wait_reached(self, timeout_s: float = 5.0) -> bool:
        """Block until a response stands at the gate; false when none did within the timeout, in seconds."""
        return self._reached.wait(timeout_s)

    def release(self) -> None:
        """Let everything pass, now and later. May be called again."""
        self._released.set()

    def stops(self, point: Point, number: int, path: str) -> bool:
        """Say whether a response that has come to this point must wait here."""
        return self._key == (point, number) and self._path in (None, path) and not self._released.is_set()

    async def passed(self) -> None:
        """Wait at the gate until it is released."""
        self._reached.set()
        while not self._released.is_set():  # noqa: ASYNC110  # set from another thread, see _POLL_S
            await asyncio.sleep(_POLL_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Holds:
    """All gates of a server."""

    def __init__(self) -> None:
        self._holds: list[Hold] = []

    def add(self, point: Point, number: int, path: str | None) -> Hold:
        """Make a gate.

        Args:
            point: ``response`` or ``chunk``.
            number: Which chunk, 1 is the first; of no meaning for ``response``.
            path: Only responses of this path, such as ``/v1/audio/speech``; ``None`` is every path.
        """
        hold = Hold(point, number if point == "chunk" else 1, path)
        self._holds.append(hold)
        return hold

    def release(self) -> None:
        """Release all gates and forget them."""
        while self._holds:
            self._holds.pop().release()

    async def passed(self, point: Point, number: int, path: str) -> None:
        """Wait at the gates that stand at this point."""
        for hold in [hold for hold in self._holds if hold.stops(point, number, path)]:
            await hold.passed()
