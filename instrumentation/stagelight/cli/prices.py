"""``stagelight prices MODEL``: what a model costs, and why a call costs what it costs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from stagelight.cli.failures import CommandError, ExitCode
from stagelight.cli.options import number_above_zero, positive
from stagelight.cli.output import DIM, STRONG, WARN, Cell, Column, Content, Screen
from stagelight.cli.reading import Json, json_value, print_json
from stagelight.facts import Partial, Unpriced, Usage

if TYPE_CHECKING:
    from stagelight.cost import Explanation, Listing

__all__ = ["PRICES_VARIABLE", "add_arguments", "load_prices", "run"]

PRICES_VARIABLE: Final = "STAGELIGHT_PRICES"

_QUANTITIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "input_tokens": "all input tokens of a call, cached ones included",
        "output_tokens": "all output tokens of a call, reasoning included",
        "cache_read_tokens": "input tokens read from the provider's cache",
        "characters": "characters to speak",
    }
)

_EXAMPLES = f"""\
Examples:
  stagelight prices gpt-4o-mini
  stagelight prices tts-1 --provider openai --characters 4200
  stagelight prices gpt-4o --provider openai --input-tokens 9000 --cache-read-tokens 8000 --output-tokens 250
  stagelight prices claude-sonnet-4-5 --tier batch --json

Prices come from your file ({PRICES_VARIABLE}), then from Stagelight's dated lists, then from the package genai-prices.
A model without a price of its own is unpriced: it is never given another model's price, and never 0."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    parser.description = "What a model costs, where that price is from and how old it is; with quantities, one call."
    parser.epilog = _EXAMPLES
    parser.add_argument("model", metavar="MODEL", help="name of the model, as sent to the provider")
    parser.add_argument(
        "--provider", metavar="NAME", help="openai, anthropic, aws.bedrock ... (default: all that have it)"
    )
    parser.add_argument("--tier", metavar="NAME", help="batch, flex, priority ... (default: the list price)")
    parser.add_argument(
        "--prices", type=Path, metavar="FILE", help=f"your own prices (default: the file that {PRICES_VARIABLE} names)"
    )
    parser.add_argument("--json", action="store_true", help="JSON for programs: prices and amounts as strings")
    call = parser.add_argument_group("price one call of it (needs --provider)")
    for name, meaning in _QUANTITIES.items():
        call.add_argument(f"--{name.replace('_', '-')}", type=positive, metavar="N", help=meaning)
    call.add_argument("--audio-seconds", type=number_above_zero, metavar="N", help="seconds of audio made or read")


def run(args: argparse.Namespace) -> int:
    """Print the prices, and the arithmetic of the call if one was described."""
    load_prices(args.prices)
    from stagelight import cost

    listings = cost.lookup(args.model, args.provider, service_tier=args.tier)
    usage = _usage(args)
    explanation = None
    if usage is not None:
        if args.provider is None:
            raise CommandError("--provider is needed to price a call: prices differ by provider", ExitCode.USAGE)
        explanation = cost.explain(
            usage, provider=args.provider, request_model=args.model, service_tier=args.tier
        )  # fmt: skip
    if args.json:
        print_json(_document(args, listings, explanation))
    else:
        _print(args, listings, explanation)
    return ExitCode.DONE if listings else ExitCode.FAILED


def load_prices(file: Path | None = None) -> None:
    """Use the user's own prices, from ``file`` or the file that the environment names, over the bundled ones.

    Raises:
        CommandError: the file cannot be used; the message has file, line and field.
    """
    from stagelight import cost

    named = os.environ.get(PRICES_VARIABLE, "").strip()
    chosen = file or (Path(named) if named else None)
    try:
        cost.configure(chosen.expanduser() if chosen else None)
    except cost.PriceFileError as error:
        raise CommandError(str(error)) from error


def _usage(args: argparse.Namespace) -> Usage | None:
    given = {name: getattr(args, name) for name in (*_QUANTITIES, "audio_seconds")}
    return Usage(**given) if any(value is not None for value in given.values()) else None


def _document(
    args: argparse.Namespace, listings: tuple[Listing, ...], explanation: Explanation | None
) -> dict[str, Json]:
    document: dict[str, Json] = {"model": args.model, "currency": "USD", "rows": [json_value(row) for row in listings]}
    if explanation is not None:
        priced = explanation.cost
        reason = priced.reason if isinstance(priced, Unpriced) else None
        document["call"] = {
            "amount": None if isinstance(priced, Unpriced) else json_value(priced.amount),
            "status": _status(explanation),
            "reason": reason,
            "lines": [json_value(line._asdict()) for line in explanation.lines],
        }
    return document


def _print(args: argparse.Namespace, listings: tuple[Listing, ...], explanation: Explanation | None) -> None:
    screen = Screen()
    if not listings:
        at = f" at {args.provider!r}" if args.provider else ""
        screen.line(f"No price is known for {args.model!r}{at}: its calls are unpriced, not free.")
        screen.line(f"Put your own price into a YAML file and name it in {PRICES_VARIABLE}: see docs/pricing.md.")
        return
    used = [listing for listing in listings if listing.wins]
    for number, listing in enumerate(used):
        if number:
            screen.line("")
        _describe(screen, listing)
    if len(listings) > len(used):
        screen.line(Cell(f"{len(listings) - len(used)} more rows are shadowed by these; --json shows them.", DIM))
    if explanation is not None:
        _arithmetic(screen, explanation)


def _describe(screen: Screen, listing: Listing) -> None:
    screen.line(Cell(f"{listing.model} at {listing.provider}", STRONG), f" ({listing.tier})" if listing.tier else "")
    origin = [listing.price_source]
    if listing.as_of:
        origin.append(f"read {listing.as_of.isoformat()} ({listing.age_days} days ago)")
    if listing.since:
        origin.append(f"valid since {listing.since.isoformat()}")
    screen.line(f"  {listing.status}, from {', '.join(origin)}")
    if listing.source_url:
        screen.line(f"  {listing.source_url}")
    if listing.other_tiers:
        screen.line(f"  other tiers: {', '.join(listing.other_tiers)}")
    for remark in (*listing.warnings, *((listing.note,) if listing.note else ())):
        screen.line(Cell(f"  {remark}", WARN if remark in listing.warnings else DIM))
    if listing.prices:
        screen.line("")
        columns = [Column("unit"), Column("USD", right=True), Column("per"), Column("for")]
        rows: list[list[Content]] = [
            [
                price.unit,
                _plain(price.price),
                price.label,
                f"calls of more than {price.above_input_tokens:,} input tokens"
                if price.above_input_tokens is not None
                else "",
            ]
            for price in listing.prices
        ]
        if all(price.above_input_tokens is None for price in listing.prices):
            columns, rows = columns[:3], [row[:3] for row in rows]
        screen.table(columns, rows)


def _arithmetic(screen: Screen, explanation: Explanation) -> None:
    screen.line("")
    screen.line(Cell("This call", STRONG))
    for line in explanation.lines:
        screen.line(
            f"  {line.unit}: {line.quantity:,} x {_plain(line.price)} / {line.per:,} = {_plain(line.amount)} USD"
        )
    cost = explanation.cost
    if isinstance(cost, Unpriced):
        screen.line(Cell(f"  no amount: unpriced ({cost.reason})", WARN))
    else:
        missing = f", without a price for {', '.join(cost.missing)}" if isinstance(cost, Partial) else ""
        screen.line(Cell(f"  total {_plain(cost.amount)} USD", STRONG), f" ({_status(explanation)}{missing})")


def _status(explanation: Explanation) -> str:
    cost = explanation.cost
    if isinstance(cost, Unpriced):
        return "unpriced"
    return "partial" if isinstance(cost, Partial) else cost.status


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize():,f}"
