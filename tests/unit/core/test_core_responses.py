"""``return call.stream(...)`` from a web handler: turn and call end with the last byte, or when the client leaves."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import stagelight
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from stagelight.conventions import attributes as a
from stagelight.testing import Captured, capture
from uvicorn import Config, Server

CHUNKS = ("one ", "two ", "three")
PAUSE_S = 0.02


class BrokenError(Exception):
    """What the provider's stream raises."""


async def _words(broken: bool = False, endless: bool = False) -> AsyncIterator[str]:
    while True:
        for chunk in CHUNKS:
            await asyncio.sleep(PAUSE_S)
            yield chunk
        if broken:
            raise BrokenError
        if not endless:
            return


def _sync_words(endless: bool = False) -> Iterator[str]:
    while True:
        for chunk in CHUNKS:
            time.sleep(PAUSE_S)
            yield chunk
        if not endless:
            return


def _app() -> FastAPI:
    app = FastAPI()

    def answer(source: Any) -> StreamingResponse:
        with stagelight.turn("answer"), stagelight.llm(provider="acme", model="acme-1") as call:
            call.usage(input_tokens=1)
            return StreamingResponse(call.stream(source))

    app.get("/async")(lambda endless=False: answer(_words(endless=bool(endless))))
    app.get("/sync")(lambda endless=False: answer(_sync_words(endless=bool(endless))))
    app.get("/broken")(lambda: answer(_words(broken=True)))

    @app.get("/decorated")
    @stagelight.turn("answer")
    async def decorated() -> StreamingResponse:
        with stagelight.llm(provider="acme", model="acme-1") as call:
            return StreamingResponse(call.stream(_words()))

    return app


@contextmanager
def _served() -> Iterator[int]:
    """The application on a free port, in a server with a loop and threads of its own."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = Server(Config(_app(), log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(60)


def _request(port: int, path: str, *, most: int | None = None) -> bytes:
    """The answer, or its first bytes after which the client leaves."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        received = b""
        while data := connection.recv(4096):
            received += data
            if most is not None and CHUNKS[0].encode() in received:
                break
    return received


def _settled(captured: Captured, spans: int) -> None:
    """Wait until so many spans have ended; a dropped stream ends when it is collected."""
    deadline = time.monotonic() + 60
    while len(captured.spans) < spans and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)


@pytest.mark.parametrize("path", ["/async", "/sync", "/decorated"])
def test_call_and_turn_end_with_the_last_byte(path: str) -> None:
    """The handler has long returned: first token, duration and outcome are those of the streamed answer."""
    with capture() as captured, _served() as port:
        received = _request(port, path)
        _settled(captured, 2)
    call, turn = captured.call("llm"), captured.turn("answer")

    assert all(chunk.encode() in received for chunk in CHUNKS)
    assert (call.outcome, turn.outcome) == ("completed", "completed")
    assert call.attributes[a.STAGELIGHT_STREAM_CHUNKS] == 3
    assert turn.attributes[a.STAGELIGHT_TURN_CALLS] == 1
    assert turn.duration_s >= call.duration_s >= 3 * PAUSE_S
    assert turn.time_to_first_token_s is not None
    assert PAUSE_S <= turn.time_to_first_token_s < turn.duration_s


@pytest.mark.parametrize("path", ["/async?endless=1", "/sync?endless=1"])
def test_a_client_that_leaves_is_no_error(path: str) -> None:
    """A closed connection ends call and turn as abandoned or cancelled, without an error."""
    with capture() as captured, _served() as port:
        _request(port, path, most=1)
        _settled(captured, 2)
    call, turn = captured.call("llm"), captured.turn("answer")

    assert call.outcome in {"client_abandoned", "cancelled"}
    assert turn.outcome == call.outcome
    assert (call.error_type, turn.error_type) == (None, None)


def test_a_provider_that_breaks_fails_the_turn() -> None:
    """After the handler returned, the stream's error is the turn's."""
    with capture() as captured, _served() as port:
        _request(port, "/broken")
        _settled(captured, 2)
    call, turn = captured.call("llm"), captured.turn("answer")

    assert (call.outcome, call.error_type) == ("provider_aborted", f"{__name__}.BrokenError")
    assert (turn.outcome, turn.error_type) == (call.outcome, call.error_type)
