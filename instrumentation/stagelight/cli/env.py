"""``stagelight env``: what an application needs in its environment to send to the server."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from stagelight.cli.failures import CommandError, ExitCode
from stagelight.cli.options import one_of
from stagelight.cli.output import hint
from stagelight.cli.reading import print_json
from stagelight.embedded.options import GRPC_PORT, HTTP_PORT

__all__ = ["ENDPOINT", "HEADERS", "PROTOCOL", "SERVICE", "add_arguments", "run"]

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"
HEADERS: Final = "OTEL_EXPORTER_OTLP_HEADERS"
SERVICE: Final = "OTEL_SERVICE_NAME"

_PORTS: Final = {"http/protobuf": HTTP_PORT, "grpc": GRPC_PORT}
_BEARER: Final = "authorization=Bearer%20"  # the variable's values are percent-encoded

_EXAMPLES = """\
Examples:
  eval "$(stagelight env)"                             in sh, bash, zsh
  stagelight env --shell fish | source                 in fish
  stagelight env --shell powershell | Out-String | Invoke-Expression
  stagelight env --shell dotenv >> .env                for tools that read .env files
  stagelight env --endpoint http://box:4318 --token-file ~/.stagelight-token
                                                       a server that needs a token; the token is not printed"""

_NAME = re.compile(r"[\w.\-/ ]{1,200}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    parser.description = "Print the environment variables that send an application's telemetry to the server."
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "--endpoint", metavar="URL", help=f"address of the server (default http://127.0.0.1:{HTTP_PORT})"
    )
    parser.add_argument(
        "--protocol",
        type=one_of(tuple(_PORTS)),
        default="http/protobuf",
        metavar="NAME",
        help=f"{' or '.join(_PORTS)} (default http/protobuf)",
    )
    parser.add_argument("--service", metavar="NAME", help="name of the application in lists and charts")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the token, if the server needs one")
    parser.add_argument(
        "--shell",
        type=one_of(tuple(_SHELLS)),
        default="sh",
        metavar="NAME",
        help=f"{', '.join(_SHELLS)} (default sh, which is right for bash and zsh)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object of names and values")


def run(args: argparse.Namespace) -> int:
    """Print the settings."""
    settings = {
        ENDPOINT: _endpoint(args.endpoint or f"http://127.0.0.1:{_PORTS[args.protocol]}"),
        PROTOCOL: args.protocol,
    }
    if args.service is not None:
        if not _NAME.fullmatch(args.service):
            raise CommandError(
                f"--service: {args.service!r} is not accepted; accepted: letters, digits, spaces and . _ - /",
                ExitCode.USAGE,
            )
        settings[SERVICE] = args.service
    if args.json:
        if args.token_file:
            raise CommandError("--token-file: --json would have to print the token", ExitCode.USAGE)
        print_json(settings)
        return ExitCode.DONE
    print("\n".join(_SHELLS[args.shell](settings, args.token_file)))
    if sys.stdout.isatty() and args.shell == "sh":
        hint('\nTo set them in this shell: eval "$(stagelight env)"')
    return ExitCode.DONE


def _endpoint(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or not text.isprintable() or not text.isascii() or set(text) & set(" '\"`$\\"):
        raise CommandError(
            f"--endpoint: {text!r} is not accepted; accepted: a URL like http://127.0.0.1:{HTTP_PORT}", ExitCode.USAGE
        )
    return text.rstrip("/")


def _sh(settings: Mapping[str, str], token: Path | None) -> list[str]:
    lines = [f"export {name}={shlex.quote(value)}" for name, value in settings.items()]
    if token:
        lines.append(f'export {HEADERS}="{_BEARER}$(cat {shlex.quote(str(token.absolute()))})"')
    return lines


def _fish(settings: Mapping[str, str], token: Path | None) -> list[str]:
    lines = [f"set -gx {name} '{value}'" for name, value in settings.items()]
    if token:
        quoted = str(token.absolute()).replace("\\", "\\\\").replace("'", "\\'")
        lines.append(f"set -gx {HEADERS} '{_BEARER}'(cat '{quoted}')")
    return lines


def _powershell(settings: Mapping[str, str], token: Path | None) -> list[str]:
    lines = [f"$env:{name} = '{value}'" for name, value in settings.items()]
    if token:
        quoted = str(token.absolute()).replace("'", "''")
        lines.append(f"$env:{HEADERS} = '{_BEARER}' + (Get-Content -Raw '{quoted}').Trim()")
    return lines


def _dotenv(settings: Mapping[str, str], token: Path | None) -> list[str]:
    if token:
        raise CommandError("--token-file: --shell dotenv would have to print the token", ExitCode.USAGE)
    return [f"{name}={value}" for name, value in settings.items()]


_SHELLS: Final[Mapping[str, Callable[[Mapping[str, str], Path | None], list[str]]]] = {
    "sh": _sh,
    "fish": _fish,
    "powershell": _powershell,
    "dotenv": _dotenv,
}
