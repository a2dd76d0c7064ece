"""URLs without credentials and without values of queries, in attributes and in messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from stagelight.export.urls import SecretUrls, safe, without_secrets

CASES = [
    ("url.full", "https://u:p@h:8080/a?key=1&b=2#t=3", "https://h:8080/a?key=REDACTED&b=REDACTED"),
    ("http.url", "http://h/a", "http://h/a"),
    ("http.url", "http://h/a?", "http://h/a?"),
    ("http.target", "/a?token=1;x", "/a?token=REDACTED;REDACTED"),
    ("url.query", "q=what+is+it&api_key=&=v", "q=REDACTED&api_key=REDACTED&=REDACTED"),
    ("url.query", "sk-bare", "REDACTED"),
    ("url.query", "", ""),
    ("app.note", "https://u:p@h/a?key=1", "https://u:p@h/a?key=1"),
]


@pytest.mark.parametrize(("key", "value", "expected"), CASES)
def test_attributes_are_made_safe(key: str, value: str, expected: str) -> None:
    """At the start of a span for every reader, and at its end for our exporter; other attributes are left alone."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SecretUrls())
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    provider.get_tracer("library").start_span("GET", attributes={key: value, "n": 1}).end()

    [span] = exporter.get_finished_spans()
    assert dict(span.attributes or {}) == {key: expected, "n": 1}
    assert safe({key: value, "n": 1}) == {key: expected, "n": 1}


def test_messages_are_made_safe() -> None:
    """Every URL in a text, and nothing else of it."""
    said = "401 for url 'https://user:word@h/a?key=1&b=2' and <http://h/c>; see https://h/d?e=f#g."

    assert (
        without_secrets(said)
        == "401 for url 'https://h/a?key=REDACTED&b=REDACTED' and <http://h/c>; see https://h/d?e=REDACTED"
    )
    assert without_secrets("no address") == "no address"


SECRET = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=4).map(lambda text: f"S3CR3T{text}")


@given(
    SECRET, st.lists(st.tuples(st.sampled_from(["key", "q", "", "X-Sig"]), SECRET), min_size=1), st.sampled_from("&;")
)
def test_no_secret_is_left(word: str, pairs: list[tuple[str, str]], separator: str) -> None:
    """Whatever the query looks like, no value survives, and a second time changes nothing."""
    url = f"https://user:{word}@host/path?" + separator.join(
        f"{name}={value}" if name else value for name, value in pairs
    )
    once = safe({"url.full": url})

    assert once is not None
    assert "S3CR3T" not in once["url.full"]
    assert "S3CR3T" not in without_secrets(f"failed: {url}")
    assert safe(once) == once
