"""Waiting for what takes the programs a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

PATIENCE_S = 180.0
"""Machines are slow at times."""


def eventually(
    look: Callable[[], Value], wanted: Callable[[Value], bool], *, within_s: float = PATIENCE_S, every_s: float = 0.1
) -> Value:
    """Look again and again until what is seen is ``wanted``; fails with what was seen last."""
    deadline = time.monotonic() + within_s
    while True:
        seen = look()
        if wanted(seen):
            return seen
        assert time.monotonic() < deadline, f"not seen within {within_s:g} s; last seen: {seen!r}"
        time.sleep(every_s)


def settled(look: Callable[[], Value], expected: Value, *, within_s: float = PATIENCE_S) -> Value:
    """Look until ``expected`` is seen; when time is up, whatever is there, for an assert that shows the difference."""
    deadline = time.monotonic() + within_s
    while (seen := look()) != expected and time.monotonic() < deadline:
        time.sleep(0.2)
    return seen
