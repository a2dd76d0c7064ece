"""``stagelight errors``: what failed."""

from __future__ import annotations

import argparse

from stagelight.cli.failures import ExitCode
from stagelight.cli.options import add_reading_flags, window
from stagelight.cli.output import BAD, DIM, STAGE_STYLES, Cell, Column, Content, Screen
from stagelight.cli.reading import print_json, reading, say_nothing_found, window_document
from stagelight.sources.format import UNKNOWN, count, counted
from stagelight.sources.model import ErrorRow

__all__ = ["add_arguments", "run"]

_EXAMPLES = """\
Examples:
  stagelight errors --since 1h
  stagelight turns TRACE                  draw the trace of one of them; the first digits are enough

A failure is counted where it arose: a turn that failed only because a call in it did is not counted again.
Messages are not shown because they are not recorded: they carry prompts and keys."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    parser.description = "What failed, how often, when last, and one trace of each kind."
    parser.epilog = _EXAMPLES
    add_reading_flags(parser, limit=50)


def run(args: argparse.Namespace) -> int:
    """Print the table or the JSON document."""
    span = window(args)
    with reading(args) as source:
        rows = source.errors(span)
        shown = rows[: args.limit]
        if args.json:
            print_json(window_document(source, span, shown))
        elif rows:
            _print(shown, utc=args.utc, left_out=len(rows) - len(shown))
        else:
            calls = counted(sum(row.calls for row in source.cost(span, "stage")), "call")
            say_nothing_found(source, args, span, "errors", f"Good news: {calls} and no failure in this range.")
    return ExitCode.DONE


def _print(rows: list[ErrorRow], *, utc: bool, left_out: int) -> None:
    screen = Screen()
    columns = [
        Column("stage"),
        Column("provider", spare=2),
        Column("model", wrap=16, spare=1),
        Column("error", wrap=16),
        Column("outcome", spare=3),
        Column("count", right=True),
        Column("last", right=screen.is_terminal),
        Column("trace", prefix=12),
    ]
    lines: list[list[Content]] = [
        [
            Cell(row.stage, STAGE_STYLES.get(row.stage, "")),
            row.provider or UNKNOWN,
            row.model or UNKNOWN,
            Cell(row.error_type or UNKNOWN, BAD),
            row.outcome or UNKNOWN,
            count(row.count),
            screen.moment(row.last_ns, utc=utc),
            Cell(row.trace_id, DIM),
        ]
        for row in rows
    ]
    screen.table(columns, lines)
    if left_out:
        screen.line(Cell(f"{counted(left_out, 'more kind')} of errors; --limit shows more.", DIM))
