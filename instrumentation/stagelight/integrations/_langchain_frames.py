"""The code of LangChain in which a model works: the run is current there, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Sequence
from typing import Any

from opentelemetry import context as otel_context

from stagelight._guard import quietly
from stagelight._lifecycle import Attachment
from stagelight.integrations._instrumentor import Wrapper
from stagelight.integrations._langchain_models import ModelRun

__all__ = ["Work", "pulled", "pulled_async"]

Find = Callable[[Any, tuple[Any, ...], dict[str, Any]], "ModelRun | None"]
"""Instance, arguments and keywords -> the run that the code works for."""


def pulled(find: Find) -> Wrapper:
    """The run is current while a generator is asked for the next item, not while its caller has it."""

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        inner = wrapped(*args, **kwargs)
        return _named(_delegated(inner, lambda: find(instance, args, kwargs)), inner)

    return wrapper


def pulled_async(find: Find) -> Wrapper:
    """The same for an asynchronous generator."""

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        inner = wrapped(*args, **kwargs)
        return _named(_delegated_async(inner, lambda: find(instance, args, kwargs)), inner)

    return wrapper


def _named(outer: Any, inner: Any) -> Any:
    outer.__name__, outer.__qualname__ = inner.__name__, inner.__qualname__
    return outer


class _Pulls(Generator[Any, Any, Any]):
    def __init__(self, inner: Generator[Any, Any, Any], run: ModelRun) -> None:
        self._inner = inner
        self._run = run

    def send(self, value: Any) -> Any:
        with self._run.active():
            return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        with self._run.active():
            return self._inner.throw(*error)


def _delegated(inner: Generator[Any, Any, Any], find: Callable[[], ModelRun | None]) -> Generator[Any, Any, Any]:
    run = quietly("langchain stream", find, None)
    return (yield from inner if run is None else _Pulls(inner, run))


async def _delegated_async(inner: AsyncGenerator[Any, Any], find: Callable[[], ModelRun | None]) -> AsyncIterator[Any]:
    run = quietly("langchain stream", find, None)
    active = Attachment(otel_context.get_current()) if run is None else None
    try:
        while True:
            try:
                with active or run.active():  # type: ignore[union-attr]  # one of the two there is
                    item = await anext(inner)
            except StopAsyncIteration:
                return
            yield item
    finally:
        with active or run.active():  # type: ignore[union-attr]
            await inner.aclose()


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
