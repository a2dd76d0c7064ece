"""Requests of ASGI applications on a real server: ids, headers, turns and disconnects."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi import FastAPI, WebSocket
from requests_application import stage
from requests_serving import LIMIT_S, first_bytes, get, served, wait_for_turns
from stagelight.conventions import attributes as a
from stagelight.testing import Captured, capture
from starlette.responses import PlainTextResponse
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


def test_a_request_with_stages_is_one_turn_below_the_servers_span(make: Callable[[Captured], FastAPI]) -> None:
    """The turn is named by the route, began with the request, and sums up both calls; the trace is the caller's."""
    with capture() as captured, served(make(captured)) as port:
        answer = get(port, "/ask/secret-question", x_request_id="req-1", **PARENT)
        wait_for_turns(captured, 1)

    turn = captured.turn("GET /ask/{question}")
    (server,) = (span for span in captured.spans if span.kind.name == "SERVER")
    assert (turn.span.parent.span_id, server.context.trace_id) == (server.context.span_id, int(TRACE, 16))
    assert [call.span.parent.span_id for call in captured.calls] == [turn.span.context.span_id] * 2
    assert turn.attributes[a.STAGELIGHT_TURN_CALLS] == 2
    assert turn.attributes[a.STAGELIGHT_ROUTE] == "/ask/{question}"
    assert turn.span.start_time - server.start_time < 1e9
    assert {span.attributes[a.STAGELIGHT_REQUEST_ID] for span in (turn.span, server)} == {"req-1"}
    assert answer.headers["x-request-id"] == "req-1"
    assert answer.headers["traceresponse"] == f"00-{TRACE}-{server.context.span_id:016x}-01"


def test_a_request_without_a_stage_is_no_turn(make: Callable[[Captured], FastAPI]) -> None:
    """Health checks and static files make no turns; they have ids all the same."""
    with capture() as captured, served(make(captured)) as port:
        answer = get(port, "/plain")

    assert captured.turns == ()
    assert len(answer.headers["x-request-id"]) == 32


def test_an_application_that_opens_turns_is_left_to_it(make: Callable[[Captured], FastAPI]) -> None:
    """No second turn is opened around or beside the application's own."""
    with capture() as captured, served(make(captured)) as port:
        get(port, "/own", x_request_id="req-2")
        wait_for_turns(captured, 1)

    assert captured.turn("mine").attributes[a.STAGELIGHT_REQUEST_ID] == "req-2"
    assert len(captured.calls) == 2


def test_threads_of_the_server_belong_to_the_request(make: Callable[[Captured], FastAPI]) -> None:
    """A plain function runs in a worker thread; its stage is in the turn."""
    with capture() as captured, served(make(captured)) as port:
        get(port, "/threaded")
        wait_for_turns(captured, 1)

    assert captured.turn("GET /threaded").attributes[a.STAGELIGHT_TURN_CALLS] == 1


def test_a_failure_is_the_turns_and_its_answer_has_an_id(
    make: Callable[[Captured], FastAPI], request: pytest.FixtureRequest
) -> None:
    """The exception passes through; the turn has its class. By environment even the error page carries the id."""
    with capture() as captured, served(make(captured)) as port:
        answer = get(port, "/fails", x_request_id="req-3")
        wait_for_turns(captured, 1)

    turn = captured.turn("GET /fails")
    assert (turn.attributes[a.STAGELIGHT_OUTCOME], turn.attributes[a.ERROR_TYPE]) == ("error", "RuntimeError")
    assert answer.status_code == 500
    if "by environment" in request.node.name:
        assert answer.headers["x-request-id"] == "req-3"


def test_a_streamed_answer_ends_its_turn_with_the_last_byte(make: Callable[[Captured], FastAPI]) -> None:
    """The call runs while the answer is sent; both are in the turn."""
    with capture() as captured, served(make(captured)) as port:
        assert get(port, "/words").text == "word word word "
        wait_for_turns(captured, 1)

    turn = captured.turn("GET /words")
    assert turn.attributes[a.STAGELIGHT_OUTCOME] == "completed"
    assert turn.attributes[a.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN] > 0
    assert turn.span.end_time >= captured.call("llm").span.end_time


def test_a_client_that_leaves_is_an_outcome_and_no_error(make: Callable[[Captured], FastAPI]) -> None:
    """Whoever closes the page early abandoned the turn."""
    with capture() as captured, served(make(captured)) as port:
        first_bytes(port, "/words?endless=true", 400)
        wait_for_turns(captured, 1)

    turn = captured.turn("GET /words")
    assert turn.attributes[a.STAGELIGHT_OUTCOME] == "client_abandoned"
    assert turn.span.status.is_unset


@pytest.mark.parametrize(("code", "outcome"), [(1000, "completed"), (1001, "client_abandoned")])
def test_a_websocket_is_one_turn(make: Callable[[Captured], FastAPI], code: int, outcome: str) -> None:
    """It ends when the connection does; how the client left is the outcome."""
    with capture() as captured, served(make(captured)) as port:
        with connect(f"ws://127.0.0.1:{port}/chat", additional_headers={"X-Request-ID": "req-4"}) as client:
            client.send("hello")
            assert client.recv(timeout=LIMIT_S) == "HELLO"
            assert client.response.headers["x-request-id"] == "req-4"
            client.close(code)
        wait_for_turns(captured, 1)

    (turn,) = captured.turns
    assert turn.attributes[a.STAGELIGHT_OUTCOME] == outcome
    assert turn.attributes[a.GEN_AI_WORKFLOW_NAME].endswith("/chat")


@pytest.mark.parametrize("bad", ["a b", "x" * 129, "", "-starts-wrong", "<script>"])
def test_an_id_that_is_not_safe_is_replaced(make: Callable[[Captured], FastAPI], bad: str) -> None:
    """Nothing that a stranger sends is repeated in headers and logs unless its characters and length are."""
    with capture() as captured, served(make(captured)) as port:
        given = get(port, "/plain", x_request_id=bad).headers["x-request-id"]

    assert given != bad
    assert len(given) == 32


def test_a_refused_websocket_has_its_id(make: Callable[[Captured], FastAPI]) -> None:
    """The answer of HTTP that refuses it is an answer too, and its status the turn's."""

    async def refuse(socket: WebSocket) -> None:
        stage()
        await socket.send_denial_response(PlainTextResponse("full", 503))

    with capture() as captured:
        app = make(captured)
        app.add_api_websocket_route("/refused", refuse)
        with served(app) as port, pytest.raises(InvalidStatus) as refused:
            connect(f"ws://127.0.0.1:{port}/refused", additional_headers={"X-Request-ID": "req-10"})
        wait_for_turns(captured, 1)

    assert refused.value.response.headers["x-request-id"] == "req-10"
    assert captured.turns[0].attributes[a.ERROR_TYPE] == "503"
