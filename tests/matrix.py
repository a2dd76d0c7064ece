"""Run the integration tests in pinned environments: the oldest and the newest supported version of every client.

``python tests/matrix.py`` runs every row of ``matrix.toml``; ``python tests/matrix.py anthropic`` runs the rows of one
client; ``python tests/matrix.py --with 'openai==1.99.0 anthropic' tests/noninterference`` runs given tests with given
versions. Rows run side by side, ``--jobs`` at a time. Environments are made once, by uv, below
``$XDG_CACHE_HOME/stagelight/environments``; the first run needs a package index, later ones do not.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "tests" / "matrix.toml"
BASE = ("pytest>=9,<10", "hypothesis>=6.150,<7", "httpx>=0.28,<1")
EXTRAS = ".[server,fastapi,httpx]"
LIMIT_S = 900
MARK = ".complete"


@dataclass(frozen=True, slots=True)
class Row:
    """One environment: what is installed beside Stagelight, and which tests run there.

    ``warnings`` is empty, or an option of pytest that silences what an old client warns of on a new Python.
    ``python`` is empty, or a version of Python other than ours, for what depends on it.
    """

    client: str
    install: tuple[str, ...]
    tests: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    python: str = ""

    @property
    def name(self) -> str:
        return " ".join((f"Python {self.python}", *self.install) if self.python else self.install)


def rows() -> list[Row]:
    """The rows of ``matrix.toml``: for every client, each list of pins runs the same tests."""
    table = tomllib.loads(ROWS.read_text())
    return [
        Row(
            client,
            tuple(pins),
            tuple(row["tests"]),
            tuple(f"-W{rule}" for rule in row.get("warnings", ())),
            row.get("python", ""),
        )
        for client, row in table.items()
        for pins in row["environments"]
    ]


def interpreter(version: str) -> str | None:
    """A Python of a version, ours for none: on PATH, or among those of pyenv."""
    if not version:
        return sys.executable
    named = shutil.which(f"python{version}")
    installed = map(str, sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))
    for candidate in filter(None, (named, *installed)):
        if subprocess.run((candidate, "-c", ""), capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def python_of(base: str, install: Sequence[str]) -> Path:
    """The interpreter of an environment with these packages; it is made when there is none."""
    wanted = "\n".join((base, sys.version, str(ROOT), (ROOT / "pyproject.toml").read_text(), *BASE, EXTRAS, *install))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "stagelight" / "environments" / hashlib.sha256(wanted.encode()).hexdigest()[:16]
    python = folder / "bin" / "python"
    if not (folder / MARK).exists():
        uv = (sys.executable, "-m", "uv", "--quiet")
        subprocess.run((*uv, "venv", "--clear", "--python", base, str(folder)), check=True, cwd=ROOT)
        packages = ("--editable", EXTRAS, *BASE, *install)
        subprocess.run((*uv, "pip", "install", "--python", str(python), *packages), check=True, cwd=ROOT)
        (folder / MARK).touch()
    return python


def run(row: Row) -> bool:
    """Run a row's tests and print one line; the whole output when they fail or one was skipped."""
    started = time.monotonic()
    base = interpreter(row.python)
    if base is None:
        print(f"skip {row.name:60} there is no python{row.python} on PATH", flush=True)
        return True
    python = python_of(base, row.install)
    ready = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        # Rows that share pytest's folder clean it up in each other's way, which ends in an error.
        options = ("-q", "-p", "no:cacheprovider", f"--basetemp={own}/pytest", *row.warnings)
        done = subprocess.run(
            (str(python), "-m", "pytest", *options, *row.tests),
            cwd=ROOT,
            env=os.environ | {"STAGELIGHT_STRICT": "1", "STAGELIGHT_CLIENT": row.client},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
    last = done.stdout.strip().rpartition("\n")[2].strip("= ")
    passed = done.returncode == 0
    told = f"{'ok  ' if passed else 'FAIL'} {row.name:60} {last} (environment {ready - started:.0f} s)\n"
    sys.stdout.write(told if passed else f"{done.stdout}\n{told}")  # at once: other rows run beside this one
    sys.stdout.flush()
    return passed


def main() -> None:
    """Read the command line; see the module's own text."""
    parser = argparse.ArgumentParser(description="Run integration tests in pinned environments.")
    parser.add_argument("--with", dest="versions", default="", help="packages to install, separated by spaces")
    parser.add_argument("--jobs", type=int, default=2, help="rows that run at a time; default 2")
    parser.add_argument("names", nargs="*", help="clients of matrix.toml; with --with, tests to run")
    options = parser.parse_args()
    if options.versions:
        chosen = [Row("given", (package,), tuple(options.names)) for package in options.versions.split()]
    else:
        known = rows()
        unknown = set(options.names) - {row.client for row in known}
        if unknown:
            sys.exit(
                f"no rows for {', '.join(sorted(unknown))}; there are {', '.join(sorted({r.client for r in known}))}"
            )
        chosen = [row for row in known if not options.names or row.client in options.names]
    with ThreadPoolExecutor(options.jobs) as pool:
        failed = [row.name for row, passed in zip(chosen, pool.map(run, chosen), strict=True) if not passed]
    if failed:
        sys.exit(f"{len(failed)} of {len(chosen)} environments failed: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
