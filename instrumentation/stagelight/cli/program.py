"""From the words of a command line to one command and its exit code."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NoReturn, Protocol, cast

from stagelight._version import __version__
from stagelight.cli.failures import CommandError, ExitCode
from stagelight.sources.faults import UNEXPECTED, outline
from stagelight.sources.model import SourceUnavailable

__all__ = ["VERBS", "Verb", "build_parser", "main"]


class Verb(Protocol):
    """What the module of a command offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the flags; sets ``description`` and, with examples, ``epilog``."""

    def run(self, args: argparse.Namespace) -> int:
        """Do the work and return the exit code."""


VERBS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "demo": "see it work: 40 questions to a voice assistant, measured and priced",
        "up": "start the server that receives and keeps telemetry, with its pages",
        "run": "start a Python program with its calls recorded, without changing it",
        "autopath": "print the folder that does the same for every program, on PYTHONPATH",
        "env": "print the settings an application needs to send to that server",
        "doctor": "say what is configured, what answers and what is missing",
        "turns": "list requests with their stages, or draw one of them",
        "cost": "what was spent, by model, stage, day, feature, tenant or user",
        "latency": "how long the stages take: p50, p95, p99",
        "errors": "what failed, how often, and one trace of each",
        "traces": "list traces, turns or not",
        "tail": "follow spans and log lines as they arrive",
        "prices": "what a model costs, where the price is from and how old it is",
    }
)
"""Commands and what they do in one line. The module ``stagelight.cli.<command>`` is imported when it is used."""

_GROUPS: Final = (
    ("Start here", ("demo", "up", "run", "autopath", "env", "doctor")),
    ("Read what was kept (with or without a running server)", ("turns", "cost", "latency", "errors", "traces", "tail")),
    ("Prices", ("prices",)),
)

_EXAMPLES: Final = """\
Examples:
  stagelight demo                              a first look: no key, no account, nothing leaves this machine
  stagelight up                                keep what applications send to 127.0.0.1:4318
  stagelight run -- python app.py              record an application's calls and send them there
  stagelight turns --since 1h                  the requests of the last hour
  stagelight cost --since 24h --by stage       what they cost, and where the money went

`stagelight COMMAND --help` explains a command with examples. Every reading command has --json."""


class _Parser(argparse.ArgumentParser):
    """Reports a wrong use in one sentence that ends with the way out."""

    def error(self, message: str) -> NoReturn:
        stop = "" if message.endswith("?") else "."
        raise CommandError(f"{message}{stop} See `{self.prog} --help`.", ExitCode.USAGE, self.prog)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after the program's name; default: those of this process.

    Returns:
        The exit code: 0 done (also when there is nothing to show), 1 failed, 2 wrong use, 3 nothing to read from,
        130 interrupted, 141 the reader of a pipe went away.
    """
    _never_fail_on_encoding()
    try:
        status = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except CommandError as error:
        _say(f"{error.program}: {error}")
        return error.status
    except SourceUnavailable as error:
        _say(f"stagelight: {error}")
        return ExitCode.NO_SOURCE
    except BrokenPipeError:
        _give_up_output()
        return ExitCode.BROKEN_PIPE
    except OSError as error:  # a full disk, a file without rights
        _give_up_output()
        _say(f"stagelight: {error}")
        return ExitCode.FAILED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except UNEXPECTED as error:
        _say(f"stagelight: this is a fault of Stagelight, please report it: {outline(error)}")
        status = ExitCode.FAILED
    return status


def _give_up_output() -> None:
    """Keep the interpreter, which flushes once more at exit, from failing on what could not be written."""
    with contextlib.suppress(OSError, ValueError):  # it may be closed, or no file at all
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in {"-h", "--help", "help"}:
        if len(words) == 2 and words[0] == "help":
            return _dispatch([words[1], "--help"])
        print(_overview())
        return ExitCode.DONE
    if words[0] in {"-V", "--version"}:
        print(f"stagelight {__version__}")
        return ExitCode.DONE
    verb, *rest = words
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        kind = "flag" if verb.startswith("-") else "command"
        raise CommandError(f"{verb!r} is not a {kind}.{hint} The commands are: {', '.join(VERBS)}.", ExitCode.USAGE)
    module = cast("Verb", importlib.import_module(f"stagelight.cli.{verb}"))
    parser = build_parser(verb, module)
    try:
        args, unknown = parser.parse_known_args(rest)
    except SystemExit as leaving:  # --help has been printed
        return int(leaving.code or 0)
    if unknown:
        parser.error(_unknown_words(parser, unknown))
    return module.run(args)


def build_parser(verb: str, module: Verb) -> argparse.ArgumentParser:
    """The parser of one command, ready to parse or to print its help."""
    parser = _Parser(
        prog=f"stagelight {verb}", formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    module.add_arguments(parser)
    return parser


def _unknown_words(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> str:
    flags = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]  # noqa: SLF001  argparse offers no public list of its flags
    word = unknown[0]
    if not word.startswith("-"):
        return f"{word!r} is one word too many"
    near = difflib.get_close_matches(word.partition("=")[0], flags, n=1)
    hint = f", did you mean {near[0]}?" if near else ""
    return f"{word} is not a flag of this command{hint} (it has {', '.join(flags)})"


def _overview() -> str:
    lines = [
        "usage: stagelight COMMAND [flags]",
        "",
        "What your AI application does, how long it takes and what it costs.",
    ]
    for title, verbs in _GROUPS:
        lines += ["", f"{title}:", *(f"  {verb:<9} {VERBS[verb]}" for verb in verbs)]
    return "\n".join([*lines, "", _EXAMPLES])


def _never_fail_on_encoding() -> None:
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a test or a host may have put something else there
            reconfigure(errors="backslashreplace")


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
