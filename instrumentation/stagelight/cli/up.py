"""``stagelight up``: the server that receives, keeps and shows telemetry."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from stagelight.cli.env import ENDPOINT, PROTOCOL
from stagelight.cli.failures import CommandError, ExitCode, missing_extra
from stagelight.cli.options import number_above_zero, port_number
from stagelight.cli.output import DIM, STRONG, Cell, Screen, hint
from stagelight.embedded.options import (
    GRPC_PORT,
    HTTP_PORT,
    TOKEN_MIN_LENGTH,
    Addresses,
    InvalidOptions,
    PortInUse,
    ServerOptions,
)
from stagelight.embedded.retention import Retention
from stagelight.embedded.store import StoreError

__all__ = ["TOKEN_VARIABLE", "add_arguments", "run"]

TOKEN_VARIABLE: Final = "STAGELIGHT_SERVER_TOKEN"  # noqa: S105  the name of a variable

_DAY_S: Final = 86_400
_GIB: Final = 1 << 30

_EXAMPLES = f"""\
Examples:
  stagelight up                                      pages on http://127.0.0.1:{HTTP_PORT}, data in your home directory
  stagelight up --port 4320 --grpc-port 4319         when the usual ports are taken; 0 takes any free one
  stagelight up --db ./try.db --retention-days 1     a database of its own
  stagelight up --host 0.0.0.0 --allow-remote --token-file ~/.stagelight-token
                                                     for other machines too; they send the token

Then, where the application starts:  eval "$(stagelight env)"
Every command that reads works with and without a running server."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    parser.description = (
        "Receive OpenTelemetry traces, metrics and logs, keep them in one SQLite file and show them in a browser."
    )
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on (default 127.0.0.1)"
    )
    parser.add_argument(
        "--port",
        type=port_number,
        default=HTTP_PORT,
        metavar="N",
        help=f"OTLP over HTTP, and pages (default {HTTP_PORT})",
    )
    parser.add_argument(
        "--grpc-port", type=port_number, default=GRPC_PORT, metavar="N", help=f"OTLP over gRPC (default {GRPC_PORT})"
    )
    parser.add_argument("--db", type=Path, metavar="FILE", help="database file (default: one in your data directory)")
    kept = parser.add_argument_group("what is kept")
    kept.add_argument(
        "--retention-days",
        type=number_above_zero,
        default=7.0,
        metavar="N",
        help="days that spans, metrics and log lines are kept (default 7); the ledger of costs is kept 400 days",
    )
    kept.add_argument(
        "--retention-gib",
        type=number_above_zero,
        default=2.0,
        metavar="N",
        help="size of the database in GiB beyond which the oldest goes first (default 2)",
    )
    access = parser.add_argument_group("who may reach it")
    access.add_argument(
        "--allow-remote", action="store_true", help="listen on an address that other machines reach; needs a token"
    )
    access.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"file with the token that every request must carry (or {TOKEN_VARIABLE}); {TOKEN_MIN_LENGTH} characters "
        "or more",
    )
    access.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further host name it is reached by; repeatable",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    options = _options(args)
    try:
        from stagelight.embedded.server import run as serve

        status = serve(options, lambda addresses: _announce(addresses, args, has_token=options.token is not None))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("stagelight"):
            raise
        raise missing_extra("`stagelight up`") from error
    except PortInUse as error:
        flag = "--port" if error.protocol == "HTTP" else "--grpc-port"
        raise CommandError(
            f"{error}. If that is another `stagelight up`, it is ready to use; "
            f"otherwise choose a port with {flag} N ({flag} 0 takes any free one)"
        ) from error
    except InvalidOptions as error:
        raise CommandError(
            f"{error} (flags: --host, --port, --grpc-port, --allow-remote, --token-file)", ExitCode.USAGE
        ) from error
    except StoreError as error:
        raise CommandError(f"{error} (flag: --db FILE)") from error
    hint("Stopped. Whatever was accepted is in the database.")
    return status


def _options(args: argparse.Namespace) -> ServerOptions:
    try:
        retention = Retention(age_s=args.retention_days * _DAY_S, size_bytes=int(args.retention_gib * _GIB))
    except ValueError as error:
        raise CommandError(
            f"--retention-gib {args.retention_gib:g} is not accepted; accepted: 0.001 or more", ExitCode.USAGE
        ) from error
    return ServerOptions(
        host=args.host,
        http_port=args.port,
        grpc_port=args.grpc_port,
        database=args.db,
        allow_remote=args.allow_remote,
        token=_token(args.token_file),
        allowed_hosts=tuple(args.allow_host),
        retention=retention,
    )


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        token = file.expanduser().read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CommandError(f"--token-file: cannot read {str(file)!r}: {reason}", ExitCode.USAGE) from error
    if not token:
        raise CommandError(f"--token-file: {str(file)!r} is empty", ExitCode.USAGE)
    return token


def _announce(addresses: Addresses, args: argparse.Namespace, *, has_token: bool) -> None:
    screen = Screen()
    protection = "every request needs the token" if has_token else "this machine only, no token"
    kept = f"{args.retention_days:g} days, {args.retention_gib:g} GiB; costs 400 days"
    screen.line(Cell("Stagelight is running. Ctrl-C stops it.", STRONG))
    screen.line("")
    for title, value, note in (
        ("pages", addresses.http_url, protection),
        ("OTLP over HTTP", addresses.http_url, ""),
        ("OTLP over gRPC", addresses.grpc_url, ""),
        ("database", str(addresses.database), f"keeps {kept}"),
    ):
        screen.line(f"  {title:<15} {value}", Cell(f"   {note}" if note else "", DIM))
    screen.line("")
    screen.line("Set this where your application starts, then look at the pages or run `stagelight turns`:")
    screen.line("")
    screen.line(f"  export {ENDPOINT}={addresses.http_url}")
    screen.line(f"  export {PROTOCOL}=http/protobuf")
    if has_token:
        screen.line("  and the header with the token: `stagelight env --token-file FILE` prints the line")
    sys.stdout.flush()  # whoever started it through a pipe waits for the addresses
