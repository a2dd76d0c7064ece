"""What reading stored telemetry can still run into: senders may store anything, and one record must not end it all."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Final

__all__ = ["UNEXPECTED", "outline"]

UNEXPECTED: Final[tuple[type[Exception], ...]] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Errors of a program that met a value it does not expect."""

_FRAMES: Final = 5


def outline(error: BaseException) -> str:
    """The class of an error and where it arose, innermost place first; its message may hold content."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    places = ", ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places}" if places else type(error).__name__
