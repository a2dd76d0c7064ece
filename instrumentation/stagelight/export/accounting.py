"""What became of every item: made = delivered + dropped{reason} + queued, per signal."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Literal, NamedTuple

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
    """Counts of one signal."""

    def __init__(self, signal: Signal) -> None:
        self.signal = signal
        self._lock = threading.Lock()
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
        with self._lock:
            self._dropped[reason] += items

    def balance(self) -> Balance:
        """The account now; what is neither delivered nor dropped is queued or on its way."""
        with self._lock:
            dropped = dict(self._dropped)
            queued = self._made - self._delivered - sum(dropped.values())
            return Balance(self._made, self._delivered, dropped, queued)

    def restart(self) -> None:
        """Begin at zero, as a forked child must."""
        self.__init__(self.signal)  # type: ignore[misc]  # the lock may have been held by another thread at the fork
