"""How the embedded server is set up: its options, their checks, and where it listens."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from stagelight.embedded.retention import Retention
from stagelight.embedded.store import Synchronous

__all__ = [
    "GRPC_PORT",
    "HTTP_PORT",
    "TOKEN_MIN_LENGTH",
    "Addresses",
    "InvalidOptions",
    "Limits",
    "PortInUse",
    "ServerOptions",
    "is_loopback",
]

HTTP_PORT = 4318
GRPC_PORT = 4317
TOKEN_MIN_LENGTH = 16
"""Characters; there is no lock-out after wrong guesses, so a token must be too long to guess."""

_MIB = 1 << 20


class InvalidOptions(ValueError):  # noqa: N818 - reads as what is wrong
    """An option of the server cannot be used; the message names it, its value and what is accepted."""


class PortInUse(OSError):  # noqa: N818 - a state of the machine, not a fault
    """Another program listens on a port the server was told to use."""

    def __init__(self, host: str, port: int, protocol: str) -> None:
        super().__init__(f"port {port} on {host} (OTLP over {protocol}) is already in use by another program")
        self.host = host
        self.port = port
        self.protocol = protocol
        """``HTTP`` or ``gRPC``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what one client can make the server hold or wait for."""

    wire_bytes: int = 20 * _MIB
    """Largest request as sent, compressed or not. 20 MiB is the OpenTelemetry Collector's default."""
    body_bytes: int = 64 * _MIB
    """Largest request after decompression."""
    inflight_bytes: int = 128 * _MIB
    """All request bodies held at one time; at least ``body_bytes``. Beyond it clients are told to come back."""
    queue_bytes: int = 64 * _MIB
    """Requests that may wait for the writer."""
    body_timeout_s: float = 30.0
    """Time in which a client must have sent its whole request."""
    connections: int = 512
    """HTTP connections open at one time; further ones are answered with 503 and closed."""
    rpcs: int = 128
    """gRPC requests under way at one time; further ones are answered with RESOURCE_EXHAUSTED."""
    header_bytes: int = 64 << 10
    """Largest header of an HTTP request."""
    header_timeout_s: float = 10.0
    """Time in which a client must have sent the header of its request."""
    grace_s: float = 5.0
    """Time that requests under way get to finish when the server stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What ``stagelight up`` can be told. Call ``check()`` before use."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but a loopback address also needs ``allow_remote`` and ``token``."""
    http_port: int = HTTP_PORT
    """OTLP over HTTP and the pages; 0 takes a free port."""
    grpc_port: int = GRPC_PORT
    """OTLP over gRPC; 0 takes a free port."""
    database: Path | None = None
    """The database file; ``None`` is the default one in the user's data directory."""
    allow_remote: bool = False
    """Says that other machines shall reach this server."""
    token: str | None = field(default=None, repr=False)
    """When given, every request needs it: ``Authorization: Bearer <token>``, in a browser a login."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names under which browsers and exporters reach the server, without port."""
    retention: Retention = field(default_factory=Retention)
    """What is kept; 7 days and 2 GiB by default."""
    synchronous: Synchronous = "NORMAL"
    """``NORMAL`` survives the kill of the process, ``FULL`` also the loss of power, about 10 % slower."""
    limits: Limits = field(default_factory=Limits)

    def check(self) -> None:
        """Refuse options that contradict each other or would expose the data.

        Raises:
            InvalidOptions: with the option, the value received and the values accepted.
        """
        for name, port in (("http_port", self.http_port), ("grpc_port", self.grpc_port)):
            if not 0 <= port <= 65535:
                raise InvalidOptions(f"{name}={port}: a port is a number from 0 (any free port) to 65535")
        if self.http_port and self.http_port == self.grpc_port:
            raise InvalidOptions(f"http_port and grpc_port are both {self.http_port}: give each its own port")
        if self.token is not None:
            _check_token(self.token)
        if self.limits.inflight_bytes < self.limits.body_bytes:
            raise InvalidOptions(
                f"limits.inflight_bytes={self.limits.inflight_bytes}: must be at least "
                f"limits.body_bytes ({self.limits.body_bytes})"
            )
        if is_loopback(self.host):
            return
        if not self.allow_remote:
            raise InvalidOptions(
                f"host={self.host!r} can be reached from other machines: "
                "use 127.0.0.1, or allow remote access explicitly and set a token"
            )
        if self.token is None:
            raise InvalidOptions(
                f"host={self.host!r} can be reached from other machines: "
                f"remote access needs a token of {TOKEN_MIN_LENGTH} or more characters"
            )


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running server listens and writes."""

    host: str
    http_port: int
    grpc_port: int
    database: Path

    @property
    def http_url(self) -> str:
        """The pages' address and the value for ``OTEL_EXPORTER_OTLP_ENDPOINT`` with ``http/protobuf``."""
        return f"http://{self._reachable_host}:{self.http_port}"

    @property
    def grpc_url(self) -> str:
        """The value for ``OTEL_EXPORTER_OTLP_ENDPOINT`` with ``grpc``."""
        return f"http://{self._reachable_host}:{self.grpc_port}"

    @property
    def _reachable_host(self) -> str:
        if self.host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
            return "127.0.0.1" if self.host == "0.0.0.0" else "[::1]"  # noqa: S104
        return f"[{self.host}]" if ":" in self.host else self.host


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``: ``localhost`` or a loopback address, never another name."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _check_token(token: str) -> None:
    # The value itself stays out of the message: it is a secret.
    if len(token) < TOKEN_MIN_LENGTH:
        raise InvalidOptions(f"token has {len(token)} characters: at least {TOKEN_MIN_LENGTH} are needed")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise InvalidOptions("token has spaces, control or non-ASCII characters: it must fit into an HTTP header")
