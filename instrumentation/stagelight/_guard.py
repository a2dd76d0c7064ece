"""The only broad except of the package: our errors never reach the host application.

An error of ours is logged once per place with its class and frames, but not its message, which may quote a prompt. It
is counted and swallowed; with ``STAGELIGHT_STRICT=1`` it is raised. Errors that are not of class ``Exception``
(cancellation, interrupts, exits) always pass.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable
from traceback import extract_tb
from types import TracebackType
from typing import Literal, TypeVar

from stagelight import _clock

__all__ = [
    "MisuseError",
    "errors",
    "first_time",
    "guard",
    "misuse",
    "misuses",
    "once_a_minute",
    "quietly",
    "set_strict",
    "strict",
]

T = TypeVar("T")

logger = logging.getLogger("stagelight")

_LOGGED_LIMIT = 256  # distinct places and messages remembered; a bound, so that hostile input cannot grow it
_TRUE = frozenset({"1", "true", "yes", "on"})

_lock = threading.Lock()
_errors: Counter[str] = Counter()
_misuses: Counter[str] = Counter()
_logged: set[str] = set()
_reported: set[str] = set()
_reported_s: dict[str, float] = {}


def _renew_lock() -> None:
    """Another thread may have held the lock at the moment of a fork."""
    global _lock  # noqa: PLW0603 - one lock per process
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)

_strict = os.environ.get("STAGELIGHT_STRICT", "").strip().lower() in _TRUE


class MisuseError(TypeError):
    """A public call was used wrongly; raised in strict mode only, otherwise logged once and counted."""


def strict() -> bool:
    """Whether our own failures and misuse raise (``STAGELIGHT_STRICT``)."""
    return _strict


def set_strict(value: bool) -> None:
    """Turn strict mode on or off for this process."""
    global _strict  # noqa: PLW0603 - one switch per process
    _strict = value


def errors() -> dict[str, int]:
    """Swallowed errors of our own, by place."""
    with _lock:
        return dict(_errors)


def misuses() -> dict[str, int]:
    """Wrong uses of the public API, by kind."""
    with _lock:
        return dict(_misuses)


def first_time(key: str) -> bool:
    """Whether this is the first report of ``key``; a bounded number is remembered."""
    with _lock:
        if key in _logged or len(_logged) >= _LOGGED_LIMIT:
            return False
        _logged.add(key)
        return True


def once_a_minute(key: str) -> bool:
    """Whether ``key`` was not reported within the last 60 s; a bounded number is remembered."""
    now = _clock.seconds()
    with _lock:
        last_s = _reported_s.get(key)
        if (last_s is None and len(_reported_s) >= _LOGGED_LIMIT) or (last_s is not None and 0 <= now - last_s < 60):
            return False
        _reported_s[key] = now
        return True


def _swallow(site: str, error: Exception) -> None:
    with _lock:
        _errors[site] += 1
        first = site not in _reported and len(_reported) < _LOGGED_LIMIT
        _reported.add(site) if first else None
    if first:
        frames = "".join(f"\n  {one.filename}:{one.lineno} in {one.name}" for one in extract_tb(error.__traceback__))
        kind = type(error).__qualname__
        logger.error("stagelight failed in %s with %s; the application is not affected%s", site, kind, frames)


class guard:  # noqa: N801 - reads as a statement: `with guard("usage"):`
    """Block in which an ``Exception`` of ours is logged, counted and swallowed (raised when strict).

    Args:
        site: short name of the place, used in the log line and as the label of the error counter.
    """

    __slots__ = ("_site",)

    def __init__(self, site: str) -> None:
        self._site = site

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception) or _strict:
            return False
        _swallow(self._site, error)
        return True


def quietly(site: str, function: Callable[[], T], otherwise: T) -> T:
    """Result of ``function``, or ``otherwise`` when it fails (raises when strict)."""
    try:
        return function()
    except Exception as error:
        if _strict:
            raise
        _swallow(site, error)
        return otherwise


MisuseKind = Literal["type", "range", "unknown_key", "state", "unreadable"]


def misuse(kind: MisuseKind, place: str, problem: str) -> None:
    """Report a wrong use of the public API: counted, logged once per place, raised when strict.

    Args:
        kind: label of the counter.
        place: what was used wrongly: ``usage(): input_tokens``.
        problem: the value received and the values accepted; never the value of a user or session id.

    Raises:
        MisuseError: in strict mode.
    """
    if _strict:
        raise MisuseError(f"{place} {problem}")
    with _lock:
        _misuses[kind] += 1
    if first_time(f"{kind} {place}"):
        logger.warning("stagelight: %s %s", place, problem)
