"""The login of a server with a token, in a real browser, which decides itself what Origin and cookies it sends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from receiving import TOKEN, options
from stagelight.embedded.background import EmbeddedServer


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """Address of a server that needs the token."""
    with EmbeddedServer(options(tmp_path, token=TOKEN)) as server:
        yield server.addresses.http_url


def test_login_form_in_browser(guarded: str, browser: Any) -> None:
    """The form takes the token, leads to the page first asked for, and the next page needs no login."""
    browser.open(f"{guarded}/?range=24h", width=375)
    browser.one("#token").send_keys("wrong-wrong-wrong-wrong")
    browser.click("button")
    browser.wait(lambda: browser.all("[role=alert]"))
    browser.one("#token").send_keys(TOKEN)
    browser.click("button")
    browser.wait(lambda: "Log in" not in browser.driver.title)
    reached = browser.driver.current_url
    browser.open(f"{guarded}/")

    assert reached == f"{guarded}/?range=24h"
    assert not browser.all("#token")
    browser.complaints()  # the refused attempts; nothing for the next test


def test_login_address_in_browser(guarded: str, browser: Any) -> None:
    """An address with the token opens the page and is replaced by one without it; scripts cannot see the cookie."""
    browser.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
    for visit in ("first", "already logged in"):
        browser.open(f"{guarded}/?token={TOKEN}&range=24h")
        assert (visit, browser.driver.current_url) == (visit, f"{guarded}/?range=24h")
    assert not browser.all("#token")
    assert browser.run("return document.cookie") == ""
