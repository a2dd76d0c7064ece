"""The page Turn as a person uses it: open a turn, choose spans by mouse and keyboard, read the price."""

from __future__ import annotations

import json
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from browser.conftest import Browser, Running


def spoken(server: Running) -> str:
    """Address of a turn that was spoken."""
    return f"{server.address}/turns/{server.traces[-1]}"


def chosen(browser: Browser) -> str:
    """Name of the chosen span, once its facts are there."""

    def told() -> str:
        name = browser.text(".fall .chosen .cut")
        return name if browser.text("#span h2").startswith(name[:60]) else ""  # long names are cut

    return str(browser.wait(told))


def test_opens_from_the_list_of_turns(browser: Browser, server: Running) -> None:
    """A click on a turn opens its waterfall with that turn chosen, and nothing leaves the server."""
    browser.open(server.address)
    browser.click("#turns tbody a")
    stages = [
        "invoke_workflow answer",
        "embeddings text-embedding-3-small",
        "retrieval docs",
        "chat gpt-4o-mini",
        "POST",
        "text_to_speech tts-1",
    ]

    browser.wait(lambda: [link.text for link in browser.all(".fall .cut")] == stages)
    assert chosen(browser) == "invoke_workflow answer"
    assert {urlsplit(address).netloc for address in browser.requests()} == {urlsplit(server.address).netloc}


def test_mouse_chooses_a_span(browser: Browser, server: Running) -> None:
    """A click anywhere on a row shows that span's facts and puts it into the address; a reload keeps it."""
    browser.open(spoken(server))
    rows = browser.all(".fall tbody tr")
    chat = next(row for row in rows if "chat" in row.text)
    chat.find_element("css selector", ".lane-cell").click()

    assert chosen(browser).startswith("chat gpt-4")
    headings = [heading.text for heading in browser.all("#span h3")]
    assert headings == ["What was asked", "What came back", "Tokens and price", "Who and where", "Log lines"]
    span = parse_qs(urlsplit(browser.driver.current_url).query)["span"]
    browser.driver.refresh()
    assert parse_qs(urlsplit(browser.driver.current_url).query)["span"] == span
    assert chosen(browser).startswith("chat gpt-4")


def test_price_is_written_out(browser: Browser, server: Running) -> None:
    """Each component is quantity times rate, and the lines add up to the call's amount."""
    browser.open(spoken(server))
    next(link for link in browser.all(".span-link") if "text_to_speech" in link.text).click()
    browser.wait(lambda: browser.text("#span h2") == "text_to_speech tts-1")

    line = browser.text(".sum tbody tr").splitlines()
    characters = int(line[1].split()[0])
    assert line[0].startswith("characters")
    assert line[1].startswith(f"{characters} characters \u00d7 15.00 per 1M characters")
    assert browser.text(".sum tfoot th") == "Sum"
    amount = float(browser.text(".sum tfoot td").removesuffix("USD").replace(" ", ""))
    assert amount == pytest.approx(characters * 15 / 1e6)


def test_keyboard_chooses_spans(browser: Browser, server: Running) -> None:
    """Arrow keys walk through the rows and show each span; the focus stays on the row."""
    from selenium.webdriver.common.keys import Keys

    browser.open(spoken(server))
    browser.run("document.querySelector('.span-link').focus()")
    browser.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)

    browser.wait(lambda: browser.text("#span h2") == "retrieval docs")
    assert chosen(browser) == "retrieval docs"
    assert browser.run("return document.activeElement.closest('tr').className") == "chosen"
    assert browser.one("#span .strip").get_attribute("aria-label") == (
        "cosine scores: best 0.84, second 0.77, lowest 0.41"
    )
    browser.press(Keys.ARROW_UP)
    browser.wait(lambda: browser.text("#span h2").startswith("embeddings"))


def test_tab_reaches_everything_in_order(browser: Browser, server: Running) -> None:
    """The first tab stop skips to the content; every stop shows where the focus is."""
    from selenium.webdriver.common.keys import Keys

    browser.open(spoken(server))
    stops = []
    for _ in range(14):
        browser.press(Keys.TAB)
        element = browser.driver.switch_to.active_element
        outline = browser.run("return getComputedStyle(arguments[0]).outlineStyle", element)
        stops.append((element.text.split("\n")[0], outline))

    texts = [text for text, _ in stops]
    assert texts[:8] == ["Skip to content", "Stagelight", "Now", "Now", "Copy", "Raw JSON", "All 6", "Stages 5"]
    assert texts[10].startswith("invoke_workflow answer")
    assert {outline for _, outline in stops} == {"solid"}


def test_trace_id_can_be_copied(browser: Browser, server: Running) -> None:
    """Copy puts the trace id on the clipboard and says so."""
    grant = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": server.address}
    browser.driver.execute_cdp_cmd("Browser.grantPermissions", grant)
    browser.open(spoken(server))
    browser.click("#copy")

    browser.wait(lambda: browser.text("#copy") == "Copied")
    read = browser.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert read == server.traces[-1]


def test_raw_json_is_one_click(browser: Browser, server: Running) -> None:
    """Raw JSON shows the trace as it was stored."""
    browser.open(spoken(server))
    next(link for link in browser.all(".ids a") if link.text == "Raw JSON").click()
    browser.wait(lambda: browser.driver.current_url.endswith(".json"))

    trace = json.loads(browser.run("return document.body.innerText"))
    assert trace["trace_id"] == server.traces[-1]
    assert len(trace["spans"]) == 6


def test_works_without_javascript(browser: Browser, server: Running) -> None:
    """Without scripts a row is a link to the page with that span chosen; only the buttons that need them are gone."""
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.open(spoken(server))
    next(link for link in browser.all(".span-link") if "retrieval" in link.text).click()

    assert browser.text("#span h2") == "retrieval docs"
    assert "#span" in browser.driver.current_url
    assert not browser.one("#copy").is_displayed()
    browser.click(".brand")
    assert "Without JavaScript" in browser.text("main > noscript")
    assert not browser.one("#live").is_displayed()


def test_hostile_text_stays_text(browser: Browser, odd_server: Running) -> None:
    """No text of a trace runs as a script or hides its own order; every span of it can be looked at."""
    browser.open(f"{odd_server.address}/turns/{odd_server.traces[0]}")
    for link in browser.all(".span-link"):
        link.click()
        chosen(browser)
        assert "<script>window.pwned=1</script>" in browser.text("#span")
        assert "a\\u202egnp.exe\\u2066" in browser.text("#span")
        assert "\\x1b[31mred\\x00" in browser.text("#span")
    browser.open(odd_server.address)
    browser.wait(lambda: browser.one("#live").is_displayed())

    assert "<script>window.pwned=1</script>" in browser.text("#turns")
    assert browser.run("return window.pwned === undefined && document.querySelectorAll('script').length") == 1
    assert browser.run("return /[\\u202a-\\u202e\\u2066-\\u2069]/.test(document.documentElement.outerHTML)") is False


def test_twenty_thousand_spans_stay_usable(browser: Browser, odd_server: Running) -> None:
    """A very large trace opens within seconds, a page at a time; errors and the critical path are one click away."""
    began = time.monotonic()
    browser.open(f"{odd_server.address}/turns/{odd_server.traces[1]}")
    took = time.monotonic() - began

    assert took < 20
    assert len(browser.all(".fall tbody tr")) == 250
    assert browser.text(".pager span") == "rows 1 to 250 of 20,000"
    browser.click(".pager [rel=next]")
    browser.wait(lambda: browser.text(".pager span") == "rows 251 to 500 of 20,000")
    browser.all(".span-link")[3].click()
    chosen(browser)
    browser.all(".orders a")[3].click()
    browser.wait(lambda: browser.text(".orders [aria-current]").startswith("Errors"))
    assert len(browser.all(".failed-mark")) == 21
