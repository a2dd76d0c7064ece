"""What users may give about a call: wrong values are one misuse each and are left out, never guessed."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from numbers import Integral, Real
from typing import Any, get_args

from stagelight._guard import misuse
from stagelight.facts import Outcome, Request, Retrieved, Usage

__all__ = [
    "checked_error",
    "checked_outcome",
    "checked_price",
    "checked_reasons",
    "checked_request",
    "checked_retrieved",
    "checked_score",
    "checked_text",
    "checked_tool_type",
    "checked_usage",
    "good_shapes",
]

_SECONDS = frozenset({"audio_seconds", "compute_seconds"})
_COUNTS = frozenset(Usage._fields) - _SECONDS - {"counted"}
MOST = 1 << 53
"""Largest count that a double holds exactly; sums of larger ones would break counters for good."""

_SECRET = frozenset({"user_id", "session_id"})
_OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

_TOOL_TYPES = ("function", "extension", "datastore")
_TEXT, _WHOLE, _NUMBER, _SWITCH = "a text", "an integer", "a number", "True or False"
_WHOLES = frozenset({"server_port", "max_tokens", "dimensions", "top_k", "characters"})
_NUMBERS = frozenset({"temperature", "top_p"})
_SWITCHES = frozenset({"stream", "filtered"})

_SHOWN_CHARACTERS = 12
"""Longest text a message repeats: enough for a wrong word, too short for a prompt, an answer or a key."""

_SHAPES_LIMIT = 512
good_shapes: set[tuple[type, ...]] = set()
"""Types of the fields of requests that were accepted; nearly all requests of a process have one of few shapes."""


def shown(value: Any) -> str:
    """A received value for a message: numbers and short words as they are, of anything else only its kind."""
    if value is None or isinstance(value, bool | int | float):
        return reprlib.repr(value)
    if isinstance(value, str):
        return repr(value) if len(value) <= _SHOWN_CHARACTERS else f"a text of {len(value)} characters"
    if isinstance(value, list | tuple | set | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def checked_request(verb: str, request: Request) -> Request:
    """The request without what has the wrong type."""
    wrong: dict[str, None] = {}
    for name, value in request._asdict().items():
        accepted, fits = _expected(name, value)
        if value is not None and not fits:
            misuse("type", f"{verb}(): {name}", f"is {shown(value)}; accepted: {accepted}")
            wrong[name] = None
    if wrong:
        return request._replace(**wrong)
    if len(good_shapes) < _SHAPES_LIMIT:
        good_shapes.add(tuple(map(type, request)))
    return request


def _expected(name: str, value: Any) -> tuple[str, bool]:
    if name in _WHOLES:
        return _WHOLE, isinstance(value, Integral) and not isinstance(value, bool)
    if name in _NUMBERS:
        return _NUMBER, isinstance(value, Real) and not isinstance(value, bool)
    if name in _SWITCHES:
        return _SWITCH, isinstance(value, bool)
    return _TEXT, isinstance(value, str)


def checked_usage(quantities: Mapping[str, Any]) -> dict[str, Any]:
    """The accepted quantities of ``usage()``."""
    accepted: dict[str, Any] = {}
    for name, value in quantities.items():
        if type(value) is int and name in _COUNTS and 0 <= value <= MOST:  # nearly always, on the host's time
            accepted[name] = value
        elif name not in Usage._fields:
            misuse("unknown_key", "usage():", f"unknown quantity {shown(name)}; accepted: {', '.join(Usage._fields)}")
        elif value is None:
            continue
        elif name == "counted":
            accepted[name] = bool(value)
        elif name == "cache_write_tokens" and isinstance(value, Mapping):
            if all(_is_count(f"{name}[{shown(key)}]", count) for key, count in value.items()):
                accepted[name] = {str(key): int(count) for key, count in value.items()}
        elif name in _SECONDS:
            if _is_amount(name, value):
                accepted[name] = float(value)
        elif _is_count(name, value):
            accepted[name] = int(value)
    return accepted


def _is_count(name: str, value: Any) -> bool:
    whole = not isinstance(value, bool) and isinstance(value, Integral)
    if whole and 0 <= value <= MOST:
        return True
    limits = "an integer >= 0" if not whole or value < 0 else "an integer <= 2**53"
    misuse("range" if whole else "type", f"usage(): {name}", f"is {shown(value)}; accepted: {limits}")
    return False


def _is_amount(name: str, value: Any) -> bool:
    number = not isinstance(value, bool) and isinstance(value, Real)
    if number and math.isfinite(value) and value >= 0:
        return True
    misuse("range" if number else "type", f"usage(): {name}", f"is {shown(value)}; accepted: seconds, a number >= 0")
    return False


def checked_retrieved(scores: Any, count: Any, metric: str | None, higher_is_better: bool | None) -> Retrieved | None:
    """The accepted results of a search."""
    if count is None and scores is None:
        misuse("type", "results():", "neither scores nor count is given; accepted: at least one of them")
        return None
    if count is not None and (isinstance(count, bool) or not isinstance(count, Integral) or count < 0):
        misuse("type", "results(): count", f"is {shown(count)}; accepted: an integer >= 0")
        return None
    try:
        values = tuple(float(score) for score in scores) if scores is not None else ()
    except (TypeError, ValueError):
        misuse("type", "results(): scores", f"is {shown(scores)}; accepted: a sequence of numbers")
        if count is None:
            return None
        values = ()
    finite = tuple(value for value in values if math.isfinite(value))
    if len(finite) < len(values):
        misuse("range", "results(): scores", "has a value that is not finite; accepted: finite numbers")
    number = len(values) if count is None else int(count)
    return Retrieved(
        count=number,
        scores=finite,
        metric=checked_text("results", "metric", metric),
        higher_is_better=None if higher_is_better is None else bool(higher_is_better),
    )


def checked_price(amount: Any, currency: str) -> Decimal | None:
    """The accepted amount of ``cost()``."""
    if currency != "USD":
        misuse("range", "cost(): currency", f"is {shown(currency)}; accepted: USD")
        return None
    try:
        value = Decimal(repr(amount)) if isinstance(amount, float) else Decimal(amount)
    except (InvalidOperation, TypeError, ValueError):
        misuse("type", "cost(): amount", f"is {shown(amount)}; accepted: a decimal number >= 0")
        return None
    if isinstance(amount, bool) or not value.is_finite() or value < 0:
        misuse("range", "cost(): amount", f"is {shown(amount)}; accepted: a decimal number >= 0")
        return None
    return value


def checked_score(call: str, score: Any) -> float | None:
    """The accepted score of ``feedback()`` or ``evaluation()``."""
    if isinstance(score, bool) or not isinstance(score, Real | Decimal) or not math.isfinite(score):
        misuse("type", f"{call}(): score", f"is {shown(score)}; accepted: a finite number")
        return None
    return float(score)


def checked_text(call: str, name: str, value: Any) -> str | None:
    """The accepted text of a name, id or label; ``None`` means not given."""
    if value is None or (isinstance(value, str) and value):
        return value
    received = f"of type {type(value).__name__}" if name in _SECRET else shown(value)
    misuse("type", f"{call}(): {name}", f"is {received}; accepted: a non-empty text")
    return None


def checked_tool_type(value: Any) -> str | None:
    """The accepted type of ``tool()``."""
    if value is None or value in _TOOL_TYPES:
        return value  # type: ignore[no-any-return]  # checked just before
    misuse("range", "tool(): type", f"is {shown(value)}; accepted: {', '.join(_TOOL_TYPES)}")
    return None


def checked_reasons(reasons: Any) -> tuple[str, ...] | None:
    """The accepted finish reasons of ``response()``."""
    if reasons is None:
        return None
    if isinstance(reasons, Sequence) and not isinstance(reasons, str) and all(isinstance(one, str) for one in reasons):
        return tuple(reasons)
    misuse("type", "response(): finish_reasons", f"is {shown(reasons)}; accepted: a sequence of texts")
    return None


def checked_outcome(outcome: Any) -> Outcome | None:
    """The accepted outcome of ``end()``."""
    if outcome is None or outcome in _OUTCOMES:
        return outcome  # type: ignore[no-any-return]  # checked just before
    misuse("range", "end(): outcome", f"is {shown(outcome)}; accepted: {', '.join(_OUTCOMES)}")
    return None


def checked_error(error: Any) -> bool:
    """Whether ``fail()`` was given an exception."""
    if isinstance(error, BaseException):
        return True
    misuse("type", "fail(): error", f"is {shown(error)}; accepted: an exception")
    return False
