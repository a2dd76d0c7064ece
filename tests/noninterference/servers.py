"""What clients talk to, and what came in there: as values of which two runs can be compared."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from noninterference.relaying import Relay
from stagelight.sim import Simulator
from stagelight.sim.wire import Recorded

__all__ = ["NoServer", "Relayed", "Server", "Simulated"]

TRACE = frozenset({"traceparent", "tracestate", "baggage"})
"""Headers that a client which traces itself sends once there is a span."""

VARYING = frozenset({"amz-sdk-invocation-id", "x-amz-date", "sec-websocket-key"})
"""Headers whose values differ in any two requests: AWS's id and time, a socket's key."""


class Server(Protocol):
    """Somebody's server, or nobody's."""

    @property
    def origin(self) -> str:
        """Where it is, as a URL."""

    def forget(self) -> None:
        """Forget what came in, and every hold."""

    def sent(self) -> list[Any]:
        """What came in, to be compared."""

    def count(self) -> int:
        """How much came in so far."""


class NoServer:
    """A client that works in this process."""

    origin = ""

    def forget(self) -> None:
        """Nothing."""

    def sent(self) -> list[Any]:
        """Nothing."""
        return []

    def count(self) -> int:
        """Nothing."""
        return 0


class Simulated:
    """The simulator of providers."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator

    @property
    def origin(self) -> str:
        """Where it is."""
        return self.simulator.origin

    def forget(self) -> None:
        """Forget what came in, and every hold."""
        self.simulator.release()
        self.simulator.forget()

    def sent(self) -> list[Any]:
        """Method, path, headers in their order, and body of each request."""
        return [_comparable(request) for request in self.simulator.requests]

    def count(self) -> int:
        """Requests so far."""
        return len(self.simulator.requests)


class Relayed:
    """A PostgreSQL behind a relay.

    Args:
        relay: what is before it.
        url: where the database would be without.
    """

    def __init__(self, relay: Relay, url: str) -> None:
        self._relay = relay
        parts = urlsplit(url)
        self.origin = urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{relay.port}"))

    def forget(self) -> None:
        """Forget what came in."""
        self._relay.forget()

    def sent(self) -> list[Any]:
        """The messages of each connection."""
        return self._relay.messages()

    def count(self) -> int:
        """Messages so far."""
        return sum(map(len, self._relay.messages()))


def _comparable(request: Recorded) -> tuple[Any, ...]:
    boundary = re.search(r"boundary=(\S+)", request.header("content-type") or "")
    hide: Callable[[str], str] = (lambda text: text) if boundary is None else lambda text: text.replace(boundary[1], "")
    body = request.body if boundary is None else request.body.replace(boundary[1].encode(), b"")
    headers = tuple((name, _steady(name, hide(value))) for name, value in request.headers if name not in TRACE)
    return request.method, request.path, headers, body


def _steady(name: str, value: str) -> str:
    is_signature = name == "authorization" and value.startswith("AWS4")
    return "" if is_signature or name in VARYING else value
