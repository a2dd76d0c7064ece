"""What a request's turn is called: by the template of its route, with the prefixes under which routers are included."""

from __future__ import annotations

import httpx
import pytest
import stagelight
from fastapi import APIRouter, FastAPI
from requests_serving import LIMIT_S, served
from stagelight.testing import capture

pytestmark = pytest.mark.usefixtures("starlette_recorded")


def application() -> FastAPI:
    """One router, included as two versions of an interface, with another router in it."""
    app, questions, details = FastAPI(), APIRouter(prefix="/questions"), APIRouter()

    @app.get("/ask")
    @questions.get("/{number}")
    @details.get("/{number}/details")
    async def ask(number: int = 0) -> int:
        with stagelight.llm(provider="openai", model="gpt-4o-mini"):
            return number

    questions.include_router(details, prefix="/more")
    app.include_router(questions, prefix="/v1")
    app.include_router(questions, prefix="/v2")
    return app


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/ask", "/ask"),
        ("/v1/questions/7", "/v1/questions/{number}"),
        ("/v2/questions/7", "/v2/questions/{number}"),
        ("/v2/questions/more/7/details", "/v2/questions/more/{number}/details"),
    ],
)
def test_a_turn_has_the_whole_template(path: str, template: str) -> None:
    """Two versions of an interface are two names, and no name has a number of the path."""
    with capture() as captured:
        with served(application()) as port:
            assert httpx.get(f"http://127.0.0.1:{port}{path}", timeout=LIMIT_S).status_code == 200
        [turn] = captured.turns

    assert turn.name == f"invoke_workflow GET {template}"
