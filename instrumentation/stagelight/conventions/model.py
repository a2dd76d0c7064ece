"""Rows of the generated tables: what the rest of Stagelight can know about a name at run time."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["Instrument", "Metric", "Profile", "SpanKind", "SpanType", "ValueType"]

Instrument = Literal["counter", "gauge", "histogram", "updowncounter"]
Profile = Literal["latest", "released"]
"""Generation of upstream names: ``released`` is what the official packages 1.3b0 emit, ``latest`` upstream's main."""
SpanKind = Literal["client", "internal"]
ValueType = Literal["double", "int"]


class Metric(NamedTuple):
    """One metric."""

    name: str
    instrument: Instrument
    unit: str
    """UCUM, as sent: ``s``, ``USD``, ``1``, ``{token}``."""
    description: str
    buckets: tuple[float, ...]
    """Upper bounds of a histogram, ascending, in ``unit``; empty for the other instruments."""
    labels: tuple[str, ...]
    """Attribute keys a point may carry; no other is recorded."""
    prometheus: str
    """Name after Prometheus' OTLP receiver; a histogram's series add ``_bucket``, ``_sum`` and ``_count``."""
    profiles: frozenset[Profile]
    stage: tuple[str, ...]
    """Stages that record it; ``any`` stands for all."""
    demo: bool
    """True when the demo records it."""
    value_type: ValueType


class SpanType(NamedTuple):
    """One type of span."""

    type: str
    kind: SpanKind
    operation: str | None
    """Default ``gen_ai.operation.name``; None for a stage without an upstream operation."""
    stage: str
    name: str
    """Span name with attribute keys in braces; a missing value leaves the first word alone."""
    required: tuple[str, ...]
    at_start: tuple[str, ...]
    """Keys that samplers may look at: set when the span starts, if known then."""
    attributes: tuple[str, ...]
    """All keys the span may carry; for a template its prefix."""
    demo: bool
