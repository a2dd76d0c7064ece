"""The only stream proxy, for sync and async iterators and context managers.

It passes items through unchanged, keeps no item, and ends exactly once with one outcome, whatever the caller does:
exhaust, break, close, throw, cancel, let it be collected, or never iterate. The scope's context is current only while
the source runs; what the source leaves attached (a block with a ``yield`` inside) is kept for its next turn and never
reaches the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from stagelight import _clock
from stagelight._guard import guard
from stagelight._lifecycle import error_type, outcome_of
from stagelight.facts import Outcome

__all__ = ["AsyncStream", "DualStream", "Listener", "Stream", "StreamEnd", "SyncStream"]


class Listener(Protocol):
    """The scope a stream belongs to."""

    context: Context
    stream_failure: Outcome
    """Outcome of a stream whose source raised."""

    def stream_began(self) -> None: ...

    def chunk(self, item: Any) -> None:
        """An item came from the source."""

    def stream_ended(self, outcome: Outcome, kind: str | None, end_s: float, *, ends_scope: bool) -> None: ...

    def aside(self, work: Callable[[], None]) -> None:
        """Do ``work`` later: called inside a garbage collection."""


class StreamEnd:
    """The one end of a stream. Later ends do nothing: a list's pop is atomic, so of two racing threads one wins.

    Args:
        scope: the call or turn the stream belongs to.
        ends_scope: whether the scope ends with this stream even when it never had a block.
    """

    __slots__ = ("_ends_scope", "_open", "_scope")

    def __init__(self, scope: Listener, *, ends_scope: bool) -> None:
        self._scope = scope
        self._ends_scope = ends_scope
        self._open = [True]
        scope.stream_began()

    @property
    def open(self) -> bool:
        return bool(self._open)

    def with_outcome(self, outcome: Outcome, kind: str | None = None) -> None:
        """End now with ``outcome``."""
        if self._claim():
            with guard("stream end"):
                self._scope.stream_ended(outcome, kind, _clock.seconds(), ends_scope=self._ends_scope)

    def with_error(self, error: BaseException, otherwise: Outcome = "provider_aborted") -> None:
        """End now because ``error`` came out of the source.

        Args:
            error: the exception.
            otherwise: the outcome unless it is a timeout or a cancellation.
        """
        self.with_outcome(outcome_of(error, otherwise), error_type(error))

    def abandoned_unseen(self, outcome: Outcome = "client_abandoned") -> None:
        """End because nobody holds the stream any more; safe inside a garbage collection."""
        if self._claim():
            scope, end_s, ends_scope = self._scope, _clock.seconds(), self._ends_scope
            scope.aside(lambda: scope.stream_ended(outcome, None, end_s, ends_scope=ends_scope))

    def _claim(self) -> bool:
        try:
            return self._open.pop()
        except IndexError:
            return False


class Stream:
    """A source's stand-in: same items, same exceptions, same laziness; unknown attributes are the source's.

    ``Stream(source, scope)`` makes the kind that the source is: frameworks tell sync and async apart by their methods.

    Args:
        source: an iterable, iterator, async iterable or async iterator, or a context manager of one.
        scope: the call or turn the stream belongs to.
        ends_scope: see ``StreamEnd``.
    """

    __slots__ = ("__weakref__", "_context", "_end", "_iterator", "_manager", "_scope", "_source")

    def __new__(cls, source: Any, scope: Listener, *, ends_scope: bool = False) -> Self:
        del scope, ends_scope
        has = type(source)
        awaited = hasattr(has, "__aiter__") or hasattr(has, "__aenter__")
        both = awaited and (hasattr(has, "__iter__") or hasattr(has, "__enter__"))
        kind: Any = DualStream if both else AsyncStream if awaited else SyncStream
        made: Self = object.__new__(kind)
        return made

    def __init__(self, source: Any, scope: Listener, *, ends_scope: bool = False) -> None:
        self._source = source
        self._manager = source
        self._scope = scope
        self._iterator: Any = None
        self._context = scope.context
        self._end = StreamEnd(scope, ends_scope=ends_scope)

    def _enter(self) -> Context:
        """Make the source's own context current; gives the caller's, to ``_leave`` with."""
        before = otel_context.get_current()
        otel_context.attach(self._context)
        return before

    def _leave(self, before: Context) -> None:
        self._context = otel_context.get_current()
        otel_context.attach(before)

    def _came(self, item: Any) -> Any:
        if self._end.open:
            self._scope.chunk(item)
        return item

    def _broke(self, error: BaseException, thrown: tuple[Any, ...]) -> None:
        own = bool(thrown) and (error is thrown[0] or type(error) is thrown[0])
        self._end.with_error(error, "client_abandoned" if own else self._scope.stream_failure)

    def _left(self, error: BaseException | None) -> None:
        self._end.with_error(GeneratorExit() if error is None else error, "client_abandoned")

    def close(self) -> Any:
        """Close the source; a stream closed before its end was abandoned by the client."""
        closing: Any = getattr(self._source, "close", None) or getattr(self._iterator, "close", _nothing)
        before = self._enter()
        try:
            return closing()
        finally:
            self._leave(before)
            self._end.with_outcome("client_abandoned")

    def __del__(self) -> None:
        self._end.abandoned_unseen()

    def __getattr__(self, name: str) -> Any:
        if name in Stream.__slots__:  # not initialised: a copy
            raise AttributeError(name)
        return getattr(self._source, name)


class SyncStream(Stream):
    """Stand-in for an iterator, generator or context manager."""

    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self._step(next)

    def send(self, value: Any) -> Any:
        """Send into a generator source; other sources have no ``send``."""
        send = self._source.send
        return self._step(lambda _: send(value))

    def throw(self, *error: Any) -> Any:
        """Throw into a generator source; other sources have no ``throw``."""
        throw = self._source.throw
        return self._step(lambda _: throw(*error), *error)

    def _step(self, advance: Callable[[Any], Any], *thrown: Any) -> Any:
        before = self._enter()
        try:
            if self._iterator is None:
                self._iterator = iter(self._source)
            item = advance(self._iterator)
        except StopIteration:
            self._end.with_outcome("completed")
            raise
        except BaseException as error:
            self._broke(error, thrown)
            raise
        finally:
            self._leave(before)
        return self._came(item)

    def __enter__(self) -> Self:
        entering = getattr(type(self._manager), "__enter__", None)
        if entering is not None:
            before = self._enter()
            try:
                self._source = entering(self._manager)
            except BaseException as error:
                self._broke(error, ())
                raise
            finally:
                self._leave(before)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        leaving = getattr(type(self._manager), "__exit__", None)
        before = self._enter()
        try:
            return leaving(self._manager, kind, error, trace) if leaving is not None else self.close()
        finally:
            self._leave(before)
            self._left(error)


class AsyncStream(Stream):
    """Stand-in for an async iterator, async generator or async context manager."""

    __slots__ = ()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await self._astep(anext)

    async def asend(self, value: Any) -> Any:
        """Send into an async generator source; other sources have no ``asend``."""
        send = self._source.asend
        return await self._astep(lambda _: send(value))

    async def athrow(self, *error: Any) -> Any:
        """Throw into an async generator source; other sources have no ``athrow``."""
        throw = self._source.athrow
        return await self._astep(lambda _: throw(*error), *error)

    async def _astep(self, advance: Callable[[Any], Any], *thrown: Any) -> Any:
        before = self._enter()
        try:
            if self._iterator is None:
                self._iterator = aiter(self._source)
            item = await advance(self._iterator)
        except StopAsyncIteration:
            self._end.with_outcome("completed")
            raise
        except BaseException as error:
            self._broke(error, thrown)
            raise
        finally:
            self._leave(before)
        return self._came(item)

    async def aclose(self) -> Any:
        """Close the source; a stream closed before its end was abandoned by the client."""
        source = self._source
        closing: Any = getattr(source, "aclose", None) or getattr(source, "close", None)
        closing = closing or getattr(self._iterator, "aclose", _nothing)
        before = self._enter()
        try:
            closed = closing()
            return await closed if hasattr(closed, "__await__") else closed
        finally:
            self._leave(before)
            self._end.with_outcome("client_abandoned")

    async def __aenter__(self) -> Self:
        entering = getattr(type(self._manager), "__aenter__", None)
        if entering is not None:
            before = self._enter()
            try:
                self._source = await entering(self._manager)
            except BaseException as error:
                self._broke(error, ())
                raise
            finally:
                self._leave(before)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        leaving = getattr(type(self._manager), "__aexit__", None)
        before = self._enter()
        try:
            return await (self.aclose() if leaving is None else leaving(self._manager, kind, error, trace))
        finally:
            self._leave(before)
            self._left(error)


class DualStream(SyncStream, AsyncStream):
    """Stand-in for a source that can be iterated both ways."""

    __slots__ = ()


def _nothing() -> None:
    """What closing a source without ``close`` does."""
