"""Axes: which values get a line and a label, and where a value lies between the ends of its axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from stagelight.sources.model import Window

__all__ = ["Scale", "linear", "logarithmic", "time_span", "time_ticks"]

# Beyond these a power of ten, or a quarter of the value, is no double any more.
_SMALLEST, _LARGEST = 1e-300, 1e300


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values of an axis to 0 (its low end) to 1 (its high end)."""

    low: float
    high: float
    ticks: tuple[float, ...]
    is_logarithmic: bool = False

    def at(self, value: float) -> float:
        """Place of a value, held inside the axis."""
        if self.is_logarithmic:
            low = math.log10(self.low)
            place = (math.log10(max(value, self.low)) - low) / (math.log10(self.high) - low)
        else:
            place = (value - self.low) / (self.high - self.low)
        return min(max(place, 0.0), 1.0)


def linear(values: Iterable[float], ticks: int = 4) -> Scale:
    """Axis from 0 to a round number above the largest value, in about ``ticks`` steps of 1, 2, 2.5 or 5 times 10^n."""
    largest = min(max((value for value in values if math.isfinite(value)), default=0.0), _LARGEST)
    if largest < _SMALLEST:
        return Scale(0.0, 1.0, (0.0,))
    rough = largest / ticks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    steps = math.ceil(largest / step - 1e-9)
    return Scale(0.0, steps * step, tuple(index * step for index in range(steps + 1)))


def logarithmic(values: Iterable[float]) -> Scale:
    """Axis over whole powers of ten around the positive values; one power when there is none."""
    positive = [min(max(value, _SMALLEST), _LARGEST) for value in values if value > 0 and math.isfinite(value)]
    low, high = (min(positive), max(positive)) if positive else (1.0, 1.0)
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    stride = math.ceil((last - first) / 5)  # at most six labels
    return Scale(10.0**first, 10.0**last, tuple(10.0**power for power in range(first, last + 1, stride)), True)


_TIME_STEPS = [timedelta(minutes=minutes) for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720)]
_DAY = timedelta(days=1)


def time_ticks(window: Window, most: int = 6) -> list[tuple[float, str]]:
    """Round local times inside a window: place from 0 to 1, and ``12:40``, or ``21 Nov`` at steps of days."""
    since = datetime.fromtimestamp(window.since_ns / 1e9, UTC).astimezone()
    length = timedelta(microseconds=(window.until_ns - window.since_ns) / 1e3)
    step = next((step for step in _TIME_STEPS if length / step <= most), _DAY * math.ceil(length / _DAY / most))
    midnight = since.replace(hour=0, minute=0, second=0, microsecond=0)
    moment = midnight + min(step, _DAY) * math.ceil((since - midnight) / min(step, _DAY))
    ticks = []
    while moment - since < length:
        label = f"{moment:%H:%M}" if step < _DAY else f"{moment.day} {moment:%b}"
        ticks.append(((moment - since) / length, label))
        moment += step
    return ticks


def time_span(start_ns: int, length_ns: int) -> str:
    """One step of an axis in local time: ``21 Nov 12:40 to 12:41``."""
    start = datetime.fromtimestamp(start_ns / 1e9, UTC).astimezone()
    end = start + timedelta(microseconds=length_ns / 1e3)
    clock = "%H:%M" if length_ns % 60_000_000_000 == 0 else "%H:%M:%S"
    day = "" if end.date() == start.date() else f"{end.day} {end:%b} "
    return f"{start.day} {start:%b} {start:{clock}} to {day}{end:{clock}}"
