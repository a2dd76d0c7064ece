"""``stagelight latency``: how long stages or models take."""

from __future__ import annotations

import argparse
from typing import cast

from stagelight.cli.failures import ExitCode
from stagelight.cli.options import add_reading_flags, one_of, window
from stagelight.cli.output import BAD, STAGE_STYLES, Cell, Column, Screen
from stagelight.cli.reading import print_json, reading, say_nothing_found, window_document
from stagelight.sources.format import count, duration
from stagelight.sources.model import LATENCY_DIMENSIONS, LatencyDimension, LatencyRow

__all__ = ["add_arguments", "run"]

_EXAMPLES = """\
Examples:
  stagelight latency                      stages of the last 24 hours, slowest first
  stagelight latency --since 1h --by model
  stagelight turns --slowest              the turns behind the figures

Failed calls are included. "first" is the time to the first chunk of a streamed answer or the first audio byte; for
turns it is the time to the first token. Percentiles are exact (nearest rank), not estimated from buckets; of a stack
with more than 20,000 spans in the range, or with sampling, they are estimated (docs/cli.md, "Read the stack")."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    parser.description = "How long the stages take: p50, p95 and p99, and to the first chunk of a stream."
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "--by",
        type=one_of(LATENCY_DIMENSIONS),
        default="stage",
        metavar="KEY",
        help=f"one row per: {', '.join(LATENCY_DIMENSIONS)} (default stage)",
    )
    add_reading_flags(parser, limit=100)


def run(args: argparse.Namespace) -> int:
    """Print the table or the JSON document."""
    span = window(args)
    with reading(args) as source:
        rows = source.latency(span, cast("LatencyDimension", args.by))[: args.limit]
        if args.json:
            print_json(window_document(source, span, rows, by=args.by))
        elif rows:
            columns = [
                Column(args.by, wrap=16),
                Column("calls", right=True),
                Column("errors", right=True),
                Column("p50", right=True),
                Column("p95", right=True),
                Column("p99", right=True),
                Column("first p50", right=True, spare=1),
                Column("first p95", right=True, spare=1),
            ]
            Screen().table(columns, [_cells(row) for row in rows])
        else:
            advice = "There is telemetry, but no stage in it: see `stagelight traces` and `stagelight doctor`."
            say_nothing_found(source, args, span, "calls", advice)
    return ExitCode.DONE


def _cells(row: LatencyRow) -> list[Cell]:
    times = (row.p50_s, row.p95_s, row.p99_s, row.first_p50_s, row.first_p95_s)
    return [
        Cell(row.key, STAGE_STYLES.get(row.key, "")),
        Cell(count(row.calls)),
        Cell(count(row.errors), BAD if row.errors else ""),
        *(Cell(duration(seconds)) for seconds in times),
    ]
