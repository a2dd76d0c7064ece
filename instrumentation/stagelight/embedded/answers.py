"""HTTP answers without a framework: headers read, bodies and refusals sent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import orjson

from stagelight.embedded.refusal import MethodNotAllowed, Refused, TimedOut, Unauthenticated
from stagelight.embedded.signals import Encoding

if TYPE_CHECKING:
    from starlette.types import Scope, Send

__all__ = [
    "JSON",
    "OTLP_PREFIX",
    "PROTOBUF",
    "SECURITY_HEADERS",
    "header",
    "otlp_encoding",
    "send_answer",
    "send_refusal",
]

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
OTLP_PREFIX = "/v1/"

_ENCODINGS: dict[bytes, Encoding] = {PROTOBUF.encode(): "protobuf", JSON.encode(): "json"}

SECURITY_HEADERS: tuple[tuple[str, str], ...] = (
    (
        "content-security-policy",
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    ),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
)
"""Sent with every response. There are no CORS headers: no other site may read or send anything."""


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a request header (lower-case name), empty when absent."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""


def otlp_encoding(scope: Scope) -> Encoding | None:
    """The encoding that the request's Content-Type names; ``None`` when OTLP has no such type."""
    return _ENCODINGS.get(header(scope, b"content-type").split(b";")[0].strip().lower())


async def send_answer(
    send: Send, status: int, content_type: str, body: bytes, *, headers: Iterable[tuple[str, str]] = ()
) -> None:
    """Send a whole response."""
    fields = [("content-type", content_type), ("content-length", str(len(body))), *headers]
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def send_refusal(scope: Scope, send: Send, refusal: Refused) -> None:
    """Refuse a request: to exporters in the form and encoding of OTLP, to people as text."""
    headers = [("cache-control", "no-store")]
    if refusal.retry_after_s is not None:
        headers.append(("retry-after", str(refusal.retry_after_s)))
    is_otlp = scope["path"].startswith(OTLP_PREFIX)
    if isinstance(refusal, MethodNotAllowed):
        headers.append(("allow", "POST" if is_otlp else "GET, HEAD"))
    elif isinstance(refusal, Unauthenticated):
        headers.append(("www-authenticate", "Bearer"))
    elif isinstance(refusal, TimedOut):
        headers.append(("connection", "close"))
    if not is_otlp:
        content_type, body = "text/plain; charset=utf-8", refusal.message.encode()
    elif otlp_encoding(scope) == "protobuf":
        content_type, body = PROTOBUF, refusal.status().SerializeToString()
    else:
        content_type, body = JSON, orjson.dumps({"code": refusal.rpc_code, "message": refusal.message})
    await send_answer(send, refusal.http_status, content_type, body, headers=headers)
