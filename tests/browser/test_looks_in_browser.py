"""Every page at a phone's and a desk's width, in light and dark: nothing overflows, all text can be read."""

from __future__ import annotations

import pytest
from browser.conftest import Browser, Running

CONTRAST = """
const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => [r, g, b].map((part) => {
  const share = part / 255;
  return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
}).reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
const backdrop = (element) => {
  for (; element; element = element.parentElement) {
    const colour = parse(getComputedStyle(element).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
const poor = [];
for (const element of document.querySelectorAll("main *, header *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || !element.getClientRects().length) continue;
  const style = getComputedStyle(element);
  const colour = element.closest("svg") ? style.fill : style.color;
  const [light, dark] = [luminance(parse(colour)), luminance(backdrop(element))].sort((a, b) => b - a);
  const ratio = (light + 0.05) / (dark + 0.05);
  if (ratio < 4.5) poor.push(`${element.tagName}.${element.className}: ${element.textContent} ${ratio.toFixed(2)}`);
}
return poor;
"""


def addresses(server: Running, odd_server: Running) -> list[str]:
    """One address per kind of page."""
    good, failed = server.traces[-1], server.traces[13]
    return [
        f"{server.address}/?range=1h",
        f"{server.address}/?range=30d&order=slowest",
        f"{server.address}/turns/{good}",
        f"{server.address}/turns/{failed}?show=errors",
        f"{server.address}/turns/no-such-trace",
        f"{odd_server.address}/",
        f"{odd_server.address}/turns/{odd_server.traces[0]}",
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1440])
def test_fits_and_can_be_read(browser: Browser, server: Running, odd_server: Running, width: int, theme: str) -> None:
    """No page scrolls sideways, text has a contrast of 4.5 to 1, tables have captions, controls have names."""
    for address in addresses(server, odd_server):
        browser.open(address, width=width, theme=theme)

        widths = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
        assert widths == [width, width], address
        assert browser.run(CONTRAST) == [], address
        nameless = "return [...document.querySelectorAll('a, button')].filter((e) => !e.textContent.trim()).length"
        assert browser.run(nameless) == 0, address
        assert len(browser.all("table")) == len(browser.all("table > caption")), address
        assert len(browser.all("h1")) == 1, address
        browser.complaints()  # the missing trace is a 404 that the browser mentions


def test_empty_page_fits(empty_server: Running, browser: Browser) -> None:
    """The page of a server without data fits a phone."""
    browser.open(empty_server.address, width=375, theme="dark")

    assert browser.run("return document.documentElement.scrollWidth") == 375
    assert browser.run(CONTRAST) == []


def test_follows_the_theme_of_the_system(browser: Browser, server: Running) -> None:
    """The background is light in the light theme and dark in the dark one."""
    colours = []
    for theme in ("light", "dark"):
        browser.open(server.address, theme=theme)
        colours.append(browser.run("return getComputedStyle(document.body).backgroundColor"))

    assert colours == ["rgb(246, 246, 248)", "rgb(18, 18, 22)"]
