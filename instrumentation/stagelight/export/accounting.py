"""What became of every item: made = delivered + dropped{reason} + queued, per signal."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Literal, NamedTuple

from stagelight._forks import in_every_child

__all__ = ["Account", "Balance", "DropReason", "Signal"]

Signal = Literal["traces", "logs", "metrics"]
DropReason = Literal["queue_full", "export_failed", "export_error", "shutdown", "fork"]


class Balance(NamedTuple):
    """One signal's account at one moment; ``made == delivered + sum(dropped.values()) + queued``."""

    made: int
    delivered: int
    dropped: dict[str, int]
    queued: int


class Account:
    """Counts of one signal; a forked child counts from zero."""

    def __init__(self, signal: Signal) -> None:
        self.signal = signal
        self.restart()
        in_every_child(self.restart)

    def restart(self) -> None:
        """Begin at zero."""
        self._lock = threading.RLock()  # re-entrant: a span may end inside a garbage collection
        self._made = 0
        self._delivered = 0
        self._dropped: Counter[str] = Counter()

    def made(self, items: int = 1) -> None:
        with self._lock:
            self._made += items

    def delivered(self, items: int) -> None:
        with self._lock:
            self._delivered += items

    def dropped(self, items: int, reason: DropReason) -> None:
        if items:
            with self._lock:
                self._dropped[reason] += items

    def balance(self) -> Balance:
        """The account now; what is neither delivered nor dropped is queued or on its way."""
        with self._lock:
            dropped = dict(self._dropped)
            queued = self._made - self._delivered - sum(dropped.values())
            return Balance(self._made, self._delivered, dropped, queued)
