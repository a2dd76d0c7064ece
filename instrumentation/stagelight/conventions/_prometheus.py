"""Names as Prometheus' OTLP receiver writes them with its default strategy, UnderscoreEscapingWithSuffixes.

Rules: https://github.com/prometheus/otlptranslator. Only the units that the registry uses are known; another one is
an error there, because a wrong suffix would silently break every rule and dashboard that asks for the name.
"""

from __future__ import annotations

import re

__all__ = ["UNITS", "label_name", "metric_name"]

UNITS = {"s": "seconds", "1": "", "USD": "USD"}
"""Suffix of each unit; a unit in braces is a comment and has none."""


def metric_name(name: str, unit: str, instrument: str) -> str:
    """Return the name in Prometheus of a metric, without the ``_bucket``, ``_sum`` and ``_count`` of a histogram.

    Raises:
        KeyError: ``unit`` is neither in braces nor in ``UNITS``.
    """
    words = [word for word in re.split(r"[^a-zA-Z0-9:]+", name) if word]
    suffix = "" if unit.startswith("{") else UNITS[unit]
    if suffix and suffix not in words:
        words.append(suffix)
    if instrument == "counter":
        words = [word for word in words if word != "total"] + ["total"]
    if instrument == "gauge" and unit == "1":
        words = [word for word in words if word != "ratio"] + ["ratio"]
    return "_".join(words)


def label_name(key: str) -> str:
    """Return the label in Prometheus of an attribute."""
    return re.sub(r"_+", "_", re.sub(r"[^a-zA-Z0-9_]", "_", key))
