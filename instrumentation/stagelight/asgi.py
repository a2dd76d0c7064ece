"""Requests of ASGI applications (FastAPI, Starlette, any other): request ids, owners, and the turn of a request.

``app.add_middleware(stagelight.asgi.RequestMiddleware)`` in code; by environment variables nothing is to be done.

Every answer carries ``X-Request-ID`` (the caller's, if it is acceptable) and ``traceresponse``. The first stage that
runs while a request is served opens its turn, unless the application opens turns itself; the turn began with the
request and ends with the last byte of the answer. Work after that byte is in the trace, not in the turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from opentelemetry.context import Context

from stagelight._exchange import Exchange
from stagelight._guard import guard, quietly
from stagelight._inbound import current_inbound
from stagelight._lifecycle import Attachment

__all__ = ["AnswerHeaders", "RequestMiddleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_KINDS: Final = frozenset({"http", "websocket"})
_EXCHANGE: Final = "stagelight.exchange"
_ANSWERS: Final = frozenset({"http.response.start", "websocket.http.response.start"})
"""The second refuses a websocket with an answer of HTTP."""
_STARTS: Final = _ANSWERS | {"websocket.accept"}
_BODIES: Final = frozenset({"http.response.body", "websocket.http.response.body"})
_ORDERLY: Final = frozenset({1000, 1005})
"""Close codes of a client that is done: normal closure, and none given (RFC 6455, section 7.4.1)."""
_DONE: Final = "WebSocketDisconnect"
"""Class by which Starlette says so."""


class RequestMiddleware:
    """Middleware around an ASGI application.

    Place it inside the official server instrumentation, as ``add_middleware`` does: the turn is then a child of the
    server's span. What the application raises passes through untouched.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in _KINDS:
            await self.app(scope, receive, send)
            return
        if _EXCHANGE not in scope:
            await AnswerHeaders(self)(scope, receive, send)
            return
        exchange: Exchange | None = scope[_EXCHANGE]
        if exchange is None:
            await self.app(scope, receive, send)
            return
        # A server's instrumentation between this and an outer one of ours begins a context of its own.
        if current_inbound() is exchange.inbound:
            with guard("request"):
                exchange.enter_mounted()
            await self.app(scope, receive, send)
            return
        watch = _Watch(exchange, receive, send)
        context = quietly("request", exchange.enter, None)
        if context is None:
            await self.app(scope, receive, send)
            return
        with Attachment(context), exchange.noted_in_sentry():
            try:
                await self.app(scope, watch.receive, watch.send)
            except BaseException as error:
                exchange.finish(None if watch.announced(error) else error)
                raise
            exchange.finish()


class AnswerHeaders:
    """The outer half of the middleware: gives every answer its headers, also one made when the application failed."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in _KINDS or _EXCHANGE in scope:
            await self.app(scope, receive, send)
            return
        scope, send = _announced(scope, send)
        with _context_of_its_own():
            await self.app(scope, receive, send)


class _Watch:
    """Sees the client leave and the last byte go."""

    __slots__ = ("_exchange", "_is_over", "_receive", "_send")

    def __init__(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        self._exchange = exchange
        self._is_over = False
        self._receive = receive
        self._send = send

    def announced(self, error: BaseException) -> bool:
        """Whether an exception only says that the client of a websocket is done, to an application without interest.

        Starlette raises it while the application waits for the next message, and few applications catch it.
        """
        return self._is_over and any(kind.__name__ == _DONE for kind in type(error).__mro__)

    async def receive(self) -> Message:
        message = await self._receive()
        kind = message["type"]
        self._is_over = self._is_over or kind == "websocket.disconnect"
        if kind == "http.disconnect" or (kind == "websocket.disconnect" and message.get("code") not in _ORDERLY):
            self._exchange.abandoned = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] in _ANSWERS:
            self._exchange.status = message.get("status")
        try:
            await self._send(message)
        except OSError:  # what servers raise for a client that is gone (ASGI, "Disconnected Client")
            self._exchange.abandoned = True
            raise
        kind = message["type"]
        if kind == "websocket.close" or (kind in _BODIES and not message.get("more_body")):
            self._exchange.finish()


def _context_of_its_own() -> AbstractContextManager[None]:
    """A pipelined request is begun by uvicorn in the context of the one before, which is over by then."""
    inbound = current_inbound()
    return Attachment(Context()) if inbound is not None and inbound.over else nullcontext()


def _announced(scope: Scope, send: Send) -> tuple[Scope, Send]:
    """The scope with the exchange it belongs to, and a ``send`` that adds the headers."""
    exchange = quietly("request", lambda: Exchange(_headers(scope), lambda: _name(scope)), None)
    # In place: routers write what they find into this very mapping, and the turn's name is read from it later.
    scope[_EXCHANGE] = exchange
    if exchange is None:
        return scope, send

    async def with_headers(message: Message) -> None:
        if message["type"] in _STARTS:
            with guard("request headers"):
                given = list(message.get("headers") or ())
                present = {bytes(name).lower() for name, _ in given}
                added = [(name.encode(), value.encode()) for name, value in exchange.answer()]
                message = {**message, "headers": [*given, *(pair for pair in added if pair[0] not in present)]}
        await send(message)

    return scope, with_headers


def _headers(scope: Scope) -> dict[str, str]:
    """Names in lower case; of a name that comes several times, the first, but all cookies (RFC 9113, 8.2.3)."""
    found: dict[str, str] = {}
    for name, value in scope.get("headers") or ():
        key, text = bytes(name).decode("latin-1").lower(), bytes(value).decode("latin-1")
        found[key] = f"{found[key]}; {text}" if key == "cookie" and key in found else found.get(key, text)
    return found


def _name(scope: Scope) -> tuple[str, str | None]:
    """Name of the turn and template of the route: ``POST /answers/{id}``; never the path itself, which holds ids."""
    found = _route(scope)
    route = getattr(found, "path", None)
    method = scope.get("method") or "websocket"
    if isinstance(route, str):
        mounts = _mounts(scope, found)
        route = mounts if mounts and hasattr(found, "routes") else mounts + route  # the last mount is a route as well
        return f"{method} {route}", route
    endpoint = scope.get("endpoint")
    return f"{method} {getattr(endpoint, '__name__', 'request')}", None


def _mounts(scope: Scope, route: Any) -> str:
    """Template of the mounts that lead to a route: ``/tenants/{tenant}``; empty without one, or without a sure one."""
    outside, path = scope.get("app_root_path"), scope.get("root_path")
    if not isinstance(outside, str) or not isinstance(path, str) or not path.startswith(outside):
        return ""
    parts = path.removeprefix(outside).split("/")
    of_the_route = {} if hasattr(route, "routes") else getattr(route, "param_convertors", {})
    if any(parts) and of_the_route and _names_in_mounts(scope.get("router")) & of_the_route.keys():
        return ""  # the value of the mount's parameter is not there any more, so that it cannot be taken out
    for name, value in (scope.get("path_params") or {}).items():
        if name in of_the_route:
            continue
        if str(value) not in parts:  # it is written in another way, or as a part of something: nobody knows where
            return ""
        parts[parts.index(str(value))] = f"{{{name}}}"
    return "/".join(parts)


def _names_in_mounts(router: Any) -> set[str]:
    """Parameters of all mounts of a router, and of what is mounted there."""
    mounts = [route for route in getattr(router, "routes", None) or () if hasattr(route, "routes")]
    return set().union(*(getattr(mount, "param_convertors", ()) for mount in mounts), *map(_names_in_mounts, mounts))


def _route(scope: Scope) -> Any:
    """The route that was found; for one of a router that FastAPI has included, its record with the router's prefix."""
    route, own = scope.get("route"), scope.get("fastapi")
    included = own.get("effective_route_context") if isinstance(own, Mapping) else None
    return included if getattr(included, "original_route", None) is route else route
