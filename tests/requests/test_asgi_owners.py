"""Whose a request is: by headers, cookies, claims of tokens, and a function of the application."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from requests_application import stage
from requests_serving import LIMIT_S, get, served, wait_for_turns
from stagelight.asgi import RequestMiddleware
from stagelight.conventions import attributes as a
from stagelight.testing import Captured, capture
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

KEY = "0123456789abcdef" * 4
RULES = "tenant=header:x-tenant,user_id=jwt:sub,conversation_id=cookie:chat,feature=jwt:app.feature"


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
