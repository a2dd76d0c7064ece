"""HTTP connections before a request has a header: how many, how long, how much."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from stagelight.embedded.options import Limits

__all__ = ["protocol"]


class Connection(HttpToolsProtocol):
    """A connection that closes itself when it costs more than a request may before it can be checked."""

    limits = Limits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
        else:
            self._expect_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_is_complete()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # In pieces: the parser keeps what it is given of a header, and counts it for nobody.
        for start in range(0, len(data), self.limits.header_bytes):
            piece = data[start : start + self.limits.header_bytes]
            if self.transport.is_closing():
                return
            # Not counted is the piece in which a later header begins: it may hold the end of a body.
            is_header = self._header_timer is not None
            super().data_received(piece)
            if is_header and self._header_timer is not None:
                self._header_bytes += len(piece)
                if self._header_bytes > self.limits.header_bytes:
                    self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._header_timer is None:
            self._expect_header()

    def on_headers_complete(self) -> None:
        self._header_is_complete()
        super().on_headers_complete()

    def _expect_header(self) -> None:
        self._header_bytes = 0
        self._header_timer = self.loop.call_later(
            self.limits.header_timeout_s, self._refuse, HTTPStatus.REQUEST_TIMEOUT
        )

    def _header_is_complete(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _refuse(self, status: HTTPStatus) -> None:
        self._header_is_complete()
        if not self.transport.is_closing():
            line = f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            self.transport.write(line.encode())
            self.transport.close()


def protocol(limits: Limits) -> type[asyncio.Protocol]:
    """The connections of one server.

    Args:
        limits: ``connections``, ``header_bytes`` and ``header_timeout_s`` of it are used.
    """
    return type("Connection", (Connection,), {"limits": limits})
