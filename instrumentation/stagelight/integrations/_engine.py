"""The engine of all integrations: one call around one call of a client, observed and otherwise left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Self

from stagelight._calls import Call, current_call
from stagelight._guard import guard, quietly
from stagelight._lifecycle import Attachment
from stagelight._streaming import StreamEnd
from stagelight.facts import Outcome, Request, Response, Stage
from stagelight.integrations._instrumentor import Wrapper
from stagelight.integrations._reading import count, part

__all__ = ["Begin", "Observation", "Observed", "around", "around_async"]


class Observed:
    """The call that a client's call is: the one it was made in, or one of its own.

    A client called inside a manual block of the same stage and provider fills that block's call, which its block ends.

    Args:
        stage: kind of work.
        request: what was asked.
        is_provider_known: False when the provider is only what stands in for an unknown one: a block that names its
            provider knows better.
    """

    __slots__ = ("__weakref__", "call", "joined")

    def __init__(self, stage: Stage, request: Request, *, is_provider_known: bool = True) -> None:
        ambient = current_call()
        named = request if is_provider_known else request._replace(provider=None)
        self.joined = ambient is not None and ambient.join(stage, named)
        self.call = ambient if ambient is not None and self.joined else Call(stage, request).start()

    def absorb(self, response: Response | None) -> None:
        """Add facts; the last value of each wins."""
        self.call.absorb(response)

    def stream_end(self) -> StreamEnd:
        """The end of a stream that goes to the caller; the call stays open until then."""
        self.call.watched = True
        return StreamEnd(self.call, ends_scope=not self.joined)

    def end(self, outcome: Outcome | None = None, error: str | None = None) -> None:
        """End the call, if it is ours to end.

        Args:
            outcome: how it ended; default ``completed``.
            error: the value of ``error.type`` where the client raised nothing although the call failed.
        """
        if error is not None:
            StreamEnd(self.call, ends_scope=not self.joined).with_outcome(outcome or "error", error)
        elif not self.joined:
            self.call.end(outcome)

    def fail(self, error: BaseException) -> None:
        """End the call with what the client raised, if it is ours to end."""
        status = _status(error)
        if status is not None:
            self.absorb(Response(http_status=status))
        if not self.joined:
            self.call.fail(error)


_STATUS = (("status_code",), ("response", "status_code"), ("response", "ResponseMetadata", "HTTPStatusCode"))
"""Where clients keep the HTTP status in their exceptions; the last is botocore's."""


def _status(error: BaseException) -> int | None:
    found = (count(part(error, *path)) for path in _STATUS)
    return next((status for status in found if status is not None and 100 <= status < 600), None)


class Observation(Protocol):
    """What an integration does around one call of its client."""

    def active(self) -> Attachment:
        """The block in which the client works."""

    def returned(self, result: Any) -> None:
        """The client returned ``result`` to the caller."""

    def failed(self, error: BaseException) -> None:
        """The client raised ``error``."""


Begin = Callable[[Any, tuple[Any, ...], dict[str, Any]], Observation | None]
"""Instance, arguments and keywords -> the observation, or ``None`` for a call that is not recorded."""


class _Kept:
    """An observation, kept away from the host: none of our errors leaves it."""

    __slots__ = ("_observation",)

    def __init__(self, observation: Observation) -> None:
        self._observation = observation

    @classmethod
    def begun(cls, begin: Begin, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Self | None:
        observation = quietly("integration request", lambda: begin(instance, args, kwargs), None)
        return None if observation is None else cls(observation)

    def active(self) -> Attachment:
        return self._observation.active()

    def returned(self, result: Any) -> None:
        with guard("integration response"):
            self._observation.returned(result)

    def failed(self, error: BaseException) -> None:
        with guard("integration failure"):
            self._observation.failed(error)


def around(begin: Begin) -> Wrapper:
    """Observe a function: same result, same exception, nothing between."""

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kept = _Kept.begun(begin, instance, args, kwargs)
        if kept is None:
            return wrapped(*args, **kwargs)
        try:
            with kept.active():
                result = wrapped(*args, **kwargs)
        except BaseException as error:
            kept.failed(error)
            raise
        kept.returned(result)
        return result

    return wrapper


def around_async(begin: Begin) -> Wrapper:
    """Observe a coroutine function: it begins when it is awaited, as without us."""

    async def wrapper(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kept = _Kept.begun(begin, instance, args, kwargs)
        if kept is None:
            return await wrapped(*args, **kwargs)
        try:
            with kept.active():
                result = await wrapped(*args, **kwargs)
        except BaseException as error:
            kept.failed(error)
            raise
        kept.returned(result)
        return result

    return wrapper
