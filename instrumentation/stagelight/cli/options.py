"""Flags that several commands share, and what they mean."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from stagelight.cli.failures import CommandError, ExitCode
from stagelight.sources.model import Source, Window

__all__ = [
    "GATEWAY_TOKEN_VARIABLE",
    "SOURCE_VARIABLE",
    "add_reading_flags",
    "moment",
    "number_above_zero",
    "one_of",
    "opened_source",
    "port_number",
    "positive",
    "time_zone",
    "window",
]

SOURCE_VARIABLE: Final = "STAGELIGHT_SOURCE"
GATEWAY_TOKEN_VARIABLE: Final = "STAGELIGHT_GATEWAY_TOKEN"  # noqa: S105 (the name of the setting)

_UNIT_SECONDS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LARGEST: Final = 1_000_000
_LAST_NS: Final = 2**63 - 1
_RELATIVE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)", re.ASCII)
_MOMENTS: Final = (
    "a length of time before now (30s, 15m, 24h, 7d, 2w), a date or time (2026-11-21, 2026-11-21T09:30), now or all"
)

Moment = timedelta | datetime
"""A point in time: before now, or on the clock (without a zone: as ``--utc`` says)."""


def add_reading_flags(parser: argparse.ArgumentParser, *, limit: int | None, since: str | None = "24h") -> None:
    """Add the flags of a command that reads stored telemetry.

    Args:
        parser: parser of the command.
        limit: default of ``--limit`` in rows; ``None`` leaves the flag out.
        since: default of ``--since``; ``None`` leaves ``--since`` and ``--until`` out.
    """
    group = parser.add_argument_group("what to read")
    if since is not None:
        group.add_argument(
            "--since", type=moment, default=since, metavar="WHEN", help=f"from when on (default {since}): {_MOMENTS}"
        )
        group.add_argument("--until", type=moment, default="now", metavar="WHEN", help="until when (default now)")
    if limit is not None:
        group.add_argument(
            "--limit", type=positive, default=limit, metavar="N", help=f"at most N rows (default {limit})"
        )
    group.add_argument(
        "--source",
        default=None,
        metavar="WHERE",
        help=f"what to read: a database file, or the address of a stack's gateway like http://127.0.0.1:8080, whose "
        f"token is read from {GATEWAY_TOKEN_VARIABLE} (default: {SOURCE_VARIABLE}, or the file `stagelight up` keeps)",
    )
    shape = parser.add_argument_group("how to show it")
    shape.add_argument(
        "--json", action="store_true", help="JSON for programs: amounts as strings, times in nanoseconds"
    )
    shape.add_argument("--utc", action="store_true", help="read and show times in UTC and not in local time")


def moment(text: str) -> Moment:
    """Parse ``24h``, ``2026-11-21``, ``2026-11-21T09:30:00+01:00``, ``now`` or ``all``.

    Raises:
        argparse.ArgumentTypeError: none of these; the message says what is accepted.
    """
    word = text.strip().lower()
    if word == "now":
        return timedelta(0)
    if word == "all":
        return datetime.fromtimestamp(0, UTC)
    relative = _RELATIVE.fullmatch(word)
    try:
        if relative:
            return timedelta(seconds=float(relative[1]) * _UNIT_SECONDS[relative[2]])
        return datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; accepted: {_MOMENTS}") from None


def window(args: argparse.Namespace, now_ns: int | None = None) -> Window:
    """The time range of ``--since`` and ``--until``.

    Raises:
        CommandError: it ends before it starts.
    """
    now_ns = time.time_ns() if now_ns is None else now_ns
    since_ns, until_ns = (_nanoseconds(bound, now_ns, utc=args.utc) for bound in (args.since, args.until))
    if since_ns >= until_ns:
        raise CommandError("--since is not before --until: there is no time between them", ExitCode.USAGE)
    return Window(since_ns, until_ns)


def _nanoseconds(bound: Moment, now_ns: int, *, utc: bool) -> int:
    if isinstance(bound, timedelta):
        return max(now_ns - bound // timedelta(microseconds=1) * 1000, 0)
    if bound.year <= 1970:  # before it nothing was recorded, and clocks of some systems cannot count
        return 0
    if bound.tzinfo is None and utc:
        bound = bound.replace(tzinfo=UTC)
    return min(int(bound.timestamp()) * 1_000_000_000 + bound.microsecond * 1000, _LAST_NS)


def time_zone(args: argparse.Namespace) -> tzinfo:
    """The zone in which days begin: UTC with ``--utc``, otherwise the local one with today's offset."""
    return UTC if args.utc else datetime.now(UTC).astimezone().tzinfo or UTC


def opened_source(args: argparse.Namespace) -> Source:
    """The source to read: ``--source``, else ``STAGELIGHT_SOURCE``, else the default database.

    Raises:
        SourceUnavailable: there is nothing to read there.
    """
    from stagelight.sources import open_source

    return open_source(args.source or os.environ.get(SOURCE_VARIABLE) or None)


def one_of(values: Sequence[str]) -> Callable[[str], str]:
    """A flag's type that accepts these words, and otherwise names them."""

    def parse(text: str) -> str:
        if text in values:
            return text
        near = difflib.get_close_matches(text, values, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise argparse.ArgumentTypeError(f"{text!r} is not accepted; accepted: {', '.join(values)}{hint}")

    return parse


def positive(text: str) -> int:
    """A flag's type: a whole number from 1 to a million."""
    return _whole(text, 1, _LARGEST)


def port_number(text: str) -> int:
    """A flag's type: a port, 0 for any free one."""
    return _whole(text, 0, 65_535)


def number_above_zero(text: str) -> float:
    """A flag's type: a number above 0, up to a million."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= _LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not accepted; accepted: a number above 0, up to {_LARGEST:,}")
    return number


def _whole(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and least <= int(text[:19]) <= most):
        raise argparse.ArgumentTypeError(f"{text!r} is not accepted; accepted: a whole number from {least} to {most:,}")
    return int(text)
