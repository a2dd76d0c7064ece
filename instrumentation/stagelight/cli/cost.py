"""``stagelight cost``: what was spent, and how sure the figure is."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Context, Decimal
from typing import cast

from stagelight.cli.failures import ExitCode
from stagelight.cli.options import add_reading_flags, one_of, time_zone, window
from stagelight.cli.output import DIM, WARN, Cell, Column, Content, Screen
from stagelight.cli.reading import Json, json_value, print_json, reading, say_nothing_found, window_document
from stagelight.sources.format import UNKNOWN, count, counted, duration, money, money_places, percent
from stagelight.sources.model import COST_DIMENSIONS, CostDimension, CostRow

__all__ = ["add_arguments", "run"]

_EXAMPLES = """\
Examples:
  stagelight cost                              the last 24 hours by model
  stagelight cost --since 7d --by day --utc    a week, day by day
  stagelight cost --by user --limit 10         the ten users who cost most (pseudonyms)
  stagelight cost --json | jq .total.cost      the exact sum

The status says what the figure is: `exact` is usage the provider reported times a dated price of that model (still
not the invoice), `estimated` is counted usage or an estimated price, `partial` leaves out a unit without a price,
`unpriced` calls have no amount and are not in the sum. `stagelight prices MODEL` explains one model's price."""

_SHARE = Context(prec=15)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    parser.description = "What was spent: summed exactly over the ledger of calls, whatever was sampled."
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "--by",
        type=one_of(COST_DIMENSIONS),
        default="model",
        metavar="KEY",
        help=f"one row per: {', '.join(COST_DIMENSIONS)} (default model)",
    )
    add_reading_flags(parser, limit=100)


def run(args: argparse.Namespace) -> int:
    """Print the table or the JSON document."""
    span = window(args)
    by = cast("CostDimension", args.by)
    with reading(args) as source:
        rows = source.cost(span, by, tz=time_zone(args))
        turns = source.count_turns(span) or 0
        shown = rows[-args.limit :] if by == "day" else rows[: args.limit]
        if args.json:
            total = _total(rows, turns)
            document = window_document(source, span, [], by=by, currency="USD", total=_document(total))
            print_json({**document, "rows": [_document(row) for row in shown]})
        elif rows:
            _print(by, shown, _total(rows, turns), left_out=len(rows) - len(shown))
        else:
            advice = (
                "There is telemetry, but no call with usage in it: call stagelight.configure() in the application, "
                "and see `stagelight doctor`."
            )
            say_nothing_found(source, args, span, "calls with usage", advice)
    return ExitCode.DONE


def _document(row: CostRow) -> dict[str, Json]:
    document = cast("dict[str, Json]", json_value(row))
    amount = row.cost if _has_amount(row) else None
    return {
        **document,
        "cost": json_value(amount),
        "per_turn": json_value(_per_turn(row)),
        "status": _status(row) if row.calls else None,
    }


def _has_amount(row: CostRow) -> bool:
    return row.unpriced < row.calls


def _per_turn(row: CostRow) -> Decimal | None:
    return _SHARE.divide(row.cost, Decimal(row.turns)) if row.turns and _has_amount(row) else None


def _total(rows: Sequence[CostRow], turns: int) -> CostRow:
    return CostRow(
        key="total",
        calls=sum(row.calls for row in rows),
        input_tokens=sum(row.input_tokens for row in rows),
        output_tokens=sum(row.output_tokens for row in rows),
        cached_tokens=sum(row.cached_tokens for row in rows),
        characters=sum(row.characters for row in rows),
        audio_seconds=sum(row.audio_seconds for row in rows),
        cost=sum((row.cost for row in rows), Decimal(0)),
        exact=sum(row.exact for row in rows),
        estimated=sum(row.estimated for row in rows),
        partial=sum(row.partial for row in rows),
        unpriced=sum(row.unpriced for row in rows),
        reasons=_added(row.reasons for row in rows),
        missing=_added(row.missing for row in rows),
        turns=turns,
    )


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for some in counts:
        for key, number in some.items():
            total[key] = total.get(key, 0) + number
    return total


def _status(row: CostRow) -> str:
    """``exact``, or every reason why the amount is not, with the number of calls."""
    parts = []
    if row.estimated:
        parts.append("estimated" if row.estimated == row.calls else f"estimated: {counted(row.estimated, 'call')}")
    if row.partial:
        without = f" without a price for {_most_frequent(row.missing)}" if row.missing else ""
        parts.append(f"partial: {counted(row.partial, 'call')}{without}")
    if row.unpriced:
        number = "" if row.unpriced == row.calls else f": {counted(row.unpriced, 'call')}"
        why = f" ({_most_frequent(row.reasons)})" if row.reasons else ""
        parts.append(f"unpriced{number}{why}")
    return ", ".join(parts) or ("exact" if row.calls else UNKNOWN)


def _total_status(total: CostRow) -> str:
    missing = total.partial + total.unpriced
    if not missing:
        return _status(total)
    return f"lower bound: {counted(missing, 'call')} without a full price" if _has_amount(total) else "unpriced"


def _most_frequent(counts: Mapping[str, int]) -> str:
    return ", ".join(sorted(counts, key=lambda key: (-counts[key], key)))


def _print(by: str, rows: Sequence[CostRow], total: CostRow, *, left_out: int) -> None:
    everything = [*rows, total]
    cost_places = money_places(row.cost for row in everything)
    turn_places = money_places(_per_turn(row) for row in everything)
    shown: tuple[tuple[Column, Callable[[CostRow], Content]], ...] = (
        (Column(by, wrap=22), lambda row: row.key),
        (Column("calls", right=True), lambda row: count(row.calls)),
        (Column("tokens in", right=True, spare=1), lambda row: _used(row.input_tokens)),
        (Column("out", right=True, spare=1), lambda row: _used(row.output_tokens)),
        (Column("cached", right=True, spare=3), _cached),
        (Column("characters", right=True, spare=4), lambda row: _used(row.characters)),
        (Column("audio", right=True, spare=5), lambda row: duration(row.audio_seconds or None)),
        (Column("cost USD", right=True), lambda row: money(row.cost, cost_places) if _has_amount(row) else UNKNOWN),
        (Column("per turn", right=True, spare=2), lambda row: money(_per_turn(row), turn_places)),
        (Column("status", wrap=28), lambda row: _marked(row, _total_status if row is total else _status)),
    )
    used = [
        (column, write)
        for column, write in shown
        if column.title not in {"characters", "audio"} or write(total) != UNKNOWN
    ]
    screen = Screen()
    lines = [[write(row) for _, write in used] for row in rows]
    screen.table([column for column, _ in used], lines, [write(total) for _, write in used])
    if left_out:
        screen.line(Cell(f"{counted(left_out, 'more row')} in the total; --limit shows more.", DIM))


def _marked(row: CostRow, status: Callable[[CostRow], str]) -> Cell:
    return Cell(status(row), "" if row.exact == row.calls else WARN)


def _used(number: int) -> str:
    return count(number) if number else UNKNOWN


def _cached(row: CostRow) -> str:
    return percent(row.cached_tokens / row.input_tokens) if row.input_tokens else UNKNOWN
