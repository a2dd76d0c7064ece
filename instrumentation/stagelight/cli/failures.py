"""How a command says that it cannot do what was asked."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CommandError", "ExitCode", "missing_extra"]


class ExitCode(IntEnum):
    """What a script can tell from the outcome of a command."""

    DONE = 0
    """The answer was given; "there is no data" is an answer."""
    FAILED = 1
    USAGE = 2
    NO_SOURCE = 3
    """There is no database, or nothing that can be read as one."""
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class CommandError(Exception):
    """Ends a command with one sentence on standard error and an exit code, without a traceback."""

    def __init__(self, message: str, status: ExitCode = ExitCode.FAILED, program: str = "stagelight") -> None:
        super().__init__(message)
        self.status = status
        self.program = program


def missing_extra(needed_for: str, extra: str = "server") -> CommandError:
    """The error for a missing optional dependency: names the command that installs it."""
    return CommandError(f"{needed_for} needs the extra '{extra}': pip install 'stagelight[{extra}]'")
