"""Reading foreign records: objects of a client or parsed JSON, whatever a server put there."""

from __future__ import annotations

from typing import Any

__all__ = ["amount", "count", "part", "parts", "text", "texts"]


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
    """A non-empty text, or ``None``."""
    return value if isinstance(value, str) and value else None


def texts(value: Any) -> tuple[str, ...] | None:
    """One text or a list of texts, or ``None``."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(one, str) for one in value):
        return tuple(value)
    return None


def count(value: Any) -> int | None:
    """An integer >= 0, or ``None``."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def amount(value: Any) -> float | None:
    """A number, or ``None``."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
