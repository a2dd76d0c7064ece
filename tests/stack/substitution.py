"""The only difference between what compose mounts and what the tests run: addresses, and paths of mounts.

In the containers a program listens on ``0.0.0.0:PORT`` and reaches another one as ``service:PORT``; here they listen
on ``127.0.0.1:FREE`` and are reached as ``localhost:FREE``, so that every replacement can be turned back.
"""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PORTS: Mapping[str, tuple[int, ...]] = {
    "collector": (4317, 4318, 8888, 13133),
    "prometheus": (9090,),
    "loki": (3100, 9095),
    "tempo": (3200, 4317, 9095),
    "alertmanager": (9093,),
}
"""Ports inside the networks of the compose file."""

_FREE = range(10_240, 32_768)
"""Below the ports that Linux takes for outgoing connections, so that none of these takes one of ours."""

Places = Mapping[tuple[str, int], int]
"""The free port here for a service and its port."""


def free_places(services: Iterable[str] = PORTS) -> dict[tuple[str, int], int]:
    """A free port of the loopback interface for each port of these services."""
    wanted = [(name, port) for name in services for port in PORTS[name]]
    return dict(zip(wanted, free_ports(len(wanted)), strict=True))


def free_port() -> int:
    """One free port of the loopback interface."""
    return free_ports(1)[0]


def free_ports(number: int) -> list[int]:
    """Free ports of the loopback interface, each another one."""
    held: list[socket.socket] = []
    try:
        return [_free_port(held) for _ in range(number)]
    finally:
        for one in held:
            one.close()


def _free_port(held: list[socket.socket]) -> int:
    while True:
        port = random.choice(_FREE)
        candidate = socket.socket()
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            candidate.close()
            continue
        held.append(candidate)
        return port


@dataclass(frozen=True, slots=True)
class Substitution:
    """Replaces addresses and paths in the files and the command line of one service, and turns them back."""

    service: str
    places: Places
    paths: Mapping[str, Path]
    """Where each path of the container is here."""

    def here(self, text: str) -> str:
        """The text with the addresses and paths of this machine."""
        return _replaced(text, self._rows())

    def in_container(self, text: str) -> str:
        """The text as compose mounts it, from what ``here`` made of it."""
        return _replaced(text, [(kind, new, old) for kind, old, new in self._rows()])

    def _rows(self) -> list[tuple[str, str, str]]:
        own = {port: free for (name, port), free in self.places.items() if name == self.service}
        return [
            *((_ADDRESS, f"{name}:{port}", f"localhost:{free}") for (name, port), free in self.places.items()),
            *((_ADDRESS, f"0.0.0.0:{port}", f"127.0.0.1:{free}") for port, free in own.items()),
            *((_PORT, f"port: {port}", f"port: {free}") for port, free in own.items()),
            (_HOST, "0.0.0.0", "127.0.0.1"),  # noqa: S104 - where the port is a field of its own
            *((_PATH, path, str(folder)) for path, folder in self.paths.items()),
        ]


# What may stand before and after each kind, so that no part of a longer name is taken for it.
_ADDRESS = r"(?<![\w.-]){}(?!\d)"
_PORT = r"{}(?!\d)"
_HOST = r"(?<![\w.-]){}(?![\w.:])"
_PATH = r"(?<![\w./-]){}(?![\w.-])"


def _replaced(text: str, rows: list[tuple[str, str, str]]) -> str:
    """All replacements at once, the longest first, so that none works on the result of another."""
    longest_first = sorted(rows, key=lambda row: len(row[1]), reverse=True)
    new = {old: replacement for _, old, replacement in rows}
    choices = "|".join(kind.format(re.escape(old)) for kind, old, _ in longest_first)
    return re.sub(choices, lambda match: new[match[0]], text)
