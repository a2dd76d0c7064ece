"""How a stream's chunks come: the first, how many, and the gaps between them."""

from __future__ import annotations

__all__ = ["Pace"]

_GAPS_AT_ONCE = 256
"""Gaps between chunks kept before they are handed over, so that a stream of any length takes constant memory."""


class Pace:
    """Chunks of one call; made at the first one.

    Args:
        now_s: when that came, in seconds of our clock.
    """

    __slots__ = ("chunks", "first_s", "gaps_s", "last_s", "longest_gap_s")

    def __init__(self, now_s: float) -> None:
        self.chunks = 1
        self.first_s = self.last_s = now_s
        self.gaps_s: list[float] = []
        self.longest_gap_s: float | None = None

    def tick(self, now_s: float) -> tuple[float, ...]:
        """Another chunk has come: gaps that are to be handed over now, most often none."""
        gap = now_s - self.last_s
        self.chunks += 1
        self.last_s = now_s
        self.gaps_s.append(gap)
        if self.longest_gap_s is None or gap > self.longest_gap_s:
            self.longest_gap_s = gap
        if len(self.gaps_s) < _GAPS_AT_ONCE:
            return ()
        gaps, self.gaps_s = tuple(self.gaps_s), []
        return gaps
