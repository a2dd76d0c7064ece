"""Who may talk to the server: names it answers to, pages that may post, and the token."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
import time
from urllib.parse import urlsplit

from stagelight.embedded.options import ServerOptions, is_loopback
from stagelight.embedded.refusal import Forbidden, Malformed, Misdirected, Unauthenticated

__all__ = ["COOKIE", "SESSION_S", "Access"]

COOKIE = "stagelight_session"
SESSION_S = 12 * 3600
"""How long a login lasts, seconds; a restart of the server ends it too."""

_MOST_SESSIONS = 1_000  # beyond it the oldest login ends

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Access:
    """The rules of one server.

    Args:
        options: checked options; a server on a loopback address without token lets every local program in.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._token = options.token
        self._is_remote = not is_loopback(options.host)
        names = {"localhost", options.host.strip("[]"), *options.allowed_hosts}
        if self._is_remote:
            names.add(socket.gethostname())
        self._sessions: dict[bytes, float] = {}  # digest of the cookie's value -> when it ends, oldest first
        self._names = frozenset(name.lower().rstrip(".") for name in names)

    @property
    def needs_token(self) -> bool:
        """Whether requests must carry the token."""
        return self._token is not None

    def log_in(self) -> str:
        """Begin a session: a new random value for the cookie."""
        session = secrets.token_urlsafe(32)
        while len(self._sessions) >= _MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[_digest(session)] = time.monotonic() + SESSION_S
        return session

    def check_host(self, hosts: list[str]) -> None:
        """Refuse a request that was addressed to another name.

        A page whose own name is made to resolve to this machine (DNS rebinding) would otherwise count as the same
        site. It cannot use an address in place of a name, so on a remote address any literal address is fine.

        Raises:
            Misdirected: the Host header is missing, doubled, or names something else.
        """
        if len(hosts) != 1:
            raise Misdirected(f"{len(hosts)} Host headers: exactly one is needed")
        name = _hostname(hosts[0])
        if name in self._names or is_loopback(name) or (self._is_remote and _is_address(name)):
            return
        raise Misdirected(
            f"Host {hosts[0][:80]!r} is not a name of this server: accepted are {', '.join(sorted(self._names))} "
            "and names explicitly allowed when it was started"
        )

    def check_origin(self, method: str, *, host: str, origin: str, fetch_site: str) -> None:
        """Refuse a request with an effect that a page of another site made the browser send.

        Args:
            method: of the request.
            host: the Host header.
            origin: the Origin header, empty when absent: exporters send none.
            fetch_site: the Sec-Fetch-Site header, empty when absent.

        Raises:
            Forbidden: the request comes from another site.
        """
        if method in _SAFE_METHODS:
            return
        if origin and origin.lower() not in {f"http://{host.lower()}", f"https://{host.lower()}"}:
            raise Forbidden(f"Origin {origin[:80]!r} is another site: only pages of this server may send data to it")
        if fetch_site not in {"", "same-origin", "none"}:
            raise Forbidden(f"Sec-Fetch-Site {fetch_site[:20]!r}: only pages of this server may send data to it")

    def is_token(self, candidate: str) -> bool:
        """Whether ``candidate`` is the token, compared in constant time."""
        return self._token is not None and hmac.compare_digest(candidate.encode(), self._token.encode())

    def is_session(self, cookie_header: str) -> bool:
        """Whether a Cookie header shows a login that has not ended."""
        for item in cookie_header.split(";"):
            name, _, value = item.strip().partition("=")
            if name == COOKIE and self._sessions.get(_digest(value), 0.0) > time.monotonic():
                return True
        return False

    def check_bearer(self, authorization: str | None) -> None:
        """Refuse a request without the token, when one is needed.

        Raises:
            Unauthenticated: with what to send.
        """
        if not self.needs_token:
            return
        scheme, _, candidate = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("this server needs a token: send the header 'Authorization: Bearer <token>'")
        if not self.is_token(candidate.strip()):
            raise Unauthenticated("the token of the Authorization header is wrong")


def _digest(session: str) -> bytes:
    """What is looked up instead of the value, so that the time a look-up takes says nothing about known values."""
    return hashlib.sha256(session.encode()).digest()


def _hostname(host: str) -> str:
    """Host header without port, brackets and final dot, in lower case."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        name = None
    if name is None or "@" in host or "/" in host:
        raise Malformed(f"Host {host[:80]!r} is not a host name")
    return name.rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
