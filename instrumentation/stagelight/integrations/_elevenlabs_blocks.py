"""Blocks inside the ElevenLabs client: it holds one while its own generator hands audio to the caller.

Neither the block of a streamed request nor the websocket reaches the caller, so ours may stand in their place; what
the caller has is the client's own generator.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

from stagelight._guard import guard, quietly
from stagelight._lifecycle import Attachment
from stagelight.facts import Request, Response
from stagelight.integrations._elevenlabs_audio import Messages, parsed
from stagelight.integrations._engine import Observed
from stagelight.integrations._instrumentor import Wrapper
from stagelight.integrations._reading import part
from stagelight.integrations._watching import Body, Chunks, UnreadBytes, Watch, watch_body

__all__ = ["Streamed", "around_socket", "around_stream"]


class Streamed(NamedTuple):
    """A streamed request: what was asked, and how its answer is taken."""

    request: Request
    response: Callable[[Any], Response | None]
    """Headers of the answer -> what they tell."""
    chunks: Callable[[Any], Chunks]
    """Headers of the answer -> what takes its bytes."""


class _Block:
    """Stands in for the block of a streamed request."""

    def __init__(self, inner: Any, streamed: Streamed) -> None:
        self._inner = inner
        self._streamed = streamed
        self._observed: Observed | None = None
        self._body: Body | None = None

    def _begin(self) -> Attachment | None:
        self._observed = quietly("integration request", lambda: Observed("tts", self._streamed.request), None)
        return None if self._observed is None else Attachment(self._observed.call.context)

    def _received(self, http: Any) -> None:
        with guard("integration headers"):
            if self._observed is not None and http.status_code < 300:
                self._observed.absorb(self._streamed.response(http.headers))
                watch = Watch(self._observed, self._streamed.chunks(http.headers))
                self._body = watch_body(http, watch, UnreadBytes)

    def _failed(self, error: BaseException | None) -> None:
        with guard("integration failure"):
            if self._observed is not None and self._body is None:
                if error is None:
                    self._observed.end()
                else:
                    self._observed.fail(error)

    def __enter__(self) -> Any:
        active = self._begin()
        try:
            if active is None:
                http = self._inner.__enter__()
            else:
                with active:
                    http = self._inner.__enter__()
        except BaseException as error:
            self._failed(error)
            raise
        self._received(http)
        return http

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        try:
            return self._inner.__exit__(kind, error, trace)
        finally:
            self._failed(error)

    async def __aenter__(self) -> Any:
        active = self._begin()
        try:
            if active is None:
                http = await self._inner.__aenter__()
            else:
                with active:
                    http = await self._inner.__aenter__()
        except BaseException as error:
            self._failed(error)
            raise
        self._received(http)
        return http

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        try:
            return await self._inner.__aexit__(kind, error, trace)
        finally:
            self._failed(error)


Asked = Callable[[Any, tuple[Any, ...], dict[str, Any]], Streamed | None]


def around_stream(asked: Asked) -> Wrapper:
    """Observe the function that makes the block of a streamed request; nothing is sent before it is entered."""

    def wrapper(wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        block = wrapped(*args, **kwargs)
        streamed = quietly("integration request", lambda: asked(client, args, kwargs), None)
        return block if streamed is None else _Block(block, streamed)

    return wrapper


class _Socket:
    """Stands in for the websocket inside the client."""

    def __init__(self, inner: Any, observed: Observed, messages: Messages) -> None:
        self._inner = inner
        self._messages = messages
        self._watch = Watch(observed, messages)
        self._broke = False

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any:
        try:
            return self._inner.__exit__(kind, error, trace)
        finally:
            with guard("integration stream"):
                self._ended(error)

    def _ended(self, error: BaseException | None) -> None:
        if error is None:
            self._watch.completed()
        elif isinstance(error, GeneratorExit):
            self._watch.closed()
        else:  # what is not the connection's is the caller's own text that failed
            self._watch.broke(error, "provider_aborted" if self._broke else "error")

    def send(self, message: Any, *args: Any, **kwargs: Any) -> Any:
        with guard("integration request"):
            self._messages.sent(message)
        return self._passed(self._inner.send, message, *args, **kwargs)

    def recv(self, *args: Any, **kwargs: Any) -> Any:
        message = self._passed(self._inner.recv, *args, **kwargs)
        with guard("integration chunk"):
            told = parsed(message)
            if part(told, "audio"):
                self._watch.took(told)
            elif part(told, "isFinal") is True:
                self._messages.finished = True
        return message

    def _passed(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TimeoutError:  # no audio yet: the client goes on with the text
            raise
        except BaseException:
            self._broke = True
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def around_socket(asked: Callable[[str], tuple[Request, Messages] | None]) -> Wrapper:
    """Observe the function that opens the websocket: the call lasts until the socket is left.

    Args:
        asked: address -> what is asked and what takes the messages; ``None`` for a socket that is not recorded.
    """

    def wrapper(wrapped: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = quietly("integration request", lambda: asked(str(args[0] if args else kwargs.get("uri"))), None)
        if found is None:
            return wrapped(*args, **kwargs)
        request, messages = found
        observed = quietly("integration request", lambda: Observed("tts", request), None)
        if observed is None:
            return wrapped(*args, **kwargs)
        try:
            with Attachment(observed.call.context):
                socket = wrapped(*args, **kwargs)
        except BaseException as error:
            with guard("integration failure"):
                observed.fail(error)
            raise
        return quietly("integration stream", lambda: _Socket(socket, observed, messages), socket)

    return wrapper
