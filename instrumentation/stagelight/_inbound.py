"""What a request or a task brought with it: its id, and whose work it is, for everything that happens inside it."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from stagelight import _clock
from stagelight.facts import Identity

__all__ = ["REQUEST_KEY", "Inbound", "accepted_id", "current_inbound", "new_id"]

REQUEST_KEY = otel_context.create_key("stagelight.request")
"""Where a context keeps the ``Inbound`` of the request it belongs to."""

_ACCEPTED: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~+/=:@-]{0,127}")


def accepted_id(text: str | None) -> str | None:
    """A request id as it came, or ``None`` for one that is not safe to repeat in headers and logs.

    Accepted are 1 to 128 characters of ``A-Z a-z 0-9 . _ ~ + / = : @ -`` that begin with a letter or digit.
    """
    return text if text is not None and _ACCEPTED.fullmatch(text) else None


def new_id() -> str:
    """A request id of our own: 32 hexadecimal digits."""
    return uuid.uuid4().hex


class Inbound:
    """One request of this process, or one task that another process sent.

    Args:
        request_id: an accepted or new id; ``None`` when the sender gave none.
        identity: whose work it is, as far as it is known from the start.
        name: names the turn when a stage runs, low cardinality; ``None`` where no turn is to be opened.
    """

    __slots__ = ("_lock", "entry", "identity", "mounted", "name", "over", "request_id", "start_ns", "start_s", "turn")

    def __init__(
        self, request_id: str | None, identity: Identity, *, name: Callable[[], tuple[str, str | None]] | None = None
    ) -> None:
        self.request_id = request_id
        self.identity = identity
        self.name = name
        self.start_ns = _clock.wall_ns()
        self.start_s = _clock.seconds()
        self.entry: Context | None = None
        """The context in which the application was entered: its span is the server's."""
        self.mounted: tuple[Any, ...] = ()
        """Spans that the servers of mounted applications made on the way."""
        self.turn: Any = None
        """The request's own turn, once a stage has opened it (``_turns.RequestTurn``)."""
        self.over = False
        """The last byte of the answer is sent."""
        self._lock = threading.Lock()

    def opened(self, make: Callable[[Inbound], Any]) -> Any:
        """The request's own turn; the first stage makes it. ``None`` where there is to be none, or no longer."""
        with self._lock:
            if self.turn is None and self.name is not None:
                self.turn = make(self)
            return self.turn

    def closed(self) -> Any:
        """Take the turn, if one was opened; none will be from now on."""
        with self._lock:
            self.over = True
            turn, self.turn, self.name = self.turn, None, None
            return turn


def current_inbound(context: Context | None = None) -> Inbound | None:
    """The request or task that this code works for."""
    found: Any = (otel_context.get_current() if context is None else context).get(REQUEST_KEY)
    return found if isinstance(found, Inbound) else None
