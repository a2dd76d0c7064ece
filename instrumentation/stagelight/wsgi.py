"""Requests of WSGI applications (Flask, Django, any other): as ``stagelight.asgi``, for ``app.wsgi_app``.

``app.wsgi_app = stagelight.wsgi.RequestMiddleware(app.wsgi_app)``; place it inside the official WSGI instrumentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from stagelight._exchange import Exchange
from stagelight._guard import guard, quietly

__all__ = ["RequestMiddleware"]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

_PREFIX: Final = "HTTP_"


class RequestMiddleware:
    """Middleware around a WSGI application. What the application raises passes through untouched."""

    def __init__(self, app: App) -> None:
        self.app = app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        route = _Route(environ)
        exchange = quietly("request", lambda: Exchange(_headers(environ), route.name), None)
        context = None if exchange is None else quietly("request", exchange.enter, None)
        if exchange is None or context is None:
            return self.app(environ, start_response)

        def started(status: str, headers: list[tuple[str, str]], *rest: Any, **named: Any) -> Any:
            with guard("request headers"):
                route.look()
                exchange.status = int(status[:3])
                present = {name.lower() for name, _ in headers}
                headers = [*headers, *(pair for pair in exchange.answer() if pair[0] not in present)]
            return start_response(status, headers, *rest, **named)

        inside = _Inside(context)
        with inside, exchange.noted_in_sentry():
            try:
                body = self.app(environ, started)
            except BaseException as error:
                exchange.finish(error)
                raise
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, list | tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper)):
            exchange.finish()  # whole already: servers look at a list's length, and send a file by other means
            return body
        return _Body(body, exchange, inside)


class _Inside:
    """Blocks in which the application's context is current; the next goes on where the last one ended.

    What the application enters before one piece of its answer it may leave after another, and in between the thread is
    the server's.
    """

    __slots__ = ("_before", "_context")

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._before = otel_context.get_current()
        otel_context.attach(self._context)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._context = otel_context.get_current()
        otel_context.attach(self._before)


class _Body:
    """An answer that is made while it is sent: every piece is made in the request's context."""

    __slots__ = ("_body", "_exchange", "_inside", "_pieces")

    def __init__(self, body: Iterable[bytes], exchange: Exchange, inside: _Inside) -> None:
        self._body = body
        self._exchange = exchange
        self._inside = inside
        self._pieces: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._inside:
            try:
                if self._pieces is None:
                    self._pieces = iter(self._body)
                return next(self._pieces)
            except StopIteration:
                self._exchange.finish()
                raise
            except BaseException as error:
                self._exchange.finish(error)
                raise

    def close(self) -> None:
        """Called by the server in the end, and before the last piece when the client has left."""
        self._exchange.abandoned = True  # says nothing once the last piece was taken
        with ExitStack() as leaving:
            leaving.callback(self._exchange.finish)
            if hasattr(self._body, "close"):
                with self._inside:
                    self._body.close()


def _headers(environ: Environ) -> dict[str, str]:
    return {
        name.removeprefix(_PREFIX).replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith(_PREFIX) and isinstance(value, str)
    }


class _Route:
    """What the turn of a request is called."""

    __slots__ = ("_environ", "_template")

    def __init__(self, environ: Environ) -> None:
        self._environ = environ
        self._template: str | None = None

    def look(self) -> None:
        """See which route was found; Flask forgets it before an answer is made that is made while it is sent."""
        rule = getattr(getattr(self._environ.get("werkzeug.request"), "url_rule", None), "rule", None)
        if isinstance(rule, str):
            self._template = rule

    def name(self) -> tuple[str, str | None]:
        """Name of the turn and template of the route, which Flask's request knows; never the path itself."""
        self.look()
        method = str(self._environ.get("REQUEST_METHOD", "request"))
        return (method if self._template is None else f"{method} {self._template}"), self._template
