"""The only start and end of spans: clock, context, outcome, error status, and the hand-over at the end.

A scope (a call or a turn) is attached to the context only inside its block or while it pulls from a stream, always
without tokens: the context that stood before is put back if ours still stands, so nothing can fail to detach. It ends
when its block has exited and all its streams have ended, at the later of the two times.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import ref

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode, set_span_in_context

from stagelight import _clock, _runtime
from stagelight._guard import guard
from stagelight._validation import checked_error, checked_outcome
from stagelight.facts import Outcome

if TYPE_CHECKING:
    from stagelight._runtime import Runtime

__all__ = ["CALL_KEY", "SPAN_KEY", "TURN_KEY", "Attachment", "Scope", "end_span", "error_type", "outcome_of"]

CALL_KEY = otel_context.create_key("stagelight.call")
TURN_KEY = otel_context.create_key("stagelight.turn")
"""Where the innermost call and turn stand in a context: a weak reference, and what stood there before."""

(SPAN_KEY,) = set_span_in_context(INVALID_SPAN, Context())
"""Where OpenTelemetry keeps the current span in a context."""

NANOSECONDS = 1_000_000_000

_INTERRUPTIONS = (KeyboardInterrupt, SystemExit)
_CANCELLATIONS = frozenset({"CancelledError", "Cancelled"})
"""Classes of asyncio, concurrent.futures and trio, by name, because importing asyncio takes about 10 ms."""

_FAILURES: frozenset[Outcome] = frozenset({"error", "provider_aborted", "timeout"})
"""Outcomes that are errors of the call; a user pressing stop or a cancelled task is none."""
_OTHER_ERROR = "_OTHER"  # what the conventions give an error whose class is not known

_forks = 0


def _count_fork() -> None:
    global _forks  # noqa: PLW0603 - one count per process
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


def error_type(error: BaseException) -> str:
    """Qualified name of the exception's class, the value of ``error.type``."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def outcome_of(error: BaseException, otherwise: Outcome = "error") -> Outcome:
    """How a call that raised ``error`` ended.

    Args:
        error: the exception that left the call.
        otherwise: the outcome of an ordinary failure: ``error``, or ``provider_aborted`` inside a stream.
    """
    if isinstance(error, GeneratorExit):
        return "client_abandoned"
    if isinstance(error, _INTERRUPTIONS) or any(kind.__name__ in _CANCELLATIONS for kind in type(error).__mro__):
        return "cancelled"
    if isinstance(error, TimeoutError) or any("Timeout" in kind.__name__ for kind in type(error).__mro__):
        return "timeout"
    return otherwise


class Attachment:
    """Block in which a context is current; never attached across a yield or an await of the caller's."""

    __slots__ = ("_before", "_context")

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._before = otel_context.get_current()
        otel_context.attach(self._context)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if otel_context.get_current() is self._context:
            otel_context.attach(self._before)


class Scope(ABC):
    """A span with its context, its block and its streams. ``Call`` and ``Turn`` say what is recorded."""

    __slots__ = (
        "__weakref__",
        "_block_used",
        "_blocks",
        "_born",
        "_error_type",
        "_open",
        "_outcome",
        "_runtime",
        "_started",
        "_streams",
        "_until_s",
        "context",
        "span",
        "start_ns",
        "start_s",
    )

    stream_failure: Outcome = "error"
    span: Span
    context: Context
    start_ns: int
    start_s: float
    _runtime: Runtime

    def __init__(self) -> None:
        self._started = False
        # Appends and pops of a list are atomic: threads and garbage collections need no lock.
        self._open = [True]
        self._blocks: list[Context] = []
        self._block_used = False
        self._streams: list[None] = []
        self._until_s = 0.0
        self._born = _forks
        self._outcome: Outcome | None = None
        self._error_type: str | None = None

    # start

    def _begin(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        key: str,
        before: Context | None = None,
        since: tuple[int, float] | None = None,
    ) -> None:
        """Start the span below that of ``before``, now or ``since`` a wall time in ns and the seconds of our clock."""
        if before is None:
            before = otel_context.get_current()
        self._runtime = runtime = _runtime.current()
        self.start_ns = _clock.wall_ns() if since is None else since[0]
        self.span = runtime.tracer.start_span(name, before, kind, attributes, start_time=self.start_ns)
        # One copy instead of two. The reference is weak, so that an ended scope is freed at once and not by the garbage
        # collector; while it runs, its block, its stream or the caller holds it.
        self.context = Context(
            {**before, SPAN_KEY: self.span, key: (ref(self), before.get(key) if key is TURN_KEY else None)}
        )
        self.start_s = self._until_s = _clock.seconds() if since is None else since[1]
        self._started = True

    def _begin_inside(self, span: Span, key: str, before: Context) -> None:
        """Begin without a span of its own, inside ``span``, which is another instrumentation's to end."""
        self._runtime = _runtime.current()
        self.start_ns = _clock.wall_ns()
        self.span = span
        self.context = Context({**before, key: (ref(self), None)})
        self.start_s = self._until_s = _clock.seconds()
        self._started = True

    @abstractmethod
    def _start(self) -> None:
        """Begin the span; what it is called and carries is the subclass's."""

    def start(self) -> Self:
        """Start now, without a block: for callbacks, websockets and server-sent events. End it with ``end``."""
        if not self._started:
            with guard("start"):
                self._start()
            if not self._started:  # somebody's sampler or span processor is broken
                self.context = otel_context.get_current()
        return self

    @property
    def live(self) -> bool:
        """Started and not ended."""
        return self._started and bool(self._open)

    @property
    def of_this_process(self) -> bool:
        """Made in this process: what was open at a fork is the parent's to end and to bill."""
        return self._born == _forks

    # context

    def active(self) -> Attachment:
        """Block in which this is the current call; does not end it."""
        self.start()
        return Attachment(self.context)

    def __enter__(self) -> Self:
        self.start()
        self._block_used = True
        self._blocks.append(otel_context.get_current())
        if self._started:
            otel_context.attach(self.context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        before = self._blocks.pop()
        if self._started and otel_context.get_current() is self.context:
            otel_context.attach(before)
        with guard("end"):
            if error is not None:
                self.fail(error)
            elif self._started:
                self._until_s = max(self._until_s, _clock.seconds())
                if self._streams:
                    self._runtime.handover.catch_up()  # a stream left by ``break`` has ended already
                self._end_when_done()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    # end

    def end(self, outcome: Outcome | None = None) -> None:
        """End now; later calls do nothing.

        Args:
            outcome: how it ended, one of ``facts.Outcome``; default ``completed``, or what its streams said.
        """
        with guard("end"):
            if not self.live:
                return
            stated = checked_outcome(outcome)
            if stated is not None:
                self._outcome = stated
                unknown = "timeout" if stated == "timeout" else _OTHER_ERROR
                self._error_type = (self._error_type or unknown) if stated in _FAILURES else None
            self._finish(_clock.seconds())

    def fail(self, error: BaseException) -> None:
        """End now with an error; its class is recorded, never its message or stack trace."""
        with guard("end"):
            if not self.live:
                return
            known = checked_error(error)
            if self._outcome not in _FAILURES:  # what a stream said of the provider says more
                self._outcome = None
                self._note(outcome_of(error) if known else "error", error_type(error) if known else _OTHER_ERROR)
            self._finish(_clock.seconds())

    def _note(self, outcome: Outcome, kind: str | None = None) -> None:
        """Remember how it ends; the first outcome that is not ``completed`` stays."""
        if self._outcome in {None, "completed"}:
            self._outcome = outcome
            self._error_type = kind if outcome in _FAILURES else None

    def stream_began(self) -> None:
        """A stream of this scope exists: the scope stays open until it has ended."""
        self._streams.append(None)

    def stream_ended(self, outcome: Outcome, kind: str | None, end_s: float, *, ends_scope: bool) -> None:
        """A stream of this scope ended; called exactly once per stream."""
        self._streams.pop()
        if self.live:
            self._note(outcome, kind)
            self._until_s = max(self._until_s, end_s)
            if ends_scope or self._block_used:
                self._end_when_done()

    def _end_when_done(self) -> None:
        """End at the later of the last block's exit and the last stream's end."""
        if not self._blocks and not self._streams:
            self._finish(self._until_s)

    def _finish(self, end_s: float) -> None:
        """End exactly once: the list's pop is atomic, so of two racing threads one wins."""
        if not self._started or not self.of_this_process:
            return
        try:
            self._open.pop()
        except IndexError:
            return
        self._record(end_s, self._outcome or "completed")

    @abstractmethod
    def _record(self, end_s: float, outcome: Outcome) -> None:
        """Hand the facts over; what they are is the subclass's."""

    def end_ns(self, end_s: float) -> int:
        """The end as a timestamp: the start's wall time plus the monotonic duration."""
        return self.start_ns + round((end_s - self.start_s) * NANOSECONDS)


def end_span(span: Span, end_ns: int, attributes: Mapping[str, Any], error: str | None) -> None:
    """Give a span its last attributes and end it; the status is ERROR exactly when ``error`` is given, never OK."""
    if span.is_recording():
        span.set_attributes(attributes)
        if error is not None:
            span.set_status(Status(StatusCode.ERROR))
    span.end(end_ns)
