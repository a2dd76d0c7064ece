"""Bounded metric labels: the values that matter keep their name, the rest become ``other`` and are counted.

A label's first values are admitted at once. Of the later ones only heavy hitters are: a Space-Saving sketch of fixed
size (Metwally et al. 2005) counts them, and a value seen ``PROMOTE_AFTER`` times takes one of the reserved places.
Admitted values are never taken back, because a cumulative series cannot be.
"""

from __future__ import annotations

import threading
from collections import Counter

__all__ = ["OTHER", "LabelBounds", "SeriesBudget"]

OTHER = "other"

MAX_VALUE_CHARACTERS = 128
_SKETCH_SIZE = 256
PROMOTE_AFTER = 50
_RESERVED_SHARE = 4  # a quarter of the places waits for heavy hitters

LIMITS = {"model": 64, "provider": 32, "feature": 48, "tenant": 96, "route": 128, "host": 32, "error": 64, "name": 64}
"""Distinct values per kind of label and process."""


class _Sketch:
    """Space-Saving: the counts of at most ``size`` values, each overestimated by at most the smallest count."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._counts: dict[str, int] = {}
        self._errors: dict[str, int] = {}

    def add(self, value: str) -> int:
        """Count one occurrence and return the guaranteed number of occurrences."""
        if value not in self._counts and len(self._counts) >= self._size:
            smallest = min(self._counts, key=self._counts.__getitem__)
            floor = self._counts.pop(smallest)
            self._errors.pop(smallest, None)
            self._counts[value] = floor
            self._errors[value] = floor
        self._counts[value] = self._counts.get(value, 0) + 1
        return self._counts[value] - self._errors.get(value, 0)

    def forget(self, value: str) -> None:
        self._counts.pop(value, None)
        self._errors.pop(value, None)


class LabelBounds:
    """The admitted values of every kind of label in this process.

    Args:
        limits: distinct values per kind; default ``LIMITS``.
    """

    def __init__(self, limits: dict[str, int] | None = None) -> None:
        self._limits = dict(LIMITS if limits is None else limits)
        self._admitted: dict[str, dict[str, str]] = {kind: {} for kind in self._limits}
        self._sketches = {kind: _Sketch(_SKETCH_SIZE) for kind in self._limits}
        self._lock = threading.Lock()
        self.limited: Counter[str] = Counter()
        """Occurrences that were recorded as ``other``, by kind of label."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of labels that are bounded."""
        return tuple(self._limits)

    def admit(self, kind: str, value: str) -> str:
        """``value`` when it has a place among the labels of its kind, else ``other``."""
        admitted = self._admitted[kind]
        if value in admitted:
            return admitted[value]
        with self._lock:
            return self._decide(kind, value[:MAX_VALUE_CHARACTERS])

    def _decide(self, kind: str, value: str) -> str:
        admitted, limit = self._admitted[kind], self._limits[kind]
        free = limit - len(admitted)
        if value in admitted:
            return value
        if free > limit // _RESERVED_SHARE:
            admitted[value] = value
            return value
        sketch = self._sketches[kind]
        if sketch.add(value) >= PROMOTE_AFTER and free > 0:
            sketch.forget(value)
            admitted[value] = value
            return value
        self.limited[kind] += 1
        return OTHER


class SeriesBudget:
    """At most ``limit`` attribute sets per metric.

    Args:
        limit: attribute sets per metric and process; above it only sets of ``other`` values are new.
    """

    def __init__(self, limit: int = 1500) -> None:
        self._limit = limit
        self._seen: dict[str, set[tuple[object, ...]]] = {}

    def allows(self, metric: str, labels: tuple[object, ...]) -> bool:
        """Whether this attribute set may become, or is, a series of the metric."""
        seen = self._seen.get(metric)
        if seen is None:
            seen = self._seen.setdefault(metric, set())
        if labels in seen:
            return True
        if len(seen) >= self._limit:
            return False
        seen.add(labels)
        return True
