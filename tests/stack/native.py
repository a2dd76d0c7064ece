"""Starts services of the compose file as plain processes: the same files and flags, other ports and folders."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from stack.composition import Service, service
from stack.programs import find, program
from stack.substitution import PORTS, Places, Substitution, free_places

PROGRAMS: Mapping[str, str] = {
    "collector": "otelcol-contrib",
    "prometheus": "prometheus",
    "loki": "loki",
    "tempo": "tempo",
    "alertmanager": "alertmanager",
}
"""The program behind each service; the images' entry points."""

_READY: Mapping[str, tuple[int, str]] = {
    "collector": (13133, "/"),
    "prometheus": (9090, "/-/ready"),
    "loki": (3100, "/ready"),
    "tempo": (3200, "/ready"),
    "alertmanager": (9093, "/-/ready"),
}
_STAND_IN_READY = (3200, "/healthz")
_READY_S = 240.0  # machines are slow at times
_STOP_S = 60.0  # Tempo takes more than ten seconds
_LOG_LINES = 40

STACKS: list[Stack] = []
"""Every stack that was started and whose logs a failing test may want."""


class NotReady(AssertionError):  # noqa: N818 - reads as what is wrong
    """A program ended or did not answer in time; the message has the end of its log."""


@dataclass(slots=True)
class _Process:
    command: list[str]
    environment: dict[str, str]
    log: Path
    ready: tuple[int, str]
    running: subprocess.Popen[bytes] | None = None


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the service ``setup`` of the compose file makes; new for each stack."""

    tokens: tuple[str, str] = field(default_factory=lambda: (secrets.token_urlsafe(32), secrets.token_urlsafe(32)))
    """Both are valid, so that they can be rotated."""
    id_key: str = field(default_factory=lambda: secrets.token_hex(32))

    def files(self, name: str) -> Mapping[str, str]:
        """The files below ``/run/secrets`` of a service, by name."""
        if name != "collector":
            return {}
        key_id = hashlib.sha256(f"stagelight key id:{self.id_key}".encode()).hexdigest()[:8]
        return {"otlp_tokens": "\n".join(self.tokens) + "\n", "id_key": self.id_key, "id_key_id": key_id}


class Stack:
    """Services of the compose file, running on this machine between ``with`` and its end.

    Where there is no Tempo program, the embedded server takes its place behind the same address, OTLP over gRPC.

    Args:
        folder: for configurations, data and logs; empty.
        services: names in the compose file; those of ``PROGRAMS`` when left out.
        variables: the environment that compose would be started in.
        flags: more flags by service, for what a test cannot wait for, such as intervals.
        stand_in: the embedded server in Tempo's place also where there is a Tempo.
    """

    def __init__(
        self,
        folder: Path,
        services: Iterable[str] = PROGRAMS,
        *,
        variables: Mapping[str, str] | None = None,
        flags: Mapping[str, Sequence[str]] | None = None,
        stand_in: bool = False,
    ) -> None:
        self.secrets = Secrets()
        self.services = tuple(services)
        self.has_tempo = not stand_in and find("tempo") is not None
        """Whether traces go to Tempo itself."""
        self.places: Places = free_places()
        self._folder = folder
        self._processes: dict[str, _Process] = {}
        self._substitutions: dict[str, Substitution] = {}
        for name in self.services:
            if name == "tempo" and not self.has_tempo:
                self._processes[name] = self._stand_in()
            else:
                self._processes[name] = self._prepare(service(name, variables or {}))
                self._processes[name].command += (flags or {}).get(name, ())

    def __enter__(self) -> Self:
        STACKS.append(self)
        try:
            for name in self.services:
                self._spawn(name)
            for name in self.services:
                self.wait_ready(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def token(self) -> str:
        """A token that the Collector accepts."""
        return self.secrets.tokens[0]

    @property
    def is_running(self) -> bool:
        """Whether any program was started and not stopped."""
        return any(process.running is not None for process in self._processes.values())

    def address(self, name: str, port: int | None = None) -> str:
        """``host:port`` of a service; its first port in ``PORTS`` when left out."""
        return f"127.0.0.1:{self.places[name, port or PORTS[name][0]]}"

    def url(self, name: str, port: int | None = None) -> str:
        """The base URL of a service."""
        return f"http://{self.address(name, port)}"

    def path(self, name: str, in_container: str) -> Path:
        """Where a mounted path of a service, or a file below it, is here."""
        return Path(self._substitutions[name].here(in_container))

    def substitution(self, name: str) -> Substitution:
        """What was replaced in the files and flags of a service."""
        return self._substitutions[name]

    def command(self, name: str) -> tuple[str, ...]:
        """The command line of a service, as started."""
        return tuple(self._processes[name].command)

    @property
    def traces_database(self) -> Path:
        """The file of the server that stands in for Tempo."""
        return self._folder / "tempo" / "stand-in.db"

    def pid(self, name: str) -> int:
        """Process id of a running service."""
        running = self._processes[name].running
        assert running is not None, f"{name} is not running"
        return running.pid

    def start(self, name: str) -> None:
        """Start a stopped service again, with the same data and ports; returns when it is ready."""
        self._spawn(name)
        self.wait_ready(name)

    def stop(self, name: str) -> None:
        """End a service with SIGTERM, and with SIGKILL when it takes too long."""
        self._end([name])

    def kill(self, name: str) -> None:
        """End a service as ``kill -9`` does."""
        process = self._processes[name]
        if process.running is not None:
            process.running.kill()
            process.running.wait()
            process.running = None

    def pause(self, name: str) -> None:
        """Let a service hang: it keeps its ports and answers nothing."""
        os.kill(self.pid(name), signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a paused service go on."""
        os.kill(self.pid(name), signal.SIGCONT)

    def close(self) -> None:
        """Stop everything that runs, all at once."""
        self._end(self.services)

    def log(self, name: str) -> str:
        """What a service has printed since its first start."""
        path = self._processes[name].log
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def logs(self) -> Mapping[str, str]:
        """The end of every service's log."""
        return {name: "\n".join(self.log(name).splitlines()[-_LOG_LINES:]) for name in self.services}

    def wait_ready(self, name: str) -> None:
        """Wait until a service answers its readiness probe.

        Raises:
            NotReady: it ended, or did not answer within four minutes.
        """
        process = self._processes[name]
        port, path = process.ready
        deadline = time.monotonic() + _READY_S
        while not _answers(self.places[name, port], path):
            ended = process.running is None or process.running.poll() is not None
            if ended or time.monotonic() > deadline:
                what = "ended" if ended else f"was not ready within {_READY_S:g} s"
                raise NotReady(f"{name} {what}: {' '.join(process.command)}\n{self.logs()[name]}")
            time.sleep(0.1)

    def _prepare(self, described: Service) -> _Process:
        """Copy what compose mounts, with other addresses and paths."""
        name = described.name
        own = self._folder / name
        paths = {target: own / target.strip("/").replace("/", "-") for target in (*described.files, *described.volumes)}
        substitution = self._substitutions[name] = Substitution(name, self.places, paths)
        for target, source in described.files.items():
            _copy(source, paths[target], substitution)
        for target in described.volumes:
            paths[target].mkdir(parents=True)
            for file, content in (self.secrets.files(name) if target == "/run/secrets" else {}).items():
                (paths[target] / file).write_text(content, encoding="utf-8")
        return _Process(
            command=[str(program(PROGRAMS[name])), *(substitution.here(part) for part in described.command)],
            environment={
                **{key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ},
                **{key: substitution.here(value) for key, value in described.environment.items()},
            },
            log=own / "log",
            ready=_READY[name],
        )

    def _stand_in(self) -> _Process:
        folder = self._folder / "tempo"
        folder.mkdir(parents=True)
        ports = ("--port", str(self.places["tempo", 3200]), "--grpc-port", str(self.places["tempo", 4317]))
        return _Process(
            command=[sys.executable, "-m", "stagelight", "up", *ports, "--db", str(self.traces_database)],
            environment=dict(os.environ),
            log=folder / "log",
            ready=_STAND_IN_READY,
        )

    def _spawn(self, name: str) -> None:
        process = self._processes[name]
        assert process.running is None, f"{name} is running already"
        with process.log.open("ab") as log:
            process.running = subprocess.Popen(
                process.command,
                cwd=process.log.parent,
                env=process.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _end(self, names: Iterable[str]) -> None:
        ending = [process for name in names if (process := self._processes[name]).running is not None]
        for process in ending:
            assert process.running is not None
            process.running.terminate()
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.running.pid, signal.SIGCONT)  # a paused program could not end
        deadline = time.monotonic() + _STOP_S
        for process in ending:
            assert process.running is not None
            try:
                process.running.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.running.kill()
                process.running.wait()
            process.running = None


def _copy(source: Path, target: Path, substitution: Substitution) -> None:
    for path in sorted(source.rglob("*")):
        if path.is_file():
            copied = target / path.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(substitution.here(path.read_bytes().decode()).encode())


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
