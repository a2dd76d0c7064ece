"""The outermost layer of the HTTP server: every request passes its checks, every browser its login."""

from __future__ import annotations

import asyncio
import html
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from stagelight.embedded.access import COOKIE, SESSION_S, Access
from stagelight.embedded.answers import OTLP_PREFIX, header, send_answer, send_refusal
from stagelight.embedded.refusal import Malformed, MethodNotAllowed, Refused, TimedOut, TooLarge, Unauthenticated

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["HEALTH_PATH", "Gate"]

HEALTH_PATH = "/healthz"
_LOGIN_PATH = "/login"
_LOGIN_STYLE_PATH = "/login.css"
_FORM_BYTES = 4096
_NO_STORE = ("cache-control", "no-store")

# Under the server's own policy, no-referrer, browsers would send the form with "Origin: null", which is refused.
_LOGIN_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="same-origin">
<title>Log in to Stagelight</title>
<link rel="stylesheet" href="/login.css">
</head>
<body>
<main>
<h1>Stagelight</h1>
<p>This server was started with a token. Enter it to see the pages.</p>
{message}<form method="post" action="/login">
<input type="hidden" name="next" value="{next}">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button>
</form>
</main>
</body>
</html>
"""

_LOGIN_STYLE = b"""\
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0; display: grid; min-height: 100vh; place-items: center; }
main { width: min(22rem, calc(100vw - 2rem)); }
h1 { font-size: 1.25rem; margin: 0; }
form { display: grid; gap: 0.5rem; }
input, button { font: inherit; padding: 0.5rem; }
[role="alert"] { color: light-dark(#b3261e, #ff8a80); }
"""


class Gate:
    """ASGI middleware: Host, Origin and token are checked before anything else looks at a request.

    Programs send ``Authorization: Bearer <token>``. Browsers log in with a form, or open any page with
    ``?token=<token>`` once; both set a cookie and redirect to the address without the token.
    ``/healthz`` needs no token: it tells only that the process lives.

    Args:
        app: what lies behind.
        access: the rules.
        form_timeout_s: time in which a browser must have sent the login form.
    """

    def __init__(self, app: ASGIApp, access: Access, *, form_timeout_s: float = 10.0) -> None:
        self._form_timeout_s = form_timeout_s
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope)
            if not self._access.needs_token or scope["path"] == HEALTH_PATH:
                await self._app(scope, receive, send)
            elif scope["path"] in {_LOGIN_PATH, _LOGIN_STYLE_PATH}:
                await self._login(scope, receive, send)
            elif self._is_visit(scope) and not (self._is_session(scope) and b"token=" not in scope["query_string"]):
                await self._admit(scope, send)
            else:
                if not self._is_session(scope):
                    self._access.check_bearer(header(scope, b"authorization").decode("latin-1"))
                await self._app(scope, receive, send)
        except Refused as refusal:
            await send_refusal(scope, send, refusal)

    def _check(self, scope: Scope) -> None:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        self._access.check_host(hosts)
        self._access.check_origin(
            scope["method"],
            host=hosts[0],
            origin=header(scope, b"origin").decode("latin-1"),
            fetch_site=header(scope, b"sec-fetch-site").decode("latin-1"),
        )

    def _is_visit(self, scope: Scope) -> bool:
        """Whether a person's browser may have asked: shown a login rather than a bare refusal."""
        is_otlp = scope["path"].startswith(OTLP_PREFIX)
        return scope["method"] == "GET" and not is_otlp and not header(scope, b"authorization")

    def _is_session(self, scope: Scope) -> bool:
        return self._access.is_session(header(scope, b"cookie").decode("latin-1"))

    async def _admit(self, scope: Scope, send: Send) -> None:
        """Exchange ``?token=`` for the cookie, also when there is one already, or show the login."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        tokens = [value for name, value in query if name == "token"]
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        target = _own_path(scope["raw_path"].decode("latin-1") + (f"?{rest}" if rest else ""))
        if tokens and self._access.is_token(tokens[0]):
            await self._welcome(send, target)
        else:
            await _send_login(send, target, "That token is wrong." if tokens else "")

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == _LOGIN_STYLE_PATH:
            await send_answer(send, 200, "text/css; charset=utf-8", _LOGIN_STYLE)
        elif scope["method"] == "GET":
            await _send_login(send, "/", "")
        elif scope["method"] == "POST":
            try:
                async with asyncio.timeout(self._form_timeout_s):
                    form = await _form(receive)
            except TimeoutError:
                raise TimedOut(f"the form was not complete after {self._form_timeout_s:g} s") from None
            target = _own_path(form.get("next", "/"))
            if self._access.is_token(form.get("token", "").strip()):
                await self._welcome(send, target)
            else:
                await _send_login(send, target, "That token is wrong.")
        else:
            raise MethodNotAllowed(f"{_LOGIN_PATH} takes GET and POST, not {scope['method'][:20]}")

    async def _welcome(self, send: Send, target: str) -> None:
        cookie = f"{COOKIE}={self._access.log_in()}; Path=/; Max-Age={SESSION_S}; HttpOnly; SameSite=Strict"
        headers = [("location", target), ("set-cookie", cookie), _NO_STORE]
        await send_answer(send, 303, "text/plain; charset=utf-8", b"", headers=headers)


async def _send_login(send: Send, target: str, message: str) -> None:
    note = f'<p role="alert">{html.escape(message)}</p>\n' if message else ""
    page = _LOGIN_PAGE.format(next=html.escape(target), message=note)
    status = Unauthenticated.http_status
    headers = [("www-authenticate", "Bearer"), _NO_STORE]
    await send_answer(send, status, "text/html; charset=utf-8", page.encode(), headers=headers)


async def _form(receive: Receive) -> dict[str, str]:
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise Malformed("the client went away before its request was complete")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > _FORM_BYTES:
            raise TooLarge(f"a login form has at most {_FORM_BYTES} bytes")
    return dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True))


def _own_path(target: str) -> str:
    """``target`` if it leads to this server, else the first page: a redirect must not lead elsewhere."""
    leads_here = target.startswith("/") and not target.startswith("//") and target.isascii() and target.isprintable()
    return target if leads_here and "\\" not in target and not target.startswith(_LOGIN_PATH) else "/"
