"""``stagelight tail``: spans and log lines as they arrive."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from typing import Final

from stagelight.cli.failures import ExitCode
from stagelight.cli.options import add_reading_flags, one_of, positive, window
from stagelight.cli.output import BAD, DIM, STAGE_STYLES, WARN, Cell, Screen, hint
from stagelight.cli.reading import Json, json_value, print_json, reading
from stagelight.conventions import attributes as names
from stagelight.sources.format import UNKNOWN, clock, duration
from stagelight.sources.model import LogRow, Source, SpanRow, TailRecord, Window

__all__ = ["add_arguments", "run"]

_POLL_S: Final = 0.5
_RECENT_TRACES: Final = 20
_KINDS: Final = {"spans": SpanRow, "logs": LogRow}

_EXAMPLES = """\
Examples:
  stagelight tail                          the last 10 records, then new ones until Ctrl-C
  stagelight tail --only logs --last 50
  stagelight tail --once                   the last records, and no waiting
  stagelight tail --count 100 --json | jq -r .name
                                           the next 100 records as JSON, one document per line"""


class _Follower:
    """Chooses and prints records, each once."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._screen = Screen()
        self._wanted = _KINDS.get(args.only, (SpanRow, LogRow))
        self._shown: set[tuple[str, str] | int] = set()

    def wanted(self, records: Iterable[TailRecord]) -> list[TailRecord]:
        """Those of the kind that was asked for and not shown yet."""
        return [
            record for record in records if isinstance(record, self._wanted) and _identity(record) not in self._shown
        ]

    def show(self, records: Iterable[TailRecord]) -> None:
        """Print records, one line each."""
        for record in records:
            if self._args.json:
                print_json(_document(record), indent=None)
            else:
                self._screen.line(*_line(record, utc=self._args.utc))
        sys.stdout.flush()  # whoever reads the pipe waits for them

    def remember(self, records: Iterable[TailRecord]) -> None:
        """Do not show these again."""
        self._shown = {_identity(record) for record in records}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    parser.description = "Follow spans and log lines as they arrive; Ctrl-C ends it."
    parser.epilog = _EXAMPLES
    parser.add_argument("--last", type=positive, default=10, metavar="N", help="begin with the last N (default 10)")
    parser.add_argument("--count", type=positive, metavar="N", help="end after N new ones")
    parser.add_argument("--once", action="store_true", help="show the last ones and end")
    parser.add_argument("--only", type=one_of(tuple(_KINDS)), metavar="KIND", help="spans or logs (default both)")
    add_reading_flags(parser, limit=None)


def run(args: argparse.Namespace) -> int:
    """Print what there is, then what arrives."""
    with reading(args) as source:
        follower = _Follower(args)
        _, cursor = source.tail()
        recent = follower.wanted(_recent(source, window(args), args.last))
        follower.show(recent[-args.last :])
        if args.once:
            if not recent:
                hint("Nothing in that time. `stagelight tail` without --once waits for what arrives.")
            return ExitCode.DONE
        if not recent:
            hint("Nothing yet: waiting for what arrives. Ctrl-C ends it.")
        follower.remember(recent)
        _follow(source, follower, cursor, args.count)
    return ExitCode.DONE


def _follow(source: Source, follower: _Follower, cursor: str, count: int | None) -> None:
    left = count
    while left is None or left > 0:
        records, cursor = source.tail(cursor)
        new = follower.wanted(records)[:left]
        follower.show(new)
        left = None if left is None else left - len(new)
        if not records:
            time.sleep(_POLL_S)


def _recent(source: Source, span: Window, most: int) -> list[TailRecord]:
    """The newest records of a window in order of time, at least ``most`` where there are so many."""
    records: list[TailRecord] = list(source.logs(span, most))
    spans = 0
    for row in source.traces(span, _RECENT_TRACES):
        trace = source.trace(row.trace_id)
        records += trace.spans if trace else ()
        spans += len(trace.spans) if trace else 0
        if spans >= most:
            break
    return sorted(records, key=_moment)


def _moment(record: TailRecord) -> int:
    return record.time_ns if isinstance(record, LogRow) else record.start_ns + record.duration_ns


def _identity(record: TailRecord) -> tuple[str, str] | int:
    return record.id if isinstance(record, LogRow) else (record.trace_id, record.span_id)


def _document(record: TailRecord) -> dict[str, Json]:
    fields = json_value(record)
    return {"record": "log" if isinstance(record, LogRow) else "span", **(fields if isinstance(fields, dict) else {})}


def _line(record: TailRecord, *, utc: bool) -> tuple[Cell, ...]:
    moment = Cell(f"{clock(_moment(record), utc)}  ", DIM)
    if isinstance(record, LogRow):
        style = BAD if record.severity in {"ERROR", "FATAL"} else WARN if record.severity == "WARN" else ""
        severity = Cell(f"{record.severity:<10} ", style)
        event = f"{record.event_name}  " if record.event_name else ""
        return (moment, severity, Cell(f"{record.service}  {event}{record.body}"))
    error = record.attributes.get(names.ERROR_TYPE) or (record.status_message if record.status == "ERROR" else None)
    failed = f"  {error or 'error'}" if record.status == "ERROR" else ""
    return (
        moment,
        Cell(f"{record.stage or UNKNOWN:<10} ", STAGE_STYLES.get(record.stage or "", "")),
        Cell(f"{record.service}  {record.name}  {duration(record.duration_ns / 1e9)}"),
        Cell(failed, BAD),
        Cell(f"  {record.trace_id}", DIM),
    )
