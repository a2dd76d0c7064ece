"""Doing several things at once within one deadline, whatever they do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from stagelight._guard import guard

__all__ = ["all_within"]


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
