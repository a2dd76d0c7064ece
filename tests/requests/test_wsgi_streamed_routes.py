"""The turn of an answer that is made while it is sent has the name of its route, which Flask has forgotten by then."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import stagelight
from stagelight.conventions import attributes as a
from stagelight.testing import capture
from stagelight.wsgi import RequestMiddleware


def streaming(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    """What Flask does: its request is in the environment until the application returns, the answer is made later."""
    environ["werkzeug.request"] = SimpleNamespace(url_rule=SimpleNamespace(rule="/answers/<int:number>"))
    start_response("200 OK", [("Content-Type", "text/plain")])
    environ["werkzeug.request"] = None
    return answer()


def answer() -> Iterator[bytes]:
    """An answer whose call begins with the first piece."""
    with stagelight.llm(provider="openai", model="gpt-4o-mini"):
        yield b"one"


def test_a_streamed_answer_has_the_name_of_its_route() -> None:
    """The name and the route's label are the template, as for an answer in one piece."""
    with capture() as captured:
        pieces = list(RequestMiddleware(streaming)({"REQUEST_METHOD": "GET"}, lambda *_: None))
        [turn] = captured.turns

    assert pieces == [b"one"]
    assert turn.name == "invoke_workflow GET /answers/<int:number>"
    assert turn.attributes[a.STAGELIGHT_ROUTE] == "/answers/<int:number>"
