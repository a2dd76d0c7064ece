"""Figures for a page: those of `stagelight.sources.format`, joined so that none breaks over a line, and exact forms."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from stagelight.sources import format as written

__all__ = [
    "ago",
    "axis_money",
    "axis_seconds",
    "bytes_size",
    "count",
    "counted",
    "duration",
    "exact_money",
    "exact_time",
    "iso_time",
    "money",
    "percent",
    "seconds",
    "visible",
]

_JOIN = "\u00a0"  # no-break space: between a number and its unit
_LABEL = 500  # characters; what is cut shorter is a label
_GROUP = "\u202f"  # narrow no-break space: between groups of decimals


def money(amount: Decimal | None, places: int | None = None) -> str:
    """Amount in its column's ``places`` (`format.money_places`), without its currency: ``0.412 31``."""
    return written.money(amount, places).replace(" ", _GROUP)


def exact_money(amount: Decimal) -> str:
    """Amount with every digit it has and at least two decimals: ``0.000 058 2``."""
    if not amount.is_finite():
        return written.UNKNOWN
    exponent = amount.normalize().as_tuple().exponent
    return money(amount, max(2, -exponent)) if isinstance(exponent, int) and exponent > -40 else f"{amount:.3E}"


def axis_money(amount: float) -> str:
    """Round amount at a line of a chart, with no digit more than it needs: ``0``, ``0.002``, ``1.5``."""
    text = written.money(Decimal(f"{amount:.3g}"))
    return (text.rstrip("0 ").rstrip(".") or "0").replace(" ", _GROUP)


def bytes_size(size: int) -> str:
    """Size of stored data: ``820 kB``, ``12.3 MB``, in powers of 1,000."""
    value, unit = size / 1e3, "kB"
    for larger in ("MB", "GB"):
        if value >= 999.5:
            value, unit = value / 1e3, larger
    return f"{value:.0f}{_JOIN}{unit}" if value >= 99.5 or unit == "kB" else f"{value:.1f}{_JOIN}{unit}"


def axis_seconds(length_s: float) -> str:
    """Round length of time at a line of a chart: ``10 s``, ``500 ms``, without the zeros after its point."""
    number, _, unit = seconds(length_s).partition(_JOIN)
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number}{_JOIN}{unit}"


def seconds(length_s: float | None) -> str:
    """Length of time given in seconds: ``412 ms``, ``1.24 s``."""
    return written.duration(length_s).replace(" ", _JOIN)


def counted(number: int, noun: str, nouns: str = "") -> str:
    """Number with its noun: ``1 turn``, ``1,204 turns``; ``nouns`` where the plural does not just end in s."""
    return f"{count(number)}{_JOIN}{noun if number == 1 else nouns or noun + 's'}"


def duration(length_ns: int | None) -> str:
    """Length of time given in nanoseconds: ``412 ms``, ``1.24 s``."""
    return seconds(None if length_ns is None else length_ns / 1e9)


def count(number: int | None) -> str:
    """Whole number: ``1,083,118``."""
    return written.count(number)


def percent(ratio: float | None) -> str:
    """Ratio from 0 to 1: ``41 %``."""
    return written.percent(ratio).replace(" ", _JOIN)


def ago(moment_ns: int | None, now_ns: int) -> str:
    """Distance of a moment from now: ``3 min ago``."""
    return written.ago(moment_ns, now_ns).replace(" ", _JOIN)


def exact_time(moment_ns: int) -> str:
    """Moment in this machine's time zone, to the millisecond: ``2026-11-21 12:37:05.123+01:00``."""
    moment = _moment(moment_ns)
    if moment is None:
        return f"{moment_ns} ns"
    return moment.astimezone().isoformat(sep=" ", timespec="milliseconds")


def iso_time(moment_ns: int) -> str:
    """Moment in UTC for the ``datetime`` attribute of a ``time`` element; empty when no calendar holds it."""
    moment = _moment(moment_ns)
    return "" if moment is None else moment.isoformat(timespec="milliseconds")


def _moment(moment_ns: int) -> datetime | None:
    try:
        whole = datetime.fromtimestamp(moment_ns // 1_000_000_000, UTC)
    except (OverflowError, OSError, ValueError):  # a sender's clock may say anything
        return None
    return whole.replace(microsecond=moment_ns % 1_000_000_000 // 1_000)


def visible(text: str, limit: int | None = None) -> str:
    """Foreign text in which hidden characters are written out and lines stay lines, cut to ``limit`` characters.

    A long text says how much was cut off; a label just ends with an ellipsis.
    """
    shown = text if limit is None else text[:limit]
    safe = shown if shown.isprintable() else "\n".join(map(written.safe_text, shown.split("\n")))
    if len(shown) == len(text):
        return safe
    return f"{safe}…" if len(shown) < _LABEL else f"{safe}… ({len(text) - len(shown):,} more characters)"
