"""OTLP over HTTP: ``POST /v1/traces``, ``/v1/metrics`` and ``/v1/logs``, protobuf or JSON, plain or gzip."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stagelight.embedded.answers import JSON, PROTOBUF, header, otlp_encoding, send_answer, send_refusal
from stagelight.embedded.inflate import Body, Holding
from stagelight.embedded.intake import Intake
from stagelight.embedded.refusal import (
    Malformed,
    MethodNotAllowed,
    NotFound,
    Refused,
    TimedOut,
    TooLarge,
    UnsupportedMedia,
)
from stagelight.embedded.signals import SIGNALS, Encoding, Signal

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["OtlpHttp"]

_SIGNALS = {signal.path: signal for signal in SIGNALS}


class OtlpHttp:
    """The ASGI application behind ``/v1/``.

    A success is answered after the commit. Every refusal carries a ``google.rpc.Status`` in the encoding of the
    request; those worth a retry carry ``Retry-After``.
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            signal, encoding = _accepted(scope)
            with self._intake.budget.hold() as holding:
                body = await self._read(scope, receive, holding)
                batch = await self._intake.store(signal, body, encoding)
        except Refused as refusal:
            await send_refusal(scope, send, refusal)
            return
        answer = signal.answer(encoding, rejected=batch.rejected, reason=batch.reason)
        await send_answer(send, 200, PROTOBUF if encoding == "protobuf" else JSON, answer)

    async def _read(self, scope: Scope, receive: Receive, holding: Holding) -> bytes:
        limits = self._intake.limits
        announced = header(scope, b"content-length")
        if announced.isdigit() and int(announced) > limits.wire_bytes:
            raise TooLarge(f"the request is larger than {limits.wire_bytes} bytes as sent")
        body = Body(compressed=_is_compressed(scope), wire_limit=limits.wire_bytes, limit=limits.body_bytes)
        try:
            async with asyncio.timeout(limits.body_timeout_s):
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Malformed("the client went away before its request was complete")
                    body.feed(message.get("body", b""))
                    holding.grow_to(body.size)
                    more = message.get("more_body", False)
        except TimeoutError:
            raise TimedOut(f"the request was not complete after {limits.body_timeout_s:g} s") from None
        return body.finish()


def _accepted(scope: Scope) -> tuple[Signal, Encoding]:
    signal = _SIGNALS.get(scope["path"])
    if signal is None:
        raise NotFound(f"OTLP is received at {', '.join(_SIGNALS)}, not at {scope['path'][:80]}")
    if scope["method"] != "POST":
        raise MethodNotAllowed(f"{signal.path} takes POST, not {scope['method'][:20]}")
    encoding = otlp_encoding(scope)
    if encoding is None:
        received = header(scope, b"content-type").decode("latin-1")[:80]
        raise UnsupportedMedia(f"Content-Type {received!r}: accepted are {PROTOBUF} and {JSON}")
    return signal, encoding


def _is_compressed(scope: Scope) -> bool:
    received = header(scope, b"content-encoding").strip().lower()
    if received in {b"", b"identity"}:
        return False
    if received == b"gzip":
        return True
    raise UnsupportedMedia(f"Content-Encoding {received.decode('latin-1')[:80]!r}: accepted are gzip and identity")
