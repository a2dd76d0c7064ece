"""Applications that are mounted in others: one turn with all calls below it, named by the whole template."""

from __future__ import annotations

import httpx
import pytest
import stagelight
from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from requests_serving import LIMIT_S, served
from stagelight.testing import Captured, capture
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

pytestmark = pytest.mark.usefixtures("starlette_recorded")


def call() -> None:
    """One call of a model."""
    with stagelight.llm(provider="openai", model="gpt-4o-mini"):
        pass


async def ask(_request: Request) -> PlainTextResponse:
    """An endpoint with a call."""
    call()
    return PlainTextResponse("answer")


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """An application without routes."""
    call()
    await PlainTextResponse("answer")(scope, receive, send)


def application() -> Starlette:
    """Mounts with and without parameters, in one another, of routes and of applications."""
    routes = [Route("/ask", ask), Route("/ask/{number:int}", ask), Route("/of/{tenant}", ask)]
    inner = Starlette(routes=[*routes, Mount("/plain", plain)])
    return Starlette(
        routes=[
            Mount("/routes", routes=[*routes, Mount("/deeper", inner)]),
            Mount("/tenants/{tenant}", inner),
            Mount("/numbers/{id:int}", inner),
            Mount("/prefix-{tenant}", inner),
        ]
    )


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/routes/ask", "/routes/ask"),
        ("/routes/ask/7", "/routes/ask/{number}"),
        ("/routes/deeper/ask", "/routes/deeper/ask"),
        ("/routes/deeper/plain/7", "/routes/deeper/plain"),
        ("/tenants/acme/ask", "/tenants/{tenant}/ask"),
        ("/tenants/ask/ask/7", "/tenants/{tenant}/ask/{number}"),
        ("/numbers/42/plain/7", "/numbers/{id}/plain"),
        ("/numbers/042/ask", "/ask"),
        ("/prefix-acme/ask", "/ask"),
        ("/tenants/acme/of/initech", "/of/{tenant}"),
        ("/routes/deeper/of/initech", "/of/{tenant}"),
    ],
)
def test_a_turn_has_the_templates_of_the_mounts(path: str, template: str) -> None:
    """The name begins with the mounts, as their templates have it, and never holds a value of theirs."""
    with capture() as captured:
        with served(application()) as port:
            assert httpx.get(f"http://127.0.0.1:{port}{path}", timeout=LIMIT_S).status_code == 200
        [turn] = captured.turns

    assert turn.name.replace(":int", "") == f"invoke_workflow GET {template}"


def mounted(captured: Captured) -> FastAPI:
    """An application in another, each with the server's span of an official instrumentation."""
    app, inner = FastAPI(), FastAPI()
    app.mount("/inner", inner)

    @app.middleware("http")
    async def before(request: Request, proceed: object) -> object:
        if "early" in request.headers:
            call()
        return await proceed(request)  # type: ignore[operator]

    @inner.get("/ask")
    async def asked() -> str:
        call()
        return "answer"

    for one in (app, inner):
        FastAPIInstrumentor.instrument_app(
            one, tracer_provider=captured.tracer_provider, meter_provider=captured.meter_provider
        )
    return app


@pytest.mark.parametrize("headers", [{}, {"early": "yes"}])
def test_calls_in_a_mounted_application_are_below_the_turn(headers: dict[str, str]) -> None:
    """Also those below the span that the mounted application's own instrumentation makes."""
    with capture() as captured:
        with served(mounted(captured)) as port:
            httpx.get(f"http://127.0.0.1:{port}/inner/ask", headers=headers, timeout=LIMIT_S).raise_for_status()
        [turn] = captured.turns
        calls = captured.calls

    assert [one.span.parent.span_id for one in calls] == [turn.span.context.span_id] * (1 + len(headers))
    assert turn.name == f"invoke_workflow GET {'request' if headers else '/inner/ask'}"  # no route was found so early
