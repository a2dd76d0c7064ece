"""The shipped compose file, run as its users run it, on an engine of the tests' own."""

from __future__ import annotations

import http.client
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml
from compose.engine import Engine
from stack.programs import ROOT, program
from stack.substitution import free_ports
from stack.waiting import settled

COMPOSE_FILE = ROOT / "docker-compose.yml"
PORTS = ("OTLP_GRPC_PORT", "OTLP_HTTP_PORT", "GATEWAY_PORT", "GRAFANA_PORT")
PATIENCE_S = 300


def compose_file(root: Path = ROOT) -> dict[str, Any]:
    """The compose file of a checkout as written, its anchors and merges resolved."""
    return yaml.safe_load((root / COMPOSE_FILE.name).read_text(encoding="utf-8"))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an HTTP request got; status 0 when nobody answered."""

    status: int
    body: str


class Deployment:
    """One project of the shipped compose file.

    Args:
        engine: that runs it.
        services: to start, by name; the others have no program here.
    """

    def __init__(self, engine: Engine, services: tuple[str, ...]) -> None:
        self.root = ROOT
        """The checkout whose stack is run; changing it is an upgrade."""
        self.engine = engine
        self.services = services
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.project = f"stagelight-test-{os.getpid()}"

    def run(self, *arguments: str, expected: int = 0) -> subprocess.CompletedProcess[str]:
        """Run docker compose with the shipped file and no other."""
        done = subprocess.run(
            self._command(*arguments),
            cwd=self.root,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == expected, f"docker compose {' '.join(arguments)}:\n{done.stderr}{done.stdout}"
        return done

    def up(self) -> None:
        """Start the services, each after those it waits for."""
        self.run("up", "--detach", *self.services)

    def setup(self, *arguments: str) -> str:
        """Run a verb of the set-up service; its standard output."""
        return self.run("run", "--rm", "setup", *arguments).stdout

    def store(self, service: str, name: str, secret: str) -> str:
        """Keep a secret for a service; what was said."""
        with tempfile.TemporaryFile() as file:
            file.write(secret.encode())
            file.seek(0)
            return self._pipe("store", service, name, stdin=file, stdout=subprocess.DEVNULL)

    def backup(self, archive: Path) -> None:
        """Write a backup of every volume to a file."""
        with archive.open("wb") as file:
            self._pipe("backup", stdin=subprocess.DEVNULL, stdout=file)

    def restore(self, archive: Path) -> str:
        """Restore every volume from a file; what was said."""
        with archive.open("rb") as file:
            return self._pipe("restore", stdin=file, stdout=subprocess.DEVNULL)

    def _pipe(self, *arguments: str, stdin: int | IO[bytes], stdout: int | IO[bytes]) -> str:
        return subprocess.run(
            self._command("run", "--rm", "-T", "setup", *arguments),
            cwd=self.root,
            env=self._environment(),
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
            check=False,  # podman's attaching loses the code when standard input is not read to its end
        ).stderr

    @property
    def checked(self) -> tuple[str, ...]:
        """The started services that have a health check."""
        all_services = compose_file(self.root)["services"]
        return tuple(name for name in self.services if "healthcheck" in all_services[name])

    def health(self) -> dict[str, str]:
        """What the health checks say, by service."""
        states = {name: self.engine.inspect(self.container(name))["State"] for name in self.checked}
        return {name: state["Health"]["Status"] for name, state in states.items()}

    def wait_until_healthy(self) -> None:
        """Wait for every health check; fails with what they say and with the logs of who is not well."""
        expected = dict.fromkeys(self.checked, "healthy")
        seen = settled(self.health, expected)
        assert seen == expected, self.logs()

    def logs(self) -> str:
        """The last lines of every container."""
        return self.run("logs", "--tail=20").stdout

    def container(self, service: str) -> str:
        """The name of a service's container."""
        return f"{self.project}-{service}-1"

    def ask(
        self, port: str, path: str, *, method: str = "GET", token: str | None = None, body: str | None = None
    ) -> Answer:
        """Send a request to a published port, by the name of the variable that chooses it."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=60)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.read().decode())
        except (OSError, http.client.HTTPException):
            return Answer(0, "")
        finally:
            connection.close()

    def _command(self, *arguments: str) -> list[str]:
        return [str(program("docker-compose")), "--project-name", self.project, *arguments]

    def _environment(self) -> Mapping[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return kept | {"DOCKER_HOST": self.engine.host} | {name: str(port) for name, port in self.ports.items()}
