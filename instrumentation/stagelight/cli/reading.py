"""What every reading command does around its own answer: open, close, write JSON, and say what to do without data."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import Any, TypeAlias

from stagelight.cli.options import opened_source
from stagelight.cli.output import DIM, Cell, Screen
from stagelight.sources.format import clock, count, counted
from stagelight.sources.model import Description, Source, Window

__all__ = [
    "Json",
    "contents",
    "json_value",
    "more_than",
    "print_json",
    "reading",
    "say_nothing_found",
    "window_document",
]

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"

_NO_DATA_YET = (
    'The database is empty. Run `stagelight up`, then `eval "$(stagelight env)"` where your application starts; '
    "or see it work first: `stagelight demo`."
)
_NO_DATA_IN_STACK = (
    'The stack has no telemetry yet. Run `eval "$(docker compose run --rm setup env)"` where your application starts.'
)


@contextmanager
def reading(args: argparse.Namespace) -> Iterator[Source]:
    """The source of a command, closed at the end."""
    source = opened_source(args)
    try:
        yield source
    finally:
        source.close()


def json_value(value: Any) -> Json:
    """A row or a part of one for JSON: fields by name, amounts as text with all digits, what is no number as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: json_value(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() and value.adjusted() < 60 else str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return value  # type: ignore[no-any-return]  # what is left is str, int, float, bool or None


def print_json(document: Mapping[str, Json], *, indent: int | None = 2) -> None:
    """Print one JSON document; everything but ASCII is escaped, so that no terminal can be fooled by it."""
    print(json.dumps(document, indent=indent, allow_nan=False))


def window_document(source: Source, window: Window, rows: Sequence[Any], **more: Any) -> dict[str, Json]:
    """The JSON document of a list: where and when was read, further keys, and the rows."""
    return {
        "source": source.location,
        "since_ns": window.since_ns,
        "until_ns": window.until_ns,
        **{key: json_value(value) for key, value in more.items()},
        "rows": [json_value(row) for row in rows],
    }


def say_nothing_found(source: Source, args: argparse.Namespace, window: Window, what: str, advice: str) -> None:
    """Say that the window has none of something, and the next step.

    Args:
        source: where was looked.
        args: of the command.
        window: when was looked.
        what: plural of what is missing: ``turns``.
        advice: the sentence for a window that has telemetry, but none of these.
    """
    screen = Screen()
    screen.line(f"No {what} between {clock(window.since_ns, args.utc)} and {clock(window.until_ns, args.utc)}.")
    held = source.describe()
    is_stack = "://" in held.location
    if held.oldest_ns is None or held.newest_ns is None:
        screen.line(_NO_DATA_IN_STACK if is_stack else _NO_DATA_YET)
    elif held.newest_ns < window.since_ns or held.oldest_ns >= window.until_ns:
        oldest, newest = clock(held.oldest_ns, args.utc), clock(held.newest_ns, args.utc)
        where = "stack" if is_stack else "database"
        screen.line(f"The {where} has data from {oldest} to {newest}: widen the range, `--since all`.")
    else:
        screen.line(advice)
    screen.line(Cell(": ".join(filter(None, (held.location, contents(held)))), DIM))


def contents(held: Description) -> str:
    """How much a source holds, in words; nothing where it is not counted."""
    numbers = ((held.spans, "span"), (held.usage, "usage record"), (held.logs, "log line"))
    return ", ".join(counted(number, noun) for number, noun in numbers if number is not None)


def more_than(shown: int, order: str) -> str:
    """The sentence below a list that has more rows than were asked for, in words."""
    these = f"These are the {order} {count(shown)}" if shown != 1 else f"This is the {order} one"
    return f"{these}; --limit shows more."
