"""The code of LangChain in which a model works: the run is current there, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from functools import partial
from typing import Any

from opentelemetry import context as otel_context

from stagelight._guard import quietly
from stagelight._lifecycle import Attachment
from stagelight.integrations._instrumentor import Wrapper
from stagelight.integrations._langchain_models import ModelRun

__all__ = ["Work", "named", "pulled", "pulled_async"]

Find = Callable[[Any, tuple[Any, ...], dict[str, Any]], "ModelRun | None"]
"""Instance, arguments and keywords -> the run that the code works for."""


def pulled(find: Find, *, ends_run: bool) -> Wrapper:
    """The run is current while a generator is asked for the next item, not while its caller has it.

    Args:
        find: gives the run, when the first item is asked for.
        ends_run: whether the run is over with the generator, also if LangChain does not say so.
    """

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        inner = wrapped(*args, **kwargs)
        return _named(_delegated(inner, lambda: find(instance, args, kwargs), ends_run), inner)

    return wrapper


def pulled_async(find: Find, *, ends_run: bool) -> Wrapper:
    """The same for an asynchronous generator."""

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        inner = wrapped(*args, **kwargs)
        return _named(_delegated_async(inner, lambda: find(instance, args, kwargs), ends_run), inner)

    return wrapper


def _named(outer: Any, inner: Any) -> Any:
    outer.__name__, outer.__qualname__ = inner.__name__, inner.__qualname__
    return outer


class _Pulls:
    """What ``yield from`` needs of a generator."""

    __slots__ = ("_inner", "_run")

    def __init__(self, inner: Generator[Any, Any, Any], run: ModelRun) -> None:
        self._inner = inner
        self._run = run

    def __iter__(self) -> _Pulls:
        return self

    def __next__(self) -> Any:
        with self._run.active():
            return next(self._inner)

    def send(self, value: Any) -> Any:
        with self._run.active():
            return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        with self._run.active():
            return self._inner.throw(*error)

    def close(self) -> None:
        with self._run.active():
            self._inner.close()


def _delegated(
    inner: Generator[Any, Any, Any], find: Callable[[], ModelRun | None], ends_run: bool
) -> Generator[Any, Any, Any]:
    run = quietly("langchain stream", find, None)
    if run is None:
        return (yield from inner)
    try:
        return (yield from _Pulls(inner, run))
    finally:
        if ends_run:
            run.left()


class _Resumed:
    """Block around a ``yield`` that keeps what the caller throws in, for the inner generator."""

    error: BaseException | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.error = error
        return not isinstance(error, GeneratorExit)


async def _delegated_async(
    inner: AsyncGenerator[Any, Any], find: Callable[[], ModelRun | None], ends_run: bool
) -> AsyncGenerator[Any, Any]:
    run = quietly("langchain stream", find, None)
    active = partial(Attachment, otel_context.get_current()) if run is None else run.active
    advance = _first(inner)
    try:
        while True:
            try:
                with active():
                    item = await advance
            except StopAsyncIteration:
                return
            resumed, sent = _Resumed(), None
            try:
                with resumed:
                    sent = yield item
            except GeneratorExit:
                with active():
                    await inner.aclose()
                raise
            advance = inner.asend(sent) if resumed.error is None else inner.athrow(resumed.error)
    finally:
        if run is not None and ends_run:
            run.left()  # LangChain does not say so when the loop is closing


def _first(inner: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Ask for the first item; closing ``inner`` is the outer generator's affair: the loop must not do it as well."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return anext(inner)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def named(wrapper: Wrapper) -> Wrapper:
    """The wrapper's coroutines bear the function's own name."""

    def naming(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        coroutine = wrapper(wrapped, instance, args, kwargs)
        coroutine.__name__, coroutine.__qualname__ = wrapped.__name__, wrapped.__qualname__
        return coroutine

    return naming


class Work:
    """What a model does for one run, or for several at once.

    Args:
        runs: one for each prompt; LangChain tells them their ends.
    """

    __slots__ = ("_runs",)

    def __init__(self, runs: Sequence[ModelRun]) -> None:
        self._runs = runs
        runs[0].siblings = runs[1:]

    def active(self) -> Attachment:
        return self._runs[0].active()

    def returned(self, result: Any) -> None:
        """The runs have been told."""

    def failed(self, error: BaseException) -> None:
        """The runs have been told."""
