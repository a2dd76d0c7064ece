"""Reading foreign records: objects of a client or parsed JSON, whatever a server put there."""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["amount", "code", "count", "integer", "part", "parts", "text", "texts"]

_MOST_CHARACTERS: Final = 256
_MOST_TEXTS: Final = 16
_LIMIT: Final = 2**53
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def part(record: Any, *path: str) -> Any:
    """The value at ``path`` in nested objects or mappings; ``None`` where there is none."""
    for name in path:
        record = record.get(name) if isinstance(record, dict) else getattr(record, name, None)
        if record is None:
            return None
    return record


def parts(record: Any, name: str) -> list[Any]:
    """The list at ``name``; empty where there is none."""
    found = part(record, name)
    return found if isinstance(found, list) else []


def text(value: Any) -> str | None:
    """The first 256 characters of a non-empty text, or ``None``."""
    return value[:_MOST_CHARACTERS] if isinstance(value, str) and value else None


def texts(value: Any) -> tuple[str, ...] | None:
    """One text or the first 16 of a list of texts, each shortened like ``text``; ``None`` where there is none."""
    given = value if isinstance(value, list | tuple) else [value]
    return tuple(found for one in given[:_MOST_TEXTS] if (found := text(one)) is not None) or None


def code(value: Any, otherwise: str) -> str:
    """A short machine-readable code; ``otherwise`` for anything else: a sentence may repeat what was sent."""
    return value if isinstance(value, str) and _CODE.fullmatch(value) else otherwise


def count(value: Any) -> int | None:
    """A whole number from 0 to 2**53, which is exact in every number format; ``None`` for anything else.

    Some servers write one as ``28.0``.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LIMIT else None


def integer(value: Any) -> int | None:
    """An integer of 64 bits, or ``None``."""
    return value if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63 else None


def amount(value: Any) -> float | None:
    """A number between -2**53 and 2**53, or ``None``."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LIMIT else None
