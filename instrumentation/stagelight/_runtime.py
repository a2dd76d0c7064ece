"""What the calls of this process record to: made by ``configure`` or, before that, from the host's providers."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from opentelemetry import metrics, trace
from opentelemetry._logs import LogRecord, get_logger
from opentelemetry.trace import Tracer

from stagelight._bounds import OTHER
from stagelight._forks import in_every_child
from stagelight._guard import once_a_minute
from stagelight._handover import Handover
from stagelight._identity import Pseudonyms
from stagelight._version import SCHEMA_URL, __version__
from stagelight.cost.names import canonical_provider, is_self_hosted
from stagelight.export.accumulators import SdkBackend
from stagelight.instruments import Instruments
from stagelight.settings import Settings

__all__ = ["SCOPE", "EventSink", "InFlight", "Runtime", "current", "install", "replaced"]

logger = logging.getLogger("stagelight")

SCOPE = "stagelight"
"""Name of the instrumentation scope of everything we emit."""

_SEEN_LIMIT = 2048  # ids of answers, a few minutes of a busy process
_IN_FLIGHT_KEYS = 256  # of stage and provider, both few


class InFlight:
    """Calls that have started and not ended, by stage and provider; read by an observable up-down counter."""

    def __init__(self) -> None:
        self.restart()
        in_every_child(self.restart)

    def restart(self) -> None:
        """Begin at zero: the calls of the parent end there."""
        self._counts: dict[tuple[str, str | None], int] = {}
        self._lock = threading.RLock()  # re-entrant: a call may start or end inside a garbage collection

    def change(self, stage: str, provider: str | None, by: int) -> None:
        with self._lock:
            key = (stage, provider)
            if key not in self._counts and len(self._counts) >= _IN_FLIGHT_KEYS:
                key = (stage, OTHER)
            self._counts[key] = max(self._counts.get(key, 0) + by, 0)  # a call that began before a fork ends uncounted

    def counts(self) -> dict[tuple[str, str | None], int]:
        with self._lock:
            return dict(self._counts)


class SeenResponses:
    """Who recorded the last answers, by the provider's id of the answer."""

    def __init__(self) -> None:
        self._by: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.RLock()

    def add(self, response_id: str, by: str) -> str | None:
        """Who has recorded this answer before; ``None`` when nobody has."""
        with self._lock:
            before = self._by.get(response_id)
            if before is None:
                if len(self._by) >= _SEEN_LIMIT:
                    self._by.popitem(last=False)
                self._by[response_id] = by
            return before


class EventSink(Protocol):
    """Takes log events: a logger of OpenTelemetry's, or our own."""

    def emit(self, record: LogRecord, /) -> None: ...


@dataclass(slots=True)
class Runtime:
    """Providers' ends and the state shared by all calls."""

    tracer: Tracer
    instruments: Instruments
    logger: EventSink
    handover: Handover
    settings: Settings
    configured: bool = False
    """Made by ``configure`` (or by a test), so that work is done even for unsampled calls."""
    pseudonyms: Pseudonyms | None = None
    in_flight: InFlight = field(default_factory=InFlight)
    seen: SeenResponses = field(default_factory=SeenResponses)

    def recorded(self, response_id: str, provider: str | None, by: str = SCOPE) -> None:
        """Say that the call with this answer was recorded, and complain when it was before.

        Args:
            response_id: the provider's id of the answer.
            provider: who gave it.
            by: name of the instrumentation.
        """
        before = self.seen.add(response_id, by)
        if before is None or is_self_hosted(canonical_provider(provider or "")):
            return  # small servers number their answers, or draw the ids from a few
        both = " + ".join(sorted((before, by)))
        self.instruments.double_counted(provider, both)
        if once_a_minute("double counted"):
            advice = "switch one of them off" if before != by else "a cache may repeat answers, or two calls be one"
            logger.warning("stagelight: a call of %s was recorded twice, by %s: %s", provider, both, advice)


_lock = threading.Lock()
_current: Runtime | None = None


def _of_the_host() -> Runtime:
    """Record to whatever providers the application sets; nothing where it sets none."""
    return Runtime(
        tracer=trace.get_tracer(SCOPE, __version__, schema_url=SCHEMA_URL),
        instruments=Instruments(SdkBackend(metrics.get_meter(SCOPE, __version__, schema_url=SCHEMA_URL))),
        logger=get_logger(SCOPE, __version__, schema_url=SCHEMA_URL),
        handover=Handover(inline=True),
        settings=Settings(),
    )


def current() -> Runtime:
    """The runtime in force."""
    if _current is None:
        with _lock:
            if _current is None:
                _set(_of_the_host())
    assert _current is not None  # noqa: S101 - set just above
    return _current


def _set(runtime: Runtime | None) -> None:
    global _current  # noqa: PLW0603 - one runtime per process
    _current = runtime


def install(runtime: Runtime) -> None:
    """Make ``runtime`` the one that later calls record to."""
    _set(runtime)


@contextmanager
def replaced(runtime: Runtime) -> Iterator[Runtime]:
    """Record to ``runtime`` inside the block."""
    before = _current
    _set(runtime)
    try:
        yield runtime
    finally:
        _set(before)
