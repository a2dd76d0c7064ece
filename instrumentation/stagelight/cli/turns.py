"""``stagelight turns``: requests as users felt them, and one of them drawn."""

from __future__ import annotations

import argparse

from stagelight.cli.bars import OTHER, STAGE_LETTERS, turn_bar
from stagelight.cli.failures import CommandError, ExitCode
from stagelight.cli.options import add_reading_flags, positive, window
from stagelight.cli.output import BAD, DIM, STAGE_STYLES, WARN, Cell, Column, Content, Screen
from stagelight.cli.reading import json_value, more_than, print_json, reading, say_nothing_found, window_document
from stagelight.cli.waterfall import draw
from stagelight.sources.format import UNKNOWN, count, duration, money, money_places
from stagelight.sources.model import Source, TurnRow

__all__ = ["add_arguments", "run"]

_ROWS, _SPANS = 20, 200
_BAR_WIDTH = 16

_EXAMPLES = """\
Examples:
  stagelight turns                        the newest turns of the last 24 hours
  stagelight turns --slowest --since 1h
  stagelight turns 4bf92f3577b3           draw the one whose trace id begins so (6 digits or more)
  stagelight turns 4bf92f --json          everything that is known of it

A turn is one request: `with stagelight.turn("answer"): ...`. The column "stages" is its time from left to right, a
letter per stage; time to first token and first audio run from the start of the turn."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    parser.description = "List turns (one request each) with their stages, or draw one of them as a waterfall."
    parser.epilog = _EXAMPLES
    parser.add_argument("trace", nargs="?", metavar="TRACE", help="id of the trace to draw, or its first digits")
    parser.add_argument("--slowest", action="store_true", help="the slowest first, not the newest")
    parser.add_argument(
        "--limit",
        type=positive,
        default=None,
        metavar="N",
        help=f"at most N turns (default {_ROWS}), or spans of the one drawn (default {_SPANS})",
    )
    add_reading_flags(parser, limit=None)


def run(args: argparse.Namespace) -> int:
    """Print the list, the waterfall or the JSON document."""
    if args.trace is None:
        return _list(args)
    with reading(args) as source:
        return _show(args, source)


def _show(args: argparse.Namespace, source: Source) -> int:
    try:
        trace = source.trace(args.trace.lower())
    except ValueError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    if trace is None:
        raise CommandError(
            f"no trace in {source.location} has an id that begins with {args.trace!r}; "
            "`stagelight traces --since all` lists them"
        )
    if args.json:
        print_json({"source": source.location, "trace": json_value(trace)})
    else:
        draw(Screen(), trace, utc=args.utc, limit=args.limit or _SPANS)
    return ExitCode.DONE


def _list(args: argparse.Namespace) -> int:
    span = window(args)
    limit = args.limit or _ROWS
    order = "slowest" if args.slowest else "newest"
    with reading(args) as source:
        rows = source.turns(span, limit + 1, order="slowest" if args.slowest else "newest")
        shown = rows[:limit]
        if args.json:
            print_json(window_document(source, span, shown, order=order))
        elif rows:
            _print(shown, utc=args.utc)
            if len(rows) > limit:
                Screen().line(Cell(more_than(limit, order), DIM))
        else:
            advice = (
                "There is telemetry without turns: `stagelight traces` lists it; "
                'a turn is a block `with stagelight.turn("answer"):` around one request.'
            )
            say_nothing_found(source, args, span, "turns", advice)
    return ExitCode.DONE


def _print(rows: list[TurnRow], *, utc: bool) -> None:
    screen = Screen()
    places = money_places(row.cost for row in rows)
    columns = [
        Column("trace", prefix=8),
        Column("started", spare=3),
        Column("turn", wrap=12),
        Column("feature", wrap=12, spare=6),
        Column("stages", spare=1),
        Column("calls", right=True, spare=5),
        Column("first token", right=True, spare=2),
        Column("first audio", right=True, spare=4),
        Column("took", right=True),
        Column("cost USD", right=True),
        Column("status", spare=7),
        Column("outcome", wrap=14),
    ]
    lines: list[list[Content]] = [
        [
            Cell(row.trace_id, DIM),
            screen.moment(row.start_ns, utc=utc),
            row.name,
            row.feature or UNKNOWN,
            turn_bar(row, _BAR_WIDTH),
            count(row.calls),
            duration(row.time_to_first_token_s),
            duration(row.time_to_first_audio_s),
            duration(row.duration_ns / 1e9),
            money(row.cost, places),
            Cell(row.cost_status or UNKNOWN, "" if row.cost_status == "exact" else WARN),
            Cell(row.error_type or row.outcome or UNKNOWN, BAD if row.error_type else ""),
        ]
        for row in rows
    ]
    if "stages" not in screen.table(columns, lines):
        return
    used = {bar.stage for row in rows for bar in row.bars}
    legend = (
        Cell(f"{letter} {stage}  ", STAGE_STYLES.get(stage, ""))
        for stage, letter in STAGE_LETTERS.items()
        if stage in used
    )
    screen.line(Cell("stages: ", DIM), *legend, f"{OTHER} other")
