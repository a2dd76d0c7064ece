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

__all__ = ["Listener", "Stream", "StreamEnd"]


class Listener(Protocol):
    """The scope a stream belongs to."""

    context: Context

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

    def with_error(self, error: BaseException) -> None:
        """End now because the source raised ``error``."""
        outcome = outcome_of(error, "provider_aborted")
        self.with_outcome(outcome, error_type(error))

    def abandoned_unseen(self) -> None:
        """End because nobody holds the stream any more; safe inside a garbage collection."""
        if self._claim():
            scope, end_s, ends_scope = self._scope, _clock.seconds(), self._ends_scope
            scope.aside(lambda: scope.stream_ended("client_abandoned", None, end_s, ends_scope=ends_scope))

    def _claim(self) -> bool:
        try:
            return self._open.pop()
        except IndexError:
            return False


class Stream:
    """A source's stand-in: same items, same exceptions, same laziness; unknown attributes are the source's.

    Args:
        source: an iterable, iterator, async iterable or async iterator; also used as its context manager.
        scope: the call or turn the stream belongs to.
        ends_scope: see ``StreamEnd``.
    """

    __slots__ = ("__weakref__", "_context", "_end", "_iterator", "_scope", "_source")

    def __init__(self, source: Any, scope: Listener, *, ends_scope: bool = False) -> None:
        self._source = source
        self._scope = scope
        self._iterator: Any = None
        self._context = scope.context
        self._end = StreamEnd(scope, ends_scope=ends_scope)

    # the source's own context

    def _enter(self) -> Context:
        before = otel_context.get_current()
        otel_context.attach(self._context)
        return before

    def _leave(self, before: Context) -> None:
        self._context = otel_context.get_current()
        otel_context.attach(before)

    # sync

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self._step(next)

    def send(self, value: Any) -> Any:
        """Send into a generator source."""
        return self._step(lambda iterator: iterator.send(value))

    def throw(self, *error: Any) -> Any:
        """Throw into a generator source."""
        return self._step(lambda iterator: iterator.throw(*error))

    def _step(self, advance: Callable[[Any], Any]) -> Any:
        before = self._enter()
        try:
            if self._iterator is None:
                self._iterator = iter(self._source)
            item = advance(self._iterator)
        except StopIteration:
            self._end.with_outcome("completed")
            raise
        except BaseException as error:
            self._end.with_error(error)
            raise
        finally:
            self._leave(before)
        if self._end.open:
            self._scope.chunk(item)
        return item

    def close(self) -> Any:
        """Close the source; a stream closed before its end was abandoned by the client."""
        before = self._enter()
        try:
            closing = getattr(self._iterator if self._iterator is not None else self._source, "close", None)
            return closing() if closing is not None else None
        finally:
            self._leave(before)
            self._end.with_outcome("client_abandoned")

    def __enter__(self) -> Self:
        entering = getattr(type(self._source), "__enter__", None)
        if entering is not None:
            entered = entering(self._source)
            if entered is not self._source:
                self._iterator = iter(entered)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        try:
            leaving = getattr(type(self._source), "__exit__", None)
            if leaving is not None:
                return leaving(self._source, kind, error, trace)
            self.close()
            return None
        finally:
            self._leave_block(error)

    # async

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await self._astep(lambda iterator: iterator.__anext__())

    async def asend(self, value: Any) -> Any:
        """Send into an async generator source."""
        return await self._astep(lambda iterator: iterator.asend(value))

    async def athrow(self, *error: Any) -> Any:
        """Throw into an async generator source."""
        return await self._astep(lambda iterator: iterator.athrow(*error))

    async def _astep(self, advance: Callable[[Any], Any]) -> Any:
        before = self._enter()
        try:
            if self._iterator is None:
                self._iterator = aiter(self._source)
            item = await advance(self._iterator)
        except StopAsyncIteration:
            self._end.with_outcome("completed")
            raise
        except BaseException as error:
            self._end.with_error(error)
            raise
        finally:
            self._leave(before)
        if self._end.open:
            self._scope.chunk(item)
        return item

    async def aclose(self) -> Any:
        """Close the source; a stream closed before its end was abandoned by the client."""
        before = self._enter()
        try:
            source = self._iterator if self._iterator is not None else self._source
            closing = getattr(source, "aclose", None) or getattr(source, "close", None)
            if closing is None:
                return None
            result = closing()
            return await result if hasattr(result, "__await__") else result
        finally:
            self._leave(before)
            self._end.with_outcome("client_abandoned")

    async def __aenter__(self) -> Self:
        entering = getattr(type(self._source), "__aenter__", None)
        if entering is not None:
            entered = await entering(self._source)
            if entered is not self._source:
                self._iterator = aiter(entered)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        try:
            leaving = getattr(type(self._source), "__aexit__", None)
            if leaving is not None:
                return await leaving(self._source, kind, error, trace)
            await self.aclose()
            return None
        finally:
            self._leave_block(error)

    # end

    def _leave_block(self, error: BaseException | None) -> None:
        if error is not None and outcome_of(error) == "cancelled":
            self._end.with_outcome("cancelled")
        else:
            self._end.with_outcome("client_abandoned")

    def __del__(self) -> None:
        self._end.abandoned_unseen()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)
