"""The middleware among servers, other middleware and mounted applications: what passes is left as it is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from opentelemetry import baggage
from requests_application import stage
from requests_serving import LIMIT_S, get, served, wait_for_turns
from stagelight._inbound import current_inbound
from stagelight._starlette import StarletteInstrumentor
from stagelight.asgi import RequestMiddleware
from stagelight.conventions import attributes as a
from stagelight.testing import Captured, capture
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


def test_messages_pass_as_they_are() -> None:
    """Of everything a server may be sent, the first of an answer alone is changed: by its headers."""
    sent: list[Any] = []
    messages: list[dict[str, Any]] = [
        {"type": "http.response.early_hint", "links": [b"</a.css>"]},
        {"type": "http.response.start", "status": 200, "headers": [(b"X-Request-Id", b"own")], "trailers": True},
        {"type": "http.response.zerocopysend", "file": 3, "more_body": True},
        {"type": "http.response.pathsend", "path": "/a"},
        {"type": "http.response.body", "body": b"", "more_body": False},
        {"type": "http.response.trailers", "headers": [(b"a", b"b")]},
    ]

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "raw_path": b"/%2F", "headers": []}
    with capture():
        asyncio.run(RequestMiddleware(RequestMiddleware(app))(scope, receive, send))

    assert sent == messages
    assert [one is other for one, other in zip(sent, messages, strict=True)] == [True, False, True, True, True, True]
    assert messages[1]["headers"] == [(b"X-Request-Id", b"own")]


def test_pipelined_requests_have_nothing_of_each_other() -> None:
    """A server begins the second of two requests of one connection where the first one's answer ends."""
    seen: list[tuple[str | None, dict[str, Any]]] = []

    async def ask(_request: Any) -> PlainTextResponse:
        inbound = current_inbound()
        seen.append((inbound.request_id if inbound is not None else None, dict(baggage.get_all())))
        stage()
        return PlainTextResponse("done")

    first = "GET / HTTP/1.1\r\nHost: test\r\nX-Request-ID: one\r\nBaggage: plan=gold"
    first = f"{first}\r\ntraceparent: {PARENT['traceparent']}"
    second = "GET / HTTP/1.1\r\nHost: test\r\nX-Request-ID: two\r\nConnection: close"
    with capture() as captured, served(RequestMiddleware(Starlette(routes=[Route("/", ask)]))) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as connection:
            connection.sendall(f"{first}\r\n\r\n{second}\r\n\r\n".encode())
            while connection.recv(65536):
                pass
        wait_for_turns(captured, 2)

    assert seen == [("one", {"plan": "gold"}), ("two", {})]
    traces = {turn.attributes[a.STAGELIGHT_REQUEST_ID]: turn.span.context.trace_id for turn in captured.turns}
    assert traces["one"] == int(TRACE, 16) != traces["two"]
    assert {turn.attributes[a.STAGELIGHT_TURN_CALLS] for turn in captured.turns} == {1}


def test_the_middleware_may_stand_outside_as_well(make: Callable[[Captured], FastAPI]) -> None:
    """The official instrumentation in between begins a new context: the request is still known inside."""
    with capture() as captured, served(RequestMiddleware(make(captured))) as port:
        answer = get(port, "/ask/x", x_request_id="req-11")
        wait_for_turns(captured, 1)

    (server,) = (span for span in captured.spans if span.kind.name == "SERVER")
    turn = captured.turn("GET /ask/{question}")
    assert turn.span.parent.span_id == server.context.span_id
    assert turn.attributes[a.STAGELIGHT_TURN_CALLS] == 2
    assert answer.headers.get_list("x-request-id") == ["req-11"]


def test_a_mounted_application_is_the_same_request() -> None:
    """Of two applications inside each other, the outer one's request counts."""
    instrumentor = StarletteInstrumentor()
    assert instrumentor.switch_on()
    try:

        async def inner(_request: Any) -> PlainTextResponse:
            stage()
            return PlainTextResponse("inner")

        app = Starlette(routes=[Mount("/sub", Starlette(routes=[Route("/x", inner)]))])
        with capture() as captured, served(app) as port:
            get(port, "/sub/x", x_request_id="req-8")
            wait_for_turns(captured, 1)
    finally:
        instrumentor.uninstrument()

    assert captured.turns[0].attributes[a.STAGELIGHT_REQUEST_ID] == "req-8"
