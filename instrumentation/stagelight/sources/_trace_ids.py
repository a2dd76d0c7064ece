"""Which trace is meant by its id or the first digits of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

__all__ = ["choose", "prefix_of"]

_PREFIX: Final = re.compile(r"[0-9a-f]{6,32}")
_SHOWN: Final = 5


def prefix_of(trace_id: str) -> str:
    """The digits in lower case.

    Raises:
        ValueError: not hex, or shorter than 6 digits.
    """
    prefix = trace_id.strip().lower()
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"trace id {trace_id!r}: accepted are 6 to 32 hexadecimal digits")
    return prefix


def choose(trace_id: str, found: Sequence[str]) -> str | None:
    """The one trace among those that begin so, or None.

    Args:
        trace_id: as it was given.
        found: up to 6 ids.

    Raises:
        ValueError: there are several.
    """
    if len(found) > 1:
        some = ", ".join(found[:_SHOWN])
        more = ", ..." if len(found) > _SHOWN else ""
        raise ValueError(f"trace id {trace_id!r} is the start of several: {some}{more}")
    return found[0] if found else None
