"""The gateway: nginx with the shipped configuration, in front of the programs of a stack."""

from __future__ import annotations

import http.client
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from stack.native import Stack
from stack.programs import ROOT
from stack.substitution import free_ports

CONFIGURATION = ROOT / "deploy" / "compose" / "gateway" / "nginx.conf"
_READY_S = 60.0
_STOP_S = 20.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where it is, and a token that it takes."""

    url: str
    token: str


@contextmanager
def in_front_of(stack: Stack, folder: Path) -> Iterator[Gateway]:
    """nginx as compose runs it; only addresses and paths differ.

    Args:
        stack: the back ends.
        folder: for its files; empty.
    """
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if nginx is None:
        pytest.skip("no nginx program on PATH: apt install nginx-light brings it")
    port, health_port = free_ports(2)
    token = secrets.token_hex(32)
    (folder / "tokens").write_text(f'"Bearer {token}" 1;\n', encoding="utf-8")
    (folder / "resolver.conf").write_text("", encoding="utf-8")  # addresses need none
    (folder / "nginx.conf").write_text(configuration(stack, folder, port, health_port), encoding="utf-8")
    own_user = "user root; " if os.geteuid() == 0 else ""  # its folder is private
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [nginx, "-e", "stderr", "-c", str(folder / "nginx.conf"), "-g", f"{own_user}daemon off;"],
            stdout=log,
            stderr=log,
        )
    try:
        _wait(process, health_port, folder / "log")
        yield Gateway(f"http://127.0.0.1:{port}", token)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def configuration(stack: Stack, folder: Path, port: int, health_port: int) -> str:
    """The shipped configuration with other addresses and paths."""
    text = re.sub(r"(?<= )/tmp/", f"{folder}/", CONFIGURATION.read_text(encoding="utf-8"))
    text = text.replace("/run/secrets/gateway_tokens", str(folder / "tokens"))
    text = text.replace("/dev/stdout", str(folder / "access"))
    text = text.replace("listen 127.0.0.1:8081;", f"listen 127.0.0.1:{health_port};")
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};")
    for (name, inside), outside in stack.places.items():
        text = text.replace(f"http://{name}:{inside}$", f"http://127.0.0.1:{outside}$")
    return text


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while not _answers(port):
        is_late = process.poll() is not None or time.monotonic() > deadline
        assert not is_late, log.read_text(encoding="utf-8", errors="replace")
        time.sleep(0.05)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == http.client.NO_CONTENT
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
