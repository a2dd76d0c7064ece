"""The ranges of time a page can show, and how often a live page asks again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from stagelight.sources.model import Window

__all__ = ["DEFAULT", "RANGES", "Range", "today"]

_MINUTE_NS = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Range:
    """A range that ends now, in equal steps."""

    name: str
    """In the address: ``1h``."""
    label: str
    words: str
    """In a sentence: ``in the last hour``."""
    minutes: int
    steps: int
    refresh_s: int
    """Seconds between two looks at the store of a live page: longer for ranges that cost more to sum."""

    def window(self, now_ns: int) -> Window:
        """The range on a grid of its steps, so that a refresh moves whole steps; the last step is still filling."""
        step_ns = self.minutes * _MINUTE_NS // self.steps
        until_ns = (now_ns // step_ns + 1) * step_ns
        return Window(until_ns - self.steps * step_ns, until_ns)


DEFAULT = "1h"
RANGES = {
    row.name: row
    for row in (
        Range("15m", "15 min", "in the last 15 minutes", 15, 60, 3),
        Range("1h", "1 h", "in the last hour", 60, 60, 3),
        Range("24h", "24 h", "in the last 24 hours", 1_440, 48, 10),
        Range("7d", "7 d", "in the last 7 days", 10_080, 56, 30),
        Range("30d", "30 d", "in the last 30 days", 43_200, 60, 60),
    )
}


def today(now_ns: int) -> Window:
    """From midnight of this machine's time zone until now."""
    now = datetime.fromtimestamp(now_ns / 1e9, UTC).astimezone()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return Window(int(midnight.timestamp()) * 1_000_000_000, now_ns + 1)
