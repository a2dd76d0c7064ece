"""The code of LangChain in which a model works: the run is current there, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from typing import Any

from opentelemetry import context as otel_context

from stagelight._guard import guard, quietly
from stagelight._lifecycle import Attachment
from stagelight._remarks import cache
from stagelight.integrations._instrumentor import Wrapper
from stagelight.integrations._langchain_models import ModelRun, current_run

__all__ = ["CACHE", "Batch", "Completion", "Lookups", "noting_hit", "pulled", "pulled_async"]

CACHE = "langchain"
"""Name of the cache whose lookups are counted."""

Kept = Callable[[Any], "ModelRun | None"]
"""The manager of a run, as LangChain hands it on -> the run."""
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


class Completion:
    """A chat model's answer to one list of messages: from the cache, or from the model.

    Args:
        run: the run that the answer is for.
        has_cache: whether the cache is asked first.
    """

    __slots__ = ("_has_cache", "_run")

    def __init__(self, run: ModelRun, has_cache: bool) -> None:
        self._run = run
        self._has_cache = has_cache

    def active(self) -> Attachment:
        return self._run.active()

    def returned(self, _result: Any) -> None:
        if self._has_cache:
            cache(CACHE, hit=self._run.is_cached)

    def failed(self, _error: BaseException) -> None:
        self.returned(None)


def noting_hit(_instance: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
    """The cache had the answer."""
    run = current_run()
    if run is not None:
        run.is_cached = True
        run.answered()


class Batch:
    """The answers of a model that completes text, to all prompts at once.

    Args:
        runs: one for each prompt.
    """

    __slots__ = ("_runs",)

    def __init__(self, runs: list[ModelRun]) -> None:
        self._runs = runs
        runs[0].siblings = runs[1:]

    def active(self) -> Attachment:
        return self._runs[0].active()

    def returned(self, _result: Any) -> None:
        """The runs have been told themselves."""

    def failed(self, _error: BaseException) -> None:
        """The runs have been told themselves."""


class Lookups:
    """Looks for the answers to several prompts in the cache."""

    __slots__ = ()

    def active(self) -> Attachment:
        return Attachment(otel_context.get_current())

    def returned(self, result: Any) -> None:
        with guard("langchain cache"):
            found, _, _, missing = result
            for _ in found:
                cache(CACHE, hit=True)
            for _ in missing:
                cache(CACHE, hit=False)

    def failed(self, _error: BaseException) -> None:
        """No answer was looked for."""
