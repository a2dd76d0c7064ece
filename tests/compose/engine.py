"""A container engine of the tests' own: podman with its storage, networks and volumes in a temporary folder."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from stack.waiting import eventually

# runc because crun fails with hybrid cgroups; limits because podman's defaults exceed what a container may raise;
# no proxy of this machine, which other engines do not pass on either.
_CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=1000:1000"]
http_proxy = false
[engine]
runtime = "runc"
"""

_PATIENCE_S = 120


class Engine:
    """Podman behind the socket that docker compose speaks to, and the clock of its health checks.

    Args:
        folder: for everything the engine keeps.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "engine.sock"
        self._environment = os.environ | {"CONTAINERS_CONF": str(folder / "containers.conf")}
        self._ended = threading.Event()
        self._health = threading.Thread(target=self._check_health, name="health checks")

    @property
    def host(self) -> str:
        """The value of ``DOCKER_HOST``."""
        return f"unix://{self._socket}"

    def __enter__(self) -> Self:
        self._wait_for_other_engines()
        self._folder.joinpath("containers.conf").write_text(_CONTAINERS_CONF)
        with (self._folder / "engine.log").open("wb") as log:
            command = [*self._podman(), "system", "service", "--time=0", self.host]
            self._service = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        eventually(self._socket.exists, bool)
        self._health.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._health.join()
        self.podman("rm", "--all", "--force", "--time=0", "--volumes")
        self.podman("network", "prune", "--force")
        self._service.terminate()
        self._service.wait(timeout=_PATIENCE_S)
        self.podman("system", "reset", "--force")  # also unmounts
        os.close(self._alone)

    def _wait_for_other_engines(self) -> None:
        """Two that start at once would take the same names for the machine's bridges, and the same addresses."""
        self._alone = os.open(Path(tempfile.gettempdir()) / "stagelight-compose-tests.lock", os.O_CREAT | os.O_RDWR)

        def is_alone() -> bool:
            try:
                fcntl.flock(self._alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        eventually(is_alone, bool, within_s=600)

    def podman(self, *arguments: str) -> str:
        """Run a podman command; what it printed."""
        done = subprocess.run(
            [*self._podman(), *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    def inspect(self, container: str) -> Mapping[str, Any]:
        """Everything the engine knows about a container."""
        [found] = json.loads(self.podman("container", "inspect", container))
        return found  # type: ignore[no-any-return]

    def make_image(self, name: str, archive: Path, entrypoint: tuple[str, ...]) -> None:
        """Make an image of a file system."""
        changes = [f"--change=ENTRYPOINT {json.dumps(entrypoint)}"] if entrypoint else []
        self.podman("import", *changes, str(archive), name)

    def _podman(self) -> list[str]:
        folder = self._folder
        return [
            shutil.which("podman") or "podman",
            f"--root={folder / 'root'}",
            f"--runroot={folder / 'run'}",
            f"--tmpdir={folder / 'tmp'}",
            f"--network-config-dir={folder / 'networks'}",
        ]

    def _check_health(self) -> None:
        """Do every second what systemd's timers do on machines that have systemd."""
        listing = [*self._podman(), "ps", "--format={{.Names}}"]
        while not self._ended.wait(1):
            names = subprocess.run(listing, env=self._environment, capture_output=True, text=True, check=False)
            for name in names.stdout.split():
                command = [*self._podman(), "healthcheck", "run", name]
                subprocess.run(command, env=self._environment, capture_output=True, check=False)  # ill counts, too
