"""The rows of the suite: a client, how it is opened, and each way of using it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from noninterference.servers import Server
from stagelight.integrations._instrumentor import Instrumentor

__all__ = ["FAULTS", "PLAIN", "Client", "Kind", "Opening", "Options", "Use", "each", "now"]

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients to verify with: reading the certificates takes longer than a test, and nothing here is encrypted."""

Kind = str
"""``sync`` or ``async``."""

FAULTS: Mapping[str, str] = {
    "rate limit": "rate_limit;retry_after=0.001",
    "server error": "server_error",
    "no such model": "model_not_found",
    "cut": "stream_cut;after=1",
    "error inside": "stream_error;after=1",
    "malformed": "malformed_chunk;after=1",
}
"""What the simulator can do to an answer, by name: the text of its header."""


class Options(NamedTuple):
    """How a client is made."""

    kind: Kind
    headers: Mapping[str, str] = {}
    """Sent with every request: what the simulator is to do."""
    timeout_s: float = 60.0
    """How long a sync client waits for the next bytes."""
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Use:
    """One way of using a client.

    ``call`` is given the client, sync or async, and ``items`` what ``call`` returned (awaited) or, with ``is_block``,
    what its block gave; they are the user's own lines, as far as tracebacks are concerned.
    """

    covers: str
    """The call, as the integration's ``Coverage`` writes it."""
    call: Callable[[Any], Any]
    name: str = ""
    """What tells it from other uses of the same call."""
    items: Callable[[Any], Any] | None = None
    """The stream, where there is one."""
    is_block: bool = False
    is_awaited: bool = True
    """Whether what ``call`` returns is awaited when it can be."""
    seen: Callable[[Any], Any] = field(default=lambda _: None)
    """What a caller finds in the result beyond its type, text and attributes."""
    kinds: tuple[Kind, ...] = ("sync", "async")
    fails: bool = False
    """Whether it raises without any fault."""
    first: int | None = None
    """The chunk of the server's answer that completes the first item; ``None`` where the server cannot be stopped."""
    gives_up: bool = True
    """Whether the client can be told how long to wait for the next bytes."""
    needs: str = ""
    """What versions of the client that can do this have: ``module:Class.function``."""

    @property
    def title(self) -> str:
        """Name for reports."""
        return f"{self.covers}, {self.name}" if self.name else self.covers


Opening = Callable[[Server, Options], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Client:
    """One integration and all uses of its client."""

    integration: str
    """Module below ``stagelight.integrations``."""
    instrumentor: str
    """Class in that module."""
    needs: tuple[str, ...]
    """Modules without which its rows are left out."""
    open: Opening
    uses: Sequence[Use]
    server: str = "simulator"
    """Fixture of the server that it talks to."""
    provider: str = ""
    """What the simulator's host stands for."""
    faults: Mapping[str, str] = field(default_factory=dict)
    kinds: Callable[[], tuple[Kind, ...]] = lambda: ("sync", "async")
    warnings: tuple[str, ...] = ()
    """Warnings of the client's own, as filters."""

    @property
    def is_installed(self) -> bool:
        """Whether its rows can run here."""
        return all(map(_found, self.needs))

    def instrumentation(self) -> Instrumentor:
        """The integration."""
        kind = getattr(import_module(f"stagelight.integrations.{self.integration}"), self.instrumentor)
        made: Instrumentor = kind()
        return made

    def rows(self) -> list[tuple[Use, Kind]]:
        """Each use with each kind of client that is installed."""
        uses = [use for use in self.uses if _has(use.needs)]
        return [(use, kind) for use in uses for kind in self.kinds() if kind in use.kinds]


def _found(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


def _has(path: str) -> bool:
    module, _, place = path.partition(":")
    try:
        found: Any = import_module(module) if module else None
    except ImportError:
        return False
    for name in filter(None, place.split(".")):
        found = getattr(found, name, None)
    return not path or found is not None


async def now(result: Any) -> Any:
    """The result of a call of either kind of client, for uses of several steps."""
    return await result if hasattr(result, "__await__") else result


def each(stream: Any) -> Any:
    """The items of a stream are what iterating it gives."""
    return stream
