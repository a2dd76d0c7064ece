"""Small HTTP servers in the place of a gateway: they answer as a test says, and remember what they were asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stagelight.sources import Window
from stored import T0, S

TOKEN = "0123456789abcdef-a-token"
WINDOW = Window(T0, T0 + 100 * S)
EMPTY = {"data": {"result": []}, "traces": [], "series": []}

Answer = tuple[int, Any]
Asked = dict[str, str]


@dataclass(slots=True)
class Server:
    """A server that remembers what it was asked."""

    url: str
    asked: list[tuple[str, Asked]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def serving(answer: Callable[[str, Asked], Answer], **headers: str) -> Iterator[Server]:
    """A server on a free port of the loopback interface; what it answers is sent as JSON unless it is bytes."""
    server: Server

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
            server.asked.append((parts.path, asked))
            server.headers.append({key.lower(): value for key, value in self.headers.items()})
            status, content = answer(parts.path, asked)
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            given = {key.replace("_", "-"): value for key, value in headers.items()}
            sent = {"Content-Type": "application/json", "Content-Length": str(len(body)), **given}
            for key, value in sent.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True  # without saying so, as a server does that was idle for too long

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's word
            """Say nothing."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    server = Server(f"http://127.0.0.1:{listening.server_port}")
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join(10)
        listening.server_close()


def loki_with(times_s: list[float]) -> Callable[[str, Asked], Answer]:
    """Loki's answers for records at these times, as many at once as are asked for."""
    records = [(T0 + round(at * S), f"line {number}") for number, at in enumerate(times_s)]

    def answer(_: str, asked: Asked) -> Answer:
        within = [one for one in records if int(asked["start"]) <= one[0] < int(asked["end"])]
        within.sort(key=lambda one: one[0], reverse=asked["direction"] == "backward")
        page = [[str(at), line, {}] for at, line in within[: int(asked["limit"])]]
        return 200, {"data": {"result": [{"stream": {"service_name": "app"}, "values": page}]}}

    return answer
