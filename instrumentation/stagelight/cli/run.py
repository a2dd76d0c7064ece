"""``stagelight run``: start a program with everything set up, without changing it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from typing import Final

from stagelight.cli.autopath import first_on_the_path
from stagelight.cli.failures import CommandError, ExitCode
from stagelight.standard import CHOICE

__all__ = ["NAME", "add_arguments", "run"]

NAME: Final = "stagelight"

_EXAMPLES = """\
Examples:
  stagelight run -- python app.py
  stagelight run -- uvicorn app:app --workers 4
  OTEL_SERVICE_NAME=shop stagelight run -- celery -A tasks worker

The program takes the place of this command: same process, same signals, same exit code. Where telemetry goes is said by
OTEL_EXPORTER_OTLP_ENDPOINT and the other OTEL_* variables; default is http://localhost:4318, where `stagelight up`
listens. See docs/activation.md for Docker, systemd and Kubernetes, where no command has to change."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    parser.usage = "stagelight run [--] COMMAND [ARGUMENT ...]"
    parser.description = "Run a Python program with its requests, AI calls, searches and costs recorded."
    parser.epilog = _EXAMPLES
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="the program and its arguments")


def run(args: argparse.Namespace) -> int:
    """Become the program."""
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not words:
        raise CommandError("no command given: stagelight run -- python app.py", ExitCode.USAGE)
    program = shutil.which(words[0])
    if program is None:
        raise CommandError(f"{words[0]!r} is no program that can be run")
    os.environ.update(dict.fromkeys(CHOICE, NAME))  # also for an `opentelemetry-instrument` inside the command
    os.environ["PYTHONPATH"] = first_on_the_path(os.environ.get("PYTHONPATH", ""))
    sys.stdout.flush()
    try:
        os.execv(program, words)  # noqa: S606 - this is what was asked for, and no shell is in between
    except OSError as error:
        raise CommandError(f"{program!r} cannot be run: {error.strerror}") from error
