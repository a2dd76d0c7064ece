"""The programs of the demo: the server, the simulated provider and the example application, each a process."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from stagelight.embedded.background import ServerProcess
from stagelight.embedded.options import Addresses, PortInUse, ServerOptions

__all__ = ["DemoError", "Running", "application_folder", "running"]

_SERVICE = "voice-assistant"
_READY_S = 30.0
_STOP_S = 5.0
_SCENARIO = Path(__file__).with_name("scenario.yaml")


class DemoError(RuntimeError):
    """A program of the demo did not start; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Running:
    """Where the programs of a running demo are."""

    server: Addresses
    application: str
    """Base URL of the example application."""
    moved: tuple[PortInUse, ...]
    """Ports that other programs had; others were taken."""


def application_folder() -> Path:
    """The example application: beside the package in an installed wheel, in ``examples`` of a checkout.

    Raises:
        DemoError: it is in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_examples" / "voice_assistant", package.parents[1] / "examples" / "voice_assistant"):
        if (folder / "app.py").is_file():
            return folder
    raise DemoError("the example application is missing from this installation")


@contextmanager
def running(options: ServerOptions, *, speed: float, seed: int) -> Iterator[Running]:
    """Start everything, and stop it in an order in which nothing is lost: application, simulator, server.

    Args:
        options: of the server; ports in use are replaced by free ones.
        speed: how many times faster than real models the simulator answers.
        seed: of the simulator.

    Raises:
        DemoError: a program did not start.
        StoreError: the database cannot be used.
    """
    with contextlib.ExitStack() as stack:
        server, moved = _server(options)
        stack.callback(server.stop)
        provider = stack.enter_context(_provider(speed, seed))
        application = stack.enter_context(_application(provider, server.addresses))
        yield Running(server.addresses, application, moved)


def _server(options: ServerOptions) -> tuple[ServerProcess, tuple[PortInUse, ...]]:
    moved: list[PortInUse] = []
    while True:
        server = ServerProcess(options)
        try:
            server.start()
        except PortInUse as error:
            if len(moved) == 2:
                raise
            moved.append(error)
            options = replace(options, http_port=0) if error.protocol == "HTTP" else replace(options, grpc_port=0)
        else:
            return server, tuple(moved)


@contextmanager
def _process(command: list[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(  # noqa: S603 - this interpreter, with arguments of ours
        [sys.executable, *command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is ours to handle: the application must still find its server
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@contextmanager
def _provider(speed: float, seed: int) -> Iterator[str]:
    command = ["-m", "stagelight.sim", "--speed", f"{speed:g}", "--seed", str(seed), "--scenario", str(_SCENARIO)]
    with _process(command, {}) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        url = process.stdout.readline().strip()
        if not url.startswith("http"):
            raise DemoError(f"the simulator did not start: {url or 'it ended at once'}")
        yield url


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def _application(provider: str, server: Addresses) -> Iterator[str]:
    port = _free_port()
    host = urlsplit(provider).netloc
    environment = {
        "OPENAI_BASE_URL": provider,
        "OPENAI_API_KEY": "simulated",
        "OTEL_SERVICE_NAME": _SERVICE,
        "OTEL_EXPORTER_OTLP_ENDPOINT": server.http_url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
        "STAGELIGHT_PROVIDER_HOSTS": f"{host}=openai",
        "STAGELIGHT_ID_KEY": hashlib.sha256(str(server.database).encode()).hexdigest(),  # the visitors are invented
    }
    folder = application_folder()
    command = ["-m", "uvicorn", "app:app", "--app-dir", str(folder), "--port", str(port), "--log-level", "critical"]
    with _process(command, environment) as process:
        _wait_until_ready(process, port)
        yield f"http://127.0.0.1:{port}"


def _wait_until_ready(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            output = process.stdout.read() if process.stdout is not None else ""
            raise DemoError(f"the application did not start:\n{output.strip()}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == http.client.OK:
                return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise DemoError(f"the application was not ready within {_READY_S:g} s")
