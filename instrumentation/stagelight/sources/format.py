"""How numbers, money, times and foreign text are written for people; the terminal and the pages share it.

Every function takes ``None`` as "not known" and writes it as :data:`UNKNOWN`: a missing figure is never shown as zero.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final

__all__ = ["UNKNOWN", "ago", "clock", "count", "counted", "duration", "money", "money_places", "percent", "safe_text"]

UNKNOWN: Final = "-"
"""What stands for a figure that is not known."""

_MONEY_PLACES: Final = 5
_MONEY_MAX_PLACES: Final = 9
_MONEY_MAX_EXPONENT: Final = 40  # beyond it grouping helps nobody, and telemetry may say anything
_EXACT = Context(prec=60)  # quantizing a 28-digit sum to 9 places must not overflow the default precision

# Joiners build emoji and letters of several scripts; alone they are invisible and harmless.
_JOINERS: Final = frozenset("\u200c\u200d")
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def money_places(amounts: Iterable[Decimal | None]) -> int:
    """Decimal places (5 to 9) at which the smallest non-zero amount still shows two digits; one value for a column."""
    return max((_places(amount) for amount in amounts if amount), default=_MONEY_PLACES)


def _places(amount: Decimal) -> int:
    return min(max(1 - amount.adjusted(), _MONEY_PLACES), _MONEY_MAX_PLACES)


def money(amount: Decimal | None, places: int | None = None) -> str:
    """Write an amount of money with its decimals grouped by three: ``0.412 31``, ``1,204.500 00``.

    Args:
        amount: the amount, in any currency; the caller names the currency beside it.
        places: decimal places, from :func:`money_places` for a column; default: what this amount needs.

    Returns:
        The grouped amount. One that is not zero never reads as zero: below the last place it is ``<0.000 000 001``.
    """
    if amount is None or not amount.is_finite():
        return UNKNOWN
    if amount.adjusted() > _MONEY_MAX_EXPONENT:
        return f"{amount:.3E}"
    digits = places if places is not None else money_places([amount])
    smallest = Decimal(1).scaleb(-digits)
    rounded = amount.quantize(smallest, rounding=ROUND_HALF_EVEN, context=_EXACT)
    if amount and not rounded:
        return f"<{_grouped(smallest, digits)}" if amount > 0 else f">-{_grouped(smallest, digits)}"
    return _grouped(rounded, digits)


def _grouped(amount: Decimal, digits: int) -> str:
    whole, _, fraction = f"{amount:,.{digits}f}".partition(".")
    return f"{whole}.{' '.join(fraction[i : i + 3] for i in range(0, len(fraction), 3))}"


def duration(seconds: float | None) -> str:
    """Write a duration given in seconds with about three digits and its unit: ``340 µs``, ``82.4 ms``, ``1.24 s``."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    size = abs(seconds)
    sign = "-" if seconds < 0 else ""
    if size < 0.000_001:
        return f"{sign}<1 µs" if size else "0 s"
    if size < 0.000_999_5:
        return f"{sign}{size * 1e6:.0f} µs"
    if size < 59.95:
        return f"{sign}{_three_digits(size * 1e3)} ms" if size < 0.999_5 else f"{sign}{_three_digits(size)} s"
    minutes, rest = divmod(round(size), 60)
    return f"{sign}{minutes} min {rest:02d} s" if minutes < 60 else f"{sign}{minutes // 60:,} h {minutes % 60:02d} min"


def _three_digits(value: float) -> str:
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def count(number: int | None) -> str:
    """Write a whole number with its thousands grouped: ``1,083,118``."""
    return UNKNOWN if number is None else f"{number:,}"


def counted(number: int, noun: str) -> str:
    """Write how many of something: ``1 call``, ``1,204 calls``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(ratio: float | None) -> str:
    """Write a ratio (1 is the whole) as per cent: ``41 %``; one that is not zero never reads as zero: ``<0.1 %``."""
    if ratio is None or not math.isfinite(ratio):
        return UNKNOWN
    value = ratio * 100
    if 99.5 <= value < 100:
        return ">99 %"
    if 0 < value < 0.1:
        return "<0.1 %"
    return f"{value:.1f} %" if 0 < value < 0.95 else f"{value:.0f} %"


def ago(moment_ns: int | None, now_ns: int) -> str:
    """Write how long before ``now_ns`` a moment was, both in unix nanoseconds: ``now``, ``12 s ago``, ``3 d ago``."""
    if moment_ns is None:
        return UNKNOWN
    seconds = (now_ns - moment_ns) // 1_000_000_000
    if -1 <= seconds < 1:
        return "now"
    span = abs(seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if span >= size:
            text = f"{span // size:,} {unit}"
            break
    else:
        text = f"{span} s"
    return f"{text} ago" if seconds > 0 else f"in {text}"


def clock(moment_ns: int | None, utc: bool = False) -> str:
    """Write a moment in unix nanoseconds: local time ``2026-11-21 13:37:46``, or UTC ``2026-11-21 12:37:46Z``."""
    if moment_ns is None:
        return UNKNOWN
    try:
        moment = datetime.fromtimestamp(moment_ns // 1_000_000_000, UTC)
        shown = moment if utc else moment.astimezone()
    except (OverflowError, OSError, ValueError):  # a sender's clock may say anything
        return f"{moment_ns} ns"
    return f"{shown:%Y-%m-%d %H:%M:%S}{'Z' if utc else ''}"


def safe_text(text: str) -> str:
    """Make foreign text harmless on one line of a terminal: controls, escapes and bidi overrides become ``\\x1b``.

    Telemetry text is written by whoever is traced and by the models they call. Printable text comes back unchanged.
    """
    return text if text.isprintable() else "".join(map(_safe_character, text))


def _safe_character(character: str) -> str:
    if character in _JOINERS or unicodedata.category(character) not in _UNSAFE:
        return character
    return character.encode("unicode_escape").decode("ascii")
