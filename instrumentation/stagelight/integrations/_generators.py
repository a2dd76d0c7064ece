"""Streams that are plain generators inside a client: no object of theirs reaches the caller, so ours may stand in."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final, Protocol

from stagelight._guard import guard, quietly
from stagelight._lifecycle import Attachment
from stagelight.integrations._instrumentor import Wrapper
from stagelight.integrations._watching import Items, Watch

__all__ = ["StreamObservation", "around_async_generator", "around_generator"]


class StreamObservation(Protocol):
    """What an integration does around one stream."""

    def active(self) -> Attachment:
        """The block in which the client works."""

    def watch(self) -> Watch:
        """Takes the items, once the stream exists."""

    def failed(self, error: BaseException) -> None:
        """The client raised ``error`` in place of a stream."""


_END: Final = object()

Begin = Callable[[Any, tuple[Any, ...], dict[str, Any]], StreamObservation | None]


class _Items(Items):
    """Items of a stream whose only holder is the client's own loop: dropped by it, the stream was left."""

    __slots__ = ()

    def __del__(self) -> None:
        self._watch.forgotten()


def around_generator(begin: Begin) -> Wrapper:
    """Observe a generator function: it runs when the first item is asked for, as without us."""

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return _observed(wrapped(*args, **kwargs), lambda: begin(instance, args, kwargs))

    return wrapper


def _observed(
    generator: Generator[Any, None, None], begin: Callable[[], StreamObservation | None]
) -> Generator[Any, None, None]:
    observation = quietly("integration request", begin, None)
    if observation is None:
        yield from generator
        return
    try:
        with observation.active():
            first = next(generator, _END)  # sends the request
    except BaseException as error:
        with guard("integration failure"):
            observation.failed(error)
        raise
    watch = quietly("integration stream", observation.watch, None)
    if first is _END:
        if watch is not None:
            watch.completed()
        return
    if watch is None:
        yield first
        yield from generator
        return
    watch.took(first)
    try:
        yield first
        yield from Items(generator, watch)
    finally:
        generator.close()
        watch.forgotten()  # not closed(): a garbage collection may have come here


def around_async_generator(begin: Begin) -> Wrapper:
    """Observe a coroutine function that sends the request and returns an asynchronous generator."""

    async def wrapper(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        observation = quietly("integration request", lambda: begin(instance, args, kwargs), None)
        if observation is None:
            return await wrapped(*args, **kwargs)
        try:
            with observation.active():
                generator = await wrapped(*args, **kwargs)
        except BaseException as error:
            with guard("integration failure"):
                observation.failed(error)
            raise
        return quietly("integration stream", lambda: _Items(generator, observation.watch()), generator)

    return wrapper
