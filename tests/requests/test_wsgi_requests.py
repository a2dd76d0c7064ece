"""Requests of WSGI applications: ids, headers, turns, and answers made while they are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
import stagelight
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
