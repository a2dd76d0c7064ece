"""Requests to the stack's gateway: one token, bounded time and size, no proxy, no redirection, and errors in words."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal
from urllib.parse import SplitResult, urlencode, urlsplit

from stagelight.sources.faults import outline
from stagelight.sources.format import safe_text
from stagelight.sources.model import SourceUnavailable

__all__ = ["TOKEN_VARIABLE", "BackEnd", "GatewayClient", "Parameters", "understood"]

TOKEN_VARIABLE: Final = "STAGELIGHT_GATEWAY_TOKEN"  # noqa: S105 (the name of the setting)

BackEnd = Literal["loki", "tempo", "prometheus"]
Parameters = Mapping[str, str | int]

_CONNECT_S: Final = 10.0
_ANSWER_S: Final = 310.0  # the gateway itself gives up after 300
_MOST_BYTES: Final = 128 << 20
_PIECE: Final = 1 << 16
_TRIES: Final = 6
_PAUSE_S: Final = 0.25
_SHOWN_CHARACTERS: Final = 300
_SHOW_TOKEN: Final = "`docker compose run --rm setup gateway-token` prints it"  # noqa: S105 (not a token)
_MALFORMED: Final = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


_AWAY: Final = "{name} does not answer behind {gateway}: `docker compose ps {service}` says why"
_REFUSALS: Final[Mapping[int, str]] = {
    401: f"{{gateway}} asks for its token: set {TOKEN_VARIABLE}; {_SHOW_TOKEN}",
    429: "{gateway} has too many requests to answer, from all that read there: try again in a moment",
    502: _AWAY,
    503: _AWAY,
    504: _AWAY,
}
_NO_GATEWAY: Final = frozenset({403, 404, 405})  # it lets through all that is asked here


class GatewayClient:
    """Asks the back ends behind one gateway; for any number of threads.

    Args:
        url: ``http`` or ``https``, host, perhaps a port and a path.
        token: of the gateway; ``None`` when none is set.

    Raises:
        SourceUnavailable: the address or the token cannot be one.
    """

    def __init__(self, url: str, token: str | None) -> None:
        parts = _address(url)
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
            raise SourceUnavailable(f"{TOKEN_VARIABLE} is no token: it has characters that none has; {_SHOW_TOKEN}")
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._base = parts.path.rstrip("/")
        self.location = f"{parts.scheme}://{parts.netloc}{self._base}"
        """The address, for people."""
        self._headers = {
            "Accept": "application/json",
            # Records come with what is an index label and what is not told apart.
            "X-Loki-Response-Encoding-Flags": "categorize-labels",
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }
        self._has_token = bool(token)
        self._lock = threading.Lock()
        self._closed = False
        self._idle: list[http.client.HTTPConnection] = []

    def get(self, back_end: BackEnd, path: str, parameters: Parameters) -> Any:
        """The JSON that a back end answers.

        Args:
            back_end: whom to ask.
            path: of its own interface, with a leading slash.
            parameters: of the query.

        Raises:
            SourceUnavailable: there was no answer or none that can be used.
        """
        target = f"{self._base}/{back_end}{path}?{urlencode(parameters)}"
        name = back_end.capitalize()
        for attempt in range(_TRIES):
            status, headers, body = self._ask(target)
            if status != http.client.TOO_MANY_REQUESTS:
                break
            time.sleep(_PAUSE_S * (attempt + 1))
        if status != http.client.OK:
            raise SourceUnavailable(self._refusal(name, status, body))
        if "json" not in headers.get("Content-Type", ""):
            raise SourceUnavailable(self._no_gateway("what it answers is no JSON"))
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise SourceUnavailable(f"{name} behind {self.location} answers with broken JSON") from error

    def close(self) -> None:
        """Close the connections; idempotent."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask(self, target: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection, is_used = self._connection()
        try:
            try:
                return self._exchange(connection, target)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                if not is_used:
                    raise
                connection.close()  # it was idle for too long; the library opens it again
                return self._exchange(connection, target)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise SourceUnavailable(self._unreachable(error)) from error
        except BaseException:
            connection.close()
            raise

    def _exchange(
        self, connection: http.client.HTTPConnection, target: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        deadline = time.monotonic() + _ANSWER_S
        if connection.sock is None:
            _open(connection)
        connection.request("GET", target, headers=self._headers)
        response = connection.getresponse()
        pieces, size = [], 0
        while piece := response.read1(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > _MOST_BYTES:
                connection.close()
                raise SourceUnavailable(
                    f"{self.location} answers with more than {_MOST_BYTES >> 20} MiB: ask for less, with --since"
                )
            if time.monotonic() > deadline:
                raise TimeoutError
        if response.length:  # what was announced and did not come
            raise http.client.IncompleteRead(b"")
        response.close()  # reading to the end does not always do so
        self._keep(connection)
        return response.status, response.headers, b"".join(pieces)

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """An idle connection or a new one, and whether it was used before."""
        with self._lock:
            if self._closed:
                raise SourceUnavailable(f"{self.location} is closed")
            if self._idle:
                return self._idle.pop(), True
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        return kind(self._host, self._port), False

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _unreachable(self, error: Exception) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"{self.location} has a certificate that is not trusted here: {safe_text(error.verify_message)}"
        if isinstance(error, TimeoutError):
            return f"{self.location} does not answer in time: ask for less, with --since, or see `docker compose ps`"
        if isinstance(error, http.client.HTTPException):
            return self._no_gateway("its answer is cut off or no HTTP")
        reason = safe_text(getattr(error, "strerror", None) or type(error).__name__)
        return f"{self.location} cannot be reached ({reason}): see `docker compose ps`, or name another --source"

    def _refusal(self, name: str, status: int, body: bytes) -> str:
        if status == http.client.UNAUTHORIZED and self._has_token:
            return f"{self.location} refuses the token in {TOKEN_VARIABLE}: was it rotated? {_SHOW_TOKEN}"
        if status in _NO_GATEWAY or 300 <= status < 400:
            to = ", which sends to another address" if status < 400 else ""
            return self._no_gateway(f"it answers {status}{to}")
        if message := _REFUSALS.get(status):
            return message.format(gateway=self.location, name=name, service=name.lower())
        said = safe_text(" ".join(body[: _SHOWN_CHARACTERS * 4].decode("utf-8", "replace").split()))[:_SHOWN_CHARACTERS]
        return f"{name} behind {self.location} refuses a query with {status}: {said or 'no reason given'}"

    def _no_gateway(self, reason: str) -> str:
        return f"{self.location} is not the gateway of a stack ({reason}): its address ends with port 8080 by default"


def _open(connection: http.client.HTTPConnection) -> None:
    connection.timeout = _CONNECT_S
    connection.connect()
    connection.sock.settimeout(_ANSWER_S)


@contextmanager
def understood(name: str) -> Iterator[None]:
    """Say that an answer is not what ``name`` should answer, where reading it fails.

    Raises:
        SourceUnavailable: it fails.
    """
    try:
        yield
    except _MALFORMED as error:
        raise SourceUnavailable(f"{name} answers in a form that is not known here ({outline(error)})") from error


def _address(url: str) -> SplitResult:
    scheme, separator, rest = url.partition("://")
    shown = f"{scheme}{separator}{rest.rpartition('@')[2]}"
    try:
        parts = urlsplit(url)
        is_http = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise SourceUnavailable(f"source {shown!r}: this is no address, like http://127.0.0.1:8080") from None
    if not is_http or not url.isascii() or not url.isprintable() or " " in url:
        raise SourceUnavailable(
            f"source {shown!r}: accepted are the path of a database file and the address of a gateway, like "
            "http://127.0.0.1:8080"
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise SourceUnavailable(
            "source: an address with a user, a query or a fragment is not accepted; the gateway's token is read from "
            f"{TOKEN_VARIABLE}"
        )
    return parts
