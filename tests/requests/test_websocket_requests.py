"""How a websocket ends is its turn's outcome, also where the application does not look at it."""

from __future__ import annotations

import time

import pytest
import stagelight
from fastapi import FastAPI, WebSocket
from requests_serving import LIMIT_S, served
from stagelight.testing import Captured, CapturedTurn, capture
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

pytestmark = pytest.mark.usefixtures("starlette_recorded")


def application() -> FastAPI:
    """Answers until the client is gone, as in FastAPI's own introduction: nobody catches what is raised then."""
    app = FastAPI()

    @app.websocket("/chat")
    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            question = await socket.receive_text()
            with stagelight.llm(provider="openai", model="gpt-4o-mini"):
                await socket.send_text(question)
            if question == "fail":
                raise LookupError(question)

    return app


def _turn(captured: Captured) -> CapturedTurn:
    deadline = time.monotonic() + LIMIT_S
    while not captured.turns and time.monotonic() < deadline:
        time.sleep(0.01)
    [turn] = captured.turns
    return turn


@pytest.mark.parametrize(
    ("code", "outcome"), [(1000, "completed"), (None, "completed"), (1001, "client_abandoned")], ids=str
)
def test_a_client_that_is_done_is_no_error(code: int | None, outcome: str) -> None:
    """It says so with a code, without one, or leaves; the exception that tells the application is not its failure."""
    with capture() as captured, served(application()) as port:
        with connect(f"ws://127.0.0.1:{port}/chat") as client:
            client.send("question")
            assert client.recv(LIMIT_S) == "question"
            if code is None:
                client.socket.sendall(b"\x88\x80\x00\x00\x00\x00")  # a masked close frame without a body
                with pytest.raises(ConnectionClosed):
                    client.recv(LIMIT_S)
            else:
                client.close(code)
        turn = _turn(captured)

    assert (turn.outcome, turn.error_type) == (outcome, None)


def test_a_failure_of_the_application_is_one() -> None:
    """Any other exception is the turn's error."""
    with capture() as captured, served(application()) as port:
        with connect(f"ws://127.0.0.1:{port}/chat") as client:
            client.send("fail")
            assert client.recv(LIMIT_S) == "fail"
            with pytest.raises(ConnectionClosed):
                client.recv(LIMIT_S)
        turn = _turn(captured)

    assert (turn.outcome, turn.error_type) == ("error", "LookupError")
