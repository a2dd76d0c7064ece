"""``stagelight autopath``: the folder that, on ``PYTHONPATH``, sets everything up without a change of command."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from stagelight.cli.failures import ExitCode

__all__ = ["FOLDER", "add_arguments", "first_on_the_path", "is_on_the_path", "run"]

FOLDER: Final = str(Path(__file__).parents[1] / "autopath")

_EXAMPLES = """\
Examples:
  stagelight autopath
  export PYTHONPATH="$(stagelight autopath)${PYTHONPATH:+:$PYTHONPATH}"

Every Python program that is started with it records its requests, AI calls, searches and costs. A `sitecustomize` of
your own that stands further along the path still runs. See docs/activation.md."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the command."""
    parser.description = "Print the folder to put onto PYTHONPATH, so that neither commands nor code change."
    parser.epilog = _EXAMPLES


def run(_: argparse.Namespace) -> int:
    """Print the folder."""
    print(FOLDER)
    return ExitCode.DONE


def first_on_the_path(path: str) -> str:
    """``PYTHONPATH`` with the folder in front, once; an empty part of it is the current folder, and stays."""
    parts = path.split(os.pathsep) if path else ()
    return os.pathsep.join([FOLDER, *(part for part in parts if not part or not _is_it(part))])


def is_on_the_path(path: str) -> bool:
    """Whether ``PYTHONPATH`` has the folder, also by another name."""
    return any(_is_it(part) for part in path.split(os.pathsep) if part)


def _is_it(part: str) -> bool:
    return Path(part).resolve() == Path(FOLDER).resolve()
