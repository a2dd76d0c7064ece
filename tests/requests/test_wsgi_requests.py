"""Requests of WSGI applications: ids, headers, turns, and answers made while they are sent."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest
import stagelight
from opentelemetry import context as otel_context
from stagelight.conventions import attributes as a
from stagelight.testing import capture
from stagelight.wsgi import RequestMiddleware

StartResponse = Callable[..., Any]


def stage() -> None:
    """One call of a model."""
    with stagelight.llm(provider="openai", model="gpt-4o-mini") as call:
        call.usage(input_tokens=10, output_tokens=1)


def whole(_environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
    """An answer that is ready."""
    stage()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]


def streamed(_environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
    """An answer in pieces, with a stage between them."""
    start_response("200 OK", [])
    yield b"one"
    stage()
    yield b"two"


def failing(_environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """An application with a bug."""
    stage()
    raise LookupError("private")


def unavailable(_environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """An application that answers with a failure of its own."""
    stage()
    start_response("503 Service Unavailable", [("X-Request-ID", "its own")])
    return [b""]


def begin(app: Any, **headers: str) -> tuple[Iterable[bytes], dict[str, str]]:
    """Call the application as a server would; its body and its headers, which a lazy body adds later."""
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    given: dict[str, str] = {}
    body = RequestMiddleware(app)(environ, lambda _status, pairs, *_: given.update(pairs))
    return body, given


def test_a_request_with_a_stage_is_a_turn() -> None:
    """The answer is the application's own list; the turn ended with it."""
    with capture() as captured:
        body, headers = begin(whole, x_request_id="req-1", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")

    turn = captured.turn("GET")
    assert body == [b"done"]
    assert headers == {
        "Content-Type": "text/plain",
        "x-request-id": "req-1",
        "traceresponse": f"00-{'a' * 32}-{turn.span.context.span_id:016x}-01",
    }
    assert turn.attributes[a.STAGELIGHT_REQUEST_ID] == "req-1"
    assert turn.attributes[a.STAGELIGHT_TURN_CALLS] == 1


def test_a_lazy_answer_stays_lazy_and_in_its_request() -> None:
    """Nothing runs before the server asks; the stage between two pieces is in the turn, which ends with the last."""
    with capture() as captured:
        body, headers = begin(streamed)
        pieces = iter(body)
        assert headers == {}
        assert next(pieces) == b"one"
        assert captured.calls == ()
        assert list(pieces) == [b"two"]
        ended = captured.turn("GET")
        body.close()  # type: ignore[attr-defined]

    assert (ended.attributes[a.STAGELIGHT_OUTCOME], len(captured.turns)) == ("completed", 1)


def test_a_client_that_leaves_is_an_outcome() -> None:
    """The server closes the body before its end."""
    with capture() as captured:
        body, _ = begin(lambda environ, start: (piece for _ in range(2) for piece in streamed(environ, start)))
        pieces = iter(body)
        assert [next(pieces), next(pieces)] == [b"one", b"two"]
        body.close()  # type: ignore[attr-defined]

    assert captured.turn("GET").attributes[a.STAGELIGHT_OUTCOME] == "client_abandoned"


def test_failures_pass_through() -> None:
    """The server gets the very exception; the turn has its class."""
    with capture() as captured, pytest.raises(LookupError, match="private"):
        begin(failing)

    turn = captured.turn("GET")
    assert (turn.attributes[a.STAGELIGHT_OUTCOME], turn.attributes[a.ERROR_TYPE]) == ("error", "LookupError")


def test_an_answer_that_is_a_failure_is_one_of_the_turn() -> None:
    """A status of 500 and above is the turn's error; a header that the application set stays as it is."""
    with capture() as captured:
        _, headers = begin(unavailable)

    turn = captured.turn("GET")
    assert (turn.attributes[a.STAGELIGHT_OUTCOME], turn.attributes[a.ERROR_TYPE]) == ("error", "503")
    assert headers["X-Request-ID"] == "its own"
    assert "x-request-id" not in headers


def in_a_turn(_environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
    """A turn of the application's own around the pieces of an answer."""
    start_response("200 OK", [])
    with stagelight.turn("mine"):
        yield b"one"
        stage()
        yield b"two"


@pytest.mark.parametrize("client_leaves", [False, True])
def test_what_is_entered_between_two_pieces_lasts(client_leaves: bool) -> None:
    """The stage after a piece is in the turn begun before it; nothing of it is left in the server's thread."""
    before = otel_context.get_current()
    left = []
    with capture() as captured:
        body, _ = begin(in_a_turn)
        pieces = iter(body)
        for _ in range(2):
            next(pieces)
            left.append(otel_context.get_current())
        if not client_leaves:
            assert list(pieces) == []
        body.close()  # type: ignore[attr-defined]
        left.append(otel_context.get_current())

    assert captured.turn("mine").attributes[a.STAGELIGHT_TURN_CALLS] == 1
    assert captured.call("llm").span.parent.span_id == captured.turn("mine").span.context.span_id
    assert left == [before] * 3


def test_what_an_application_leaves_attached_is_not_the_next_requests() -> None:
    """A context that is left only at the end of the answer, or never, stays with its request."""
    before = otel_context.get_current()

    def careless(_environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        otel_context.attach(otel_context.set_value("left", "behind"))
        return [b""]

    with capture():
        begin(careless)

    assert otel_context.get_current() is before


def test_a_failure_noticed_late_is_told_to_the_server() -> None:
    """``exc_info`` by position or by name reaches the server; the last status counts."""
    told: list[Any] = []

    def late(_environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        stage()
        start_response("200 OK", [])
        try:
            raise LookupError
        except LookupError:
            start_response("500 Failed", [], sys.exc_info())
            start_response("500 Failed", [], exc_info=sys.exc_info())
        return [b""]

    def server(_status: str, _headers: Any, exc_info: Any = None) -> None:
        told.append(exc_info[0] if exc_info else None)

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    with capture() as captured:
        RequestMiddleware(late)(environ, server)

    assert told == [None, LookupError, LookupError]
    assert captured.turn("GET").attributes[a.ERROR_TYPE] == "500"


def test_a_file_stays_the_servers_own_object() -> None:
    """Servers send it without reading it, which they see by its class."""

    def download(environ: dict[str, Any], start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"content"))

    environ: dict[str, Any] = {"wsgi.file_wrapper": FileWrapper}
    setup_testing_defaults(environ)

    assert type(RequestMiddleware(download)(environ, lambda *_: None)) is FileWrapper


def test_a_body_is_begun_by_the_server() -> None:
    """What its ``__iter__`` raises is raised there, where the server closes the body."""
    closed: list[bool] = []

    class Broken:
        def __iter__(self) -> Iterator[bytes]:
            raise LookupError("private")

        def close(self) -> None:
            closed.append(True)

    with capture() as captured:
        body, _ = begin(lambda *_: (stage(), Broken())[1])
        with pytest.raises(LookupError, match="private"):
            list(body)
        body.close()  # type: ignore[attr-defined]

    assert captured.turn("GET").attributes[a.ERROR_TYPE] == "LookupError"
    assert closed == [True]
