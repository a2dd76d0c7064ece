"""Sources of streams of every kind, sync and async, with the errors they raise or handle; and the end of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import stagelight
from stagelight.conventions import metrics as m
from stagelight.testing import Captured


class ProviderError(Exception):
    """What a source raises."""


class CallerError(Exception):
    """What a caller throws in, and no source handles."""


class HandledError(Exception):
    """What a caller throws in, and a patient source handles."""


LENGTH = 4


def generator() -> Iterator[Any]:
    """Numbers; what is sent into it comes back as an echo."""
    for number in range(LENGTH):
        sent = yield number
        while sent is not None:
            sent = yield ("echo", sent)
    return "done"


def _patient() -> Iterator[Any]:
    for number in range(LENGTH):
        try:
            yield number
        except HandledError:
            yield "handled"


def _failing() -> Iterator[Any]:
    yield 0
    yield 1
    raise ProviderError


def _slow() -> Iterator[Any]:
    yield 0
    raise TimeoutError


class _Numbers:
    """An iterator that is no generator."""

    def __init__(self) -> None:
        self._numbers = iter(range(LENGTH))

    def __iter__(self) -> _Numbers:
        return self

    def __next__(self) -> int:
        return next(self._numbers)


class Response:
    """An iterable with a ``close`` of its own, as the streams of client libraries are."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Iterator[int]:
        yield from range(LENGTH)

    def close(self) -> str:
        self.closed += 1
        return "closed"


SOURCES: dict[str, Callable[[], Any]] = {
    "generator": generator,
    "patient generator": _patient,
    "failing generator": _failing,
    "slow generator": _slow,
    "iterator": _Numbers,
    "list": lambda: list(range(LENGTH)),
    "response": Response,
}


async def agenerator() -> Any:
    """The same, async."""
    for number in range(LENGTH):
        await asyncio.sleep(0)
        sent = yield number
        while sent is not None:
            sent = yield ("echo", sent)


async def _apatient() -> AsyncIterator[Any]:
    for number in range(LENGTH):
        await asyncio.sleep(0)
        try:
            yield number
        except HandledError:
            yield "handled"


async def _afailing() -> AsyncIterator[Any]:
    await asyncio.sleep(0)
    yield 0
    raise ProviderError


class _Anumbers:
    """An async iterator that is no generator."""

    def __init__(self) -> None:
        self._numbers = iter(range(LENGTH))

    def __aiter__(self) -> _Anumbers:
        return self

    async def __anext__(self) -> int:
        await asyncio.sleep(0)
        try:
            return next(self._numbers)
        except StopIteration:
            raise StopAsyncIteration from None


class _Aresponse:
    """An async iterable with a coroutine ``close``, as the streams of client libraries are."""

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in range(LENGTH):
            await asyncio.sleep(0)
            yield number

    async def close(self) -> str:
        return "closed"


ASOURCES: dict[str, Callable[[], Any]] = {
    "generator": agenerator,
    "patient generator": _apatient,
    "failing generator": _afailing,
    "iterator": _Anumbers,
    "response": _Aresponse,
}


class Manager:
    """A context manager whose block gives the items, as ``client.stream(...)``."""

    def __init__(self, items: Callable[[], Any], error: type[BaseException] | None = None) -> None:
        self._items = items
        self._error = error
        self.log: list[str] = []

    def _entered(self) -> Any:
        self.log.append("entered")
        self.inside: Any = stagelight.current()
        if self._error is not None:
            raise self._error
        return self._items()

    def _left(self, kind: type[BaseException] | None) -> bool:
        self.log.append("left" if kind is None else kind.__name__)
        return kind is HandledError

    def __enter__(self) -> Any:
        return self._entered()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        return self._left(kind)


class AsyncManager(Manager):
    """The same for ``async with``, and for it only."""

    async def __aenter__(self) -> Any:
        return self._entered()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        return self._left(kind)

    __enter__ = None  # type: ignore[assignment]
    __exit__ = None  # type: ignore[assignment]


def one_end(captured: Captured) -> str:
    """The outcome of the one call, after checking that there is exactly one end everywhere."""
    (call,) = captured.calls
    (point,) = captured.metric(m.STAGELIGHT_STREAM_OUTCOMES) or captured.metric(m.GEN_AI_CLIENT_OPERATION_DURATION)
    assert (point.count or point.value) == 1
    assert {one.value for one in captured.metric(m.STAGELIGHT_CALLS_IN_FLIGHT)} == {0}
    return call.outcome
