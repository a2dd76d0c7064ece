"""URLs in the spans of HTTP instrumentations, without credentials and without values of queries.

The official instrumentations remove a user's name and password and the values of four query parameters (read in
``opentelemetry.util.http`` 0.66b1). A query also carries keys, signatures, tokens and questions under other names, so
that here names stay and no value does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from stagelight._guard import guard

__all__ = ["SecretUrls", "is_ours", "remove_secrets", "safe", "without_secrets"]

_OUR_SCOPE: Final = "stagelight"
_REMOVED: Final = "REDACTED"

_IN_TEXT: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s\"'<>]+")
_USER: Final = re.compile(r"(?<=://)[^/?#\s]*@")
_PARAMETER: Final = re.compile(r"(?:([^&;=]*)=)[^&;]*|[^&;=]+")


class SecretUrls(SpanProcessor):
    """Removes secrets from the URLs a span starts with: for whoever else reads the spans."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's signature
        if not is_ours(span):
            with guard("remove secrets of a URL"):
                remove_secrets(span)


def is_ours(span: ReadableSpan) -> bool:
    """Whether Stagelight made the span: those carry no URL."""
    scope = span.instrumentation_scope
    return scope is not None and scope.name == _OUR_SCOPE


def remove_secrets(span: Any, _: object = None) -> None:
    """Replace the URLs of a span that has not ended; also a hook of the official instrumentations of servers."""
    for key, value in _unsafe(getattr(span, "attributes", None)):
        span.set_attribute(key, value)


def safe(attributes: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The attributes of a span that has ended, its URLs made safe."""
    changed = dict(_unsafe(attributes))
    return {**attributes, **changed} if attributes and changed else attributes


def _unsafe(attributes: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    for key, clean in _CLEAN.items():
        value = attributes.get(key) if attributes else None
        if isinstance(value, str) and clean(value) != value:
            yield key, clean(value)


def without_secrets(text: str) -> str:
    """A message with the URLs in it made safe."""
    return _IN_TEXT.sub(lambda found: _url(found[0]), text) if "://" in text else text


def _url(url: str) -> str:
    head, mark, query = _USER.sub("", url).partition("#")[0].partition("?")
    return f"{head}{mark}{_query(query)}"


def _query(query: str) -> str:
    """Names of parameters stay; what has no name is a value."""
    return _PARAMETER.sub(lambda found: f"{found[1]}={_REMOVED}" if found[1] is not None else _REMOVED, query)


_CLEAN: Final[Mapping[str, Callable[[str], str]]] = {
    "url.full": _url,
    "http.url": _url,
    "http.target": _url,
    "url.query": _query,
}
