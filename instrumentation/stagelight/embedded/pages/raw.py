"""A trace as JSON, with everything that was stored."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from decimal import Decimal

from stagelight.sources.model import Trace

__all__ = ["trace_json"]


def trace_json(trace: Trace) -> str:
    """ASCII JSON of the rows of `stagelight.sources.model`; money is text, so that no reader rounds it."""
    try:
        return json.dumps(trace, default=_plain, allow_nan=False, separators=(",", ":"))
    except ValueError:  # JSON has no infinity and no NaN: they become text
        return json.dumps(_finite(trace), allow_nan=False, separators=(",", ":"))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    return list(value) if isinstance(value, tuple | set | frozenset) else str(value)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return _finite(_plain(value))
