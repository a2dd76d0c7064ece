"""The package's only clock: wall time for timestamps, a monotonic one for durations; tests replace both.

Call these through the module (``_clock.wall_ns()``), so that a fake clock takes effect everywhere at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["seconds", "use", "wall_ns"]

wall_ns: Callable[[], int] = time.time_ns
"""Unix time in nanoseconds."""

seconds: Callable[[], float] = time.perf_counter
"""Monotonic seconds; only differences mean something."""


@contextmanager
def use(wall: Callable[[], int], monotonic: Callable[[], float]) -> Iterator[None]:
    """Replace both clocks for a block."""
    global wall_ns, seconds
    before = wall_ns, seconds
    wall_ns, seconds = wall, monotonic
    try:
        yield
    finally:
        wall_ns, seconds = before
