"""The page Now as a person uses it: look, hover, choose a range, leave it running."""

from __future__ import annotations

import time

import pytest
from browser.conftest import Browser, Running
from browser.traffic import Traffic, Turn, add_turn

FIGURES = ["Spend", "Turns", "Errors", "First token, p95"]


def test_answers_at_a_glance(browser: Browser, server: Running) -> None:
    """State in words, four figures, two charts and the last turns are there, from this server alone."""
    browser.open(server.address)

    assert (
        browser.text("h1")
        == "llm is failing: 3 of 60 calls ended in an error in the last hour, all rate_limit_exceeded."
    )
    assert [figure.text for figure in browser.all(".figure-name")] == FIGURES
    assert browser.text(".figure:nth-child(2) .figure-value") == "60"
    assert len(browser.all(".figure .spark")) == 4
    assert len(browser.all("#spend .plot .hit")) == 60
    assert [row.text for row in browser.all("#latency tbody th")] == ["embedding", "retrieval", "llm", "tts"]
    assert len(browser.all("#turns tbody tr")) == 25
    assert browser.text("#errors tbody tr td") == "rate_limit_exceeded"
    assert {address.split("/", 3)[2] for address in browser.requests()} == {server.address.split("/")[2]}


def test_hover_shows_the_figures_of_a_step(browser: Browser, server: Running) -> None:
    """Resting on a step of a chart shows its time and values in a box inside the window; leaving hides it."""
    browser.open(f"{server.address}/?range=1h")
    browser.wait(lambda: not browser.one("#live").get_attribute("hidden"))

    told = browser.wait(lambda: [browser.point("#latency .plot", x=0.7), browser.text("#tip")][1]).splitlines()
    box = browser.run("return document.getElementById('tip').getBoundingClientRect().toJSON()")

    assert " to " in told[0]
    assert {line.split()[0] for line in told[1:]} <= {"embedding", "retrieval", "llm", "tts"}
    assert all(line.endswith((" ms", " s")) for line in told[1:])
    assert box["left"] >= 0
    assert box["right"] <= 1440
    browser.wait(lambda: [browser.point("h1"), not browser.one("#tip").is_displayed()][1])


@pytest.mark.parametrize(("label", "name"), [("15 min", "15m"), ("24 h", "24h"), ("7 d", "7d"), ("30 d", "30d")])
def test_range_is_one_click(browser: Browser, server: Running, label: str, name: str) -> None:
    """Each range has its own address, is marked as chosen and keeps the sentence in step."""
    browser.open(server.address)
    next(link for link in browser.all(".ranges a") if link.text.replace("\u00a0", " ") == label).click()

    browser.wait(lambda: f"range={name}" in browser.driver.current_url)
    assert browser.text(".ranges [aria-current]") == label
    assert len(browser.all("#latency .plot .hit")) == {"24h": 48, "7d": 56}.get(name, 60)


def test_figures_lead_to_the_rows_behind_them(browser: Browser, server: Running) -> None:
    """The slowest first tokens lead to the slowest turns, errors to their list, an error to a trace that has it."""
    browser.open(server.address)
    browser.click(".figure:nth-child(4)")
    browser.wait(lambda: browser.text("#turns-name").startswith("Slowest turns"))
    totals = [cell.text for cell in browser.all(".t-total")]
    browser.click("#errors tbody a")
    browser.wait(lambda: "/turns/" in browser.driver.current_url)

    assert totals[0].replace("\u00a0", " ") == "4.07 s"
    assert browser.text(".orders [aria-current]").startswith("Errors")
    assert [mark.text for mark in browser.all(".failed-mark")] == ["failed", "failed"]


def test_live_page_takes_new_turns_in_place(browser: Browser, server: Running) -> None:
    """A new turn appears by itself; focus and scroll stay, a paused page stands still."""
    browser.open(f"{server.address}/?range=15m")
    browser.wait(lambda: browser.one("#live").is_displayed())
    first = browser.one("#turns tbody a")
    address = first.get_attribute("href")
    browser.run("arguments[0].focus(); scrollTo(0, 300)", first)
    browser.run("window.kept = [...document.querySelectorAll('section, .plot, .spark, #turns tbody tr')].slice(0, 15)")
    traffic = Traffic(seed=int(time.time()))
    new = add_turn(traffic, Turn(start_ns=time.time_ns() - 3_000_000_000, feature="newcomer")).hex()
    server.send(traffic)

    browser.wait(lambda: new in browser.one("#turns tbody a").get_attribute("href"))
    assert browser.run("return [document.activeElement.href, scrollY]") == [address, 300]
    assert browser.run("return window.kept.every((element) => element.isConnected)")
    assert browser.wait(lambda: "newcomer" in browser.text("#turns tbody tr"))

    browser.click("#live")
    assert browser.text("#live") == "Paused"
    browser.requests()
    time.sleep(3.5)
    assert browser.requests() == []
    browser.click("#live")
    browser.wait(browser.requests)
    browser.run("sessionStorage.clear()")


def test_live_page_says_when_nobody_answers(empty_server: Running, browser: Browser) -> None:
    """When the server does not answer, the switch says so and the page stays as it is."""
    browser.open(empty_server.address)
    browser.driver.execute_cdp_cmd("Network.enable", {})
    browser.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*fragments*"]})
    try:
        browser.wait(lambda: browser.text("#live") == "No answer")
        assert browser.text("h1") == "Waiting for the first signal."
    finally:
        browser.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    browser.open("about:blank")  # the page asks no more
    browser.complaints()  # the browser may mention the blocked requests


def test_empty_page_says_what_to_do_and_fills_by_itself(empty_server: Running, browser: Browser) -> None:
    """Without data the page names the next step and its own address; the first turn replaces it."""
    browser.open(empty_server.address)

    assert browser.text("h1") == "Waiting for the first signal."
    assert [block.text.splitlines()[0] for block in browser.all("pre")] == [
        "stagelight demo",
        f"export OTEL_EXPORTER_OTLP_ENDPOINT={empty_server.address}",
        "import stagelight",
    ]
    traffic = Traffic()
    add_turn(traffic, Turn(start_ns=time.time_ns() - 3_000_000_000))
    empty_server.send(traffic)
    browser.wait(lambda: browser.text("h1") == "All stages healthy.")
