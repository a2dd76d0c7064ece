"""Applications on real servers, their answers, whole or byte by byte, and the turns that come of them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from stagelight.testing import Captured
from uvicorn import Config, Server

LIMIT_S = 60


@contextmanager
def served(app: Any) -> Iterator[int]:
    """An ASGI application on a free port, in a uvicorn with a loop of its own."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = Server(Config(app, log_level="critical", lifespan="off", ws="websockets-sansio"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(LIMIT_S)


def first_bytes(port: int, path: str, most: int) -> bytes:
    """The first bytes of an answer, after which the client leaves."""
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        got = b""
        while len(got) < most and (piece := connection.recv(most - len(got))):
            got += piece
        return got


def get(port: int, path: str, **headers: str) -> httpx.Response:
    """One answer."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.get(f"http://127.0.0.1:{port}{path}", headers=given, timeout=LIMIT_S)


def wait_for_turns(captured: Captured, count: int) -> None:
    """Wait until turns have ended: the server works in threads of its own."""
    deadline = time.monotonic() + LIMIT_S
    while len(captured.turns) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(captured.turns) == count
