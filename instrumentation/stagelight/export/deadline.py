"""Finishing several things within one deadline, whatever they do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from stagelight._guard import guard

__all__ = ["Askable", "all_answered", "all_within", "once"]


class Askable(Protocol):
    """Has a thread of its own that sends."""

    def ask(self) -> int:
        """Ask for everything recorded so far to be sent at once."""

    def answered(self, asked: int, timeout_s: float) -> bool:
        """Wait until what was asked for is settled; whether it was, in time."""


def all_answered(timeout_s: float, parts: Iterable[Askable]) -> bool:
    """Ask all parts at once and wait for them, until the deadline at the latest; starts no thread.

    Returns:
        Whether every part answered in time.
    """
    deadline = time.monotonic() + timeout_s
    asked = [(part, part.ask()) for part in parts]
    answers = [part.answered(number, max(deadline - time.monotonic(), 0.0)) for part, number in asked]
    return all(answers)


def all_within(timeout_s: float, works: Iterable[Callable[[float], bool]]) -> bool:
    """Run each work in a daemon thread with the time that is left, and return at the deadline at the latest.

    Returns:
        Whether every work finished in time and said it succeeded.
    """
    deadline = time.monotonic() + timeout_s
    finished: list[bool] = []

    def run(work: Callable[[float], bool]) -> None:
        with guard("flush"):
            finished.append(work(max(deadline - time.monotonic(), 0.0)))

    threads = [threading.Thread(target=run, args=(work,), name="stagelight-flush", daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))
    return len(finished) == len(threads) and all(finished)


def once(work: Callable[[], object]) -> Callable[[], None]:
    """``work`` that is done by the first call only: exporters complain of a second shutdown."""
    left = [work]

    def run() -> None:
        if left:
            left.pop()()

    return run
