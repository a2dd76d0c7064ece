"""HTTP requests: attempts of a call that its client sent again, and AI providers that are called outside any stage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
import requests
import stagelight
import urllib3
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor as OfficialInstrumentor
from opentelemetry.instrumentation.utils import suppress_instrumentation
from stagelight import _guard
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.integrations._http import HttpRequests
from stagelight.integrations.anthropic import AnthropicInstrumentor
from stagelight.integrations.openai import OpenAIInstrumentor
from stagelight.testing import Captured, Clock, capture

OPENAI = {"id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini", "choices": []}
ANTHROPIC = {"id": "m1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5", "content": []}
CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
SENDERS = [httpx.Client, httpx.AsyncClient, httpx2.Client, httpx2.AsyncClient, urllib3.HTTPConnectionPool]


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Requests are counted; another test may have warned within this minute."""
    monkeypatch.setattr(_guard, "_reported_s", {})
    watched = HttpRequests()
    watched.serve("test")
    yield
    watched.leave("test")


def answering(library: Any, *statuses: int, body: Any = None) -> Any:
    """A transport that answers with one status after the other, the last one for ever."""
    left = list(statuses)

    def answer(_: Any) -> Any:
        status = left.pop(0) if len(left) > 1 else left[0]
        told = body if status == 200 else {"error": {"message": "later", "type": "overloaded"}}
        return library.Response(status, json=told, headers={"retry-after-ms": "1"})

    return library.MockTransport(answer)


def ask_openai(transport: Any, *, is_async: bool) -> None:
    """A chat completion, with the client's own retries."""

    async def asynchronously() -> None:
        http = httpx2.AsyncClient(transport=transport)
        async with openai.AsyncOpenAI(api_key="key", http_client=http) as client:
            await client.chat.completions.create(**CHAT)

    if is_async:
        asyncio.run(asynchronously())
        return
    with openai.OpenAI(api_key="key", http_client=httpx2.Client(transport=transport)) as client:
        client.chat.completions.create(**CHAT)


def ask_anthropic(transport: Any, *, is_async: bool) -> None:
    """A message, with the client's own retries."""
    asked: Any = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}

    async def asynchronously() -> None:
        http = anthropic.DefaultAsyncHttpxClient(transport=transport)
        async with anthropic.AsyncAnthropic(api_key="key", http_client=http) as client:
            await client.messages.create(**asked)

    if is_async:
        asyncio.run(asynchronously())
        return
    with anthropic.Anthropic(api_key="key", http_client=anthropic.DefaultHttpxClient(transport=transport)) as client:
        client.messages.create(**asked)


ANTHROPICS = httpx2 if issubclass(anthropic.DefaultHttpxClient, httpx2.Client) else httpx
CLIENTS: dict[str, tuple[Callable[..., None], Any, Any, Any]] = {
    "openai": (ask_openai, httpx2, OPENAI, OpenAIInstrumentor),
    "anthropic": (ask_anthropic, ANTHROPICS, ANTHROPIC, AnthropicInstrumentor),
}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize(
    ("statuses", "attempts", "outcome"),
    [((200,), None, "completed"), ((429, 500, 200), 3, "completed"), ((500,), 3, "error"), ((400,), None, "error")],
    ids=["at once", "at last", "never", "refused"],
)
def test_attempts(name: str, is_async: bool, statuses: tuple[int, ...], attempts: int | None, outcome: str) -> None:
    """A call is one span however often it is sent; what was sent again is counted."""
    ask, library, body, instrumentor = CLIENTS[name]
    instrumentor().instrument()
    try:
        with capture() as captured:
            try:
                ask(answering(library, *statuses, body=body), is_async=is_async)
            except (openai.APIStatusError, anthropic.APIStatusError):
                assert outcome == "error"
    finally:
        instrumentor().uninstrument()
    call = captured.call("llm")
    labels = {
        a.STAGELIGHT_STAGE: "llm",
        a.GEN_AI_PROVIDER_NAME: name,
        a.GEN_AI_REQUEST_MODEL: call.attributes[a.GEN_AI_REQUEST_MODEL],
    }

    assert (call.outcome, call.attributes.get(a.STAGELIGHT_ATTEMPTS)) == (outcome, attempts)
    assert [(point.attributes, point.value) for point in captured.metric(m.STAGELIGHT_RETRIES)] == (
        [] if attempts is None else [(labels, attempts - 1)]
    )
    assert captured.metric(m.STAGELIGHT_UNINSTRUMENTED_CALLS) == ()


def test_requests_to_other_servers_are_no_attempts() -> None:
    """A token or a file that is fetched for a call comes from elsewhere."""
    elsewhere = httpx.Client(transport=answering(httpx, 200, body={}))

    def authenticating(request: Any) -> Any:
        elsewhere.get("https://login.example/token")
        return httpx2.Response(200, json=OPENAI)

    OpenAIInstrumentor().instrument()
    try:
        with capture() as captured:
            ask_openai(httpx2.MockTransport(authenticating), is_async=False)
    finally:
        OpenAIInstrumentor().uninstrument()

    assert a.STAGELIGHT_ATTEMPTS not in captured.call("llm").attributes


def by_httpx(url: str) -> None:
    with httpx.Client(verify=False) as client:  # noqa: S501 - nothing here is encrypted
        client.get(url)


def by_httpx_async(url: str) -> None:
    async def get() -> None:
        async with httpx.AsyncClient(verify=False) as client:  # noqa: S501
            await client.get(url)

    asyncio.run(get())


def by_httpx2(url: str) -> None:
    with httpx2.Client(verify=False) as client, client.stream("GET", url) as response:
        response.read()


def by_requests(url: str) -> None:
    with requests.Session() as session:
        session.get(url, timeout=30)


def by_urllib3(url: str) -> None:
    with urllib3.PoolManager() as pool:
        pool.request("GET", url)


def by_aiohttp(url: str) -> None:
    import aiohttp

    async def get() -> None:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            await response.read()

    asyncio.run(get())


LIBRARIES = {
    "httpx": by_httpx,
    "httpx async": by_httpx_async,
    "httpx2": by_httpx2,
    "requests": by_requests,
    "urllib3": by_urllib3,
}
if find_spec("aiohttp"):
    LIBRARIES["aiohttp"] = by_aiohttp
NAMES = {"httpx async": "httpx", "requests": "urllib3"}


def outside(captured: Captured) -> list[tuple[Any, float]]:
    """The points of the counter."""
    return [(point.attributes, point.value) for point in captured.metric(m.STAGELIGHT_UNINSTRUMENTED_CALLS)]


@pytest.mark.parametrize("library", LIBRARIES)
def test_outside_any_stage(simulator: Any, library: str, caplog: pytest.LogCaptureFixture) -> None:
    """A request to an AI provider that no stage accounts for is counted by host and library; one line a minute."""
    clock, host = Clock(), simulator.url.split("/")[2]
    with capture(provider_hosts={host: "openai"}, clock=clock) as captured:
        for _ in range(3):
            LIBRARIES[library](f"{simulator.url}/models")
            clock.advance(31)
    lines = [record.message for record in caplog.records if "outside any stage" in record.message]
    name = NAMES.get(library, library)

    assert outside(captured) == [({a.SERVER_ADDRESS: "127.0.0.1", a.STAGELIGHT_HTTP_CLIENT: name}, 3)]
    assert lines == [f"stagelight: {name} sent a request to 127.0.0.1 outside any stage; its cost is not recorded"] * 2


@pytest.mark.parametrize(
    ("url", "is_counted"),
    [
        ("https://api.openai.com/v1/chat/completions", True),
        ("https://acme.openai.azure.com/openai/deployments/x/chat/completions", True),
        ("https://bedrock-runtime.us-east-1.amazonaws.com/model/x/converse", True),
        ("https://api.elevenlabs.io/v1/text-to-speech/x", True),
        ("https://openai.example/v1", False),
        ("http://localhost:8000/v1", False),
        ("https://example.com/api.openai.com", False),
    ],
)
def test_known_hosts(url: str, is_counted: bool) -> None:
    """Only hosts of providers count; a port on one's own machine may be anything."""
    with capture() as captured, httpx.Client(transport=answering(httpx, 200)) as client:
        client.post(url)

    assert bool(outside(captured)) == is_counted


def test_inside_a_stage_or_silenced(simulator: Any) -> None:
    """A stage by hand, suppression, and an official instrumentation account for what is sent inside them."""
    host = simulator.url.split("/")[2]
    with capture(provider_hosts={host: "openai"}) as captured:
        with stagelight.llm(provider="openai", model="gpt-4o-mini"):
            by_httpx(f"{simulator.url}/models")
        with suppress_instrumentation():
            by_httpx(f"{simulator.url}/models")
        official = OfficialInstrumentor()
        official.instrument(tracer_provider=captured.tracer_provider, meter_provider=captured.meter_provider)
        try:
            with openai.OpenAI(base_url=simulator.url, api_key="key") as client:
                client.chat.completions.create(**CHAT)
        finally:
            official.uninstrument()

    assert outside(captured) == []


def test_the_last_one_restores_the_same_functions() -> None:
    """Requests are watched while an integration or the configuration needs it, and then no more."""
    paths = ["send", "send", "send", "send", "urlopen"]
    HttpRequests().leave("test")
    before = [vars(owner)[name] for owner, name in zip(SENDERS, paths, strict=True)]
    OpenAIInstrumentor().instrument()
    AnthropicInstrumentor().instrument()

    OpenAIInstrumentor().uninstrument()
    assert all(vars(owner)[name] is not old for owner, name, old in zip(SENDERS, paths, before, strict=True))
    AnthropicInstrumentor().uninstrument()
    assert [vars(owner)[name] for owner, name in zip(SENDERS, paths, strict=True)] == before


def test_our_errors_stay_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """When looking at a request fails inside us, it is sent all the same."""
    from stagelight.integrations import _http

    def broken(*_: Any) -> Any:
        raise LookupError("ours")

    monkeypatch.setattr(_http, "_sent", broken)
    _guard.set_strict(False)
    try:
        with capture(), httpx.Client(transport=answering(httpx, 200, body={"fine": True})) as client:
            assert client.get("https://api.openai.com/v1/models").json() == {"fine": True}
    finally:
        _guard.set_strict(True)
