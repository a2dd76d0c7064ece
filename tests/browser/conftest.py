"""Real servers with known traffic, and a headless Chromium that looks at them."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from browser.traffic import SECOND, Traffic, Turn, add_many_spans, add_strange_turn, add_turn, day
from receiving import options
from stagelight.embedded.background import EmbeddedServer

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_S = 30.0
"""Machines are slow at times."""
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # Chromium refuses its sandbox to root, which containers often are
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


@dataclass
class Running:
    """A server and the trace ids it was given."""

    address: str
    traces: list[str] = field(default_factory=list)

    def send(self, traffic: Traffic) -> None:
        """Post spans and log records."""
        for path, request in (("/v1/traces", traffic.traces), ("/v1/logs", traffic.logs)):
            connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=30)
            with contextlib.closing(connection):
                headers = {"content-type": "application/x-protobuf"}
                connection.request("POST", path, request.SerializeToString(), headers)
                assert connection.getresponse().status == 200


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Running]:
    """The embedded server on free ports, in a thread of its own."""
    with EmbeddedServer(options(folder)) as server:
        yield Running(server.addresses.http_url)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with an hour of a voice assistant's turns; the last one was spoken, number 13 failed."""
    with running(tmp_path_factory.mktemp("server")) as server:
        traffic = Traffic()
        now_ns = time.time_ns()
        traces = day(traffic, now_ns, turns=59)
        traces.append(add_turn(traffic, Turn(start_ns=now_ns - 4 * SECOND)))
        server.traces = [trace_id.hex() for trace_id in traces]
        server.send(traffic)
        yield server


@pytest.fixture(scope="session")
def odd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with a turn of hostile text and a trace of 20,000 spans."""
    with running(tmp_path_factory.mktemp("odd")) as server:
        traffic = Traffic()
        hostile = add_strange_turn(traffic, time.time_ns() - 5 * SECOND)
        large = add_many_spans(traffic, time.time_ns() - 60 * SECOND, 20_000)
        server.traces = [hostile.hex(), large.hex()]
        server.send(traffic)
        yield server


@pytest.fixture
def empty_server(tmp_path: Path) -> Iterator[Running]:
    """A server that has received nothing.

    To be named before the browser, whose page asks it again and again: it must leave before the server does.
    """
    with running(tmp_path) as server:
        yield server


class Browser:
    """A page in Chromium, with what its tests ask for again and again."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str, *, width: int = 1440, theme: str = "light") -> None:
        """Load a page at a width in a theme."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.driver.get(address)

    def one(self, selector: str) -> Any:
        """The first element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        """All elements of a CSS selector."""
        return list(self.driver.find_elements("css selector", selector))

    def text(self, selector: str) -> str:
        """Visible text of an element, no-break spaces as plain ones."""
        return str(self.one(selector).text).replace("\u00a0", " ").replace("\u202f", " ")

    def run(self, script: str, *arguments: Any) -> Any:
        """Result of JavaScript in the page."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
        """The first truthy result of a condition; fails when there is none in time.

        Elements come and go while a page is renewed: a condition that meets one that is gone is asked again.
        """
        from selenium.common import exceptions as gone

        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(
                gone.StaleElementReferenceException, gone.NoSuchElementException, gone.ElementClickInterceptedException
            ):
                if result := condition():
                    return result
            time.sleep(0.05)
        pytest.fail(f"the page did not get there in {seconds} s")

    def click(self, selector: str) -> None:
        """Click on the first element of a CSS selector, as soon as there is one."""
        self.wait(lambda: [self.one(selector).click()])

    def point(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Move the pointer to a place, from 0 to 1, within an element."""
        script = "arguments[0].scrollIntoView({block: 'center'}); return arguments[0].getBoundingClientRect().toJSON()"
        box = self.run(script, self.one(selector))
        place = {"x": box["x"] + box["width"] * x, "y": box["y"] + box["height"] * y}
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", **place})

    def press(self, *keys: str) -> None:
        """Press keys on whatever has the focus."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def complaints(self) -> list[str]:
        """What the console says since the last look."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses of servers asked since the last look: not the browser's own pages, nor what a page brought."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
            and message["params"]["request"]["url"].startswith(("http", "ws"))
        ]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium; skips where it, its driver or selenium is missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="browser tests need selenium: pip install selenium")
    from selenium.webdriver.chrome.service import Service

    binary = next(filter(None, map(shutil.which, CHROMIUM)), None)
    driver_path = shutil.which("chromedriver")
    if binary is None or driver_path is None:
        pytest.skip("browser tests need the programs chromium and chromedriver on PATH")
    settings = webdriver.ChromeOptions()
    settings.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        settings.add_argument(flag)
    settings.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=settings, service=Service(driver_path))
    driver.set_page_load_timeout(2 * PATIENCE_S)
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Browser]:
    """A page; at the end of the test the console must have said nothing that the test did not take."""
    browser = Browser(chromium)
    browser.complaints()
    browser.requests()
    yield browser
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    left = browser.complaints()
    chromium.get("about:blank")
    assert left == []
