"""What is sent along with outgoing calls, and to whom, through the official instrumentation of httpx."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import stagelight
from opentelemetry import baggage, propagate
from opentelemetry import context as otel_context
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from opentelemetry.trace import SpanKind
from stagelight._inbound import REQUEST_KEY, Inbound, current_inbound
from stagelight._lifecycle import Attachment
from stagelight.facts import Identity
from stagelight.propagation import HostAwarePropagator, install, is_allowed
from stagelight.settings import read
from stagelight.testing import capture

CARRIED = ("traceparent", "baggage", "x-request-id")


@pytest.fixture
def received() -> Iterator[tuple[int, list[dict[str, str]]]]:
    """Port of a server, and the headers it was sent."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1], seen
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture(autouse=True)
def host_aware() -> Iterator[None]:
    """Our propagator stands around the global one, as ``configure`` leaves it."""
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(HostAwarePropagator(before))
    yield
    propagate.set_global_textmap(before)


@pytest.mark.parametrize(
    ("settings", "sent", "sampled"),
    [
        ({}, True, True),
        ({}, True, False),
        ({"propagate_to": "127.0.0.1"}, True, True),
        ({"propagate_to": "10.*, 127.*"}, True, True),
        ({"propagate_to": "*.internal"}, False, True),
        ({"provider_hosts": {"127.0.0.1": "openai"}}, False, True),
        ({"provider_hosts": {"127.0.0.1": "openai"}, "propagate_to": "127.0.0.1"}, True, True),
    ],
)
def test_headers_go_to_allowed_hosts_only(
    received: tuple[int, list[dict[str, str]]], settings: dict[str, str], sent: bool, sampled: bool
) -> None:
    """A setting names the hosts; without it every host is told but the providers'. The HTTP span is made either way."""
    port, seen = received
    inbound = otel_context.set_value(REQUEST_KEY, Inbound("req-1", Identity()), baggage.set_baggage("plan", "gold"))
    with capture(sampler=None if sampled else ALWAYS_OFF, **settings) as captured, httpx.Client() as client:
        HTTPXClientInstrumentor.instrument_client(client, tracer_provider=captured.tracer_provider)
        with Attachment(inbound):
            client.get(f"http://127.0.0.1:{port}/")

    assert [name in seen[0] for name in CARRIED] == [sent] * 3
    assert [span.kind.name for span in captured.spans] == (["CLIENT"] if sampled else [])
    if sent:
        assert (seen[0]["baggage"], seen[0]["x-request-id"]) == ("plan=gold", "req-1")


@pytest.mark.parametrize("inside_a_call", [True, False])
@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({}, True),
        ({"provider_hosts": {"127.0.0.1": "openai"}}, False),
        ({"provider_hosts": {"127.0.0.1:{port}": "openai"}}, False),
        ({"propagate_to": "none"}, False),
        ({"propagate_to": "127.*"}, True),
    ],
)
@pytest.mark.parametrize("sampler", [None, ALWAYS_OFF], ids=["sampled", "unsampled"])
def test_a_call_that_is_not_sampled_is_known_by_its_host_header(
    received: tuple[int, list[dict[str, str]]],
    settings: dict[str, Any],
    sent: bool,
    inside_a_call: bool,
    sampler: Sampler | None,
) -> None:
    """An unsampled span has no host; what is sent does not depend on it."""
    port, seen = received
    if "provider_hosts" in settings:
        settings = {"provider_hosts": {key.format(port=port): one for key, one in settings["provider_hosts"].items()}}
    with capture(sampler=sampler, **settings) as captured, httpx.Client() as client:
        HTTPXClientInstrumentor.instrument_client(client, tracer_provider=captured.tracer_provider)
        with stagelight.llm(provider="acme", model="m") if inside_a_call else nullcontext():
            client.get(f"http://127.0.0.1:{port}/")

    assert ("traceparent" in seen[0]) is sent


@pytest.mark.parametrize("inside_a_call", [True, False])
def test_without_any_host_a_stage_sends_nothing(inside_a_call: bool) -> None:
    """What a stage's client sends is taken to go to the provider."""
    carrier: dict[str, str] = {}
    with (
        capture(sampler=ALWAYS_OFF) as captured,
        captured.tracer_provider.get_tracer("test").start_as_current_span("GET"),
        stagelight.llm(provider="acme", model="m") if inside_a_call else nullcontext(),
    ):
        propagate.inject(carrier)

    assert ("traceparent" in carrier) is not inside_a_call


@pytest.mark.parametrize("sampler", [None, ALWAYS_OFF], ids=["sampled", "unsampled"])
def test_a_redirect_takes_nothing_along_to_a_provider(sampler: Sampler | None) -> None:
    """httpx sends the headers of the request before; what was put there for an allowed host is taken back."""
    seen: list[tuple[str, list[str], str | None]] = []
    ways = {
        "a.internal": "https://b.internal/",
        "b.internal": "https://api.openai.com/",
        "api.openai.com": "https://c.internal/",
    }

    def answer(request: httpx.Request) -> httpx.Response:
        carried = [name for name in CARRIED if name in request.headers]
        seen.append((request.url.host, carried, request.headers.get("x-mine")))
        onward = ways.get(request.url.host)
        return httpx.Response(302 if onward else 200, headers={"location": onward} if onward else {})

    inbound = otel_context.set_value(REQUEST_KEY, Inbound("req-1", Identity()), baggage.set_baggage("plan", "gold"))
    with capture(sampler=sampler) as captured:
        client = httpx.Client(transport=httpx.MockTransport(answer), follow_redirects=True)
        HTTPXClientInstrumentor.instrument_client(client, tracer_provider=captured.tracer_provider)
        with client, Attachment(inbound):
            client.get("https://a.internal/", headers={"X-Mine": "kept"})

    everything = list(CARRIED)
    assert seen == [
        ("a.internal", everything, "kept"),
        ("b.internal", everything, "kept"),
        ("api.openai.com", [], "kept"),
        ("c.internal", everything, "kept"),
    ]


def test_what_the_application_sends_to_a_provider_itself_stays() -> None:
    """Its own headers are its own affair."""
    own = {"x-request-id": "mine", "baggage": "plan=gold", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    seen: list[dict[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append({name: request.headers[name] for name in own})
        return httpx.Response(200)

    with (
        capture() as captured,
        Attachment(baggage.set_baggage("plan", "gold")),
        httpx.Client(transport=httpx.MockTransport(answer)) as client,
    ):
        HTTPXClientInstrumentor.instrument_client(client, tracer_provider=captured.tracer_provider)
        client.get("https://orders.internal/", headers={"x-request-id": "mine", "traceparent": "x"})
        client.get("https://api.openai.com/", headers=own)

    assert seen[1] == own


def test_a_propagator_that_the_application_sets_later_is_stood_around() -> None:
    """Whichever format it chooses: providers are told nothing, and asking for it gives something that works."""
    install()
    before = propagate.get_global_textmap()
    try:
        propagate.set_global_textmap(W3CBaggagePropagator())
        found = propagate.get_global_textmap()
    finally:
        propagate.set_global_textmap(before)

    assert isinstance(found, HostAwarePropagator)
    assert isinstance(found.inner, W3CBaggagePropagator)
    assert propagate.get_global_textmap() is before


def test_standing_around_twice_is_standing_around_once() -> None:
    """Whoever asks for the propagator within finds the application's."""
    inner = W3CBaggagePropagator()

    assert HostAwarePropagator(HostAwarePropagator(inner)).inner is inner


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"server.address": "::1"}, True),
        ({"server.address": "::2"}, False),
        ({"http.url": "http://user:secret@[::1]:8080/x"}, True),
        ({"http.host": "ORDERS.internal:81"}, True),
        ({"url.full": "HTTPS://orders.INTERNAL./x?y=//elsewhere"}, True),
        ({"url.full": "https://orders.internal@api.openai.com/"}, False),
        ({"url.full": "http://[broken"}, False),
        ({"net.peer.name": "xn--bcher-kva.internal"}, True),
    ],
)
def test_hosts_are_read_as_a_client_reads_them(attributes: dict[str, str], told: bool) -> None:
    """IPv6 with and without brackets, ports, names and passwords, upper case; an unreadable one is told nothing."""
    carrier: dict[str, str] = {}
    with capture(propagate_to="[::1],*.internal") as captured:
        tracer = captured.tracer_provider.get_tracer("test")
        with tracer.start_as_current_span("GET", kind=SpanKind.CLIENT, attributes=attributes), suppress(ValueError):
            propagate.inject(carrier)

    assert ("traceparent" in carrier) is told


def test_the_callers_own_id_header_stays(received: tuple[int, list[dict[str, str]]]) -> None:
    """A header that the application sets itself is not overwritten."""
    port, seen = received
    with capture() as captured, httpx.Client() as client:
        HTTPXClientInstrumentor.instrument_client(client, tracer_provider=captured.tracer_provider)
        with Attachment(otel_context.set_value(REQUEST_KEY, Inbound("req-1", Identity()))):
            client.get(f"http://127.0.0.1:{port}/", headers={"X-Request-Id": "mine"})

    assert seen[0]["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("api.openai.com", False),
        ("eu.api.openai.com", False),
        ("API.Anthropic.com.", False),
        ("generativelanguage.googleapis.com", False),
        ("my-resource.openai.azure.com", False),
        ("orders.internal", True),
        ("openai.com.example.org", True),
    ],
)
def test_known_providers_are_told_nothing_by_default(host: str, allowed: bool) -> None:
    """Trace ids, baggage and request ids are nobody's business outside."""
    assert is_allowed(host, None, {}) is allowed


@pytest.mark.parametrize(("given", "kept"), [("req-9", "req-9"), ("not safe", None)])
def test_an_id_of_a_task_or_request_is_taken_over(given: str, kept: str | None) -> None:
    """What another process injected is known here, if its characters are safe."""
    context = propagate.extract({"x-request-id": given})
    inbound = current_inbound(context)

    assert (inbound.request_id if inbound is not None else None) == kept


@pytest.mark.parametrize("text", ["*", "none", "orders.internal, 10.*", "::1", "[::1]", "fe80::*", "my_host-1"])
def test_patterns_of_hosts(text: str) -> None:
    """Names, patterns, and addresses of both kinds."""
    settings, problems = read({"STAGELIGHT_PROPAGATE_TO": text})

    assert problems == ()
    assert settings.propagate_to == tuple(part.strip() for part in text.split(","))


@pytest.mark.parametrize("text", ["orders:8080", "http://orders", "orders/x", "[::1]:80", "[::1", "a b", "u@orders"])
def test_a_pattern_that_could_never_match_is_refused(text: str) -> None:
    """A port or a scheme would silently leave out the host it is meant for."""
    _, (problem,) = read({"STAGELIGHT_PROPAGATE_TO": text})

    assert problem.message == (
        f"STAGELIGHT_PROPAGATE_TO: {text!r} is not accepted; "
        "accepted: host names and * patterns, without ports, separated by commas"
    )
