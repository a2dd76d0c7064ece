"""What is sent along with outgoing calls, and to whom, through the official instrumentation of httpx."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import stagelight
from opentelemetry import baggage, propagate
from opentelemetry import context as otel_context
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from stagelight._inbound import REQUEST_KEY, Inbound, current_inbound
from stagelight._lifecycle import Attachment
from stagelight.facts import Identity
from stagelight.propagation import HostAwarePropagator, is_allowed
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
def test_an_unsampled_call_of_a_provider_sends_nothing(
    received: tuple[int, list[dict[str, str]]], inside_a_call: bool
) -> None:
    """An unsampled span has no host: what a stage's client sends is taken to go to the provider."""
    port, seen = received
    with capture(sampler=ALWAYS_OFF) as captured, httpx.Client() as client:
        HTTPXClientInstrumentor.instrument_client(client, tracer_provider=captured.tracer_provider)
        if inside_a_call:
            with stagelight.llm(provider="acme", model="m"):
                client.get(f"http://127.0.0.1:{port}/")
        else:
            client.get(f"http://127.0.0.1:{port}/")

    assert ("traceparent" in seen[0]) is not inside_a_call


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
