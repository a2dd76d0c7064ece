"""A server that says to every request what it was made to say, and keeps the requests."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from noninterference.servers import TRACE

__all__ = ["Answering"]


class Answering:
    """Listens on a free port of loopback.

    Args:
        answer: path -> status and JSON of the answer.
    """

    def __init__(self, answer: Callable[[str], tuple[int, Any]]) -> None:
        self._sent: list[Any] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(answer))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(30)

    @property
    def origin(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def forget(self) -> None:
        """Forget what came in."""
        self._sent.clear()

    def sent(self) -> list[Any]:
        """Method, path, headers and body of each request."""
        return list(self._sent)

    def count(self) -> int:
        """Requests so far."""
        return len(self._sent)

    def _handler(self, answer: Callable[[str], tuple[int, Any]]) -> type[BaseHTTPRequestHandler]:
        sent = self._sent

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = [(name, value) for name, value in self.headers.items() if name.lower() not in TRACE]
                sent.append((self.command, self.path, headers, body))
                status, told = answer(self.path)
                data = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = answer  # noqa: N815 - the base class names them

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        return Handler
