"""``stagelight demo``: the whole path in a minute, without keys, accounts or Docker."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stagelight.cli import cost, latency
from stagelight.cli.failures import CommandError, ExitCode, missing_extra
from stagelight.cli.options import number_above_zero, port_number, positive
from stagelight.cli.output import DIM, STRONG, WARN, Cell, Screen
from stagelight.cli.waterfall import draw
from stagelight.embedded.options import GRPC_PORT, HTTP_PORT, InvalidOptions, PortInUse, ServerOptions
from stagelight.embedded.store import StoreError, demo_path
from stagelight.sources import Source, Window, open_source
from stagelight.sources.format import count, counted, duration

if TYPE_CHECKING:
    from stagelight.cli.program import Verb
    from stagelight.demo.programs import Running
    from stagelight.demo.visitors import Result

__all__ = ["add_arguments", "run"]

_EXAMPLES = """\
Examples:
  stagelight demo                    40 questions to the example application, then look at the pages
  stagelight demo --turns 200        more of them
  stagelight turns --source FILE     every reading command works on the demo's database, too

The application is real (FastAPI, the OpenAI client, Qdrant); the provider behind it is simulated and costs nothing."""

_ARRIVAL_S = 15.0
_SETTLE_S = 1.2  # longer than the application lets spans and records wait for others


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    parser.description = "Start server, simulated provider and example application, ask questions, show what was seen."
    parser.epilog = _EXAMPLES
    parser.add_argument("--turns", type=positive, default=40, metavar="N", help="questions to ask (default 40)")
    parser.add_argument(
        "--speed", type=number_above_zero, default=5.0, metavar="N", help="times faster than real models (default 5)"
    )
    parser.add_argument("--seed", type=int, default=7, metavar="N", help="of the simulated provider (default 7)")
    parser.add_argument(
        "--port", type=port_number, default=HTTP_PORT, metavar="N", help=f"of the pages (default {HTTP_PORT})"
    )
    parser.add_argument(
        "--grpc-port", type=port_number, default=GRPC_PORT, metavar="N", help=f"of OTLP/gRPC (default {GRPC_PORT})"
    )
    parser.add_argument(
        "--db", type=Path, metavar="FILE", help="database file (default: demo.db in your data directory)"
    )
    parser.add_argument("--exit", action="store_true", help="do not stay up, also on a terminal")


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    for package in ("fastapi", "openai", "orjson", "qdrant_client", "starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra("`stagelight demo`", "demo")
    from stagelight.demo.programs import DemoError, running

    screen = Screen()
    database = args.db or demo_path()
    options = ServerOptions(http_port=args.port, grpc_port=args.grpc_port, database=database)
    begin_ns = time.time_ns()
    screen.line(
        "Starting the server, a simulated AI provider and the example application (FastAPI, OpenAI, Qdrant) ..."
    )
    try:
        with running(options, speed=args.speed, seed=args.seed) as demo:
            _say_moved(screen, demo.moved)
            results = _ask(screen, demo, args.turns)
            _show(screen, demo, results, begin_ns)
            if screen.is_terminal and not args.exit:
                _stay(screen, demo)
            else:
                screen.line(f"To see the pages: {_program()} up --db {demo.server.database}")
    except (DemoError, StoreError, InvalidOptions, PortInUse) as error:
        raise CommandError(str(error)) from error
    return ExitCode.DONE


def _say_moved(screen: Screen, moved: Iterable[PortInUse]) -> None:
    for port in moved:
        screen.line(
            Cell(f"Port {port.port} ({port.protocol}) is used by another program; the demo took a free one.", WARN)
        )


def _ask(screen: Screen, demo: Running, turns: int) -> Counter[Result]:
    from stagelight.demo.programs import application_folder
    from stagelight.demo.visitors import ask_all, visits

    planned = visits(turns, application_folder() / "questions.txt")
    results: Counter[Result] = Counter()
    start = time.monotonic()
    with _progress(screen, turns) as advance:
        for result in ask_all(demo.application, planned):
            results[result] += 1
            advance()
    said = ", ".join(f"{number} {result}" for result, number in results.items())
    screen.line(f"{counted(turns, 'question')} asked in {duration(time.monotonic() - start)}: {said}.")
    return results


@contextmanager
def _progress(screen: Screen, turns: int) -> Iterator[Callable[[], None]]:
    if not screen.is_terminal:
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("Asking questions"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("questions", total=turns)
        yield lambda: progress.advance(task)


def _show(screen: Screen, demo: Running, results: Counter[Result], begin_ns: int) -> None:
    with closing(open_source(str(demo.server.database))) as source:
        window = _arrived(source, begin_ns, results.total())
        found = source.totals(window)
        missing = results.total() - found.turns
        if missing > 0:
            screen.line(Cell(f"{counted(missing, 'turn')} had not arrived after {duration(_ARRIVAL_S)}.", WARN))
        slowest = source.turns(window, 1, order="slowest")
        since = f"--since={_iso(begin_ns)}"
        here = f"{since} --source {demo.server.database}"
        program = _program()
        screen.line("")
        screen.line(Cell("Latency", STRONG), Cell(f"   {program} latency {here}", DIM))
        _verb(latency, demo, since)
        screen.line("")
        screen.line(Cell("Cost", STRONG), Cell(f"   {program} cost --by stage {here}", DIM))
        _verb(cost, demo, since, "--by=stage")
        screen.line("")
        trace = source.trace(slowest[0].trace_id) if slowest else None
        if trace is not None:
            command = f"   {program} turns {trace.trace_id[:12]} --source {demo.server.database}"
            screen.line(Cell("Slowest turn", STRONG), Cell(command, DIM))
            draw(screen, trace, utc=False, limit=40)
        screen.line("")
        stored = source.describe()
        kept = (
            f"{count(stored.spans)} spans, {count(stored.points)} metric points, "
            f"{count(stored.usage)} ledger entries, {count(stored.logs)} log lines"
        )
        screen.line(f"Stored in {demo.server.database}: {kept}.")


def _arrived(source: Source, begin_ns: int, turns: int) -> Window:
    """The window of this run, once all its turns are stored and nothing more comes, or the time is up."""
    deadline = time.monotonic() + _ARRIVAL_S
    before = -1
    while True:
        window = Window(begin_ns, time.time_ns() + 1)
        found, stored = source.totals(window), source.describe()
        now = (stored.spans or 0) + (stored.usage or 0)
        if (found.turns >= turns and now == before) or time.monotonic() > deadline:
            return window
        before = now
        time.sleep(_SETTLE_S)


def _iso(moment_ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment_ns // 1_000_000_000))


def _program() -> str:
    """The command as it can be typed here: by name when it is on the path, else as it was called."""
    return "stagelight" if shutil.which("stagelight") else sys.argv[0]


def _verb(verb: Verb, demo: Running, *flags: str) -> None:
    """Print what another command prints about this run."""
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    verb.run(parser.parse_args([f"--source={demo.server.database}", *flags]))


def _stay(screen: Screen, demo: Running) -> None:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    screen.line(
        "Pages: ", Cell(demo.server.http_url, STRONG), Cell("   Everything stays up until you press Ctrl-C.", DIM)
    )
    ended.wait()
