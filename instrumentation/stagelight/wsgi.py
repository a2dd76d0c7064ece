"""Requests of WSGI applications (Flask, Django, any other): as ``stagelight.asgi``, for ``app.wsgi_app``.

``app.wsgi_app = stagelight.wsgi.RequestMiddleware(app.wsgi_app)``; place it inside the official WSGI instrumentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any, Final

from opentelemetry.context import Context

from stagelight._exchange import Exchange
from stagelight._guard import guard, quietly
from stagelight._lifecycle import Attachment

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
        exchange = quietly("request", lambda: Exchange(_headers(environ), lambda: _name(environ)), None)
        context = None if exchange is None else quietly("request", exchange.enter, None)
        if exchange is None or context is None:
            return self.app(environ, start_response)

        def started(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            with guard("request headers"):
                exchange.status = int(status[:3])
                present = {name.lower() for name, _ in headers}
                headers = [*headers, *(pair for pair in exchange.answer() if pair[0] not in present)]
            return start_response(status, headers, *rest)

        with Attachment(context), exchange.noted_in_sentry():
            try:
                body = self.app(environ, started)
            except BaseException as error:
                exchange.finish(error)
                raise
        if isinstance(body, list | tuple):  # whole already: servers look at its length
            exchange.finish()
            return body
        return _Body(body, exchange, context)


class _Body:
    """An answer that is made while it is sent: every piece is made in the request's context."""

    __slots__ = ("_body", "_context", "_exchange", "_pieces")

    def __init__(self, body: Iterable[bytes], exchange: Exchange, context: Context) -> None:
        self._body = body
        self._pieces = iter(body)
        self._exchange = exchange
        self._context = context

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with Attachment(self._context):
            try:
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
                with Attachment(self._context):
                    self._body.close()


def _headers(environ: Environ) -> dict[str, str]:
    return {
        name.removeprefix(_PREFIX).replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith(_PREFIX) and isinstance(value, str)
    }


def _name(environ: Environ) -> tuple[str, str | None]:
    """Name of the turn and template of the route, which Flask's request knows; never the path itself."""
    route = getattr(getattr(environ.get("werkzeug.request"), "url_rule", None), "rule", None)
    method = str(environ.get("REQUEST_METHOD", "request"))
    return (f"{method} {route}", route) if isinstance(route, str) else (method, None)
