"""A server with a token: programs send it, browsers log in; nothing else gets in."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from receiving import TOKEN, ask, options, post, spans
from stagelight.embedded.background import EmbeddedServer
from stagelight.embedded.options import Addresses

FORM = {"content-type": "application/x-www-form-urlencoded"}
LET_IN = 405  # the answer to GET on the path of an exporter, once the gate is passed


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    with EmbeddedServer(options(tmp_path_factory.mktemp("login"), token=TOKEN)) as server:
        yield server.addresses


def cookie_of(set_cookie: str) -> str:
    return set_cookie.split(";", maxsplit=1)[0]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong-wrong-wrong-wrong"}, 401),
        ({"authorization": f"Basic {TOKEN}"}, 401),
        ({"cookie": "stagelight_session=" + "0" * 64}, 401),
        ({"cookie": f"stagelight_session={TOKEN}"}, 401),
        ({"authorization": f"Bearer {TOKEN}"}, 200),
    ],
)
def test_exporters_need_the_token(addresses: Addresses, headers: dict[str, str], status: int) -> None:
    """An exporter is let in by the right bearer token only."""
    answer = post(addresses, "/v1/traces", spans().SerializeToString(), **headers)

    assert answer.status == status
    assert ("www-authenticate" in answer.headers) is (status == 401)
    assert TOKEN.encode() not in answer.body


def test_token_in_the_address_is_not_for_exporters(addresses: Addresses) -> None:
    """``?token=`` works for pages only: exporters' addresses end up in logs."""
    assert post(addresses, f"/v1/traces?token={TOKEN}", b"").status == 401


@pytest.mark.parametrize("path", ["/", "/turns/abc?x=1", "/static/app.css", "/openapi.json"])
def test_pages_show_the_login(addresses: Addresses, path: str) -> None:
    """Without a token every page is the login form, which leads back to it; nothing tells whether the page exists."""
    answer = ask(addresses, path)

    assert (answer.status, answer.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert f'name="next" value="{path}"'.encode() in answer.body
    assert answer.headers["cache-control"] == "no-store"


def test_login_by_form(addresses: Addresses) -> None:
    """The form sets a cookie that scripts cannot read and other sites cannot use, and leads to the page asked for."""
    form = urlencode({"token": TOKEN, "next": "/turns/abc?x=1"}).encode()
    answer = ask(addresses, "/login", form, headers={**FORM, "origin": addresses.http_url})
    cookie = answer.headers["set-cookie"]
    inside = ask(addresses, "/v1/traces", headers={"cookie": cookie_of(cookie)})
    page = ask(addresses, "/", headers={"cookie": cookie_of(cookie)})

    assert (answer.status, answer.headers["location"]) == (303, "/turns/abc?x=1")
    assert (page.status, b'name="next"' in page.body) == (200, False)
    assert cookie.split("; ")[1:] == ["Path=/", "Max-Age=43200", "HttpOnly", "SameSite=Strict"]
    assert TOKEN not in cookie
    assert inside.status == LET_IN


def test_wrong_login(addresses: Addresses) -> None:
    """A wrong token shows the form again, with a message and without a cookie."""
    form = urlencode({"token": "wrong-wrong-wrong-wrong", "next": "/cost"}).encode()
    answer = ask(addresses, "/login", form, headers=FORM)

    assert answer.status == 401
    assert "set-cookie" not in answer.headers
    assert b'<p role="alert">That token is wrong.</p>' in answer.body
    assert b'value="/cost"' in answer.body


def test_login_of_another_site(addresses: Addresses) -> None:
    """Another site cannot log a browser in."""
    form = urlencode({"token": TOKEN}).encode()

    assert ask(addresses, "/login", form, headers={**FORM, "origin": "https://evil.example"}).status == 403


def test_login_by_address(addresses: Addresses) -> None:
    """``?token=`` sets the cookie and leads to the same page without it; a wrong one shows the form."""
    right = ask(addresses, f"/turns/abc?range=1h&token={TOKEN}&x=")
    wrong = ask(addresses, "/turns/abc?token=wrong")
    inside = ask(addresses, "/v1/traces", headers={"cookie": cookie_of(right.headers["set-cookie"])})

    assert (right.status, right.headers["location"]) == (303, "/turns/abc?range=1h&x=")
    assert (wrong.status, "set-cookie" in wrong.headers) == (401, False)
    assert b"That token is wrong." in wrong.body
    assert inside.status == LET_IN


def test_token_in_the_address_of_a_session(addresses: Addresses) -> None:
    """Once logged in, a page's own parameters pass, and a right token in the address is taken out of it."""
    cookie = cookie_of(ask(addresses, f"/?token={TOKEN}").headers["set-cookie"])
    plain = ask(addresses, "/?range=24h", headers={"cookie": cookie})
    again = ask(addresses, f"/?range=24h&token={TOKEN}", headers={"cookie": cookie})

    assert (plain.status, again.status, again.headers["location"]) == (200, 303, "/?range=24h")


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "evil",
        "",
        "/login",
        "/a\r\nset-cookie: x=1",
        "/ü",
        '/"><script>',
    ],
)
def test_login_leads_nowhere_else(addresses: Addresses, target: str) -> None:
    """Wherever a forged form wants to lead, the login stays on this server."""
    form = urlencode({"token": TOKEN, "next": target}).encode()
    right = ask(addresses, "/login", form, headers=FORM)
    wrong = ask(addresses, "/login", urlencode({"token": "x", "next": target}).encode(), headers=FORM)

    assert right.headers["location"] == (target if target == '/"><script>' else "/")
    assert b"<script>" not in wrong.body


def test_address_that_leads_elsewhere(addresses: Addresses) -> None:
    """A path that browsers would read as another host is not redirected to."""
    assert ask(addresses, f"//evil.example/?token={TOKEN}").headers["location"] == "/"


def test_login_form_limits(addresses: Addresses) -> None:
    """The form's size is bounded, and other methods are refused."""
    large = ask(addresses, "/login", b"token=" + b"x" * 5000, headers=FORM)
    deleted = ask(addresses, "/login", method="DELETE")

    assert (large.status, deleted.status) == (413, 405)


def test_open_parts(addresses: Addresses) -> None:
    """Health, the login and its style sheet need no token."""
    answers = [ask(addresses, path) for path in ("/healthz", "/login", "/login.css")]

    assert [(answer.status, answer.headers["content-type"].split(";")[0]) for answer in answers] == [
        (200, "text/plain"),
        (401, "text/html"),
        (200, "text/css"),
    ]


def test_login_page_needs_no_login_to_show(addresses: Addresses) -> None:
    """The login page loads nothing that the security policy or the gate would refuse."""
    page = ask(addresses, "/").body.decode()

    assert "<style" not in page
    assert "style=" not in page
    assert 'href="/login.css"' in page
    assert "http" not in page.replace("http-equiv", "")
