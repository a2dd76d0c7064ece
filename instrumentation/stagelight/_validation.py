"""What users may give about a call: wrong values are one misuse each and are left out, never guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from stagelight._guard import misuse
from stagelight.facts import Retrieved, Usage

__all__ = ["checked_price", "checked_retrieved", "checked_score", "checked_text", "checked_usage"]

_SECONDS = frozenset({"audio_seconds", "compute_seconds"})


def checked_usage(quantities: Mapping[str, Any]) -> dict[str, Any]:
    """The accepted quantities of ``usage()``."""
    accepted: dict[str, Any] = {}
    for name, value in quantities.items():
        if name not in Usage._fields:
            misuse("unknown_key", f"usage(): unknown quantity {name!r}; accepted: {', '.join(Usage._fields)}")
        elif value is None:
            continue
        elif name == "counted":
            accepted[name] = bool(value)
        elif name == "cache_write_tokens" and isinstance(value, Mapping):
            if all(_is_count(f"{name}[{key!r}]", count) for key, count in value.items()):
                accepted[name] = {str(key): int(count) for key, count in value.items()}
        elif name in _SECONDS:
            if _is_amount(name, value):
                accepted[name] = float(value)
        elif _is_count(name, value):
            accepted[name] = int(value)
    return accepted


def _is_count(name: str, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int):
        misuse("type", f"usage(): {name} is {value!r}; accepted: an integer >= 0")
        return False
    if value < 0:
        misuse("range", f"usage(): {name} is {value!r}; accepted: an integer >= 0")
        return False
    return True


def _is_amount(name: str, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        misuse("type", f"usage(): {name} is {value!r}; accepted: a number of seconds >= 0")
        return False
    if not math.isfinite(value) or value < 0:
        misuse("range", f"usage(): {name} is {value!r}; accepted: a number of seconds >= 0")
        return False
    return True


def checked_retrieved(
    scores: Sequence[float] | None, count: int | None, metric: str | None, higher_is_better: bool | None
) -> Retrieved | None:
    """The accepted results of a search."""
    try:
        values = tuple(float(score) for score in scores or ())
    except (TypeError, ValueError):
        misuse("type", f"results(): scores is {scores!r}; accepted: a sequence of numbers")
        values = ()
    finite = tuple(value for value in values if math.isfinite(value))
    if len(finite) < len(values):
        misuse("range", "results(): scores has a value that is not finite; accepted: finite numbers")
    if count is None and scores is None:
        misuse("type", "results(): neither scores nor count is given; accepted: at least one of them")
        return None
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
        misuse("type", f"results(): count is {count!r}; accepted: an integer >= 0")
        return None
    number = len(values) if count is None else count
    return Retrieved(count=number, scores=finite, metric=metric, higher_is_better=higher_is_better)


def checked_price(amount: Any, currency: str) -> Decimal | None:
    """The accepted amount of ``cost()``."""
    if currency != "USD":
        misuse("range", f"cost(): currency is {currency!r}; accepted: USD")
        return None
    try:
        value = Decimal(repr(amount)) if isinstance(amount, float) else Decimal(amount)
    except (InvalidOperation, TypeError, ValueError):
        misuse("type", f"cost(): amount is {amount!r}; accepted: a decimal number >= 0")
        return None
    if isinstance(amount, bool) or not value.is_finite() or value < 0:
        misuse("range", f"cost(): amount is {amount!r}; accepted: a decimal number >= 0")
        return None
    return value


def checked_score(call: str, score: Any) -> float | None:
    """The accepted score of ``feedback()`` or ``evaluation()``."""
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        misuse("type", f"{call}(): score is {score!r}; accepted: a finite number")
        return None
    return float(score)


def checked_text(call: str, name: str, value: Any) -> str | None:
    """The accepted text of a name, id or label; ``None`` means not given."""
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        misuse("type", f"{call}(): {name} is {value!r}; accepted: a non-empty text")
        return None
    return value
