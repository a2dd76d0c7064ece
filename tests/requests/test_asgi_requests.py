"""Requests of ASGI applications on a real server: ids, headers, turns, owners and disconnects."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import sentry_sdk
import stagelight
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from opentelemetry import baggage
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from requests_serving import LIMIT_S, first_bytes, served
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
from stagelight import logs
from stagelight._inbound import current_inbound
from stagelight._starlette import StarletteInstrumentor
from stagelight.asgi import RequestMiddleware
from stagelight.conventions import attributes as a
from stagelight.testing import Captured, capture
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

KEY = "0123456789abcdef" * 4
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
RULES = "tenant=header:x-tenant,user_id=jwt:sub,conversation_id=cookie:chat,feature=jwt:app.feature"


def stage(tokens: int = 10) -> None:
    """One call of a model."""
    with stagelight.llm(provider="openai", model="gpt-4o-mini") as call:
        call.usage(input_tokens=tokens, output_tokens=1)


async def words(*, endless: bool) -> AsyncIterator[str]:
    """An answer in pieces, made while a call runs."""
    with stagelight.llm(provider="openai", model="gpt-4o-mini", stream=True) as call:
        for _ in range(10**9 if endless else 3):
            await asyncio.sleep(0.01)
            call.chunk("word")
            yield "word "


def application() -> FastAPI:
    """Routes with a stage, without one, with two turns of their own, failing and streaming."""
    app = FastAPI()

    @app.get("/ask/{question}")
    async def ask(question: str) -> dict[str, str]:
        stage()
        stage()
        return {"question": question}

    @app.get("/threaded")
    def threaded() -> str:
        stage()
        return "done"

    @app.get("/plain")
    async def plain() -> str:
        return "nothing here"

    @app.get("/own")
    async def own() -> str:
        with stagelight.turn("mine"):
            stage()
        stage()
        return "own"

    @app.get("/late")
    async def late() -> str:
        stage()
        stagelight.identify(tenant="late", user_id="u-2")
        return "late"

    @app.get("/fails")
    async def fails() -> str:
        stage()
        raise RuntimeError("private")

    @app.get("/words")
    async def streamed(endless: bool = False) -> StreamingResponse:
        return StreamingResponse(words(endless=endless))

    @app.websocket("/chat")
    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            stage()
            await socket.send_text(text.upper())

    return app


@pytest.fixture(params=["by code", "by environment"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[[Captured], FastAPI]]:
    """Builds the application inside the official instrumentation, with our middleware added in either way."""
    instrumentor = StarletteInstrumentor()
    if request.param == "by environment":
        assert instrumentor.switch_on()

    def made(captured: Captured) -> FastAPI:
        app = application()
        if request.param == "by code":
            app.add_middleware(RequestMiddleware)
        FastAPIInstrumentor.instrument_app(
            app, tracer_provider=captured.tracer_provider, meter_provider=captured.meter_provider
        )
        return app

    yield made
    if request.param == "by environment":
        instrumentor.uninstrument()


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


def jwt(**claims: Any) -> str:
    """A bearer token with these claims; nobody checks its signature here."""
    parts = ({"alg": "HS256"}, claims)
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return f"Bearer {'.'.join(encoded)}.c2lnbmF0dXJl"


def test_owners_come_from_headers_cookies_and_claims(make: Callable[[Captured], FastAPI]) -> None:
    """The turn, its calls and the ledger know for whom; the user only by pseudonym."""
    with capture(request_identity=RULES, id_key=KEY) as captured, served(make(captured)) as port:
        token = jwt(sub="u-1", app={"feature": "help"})
        get(port, "/ask/x", x_tenant="acme", cookie="chat=c-1; other=2", authorization=token)
        wait_for_turns(captured, 1)

    expected = {
        a.STAGELIGHT_TENANT: "acme",
        a.STAGELIGHT_FEATURE: "help",
        a.GEN_AI_CONVERSATION_ID: "c-1",
        a.USER_HASH: captured.runtime.pseudonyms.of("u-1"),
    }
    for found in (captured.turn("GET /ask/{question}").attributes, captured.ledger[0].attributes):
        assert {key: found.get(key) for key in expected} == expected


@pytest.mark.parametrize("token", ["Bearer x", "Bearer a.b.c", "Basic eDp5", "Bearer " + "x" * 20000, jwt(sub=["a"])])
def test_an_unreadable_token_is_nobody(make: Callable[[Captured], FastAPI], token: str) -> None:
    """A token that is none of ours to read is no error and no owner."""
    with capture(request_identity=RULES, id_key=KEY) as captured, served(make(captured)) as port:
        assert get(port, "/ask/x", authorization=token).status_code == 200
        wait_for_turns(captured, 1)

    assert a.USER_HASH not in captured.turn("GET /ask/{question}").attributes


def test_identify_works_without_a_turn_in_the_code(make: Callable[[Captured], FastAPI]) -> None:
    """Who is asking may become known after the first stage."""
    with capture(id_key=KEY) as captured, served(make(captured)) as port:
        get(port, "/late")
        wait_for_turns(captured, 1)

    assert captured.turn("GET /late").attributes[a.STAGELIGHT_TENANT] == "late"
    assert captured.ledger[0].attributes[a.STAGELIGHT_TENANT] == "late"


def test_a_claim_says_only_what_its_rule_is_for(make: Callable[[Captured], FastAPI]) -> None:
    """Whoever sends a token chooses its claims: an object in the place of a name sets no other field."""
    rules = "user_id=jwt:sub,tenant=header:x-tenant"
    with capture(request_identity=rules, id_key=KEY) as captured, served(make(captured)) as port:
        token = jwt(sub={"tenant": "victim", "feature": "forged", "user_id": "u-1"})
        get(port, "/ask/x", x_tenant="acme", authorization=token)
        get(port, "/ask/x", x_tenant="acme", authorization=jwt(sub=True))
        wait_for_turns(captured, 2)

    for turn in captured.turns:
        assert turn.attributes[a.STAGELIGHT_TENANT] == "acme"
        assert {a.STAGELIGHT_FEATURE, a.USER_HASH}.isdisjoint(turn.attributes)


@pytest.mark.parametrize(
    "cookies", [['a={"x":1}; chat=c-1'], ['chat="c-1"; chat=c-2'], ["a=1", "chat=c-1"], ["chat", "=x;; chat = c-1"]]
)
def test_a_cookie_is_found_beside_odd_ones(cookies: list[str]) -> None:
    """Other cookies may have any characters, and HTTP/2 sends each in a header of its own."""

    async def ask(_request: Any) -> PlainTextResponse:
        stage()
        return PlainTextResponse("done")

    app = RequestMiddleware(Starlette(routes=[Route("/", ask)]))
    with capture(request_identity="conversation_id=cookie:chat") as captured, served(app) as port:
        httpx.get(f"http://127.0.0.1:{port}/", headers=[("cookie", one) for one in cookies], timeout=LIMIT_S)
        wait_for_turns(captured, 1)

    assert captured.turns[0].attributes[a.GEN_AI_CONVERSATION_ID] == "c-1"


def owners(headers: dict[str, str]) -> dict[str, str]:
    """What an application may give as its own rule."""
    return {"tenant": headers.pop("host").partition(":")[0], "variant": "B", "unknown": "x"}


def test_a_function_of_the_application_may_say_it(make: Callable[[Captured], FastAPI]) -> None:
    """It gets the headers and returns several facts at once; what is no fact is ignored."""
    with capture(request_identity=f"*=function:{__name__}:owners") as captured, served(make(captured)) as port:
        get(port, "/ask/x")
        wait_for_turns(captured, 1)

    turn = captured.turn("GET /ask/{question}").attributes
    assert (turn[a.STAGELIGHT_TENANT], turn[a.STAGELIGHT_VARIANT]) == ("127.0.0.1", "B")


def test_lines_of_structlog_carry_the_request() -> None:
    """The id is in the line and in the record that is sent."""
    lines: list[dict[str, Any]] = []

    async def hello(_request: Any) -> PlainTextResponse:
        lines.append(dict(logs.to_opentelemetry(None, "info", logs.trace_context(None, "info", {"event": "hello"}))))
        return PlainTextResponse("hello")

    with capture() as captured, served(RequestMiddleware(Starlette(routes=[Route("/", hello)]))) as port:
        get(port, "/", x_request_id="req-5")

    assert [line["request_id"] for line in lines] == ["req-5"]
    assert captured.events[0].attributes[a.STAGELIGHT_REQUEST_ID] == "req-5"


def test_events_of_sentry_carry_the_request_and_only_its_own() -> None:
    """An event captured while a request is served has its id as a tag; the next request has another."""
    events: list[dict[str, Any]] = []

    async def report(_request: Any) -> PlainTextResponse:
        sentry_sdk.capture_message("noticed")
        return PlainTextResponse("reported")

    dropped = {"default_integrations": False, "before_send": lambda event, _: events.append(event)}
    sentry_sdk.init("http://key@127.0.0.1:1/1", **dropped)
    try:
        with capture(), served(RequestMiddleware(Starlette(routes=[Route("/", report)]))) as port:
            get(port, "/", x_request_id="req-6")
            get(port, "/", x_request_id="req-7")
        sentry_sdk.capture_message("outside")
    finally:
        sentry_sdk.init(default_integrations=False)

    assert [event.get("tags", {}).get("request_id") for event in events] == ["req-6", "req-7", None]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:sentry_sdk")
def test_what_the_application_tells_sentry_stays_on_its_errors() -> None:
    """Sentry's own middleware captures an unhandled error outside of ours: its tags and its user are there."""
    events: list[dict[str, Any]] = []

    async def fail(_request: Any) -> PlainTextResponse:
        sentry_sdk.set_tag("mine", "kept")
        sentry_sdk.set_user({"id": "u-1"})
        raise RuntimeError("private")

    sentry_sdk.init(
        "http://key@127.0.0.1:1/1", default_integrations=False, before_send=lambda event, _: events.append(event)
    )
    try:
        app = SentryAsgiMiddleware(RequestMiddleware(Starlette(routes=[Route("/", fail)])))
        with capture(), served(app) as port:
            get(port, "/", x_request_id="req-9")
    finally:
        sentry_sdk.init(default_integrations=False)

    assert [(event["tags"], event["user"]) for event in events] == [
        ({"mine": "kept", "request_id": "req-9"}, {"id": "u-1"})
    ]


def test_an_old_sentry_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Releases before 2.0 cannot say whether they are set up."""
    monkeypatch.delattr(sentry_sdk, "is_initialized")

    async def hello(_request: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    with capture(), served(RequestMiddleware(Starlette(routes=[Route("/", hello)]))) as port:
        assert get(port, "/").text == "hello"


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
