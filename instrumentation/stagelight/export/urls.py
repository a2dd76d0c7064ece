"""URLs in the spans of HTTP instrumentations, without credentials and without values of queries.

The official instrumentations remove a user's name and password and the values of four query parameters (read in
``opentelemetry.util.http`` 0.66b1). A query also carries keys, signatures, tokens and questions under other names, so
that here names stay and no value does.
"""

from __future__ import annotations

import re
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor

from stagelight._guard import guard

__all__ = ["SecretUrls", "without_secrets"]

_REMOVED: Final = "REDACTED"
_URLS: Final = ("url.full", "http.url", "http.target")
_QUERIES: Final = ("url.query",)

_IN_TEXT: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s\"'<>]+")
_USER: Final = re.compile(r"(?<=://)[^/?#\s]*@")
_PARAMETER: Final = re.compile(r"(?:([^&;=]*)=)[^&;]*|[^&;=]+")


class SecretUrls(SpanProcessor):
    """Removes secrets from the URLs a span starts with."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's signature
        given = span.attributes
        if not given:
            return
        with guard("remove secrets of a URL"):
            for key in _URLS:
                _replace(span, key, given.get(key), is_query=False)
            for key in _QUERIES:
                _replace(span, key, given.get(key), is_query=True)


def _replace(span: Span, key: str, value: object, *, is_query: bool) -> None:
    if isinstance(value, str) and value:
        clean = _query(value) if is_query else _url(value)
        if clean != value:
            span.set_attribute(key, clean)


def without_secrets(text: str) -> str:
    """A message with the URLs in it made safe."""
    return _IN_TEXT.sub(lambda found: _url(found[0]), text) if "://" in text else text


def _url(url: str) -> str:
    head, mark, query = _USER.sub("", url).partition("#")[0].partition("?")
    return f"{head}{mark}{_query(query)}"


def _query(query: str) -> str:
    """Names of parameters stay; what has no name is a value."""
    return _PARAMETER.sub(lambda found: f"{found[1]}={_REMOVED}" if found[1] is not None else _REMOVED, query)
