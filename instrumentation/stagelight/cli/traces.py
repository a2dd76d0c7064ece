"""``stagelight traces``: what arrived, turn or not."""

from __future__ import annotations

import argparse

from stagelight.cli.failures import ExitCode
from stagelight.cli.options import add_reading_flags, window
from stagelight.cli.output import BAD, DIM, Cell, Column, Content, Screen
from stagelight.cli.reading import more_than, print_json, reading, say_nothing_found, window_document
from stagelight.sources.format import count, duration, money, money_places
from stagelight.sources.model import TraceRow

__all__ = ["add_arguments", "run"]

_EXAMPLES = """\
Examples:
  stagelight traces --since 15m
  stagelight turns TRACE                  draw one of them; the first digits are enough
  stagelight traces --json | jq -r '.rows[].trace_id'"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    parser.description = "The newest traces, those without a turn included."
    parser.epilog = _EXAMPLES
    add_reading_flags(parser, limit=20)


def run(args: argparse.Namespace) -> int:
    """Print the table or the JSON document."""
    span = window(args)
    with reading(args) as source:
        rows = source.traces(span, args.limit + 1)
        shown = rows[: args.limit]
        if args.json:
            print_json(window_document(source, span, shown))
        elif rows:
            _print(shown, utc=args.utc, more=len(rows) > len(shown))
        else:
            say_nothing_found(source, args, span, "traces", "There is telemetry, but no span in this range.")
    return ExitCode.DONE


def _print(rows: list[TraceRow], *, utc: bool, more: bool) -> None:
    screen = Screen()
    places = money_places(row.cost for row in rows)
    columns = [
        Column("trace", prefix=12),
        Column("started", spare=3),
        Column("root span", wrap=20),
        Column("service", wrap=12, spare=2),
        Column("took", right=True),
        Column("spans", right=True, spare=1),
        Column("errors", right=True),
        Column("cost USD", right=True),
    ]
    lines: list[list[Content]] = [
        [
            Cell(row.trace_id, DIM),
            screen.moment(row.start_ns, utc=utc),
            row.name,
            row.service,
            duration(row.duration_ns / 1e9),
            count(row.spans),
            Cell(count(row.errors), BAD if row.errors else ""),
            money(row.cost, places),
        ]
        for row in rows
    ]
    screen.table(columns, lines)
    if more:
        screen.line(Cell(more_than(len(rows), "newest"), DIM))
