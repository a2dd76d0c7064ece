"""Finds the real programs that the stack tests run."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

_ANYWHERE = {"tempo"}
"""Programs that `make tools` cannot build: one on PATH will do."""


def find(name: str) -> Path | None:
    """A program in ``$STAGELIGHT_TOOLS``, in the cache of `make tools`, or, for those it cannot build, on PATH."""
    given = os.environ.get("STAGELIGHT_TOOLS")
    for folder in (Path(given) if given else None, _cache()):
        if folder is not None and (folder / name).is_file() and os.access(folder / name, os.X_OK):
            return folder / name
    found = shutil.which(name) if name in _ANYWHERE else None
    return Path(found) if found else None


def program(name: str) -> Path:
    """A program, or skip the test and say how to get it."""
    found = find(name)
    if found is not None:
        return found
    if name in _ANYWHERE:
        pytest.skip(f"no {name} program in $STAGELIGHT_TOOLS or on PATH; it cannot be built from the Go module proxy")
    pytest.skip(f"no {name} program: make tools (Go 1.26+) builds it")


@functools.cache
def _cache() -> Path:
    command = [sys.executable, str(ROOT / "tools" / "build.py"), "--where"]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip())
