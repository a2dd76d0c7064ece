"""Decorating functions of every kind: each invocation is one scope, to the end of what the function yields."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar

from stagelight._calls import Call
from stagelight._turns import Turn

__all__ = ["decorated"]

F = TypeVar("F", bound=Callable[..., Any])


def decorated(function: F, make: Callable[[], Call | Turn]) -> F:
    """``function`` with a fresh scope around each invocation; sync, async and both kinds of generator."""
    if inspect.isasyncgenfunction(function):
        return _async_generator(function, make)  # type: ignore[return-value]  # same signature by functools.wraps
    if inspect.isgeneratorfunction(function):
        return _generator(function, make)  # type: ignore[return-value]
    if inspect.iscoroutinefunction(function):
        return _coroutine(function, make)  # type: ignore[return-value]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with make():
            return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def _coroutine(function: Callable[..., Any], make: Callable[[], Call | Turn]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        with make():
            return await function(*args, **kwargs)

    return call


def _generator(function: Callable[..., Any], make: Callable[[], Call | Turn]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        scope = make().start()
        try:
            result = yield from scope.stream(function(*args, **kwargs))
        except BaseException as error:
            scope.fail(error)
            raise
        finally:
            scope.end()
        return result

    return call


class _Resumed:
    """Block around a ``yield`` that keeps the error which the caller throws in, for the function to handle."""

    error: BaseException | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.error = error
        return not isinstance(error, GeneratorExit)


def _async_generator(function: Callable[..., Any], make: Callable[[], Call | Turn]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        scope = make().start()
        try:
            stream = scope.stream(function(*args, **kwargs))
            advance = anext(stream)
            while True:  # what `yield from` does, which async generators lack
                try:
                    item = await advance
                except StopAsyncIteration:
                    return
                resumed = _Resumed()
                sent = None
                try:
                    with resumed:
                        sent = yield item
                except GeneratorExit:
                    await stream.aclose()
                    raise
                advance = stream.asend(sent) if resumed.error is None else stream.athrow(resumed.error)
        except BaseException as error:
            scope.fail(error)
            raise
        finally:
            scope.end()

    return call
