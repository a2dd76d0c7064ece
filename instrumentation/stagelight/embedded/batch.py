"""Rows on their way from a request to the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["Batch", "Group", "PointGroup", "Resource", "WriteResult"]

Row = tuple[Any, ...]

_ROW_BYTES = 400  # ids, numbers and short texts of one row


class Resource(NamedTuple):
    """The program that sent a signal."""

    service: str
    json: str
    """Its attributes as canonical JSON: equal resources have equal text."""


class Group(NamedTuple):
    """Rows of one resource and scope; the store appends the two ids to each row."""

    resource: Resource
    scope: str
    rows: Sequence[Row]


class PointGroup(NamedTuple):
    """Points of one metric series; the store prepends the id of the series."""

    resource: Resource
    scope: str
    series: Row
    """The columns of a series up to the ids, which the store appends."""
    rows: Sequence[Row]


@dataclass(slots=True)
class Batch:
    """One request as rows, ready to be written in one piece."""

    size_bytes: int = 0
    """What it weighs in the queue, about."""
    spans: list[Group] = field(default_factory=list)
    logs: list[Group] = field(default_factory=list)
    usage: list[Group] = field(default_factory=list)
    points: list[PointGroup] = field(default_factory=list)
    rejected: int = 0
    """Malformed spans, log records or data points left out: OTLP's ``rejected_*`` of a partial success."""
    reason: str = ""
    """Why the first of them was rejected."""

    def weigh(self, rows: Sequence[Row], texts: int) -> None:
        """Add the weight of rows, whose long texts (or None) are the columns from ``texts`` on."""
        self.size_bytes += _ROW_BYTES * len(rows) + sum(len(text) for row in rows for text in row[texts:] if text)

    def reject(self, reason: str, count: int = 1) -> None:
        """Count malformed items; the first reason is kept."""
        self.rejected += count
        self.reason = self.reason or reason

    @property
    def is_empty(self) -> bool:
        """True when there is nothing to write."""
        return not (self.spans or self.logs or self.usage or self.points)


class WriteResult(NamedTuple):
    """What a committed batch added; items that were already there are not counted."""

    spans: int = 0
    logs: int = 0
    usage: int = 0
    points: int = 0
