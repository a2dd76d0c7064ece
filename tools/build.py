"""Build the real programs that the stack tests run, with Go, once, into a cache.

``python tools/build.py`` builds what is missing; ``--where`` prints the folder that holds the programs, built or not.
The cache is ``$XDG_CACHE_HOME/stagelight/tools/<hash of the files beside this one>``, so that a changed version is a
new folder and an unchanged one is never built twice. Only the standard library and the go command are used.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
GO_NEEDED = (1, 26)
SOURCES = {".mod", ".sum", ".go", ".yaml"}
GO_SETTINGS = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
BUILD = ("go", "build", "-trimpath", "-tags", "netgo", "-ldflags=-s -w")


@dataclass(frozen=True, slots=True)
class Program:
    """One program: its name, the wrapper module beside this file, and the package that is its main."""

    name: str
    module: str
    package: str


PROGRAMS = (
    Program("otelcol-contrib", "collector", "go.opentelemetry.io/collector/cmd/builder"),
    Program("prometheus", "prometheus", "github.com/prometheus/prometheus/cmd/prometheus"),
    Program("promtool", "prometheus", "github.com/prometheus/prometheus/cmd/promtool"),
    Program("alertmanager", "alertmanager", "github.com/prometheus/alertmanager/cmd/alertmanager"),
    Program("amtool", "amtool", "github.com/prometheus/alertmanager/cmd/amtool"),
    Program("docker-compose", "compose", "github.com/docker/compose/v5/cmd"),
    Program("loki", "loki", "github.com/grafana/loki/v3/cmd/loki"),
)


def folder() -> Path:
    """Where the programs of exactly these wrapper modules are kept, whether they are built or not."""
    digest = hashlib.sha256(platform.machine().encode())
    for path in sorted(path for path in TOOLS.glob("*/*") if path.suffix in SOURCES):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(TOOLS).as_posix()} {len(content)}\n".encode() + content)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "stagelight" / "tools" / digest.hexdigest()[:16]


def run(command: tuple[str, ...], *, cwd: Path, log: Path) -> str:
    """Run a command of the Go tool chain; its output, or the end of its log and the end of the program."""
    with log.open("ab") as errors:
        done = subprocess.run(
            command, cwd=cwd, env=os.environ | GO_SETTINGS, stdout=subprocess.PIPE, stderr=errors, check=False
        )
    if done.returncode:
        end = log.read_text(errors="replace")[-4000:]
        sys.exit(f"{end}\n{' '.join(command)} failed with code {done.returncode} in {cwd}; the whole log is {log}")
    return done.stdout.decode()


def build_module(program: Program, *, into: Path, scratch: Path, log: Path) -> None:  # noqa: ARG001
    """Build a program from its wrapper module."""
    run((*BUILD, "-o", str(into), program.package), cwd=TOOLS / program.module, log=log)


def build_alertmanager(program: Program, *, into: Path, scratch: Path, log: Path) -> None:
    """Build Alertmanager without its pages, which its module lacks since 0.32, from a copy with our ``no_ui.go``."""
    wrapper = TOOLS / program.module
    run(("go", "mod", "download", "github.com/prometheus/alertmanager"), cwd=wrapper, log=log)
    listed = run(("go", "list", "-m", "-f", "{{.Dir}}", "github.com/prometheus/alertmanager"), cwd=wrapper, log=log)
    copy = scratch / "source"
    shutil.copytree(listed.strip(), copy, copy_function=shutil.copyfile)
    for directory in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
        directory.chmod(0o755)  # the cache's are read-only
    shutil.copyfile(wrapper / "no_ui.go", copy / "ui" / "web.go")
    run((*BUILD, "-o", str(into), "./cmd/alertmanager"), cwd=copy, log=log)


def build_collector(program: Program, *, into: Path, scratch: Path, log: Path) -> None:
    """Build the Collector's builder, and with it the Collector of the manifest."""
    builder = scratch / "builder"
    run((*BUILD, "-o", str(builder), program.package), cwd=TOOLS / program.module, log=log)
    manifest = TOOLS / program.module / "builder.yaml"
    run((str(builder), "--config", str(manifest), "--ldflags=-s -w"), cwd=scratch, log=log)
    (scratch / "_build" / program.name).replace(into)


BUILDERS: dict[str, Callable[..., None]] = {"collector": build_collector, "alertmanager": build_alertmanager}


def check_go() -> None:
    """End with one sentence where there is no Go, or one that is too old."""
    if shutil.which("go") is None:
        sys.exit("make tools needs Go 1.26 or newer on PATH; see https://go.dev/doc/install")
    version = subprocess.run(("go", "env", "GOVERSION"), capture_output=True, text=True, check=True).stdout.strip()
    found = re.match(r"go(\d+)\.(\d+)", version)
    if found is None or tuple(map(int, found.groups())) < GO_NEEDED:
        sys.exit(f"make tools needs Go 1.26 or newer, found {version}; see https://go.dev/doc/install")


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Let one build at a time work on the cache."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another build is running; waiting for it ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build_all(root: Path) -> None:
    """Build every program that is missing; each appears whole or not at all."""
    programs = root / "bin"
    missing = [program for program in PROGRAMS if not (programs / program.name).exists()]
    if not missing:
        return
    check_go()
    programs.mkdir(exist_ok=True)
    print(
        f"Building {len(missing)} programs into {programs} (once; about 20 minutes on 2 cores from nothing)", flush=True
    )
    for number, program in enumerate(missing, start=1):
        print(f"[{number}/{len(missing)}] {program.name} ...", end=" ", flush=True)
        started = time.monotonic()
        build = BUILDERS.get(program.module, build_module)
        with tempfile.TemporaryDirectory(dir=root) as scratch:
            finished = Path(scratch) / program.name
            build(program, into=finished, scratch=Path(scratch), log=root / f"{program.name}.log")
            finished.replace(programs / program.name)
        print(f"{time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    """Read the command line; see the module's own text."""
    parser = argparse.ArgumentParser(description="Build the real programs that the stack tests run.")
    parser.add_argument("--where", action="store_true", help="print the folder of the programs and build nothing")
    root = folder()
    if parser.parse_args().where:
        print(root / "bin")
        return
    with locked(root):
        build_all(root)


if __name__ == "__main__":
    main()
