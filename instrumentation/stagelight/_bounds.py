"""Bounded metric labels: the values that matter keep their name, the rest become ``other`` and are counted.

Places are few. Three quarters go to whoever comes first; the rest waits for what comes often: frequent items are found
with a table of fixed size (Misra and Gries 1982), and what was surely seen ``PROMOTE_AFTER`` times gets one, the last
ones only after 128 times as many, so that some are left for what matters later. Places are never taken back, because
a cumulative series cannot be.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable, Mapping

from stagelight._forks import in_every_child

__all__ = ["LIMITS", "OTHER", "PROMOTE_AFTER", "LabelBounds", "Places", "SeriesBudget"]

OTHER = "other"

MAX_VALUE_CHARACTERS = 128
PROMOTE_AFTER = 50
_CANDIDATES = 256
_RESERVED_SHARE = 4  # a quarter of the places waits for what comes often

LIMITS: Mapping[str, int] = {
    "model": 64,
    "provider": 32,
    "host": 32,
    "port": 32,
    "tier": 16,
    "operation": 32,
    "error": 64,
    "outcome": 16,
    "feature": 48,
    "variant": 32,
    "tenant": 96,
    "route": 128,
    "workflow": 64,
    "job": 64,
    "tool": 96,
    "source": 64,
    "search": 32,
    "cache": 32,
    "evaluation": 64,
    "feedback": 64,
    "instrumentations": 16,
}
"""Distinct values per kind of label and process. One kind cannot use up another's places."""


class Places:
    """A bounded set that admits what comes first and what comes often.

    Args:
        limit: members at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open = limit - limit // _RESERVED_SHARE
        self.admitted: set[Hashable] = set()
        self._seen: dict[Hashable, int] = {}

    def admit(self, value: Hashable) -> bool:
        """Whether ``value`` is a member, perhaps from now on."""
        if value in self.admitted:
            return True
        number = len(self.admitted)
        if number < self._open or (number < self._limit and self._count(value) >= self._needed(number)):
            self.admitted.add(value)
            self._seen.pop(value, None)
            return True
        return False

    def _needed(self, number: int) -> int:
        return PROMOTE_AFTER << (8 * (number - self._open) // (self._limit - self._open))

    def _count(self, value: Hashable) -> int:
        """Count one occurrence; the count is never more than the true one, less by a 257th of all at most."""
        seen = self._seen
        if value in seen or len(seen) < _CANDIDATES:
            seen[value] = seen.get(value, 0) + 1
            return seen[value]
        self._seen = {key: count - 1 for key, count in list(seen.items()) if count > 1}
        return 0


class LabelBounds:
    """The admitted values of every kind of label in this process.

    Args:
        limits: distinct values per kind; default ``LIMITS``.
    """

    def __init__(self, limits: Mapping[str, int] | None = None) -> None:
        self._places = {kind: Places(limit) for kind, limit in (LIMITS if limits is None else limits).items()}
        self.restart()
        in_every_child(self.restart)

    def restart(self) -> None:
        """Count from zero; what was admitted keeps its place."""
        self._lock = threading.RLock()  # re-entrant: a call may end inside a garbage collection
        self.limited: Counter[str] = Counter()
        """Occurrences that were recorded as ``other``, by kind of label."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of labels that are bounded."""
        return tuple(self._places)

    def admit(self, kind: str, value: str) -> str:
        """``value`` (its first characters, with a UTF-8 form) when it has a place among its kind, else ``other``."""
        places = self._places[kind]
        if value in places.admitted:
            return value
        value = value[:MAX_VALUE_CHARACTERS].encode("utf-8", "replace").decode()
        with self._lock:
            if places.admit(value):
                return value
            self.limited[kind] += 1
            return OTHER


class SeriesBudget:
    """At most ``limit`` attribute sets per metric with values of their own.

    Args:
        limit: attribute sets per metric and process; those that have no place are recorded with ``other`` values.
    """

    def __init__(self, limit: int = 1200) -> None:
        self._limit = limit
        self._places: dict[str, Places] = {}

    def allows(self, metric: str, labels: tuple[object, ...]) -> bool:
        """Whether this attribute set may become, or is, a series of the metric."""
        places = self._places.get(metric) or self._places.setdefault(metric, Places(self._limit))
        return places.admit(hash(labels))  # the sets themselves would take most of the memory
