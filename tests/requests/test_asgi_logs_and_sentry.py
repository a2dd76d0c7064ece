"""The id of a request is in the log lines and in the events of Sentry that it causes, and in no others."""

from __future__ import annotations

from typing import Any

import pytest
import sentry_sdk
from requests_serving import get, served
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
from stagelight import logs
from stagelight.asgi import RequestMiddleware
from stagelight.conventions import attributes as a
from stagelight.testing import capture
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


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
