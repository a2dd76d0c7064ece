"""``stagelight doctor``: what is configured, what answers, and what to do about the rest."""

from __future__ import annotations

import argparse
import os
import platform
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from stagelight import settings, standard
from stagelight._version import __version__
from stagelight.cli.autopath import is_on_the_path
from stagelight.cli.doctor_app import Library, libraries, print_libraries, unseen, winner
from stagelight.cli.doctor_wrappers import CannotImport
from stagelight.cli.env import ENDPOINT, HEADERS, PROTOCOL, SERVICE
from stagelight.cli.failures import CommandError, ExitCode
from stagelight.cli.options import GATEWAY_TOKEN_VARIABLE, SOURCE_VARIABLE, opened_source
from stagelight.cli.output import BAD, DIM, STRONG, WARN, Cell, Screen
from stagelight.cli.prices import load_prices
from stagelight.cli.reading import contents, print_json
from stagelight.cli.run import NAME
from stagelight.cli.up import TOKEN_VARIABLE
from stagelight.cli.variables import shown_endpoint, shown_hosts, unknown
from stagelight.conventions import attributes as names
from stagelight.embedded.options import GRPC_PORT, HTTP_PORT, is_loopback
from stagelight.sources.format import ago, counted
from stagelight.sources.model import SourceUnavailable

__all__ = ["Finding", "add_arguments", "run"]

State = Literal["ok", "warning", "problem"]

_ADDRESSES: Final = frozenset({"STAGELIGHT_PROVIDER_HOSTS"})
"""Settings that hold addresses, and so may hold passwords."""
_TIMEOUT_S: Final = 2.0
_SERVER_PACKAGES: Final = ("starlette", "uvicorn", "httptools", "orjson", "rich")

_EXAMPLES = """\
Examples:
  stagelight doctor                        run it where, and as, your application runs: it reads the environment
  stagelight doctor --app                  which client libraries are recorded, by whom, and what is missing
  stagelight doctor --app shop.main        the same, and what the code of the application switches on: it is imported
  stagelight doctor --json

Exit code 1 when there is a problem, 0 otherwise; warnings are no problem. Secrets are not shown, and nothing is sent
but a question whether the server is well."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    about: str
    state: State
    found: str
    advice: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    parser.description = "Say what is configured in this environment, what answers, and what is missing."
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "--source",
        metavar="PATH",
        help=f"the database to look at (default: {SOURCE_VARIABLE}, or that of `stagelight up`)",
    )
    parser.add_argument(
        "--app",
        nargs="?",
        const="",
        metavar="MODULE",
        help="the client libraries of this environment instead: who records their calls; the application's module, "
        "when named, is imported to see what its code switches on",
    )
    parser.add_argument("--json", action="store_true", help="JSON for programs")


def run(args: argparse.Namespace) -> int:
    """Look, print, and say by the exit code whether there is a problem."""
    looks: Sequence[Callable[[], Iterator[Finding]]] = (
        _installation, _activation, _export, _standard_settings, _own_settings, _ids, lambda: _database(args), _server,
        _prices,
    )  # fmt: skip
    is_app = args.app is not None
    clients, about_code = _clients(args.app) if is_app else ([], [])
    findings = [*about_code, *(finding for look in ((_activation,) if is_app else looks) for finding in look())]
    if args.json:
        rows = {"libraries": [client._asdict() for client in clients]} if is_app else {}
        print_json({**rows, "findings": [finding._asdict() for finding in findings]})
    else:
        if is_app:
            print_libraries(clients)
        _print(findings)
    return ExitCode.FAILED if any(finding.state == "problem" for finding in findings) else ExitCode.DONE


def _clients(module: str) -> tuple[Sequence[Library], list[Finding]]:
    """The libraries, and what could be seen of the application's code."""
    if not module:
        advice = "to see it, name the application's module, which is imported then: stagelight doctor --app shop.main"
        return libraries(), [
            Finding(name, "warning", f"{found} is installed; whether your code switches it on cannot be seen", advice)
            for name, found in unseen()
        ]
    try:
        return libraries(module), [Finding("application", "ok", f"{module} was imported, as under `stagelight run`")]
    except CannotImport as error:
        advice = "name it as a server would, shop.main or shop.main:app, from the folder where it is started"
        return libraries(), [Finding("application", "problem", f"{module} cannot be imported: {error}", advice)]


def _installation() -> Iterator[Finding]:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    yield Finding("stagelight", "ok", f"{__version__} on {python}, OpenTelemetry SDK {version('opentelemetry-sdk')}")
    missing = [name for name in _SERVER_PACKAGES if find_spec(name) is None]
    if missing:
        yield Finding(
            "extra 'server'",
            "warning",
            f"without {', '.join(missing)}",
            "for `stagelight up`: pip install 'stagelight[server]'",
        )


def _activation() -> Iterator[Finding]:
    """Who sets up OpenTelemetry before the application: by PYTHONPATH, by a command, or nobody."""
    if is_on_the_path(os.environ.get("PYTHONPATH", "")):
        yield Finding("activation", "ok", "PYTHONPATH has the folder of `stagelight autopath`")
    else:
        yield Finding("activation", "ok", "by `stagelight run`, or by stagelight.configure() in the program")
    first = winner()
    if first != NAME:
        who = f"the distribution {first!r} wins" if first else "no distribution of this name is installed"
        choice = " ".join(f"{variable}={NAME}" for variable in standard.CHOICE)
        yield Finding("opentelemetry-instrument", "warning", f"{who}, not Stagelight", f"export {choice}")


def _export() -> Iterator[Finding]:
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        yield Finding("OTEL_SDK_DISABLED", "warning", "true: no telemetry is made", "unset it")
    endpoint = os.environ.get(ENDPOINT, "").strip()
    if not endpoint:
        yield Finding(
            ENDPOINT,
            "warning",
            f"not set: an application sends to http://localhost:{HTTP_PORT}",
            'eval "$(stagelight env)"',
        )
    elif _address(endpoint) is None or not _has_scheme(endpoint):
        yield Finding(ENDPOINT, "problem", "not a URL (not shown)", f"set it to one like http://127.0.0.1:{HTTP_PORT}")
    else:
        yield Finding(ENDPOINT, "ok", shown_endpoint(endpoint))
    protocol = os.environ.get(PROTOCOL, "").strip()
    if protocol and protocol not in {"http/protobuf", "grpc"}:
        yield Finding(PROTOCOL, "problem", repr(protocol), "set it to http/protobuf or grpc, or unset it")
    else:
        yield Finding(PROTOCOL, "ok", protocol or "not set: http/protobuf")
    if os.environ.get(HEADERS, "").strip():
        yield Finding(HEADERS, "ok", "set (not shown)")
    service = os.environ.get(SERVICE, "").strip()
    if service or f"{names.SERVICE_NAME}=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        yield Finding(SERVICE, "ok", service or "given by OTEL_RESOURCE_ATTRIBUTES")
    else:
        yield Finding(SERVICE, "warning", "not set: lists show unknown_service", "export OTEL_SERVICE_NAME=my-app")


def _own_settings() -> Iterator[Finding]:
    _, problems = settings.read()
    refused = {problem.variable: problem for problem in problems}
    for row in settings.ROWS:
        value = os.environ.get(row.variable, "").strip()
        is_private = row.secret or row.variable in _ADDRESSES
        if row.variable in refused:
            message = refused[row.variable].message.removeprefix(f"{row.variable}: ")
            found = f"not accepted (not shown); accepted: {row.accepted}" if is_private else message
            yield Finding(row.variable, "problem", found, "correct or unset it; until then it has no effect")
        elif value and row.variable in _ADDRESSES:
            yield Finding(row.variable, "ok", shown_hosts(value))
        elif value:
            yield Finding(row.variable, "ok", "set (not shown)" if row.secret else value)
    for item in unknown(
        {*(row.variable for row in settings.ROWS), SOURCE_VARIABLE, GATEWAY_TOKEN_VARIABLE, TOKEN_VARIABLE}
    ):
        yield Finding(item.variable, "problem", item.found, f"correct or unset it; accepted: {item.accepted}")


def _standard_settings() -> Iterator[Finding]:
    for problem in standard.problems(os.environ):
        if problem.variable not in {ENDPOINT, PROTOCOL}:  # these are always shown
            found, _, accepted = problem.message.removeprefix(f"{problem.variable}: ").partition("; ")
            yield Finding(problem.variable, "problem", found.replace("(hidden)", "(not shown)"), accepted)


def _ids() -> Iterator[Finding]:
    known, _ = settings.read()
    try:
        key = known.resolve_id_key()
    except settings.SettingsError as error:
        yield Finding("user ids", "problem", str(error), "write a key of 32 characters or more into the file")
        return
    if key is None:
        advice = "to keep pseudonyms of them, set STAGELIGHT_ID_KEY to a secret of 32 characters or more"
        yield Finding("user ids", "warning", "no key: user and session ids are dropped", advice)
    else:
        yield Finding("user ids", "ok", "kept as pseudonyms, made with your key")


def _database(args: argparse.Namespace) -> Iterator[Finding]:
    try:
        with closing(opened_source(args)) as source:
            held = source.describe()
    except SourceUnavailable as error:
        yield Finding("database", "warning", str(error))
        return
    if held.newest_ns is None:
        yield Finding(
            "database", "warning", f"{held.location}: empty", "start an application that sends to `stagelight up`"
        )
    else:
        newest = ago(held.newest_ns, time.time_ns())
        size = "" if held.size_bytes is None else f"{contents(held)}, {held.size_bytes / (1 << 20):,.1f} MiB, "
        yield Finding("database", "ok", f"{held.location}: {size}newest {newest}")


def _server() -> Iterator[Finding]:
    endpoint = os.environ.get(ENDPOINT, "").strip() or f"http://127.0.0.1:{HTTP_PORT}"
    address = _address(endpoint)
    if address is None:
        return
    host, port = address
    shown = f"{host}:{port}"
    advice = "start it: `stagelight up`" if is_loopback(host) else "check the address and the network"
    try:
        socket.create_connection((host, port), timeout=_TIMEOUT_S).close()
    except OSError as error:
        reason = error.strerror or str(error)
        yield Finding("server", "warning", f"nothing answers at {shown}: {reason}", advice)
        return
    if not is_loopback(host) or port == GRPC_PORT or os.environ.get(PROTOCOL, "").strip() == "grpc":
        yield Finding("server", "ok", f"{shown} accepts connections")
    elif _is_well(host, port):
        yield Finding("server", "ok", f"Stagelight at {shown} is well")
    else:
        yield Finding("server", "warning", f"{shown} accepts connections, but is no `stagelight up`, or not well")


def _is_well(host: str, port: int) -> bool:
    name = f"[{host}]" if ":" in host else host
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a local address is not a proxy's business
    try:
        with opener.open(f"http://{name}:{port}/healthz", timeout=_TIMEOUT_S) as answer:
            return bool(answer.status == 200 and answer.read(16).strip() == b"ok")
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _prices() -> Iterator[Finding]:
    known, _ = settings.read()
    try:
        if known.prices is not None:
            load_prices(known.prices)
    except CommandError as error:
        yield Finding("your prices", "problem", str(error), "correct the file, or unset STAGELIGHT_PRICES")
    from stagelight.cost import tables
    from stagelight.cost.check import old_prices

    today = datetime.now(UTC).date()
    read = [entry.as_of for file in tables.bundled() for entry in file.entries if entry.as_of is not None]
    old = list(old_prices(today))
    library = f"genai-prices {version('genai-prices')}"
    age = (
        f"oldest price of the own lists read {counted((today - min(read)).days, 'day')} ago" if read else "no own lists"
    )
    if old:
        advice = "upgrade stagelight, or put your own prices into STAGELIGHT_PRICES"
        yield Finding("price data", "warning", f"{library}; {len(old)} prices of the own lists are old; {age}", advice)
    else:
        yield Finding("price data", "ok", f"{library}; {age}")


def _address(endpoint: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            return None
        return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None


def _has_scheme(endpoint: str) -> bool:
    """Over HTTP the scheme is needed; gRPC takes a bare ``host:port`` as well."""
    return "://" in endpoint or os.environ.get(PROTOCOL, "").strip() == "grpc"


def _print(findings: Sequence[Finding]) -> None:
    screen = Screen()
    styles = {"ok": "green", "warning": WARN, "problem": BAD}
    for item in findings:
        screen.line(Cell(f"{item.state:<8}", styles[item.state]), Cell(f" {item.about}: ", STRONG), item.found)
        if item.advice:
            screen.line(Cell(f"         -> {item.advice}", DIM))
    problems = sum(item.state == "problem" for item in findings)
    warnings = sum(item.state == "warning" for item in findings)
    screen.line("")
    screen.line(f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}.")
