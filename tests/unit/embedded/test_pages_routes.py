"""The addresses of the pages, over a real store, without a browser."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from browser.traffic import SECOND, Traffic, Turn, add_strange_turn, add_turn, day
from stagelight.embedded.pages import pages_routes, ranges
from stagelight.embedded.pages.rendering import FILES
from stagelight.sources import open_source
from stagelight.sources.model import Source, SourceUnavailable
from starlette.applications import Starlette
from stored import store


class Answer(NamedTuple):
    """What a route answered."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def text(self) -> str:
        """The body with plain spaces."""
        return self.body.replace("\u00a0", " ").replace("\u202f", " ")


class Site:
    """The pages over one source, called without a network."""

    def __init__(self, factory: Any) -> None:
        self.app = Starlette(routes=pages_routes(factory))

    def get(self, address: str, method: str = "GET") -> Answer:
        """Ask for an address."""
        path, _, query = address.partition("?")
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "root_path": "",
            "path": path, "raw_path": path.encode(), "query_string": query.encode(),
            "headers": [(b"host", b"localhost:4318")], "server": ("localhost", 4318), "client": ("127.0.0.1", 1),
        }  # fmt: skip
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]).decode())


@pytest.fixture(scope="module")
def stored_turns(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A store with twenty turns and one of hostile text at the end; all trace ids."""
    path = tmp_path_factory.mktemp("pages") / "store.db"
    traffic = Traffic()
    now_ns = time.time_ns()
    traces = day(traffic, now_ns, 20, spread_ns=600 * SECOND)
    traces.append(add_strange_turn(traffic, now_ns - 3 * SECOND))
    store(path, traffic.traces, traffic.logs)
    return path, [trace_id.hex() for trace_id in traces]


@pytest.fixture
def site(stored_turns: tuple[Path, list[str]]) -> Site:
    """The pages over that store."""
    return Site(lambda: open_source(str(stored_turns[0])))


class _Balance(HTMLParser):
    """Finds elements that are not closed, and attributes that the security policy forbids."""

    VOID = frozenset({"meta", "link", "img", "input", "br", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        names = [name for name, _ in attrs]
        self.faults += [f"{tag} {name}" for name in names if name == "style" or name.startswith("on")]
        self.faults += [f"{tag} repeats an attribute"] * (len(names) != len(set(names)))
        self.faults += [f"{tag} {value}" for name, value in attrs if name in {"href", "src"} and _leads_away(value)]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")


def _leads_away(address: str | None) -> bool:
    return not (address or "").startswith(("/", "?", "#")) or (address or "").startswith("//")


def check(answer: Answer) -> None:
    """A page is well formed, has no inline code or style, and leads nowhere else."""
    balance = _Balance()
    balance.feed(answer.body)
    assert (balance.faults, balance.open) == ([], [])
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", ranges.RANGES)
@pytest.mark.parametrize("order", ["newest", "slowest"])
def test_now_answers_for_every_range(site: Site, name: str, order: str) -> None:
    """Every range and order gives a well-formed page; its live part is the same content alone."""
    page = site.get(f"/?range={name}&order={order}")
    part = site.get(f"/fragments/now?range={name}&order={order}")

    assert (page.status, part.status) == (200, 200)
    check(page)
    check(part)
    assert "<html" in page.body
    assert "<html" not in part.body
    assert '<span class="figure-value">21</span>' in page.body


def test_now_defaults_to_the_last_hour(site: Site) -> None:
    """Without a choice the page shows the last hour."""
    assert site.get("/").text.count("in the last hour") > 4


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("/?range=2h", "Choose one of: 15m, 1h, 24h, 7d, 30d."),
        ("/?order=cheapest", "Choose one of: newest, slowest."),
        ("/fragments/now?range=", "Choose one of: 15m"),
    ],
)
def test_a_wrong_choice_is_told_with_the_right_ones(site: Site, address: str, told: str) -> None:
    """The answer names what was given and what is possible."""
    answer = site.get(address)

    assert answer.status == 400
    assert told in answer.text
    check(answer)


def test_turn_shows_its_trace(site: Site, stored_turns: tuple[Path, list[str]]) -> None:
    """Waterfall, facts and log lines of a turn are on one well-formed page."""
    answer = site.get(f"/turns/{stored_turns[1][0]}")

    assert answer.status == 200
    check(answer)
    assert "invoke_workflow answer" in answer.body
    assert "5 passages found for the question" in answer.body
    assert "critical path" in answer.body


def test_each_span_has_its_own_part(site: Site, stored_turns: tuple[Path, list[str]]) -> None:
    """The part of a span is the panel alone; a span that is not in the trace is a 404."""
    trace_id = stored_turns[1][0]
    spans = json.loads(site.get(f"/turns/{trace_id}.json").body)["spans"]
    for span in spans:
        part = site.get(f"/turns/{trace_id}/spans/{span['span_id']}")
        check(part)
        assert span["name"] in part.body

    assert site.get(f"/turns/{trace_id}/spans/{'0' * 16}").status == 404


def test_unique_prefix_leads_to_the_trace(site: Site, stored_turns: tuple[Path, list[str]]) -> None:
    """A shortened or upper-case id redirects to the whole one, and keeps what was asked."""
    trace_id = stored_turns[1][2]
    for given in (trace_id[:12], trace_id.upper()):
        answer = site.get(f"/turns/{given}?show=errors")
        assert (answer.status, answer.headers["location"]) == (307, f"/turns/{trace_id}?show=errors")
    assert site.get(f"/traces/{trace_id}").headers["location"] == f"/turns/{trace_id}"


@pytest.mark.parametrize("given", ["0" * 32, "zz", "ab", "<script>alert(1)</script>", "x" * 5000, "\u202e", "..%00"])
def test_unknown_trace_says_what_to_do(site: Site, given: str) -> None:
    """Unknown and malformed ids get a page with a next step, also for the raw JSON."""
    for address in (f"/turns/{given}", f"/turns/{given}.json", f"/turns/{given}/spans/1"):
        answer = site.get(address)
        assert answer.status == 404
        assert "stagelight turns" in answer.body
        assert "<script>alert" not in answer.body
        check(answer)


@pytest.mark.parametrize("query", ["page=0", "page=999999", "page=1&show=stages", "span=nonsense", "show=critical"])
def test_any_page_of_a_waterfall_exists(site: Site, stored_turns: tuple[Path, list[str]], query: str) -> None:
    """Numbers past the ends give the nearest page, an unknown span the turn itself."""
    answer = site.get(f"/turns/{stored_turns[1][0]}?{query}")

    assert answer.status == 200
    check(answer)


@pytest.mark.parametrize("query", ["page=x", "page=-1", "page=1e9", "page=٣", "show=everything"])
def test_nonsense_in_a_query_is_told(site: Site, stored_turns: tuple[Path, list[str]], query: str) -> None:
    """What is neither a page nor a selection gets an explanation."""
    assert site.get(f"/turns/{stored_turns[1][0]}?{query}").status == 400


def test_raw_json_has_everything(site: Site, stored_turns: tuple[Path, list[str]]) -> None:
    """The raw trace is ASCII JSON with its type, money as text and log lines."""
    answer = site.get(f"/turns/{stored_turns[1][0]}.json")
    trace = json.loads(answer.body)

    assert answer.headers["content-type"] == "application/json"
    assert answer.body.isascii()
    assert sorted(trace) == ["ledger", "logs", "spans", "trace_id", "turns"]
    assert trace["turns"][0]["cost"].startswith("0.00")
    assert trace["logs"][0]["body"] == "5 passages found for the question"


def test_hostile_text_is_escaped_everywhere(site: Site, stored_turns: tuple[Path, list[str]]) -> None:
    """No page, part or JSON of a hostile trace carries its markup, controls or overrides."""
    trace_id = stored_turns[1][-1]
    spans = json.loads(site.get(f"/turns/{trace_id}.json").body)["spans"]
    addresses = ["/", "/fragments/now", f"/turns/{trace_id}"]
    addresses += [f"/turns/{trace_id}/spans/{span['span_id']}" for span in spans]

    assert len(spans) == 2
    for address in addresses:
        answer = site.get(address)
        check(answer)
        assert not re.search(r"<script>window|<img src=x|<svg onload", answer.body), address
        assert not re.search("[\u0000-\u0008\u000e-\u001f\u202a-\u202e\u2066-\u2069]", answer.body), address
        assert "49" not in re.findall(r"\{\{7\*7\}\}|(?<=\"> )49", answer.body), address


def test_static_files_may_be_kept(site: Site) -> None:
    """Style and script have their type, and an address that changes with their content."""
    page = site.get("/").body
    for name, kind in (("pages.css", "text/css; charset=utf-8"), ("pages.js", "text/javascript; charset=utf-8")):
        address = FILES[name].address
        answer = site.get(address)
        assert address in page
        assert (answer.status, answer.headers["content-type"]) == (200, kind)
        assert "immutable" in answer.headers["cache-control"]
    assert site.get("/favicon.ico").headers["content-type"] == "image/svg+xml"
    assert site.get("/static/routes.py").status == 404


def test_script_is_short_and_asks_nobody_else() -> None:
    """Our own script stays below 200 lines and names no other origin."""
    script = FILES["pages.js"].content.decode()
    style = FILES["pages.css"].content.decode()

    assert len(script.splitlines()) <= 200
    assert "//" not in re.sub(r"^\s*//.*$|\s// .*$", "", script, flags=re.MULTILINE)
    assert not re.search(r"url\(|@import", style)


def test_other_addresses_and_methods_are_refused(site: Site) -> None:
    """An unknown address is a page that leads back; pages cannot be posted to."""
    answer = site.get("/nothing/here")

    assert answer.status == 404
    check(answer)
    assert site.get("/", method="POST").status == 405
    assert site.get("/", method="HEAD").status == 200


def test_empty_store_says_what_to_do(tmp_path: Path) -> None:
    """Before the first signal the page names the demo and its own address."""
    store(tmp_path / "store.db")
    answer = Site(lambda: open_source(str(tmp_path / "store.db"))).get("/")

    check(answer)
    assert "stagelight demo" in answer.body
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318" in answer.body


def test_missing_store_is_told() -> None:
    """A source that cannot be opened is a page with its own advice."""

    def missing() -> Source:
        raise SourceUnavailable("nothing at /there: start the server with `stagelight up`")

    answer = Site(missing).get("/")
    assert answer.status == 503
    assert "start the server with `stagelight up`" in answer.body
    check(answer)


def test_old_turns_leave_the_range_empty(tmp_path: Path) -> None:
    """When nothing arrived lately the page says so, when the last record came, and where to look."""
    traffic = Traffic()
    add_turn(traffic, Turn(start_ns=time.time_ns() - 84 * 3_600 * SECOND))
    store(tmp_path / "store.db", traffic.traces, traffic.logs)
    answer = Site(lambda: open_source(str(tmp_path / "store.db"))).get("/")

    check(answer)
    assert "Quiet: nothing arrived in the last hour." in answer.body
    assert "3 d ago" in answer.text
    assert "Look at 30 days" in answer.body


def test_every_source_is_closed(stored_turns: tuple[Path, list[str]]) -> None:
    """A page closes what it opened, whatever it answers."""
    opened: list[Source] = []

    def factory() -> Source:
        opened.append(open_source(str(stored_turns[0])))
        return opened[-1]

    site = Site(factory)
    for address in ("/", "/?range=x", "/turns/zz", f"/turns/{stored_turns[1][0]}"):
        site.get(address)

    assert len(opened) == 4
    for source in opened:
        with pytest.raises(SourceUnavailable, match="closed"):
            source.describe()


@pytest.mark.parametrize("address", ["/", "/fragments/now", "/turns/abcdef", "/turns/abcdef.json"])
def test_fault_is_a_page(address: str, caplog: pytest.LogCaptureFixture) -> None:
    """An error that nobody foresaw is a page with status 500; the log has its class and place, never its values."""

    def broken() -> Source:
        raise ZeroDivisionError("secret value")

    answer = Site(broken).get(address)
    logged = [(record.levelno, record.getMessage(), record.exc_info) for record in caplog.records]

    assert (answer.status, "could not be made" in answer.text) == (500, True)
    assert [(level, trace) for level, _, trace in logged] == [(logging.ERROR, None)]
    assert re.fullmatch(
        r"a page could not be made: ZeroDivisionError at test_pages_routes.py:\d+ broken, routes.py:\d+ .*",
        logged[0][1],
    )
    assert "secret" not in answer.body + caplog.text
