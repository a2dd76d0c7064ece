"""OTLP over gRPC: the ``Export`` methods of the trace, metrics and logs services, plain or gzip."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc  # type: ignore[import-untyped, unused-ignore]  # ships no types
import grpc.aio  # type: ignore[import-untyped, unused-ignore]

from stagelight.embedded.access import Access
from stagelight.embedded.intake import Intake
from stagelight.embedded.refusal import Refused
from stagelight.embedded.signals import SIGNALS, Signal

__all__ = ["otlp_grpc_server"]

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_FRAME_BYTES = 64  # what the gRPC framing may add to a message that just fits


def otlp_grpc_server(intake: Intake, access: Access) -> Any:
    """A ``grpc.aio.Server`` with the three services; the caller adds the port and starts it.

    A success is answered after the commit. What is worth a retry is UNAVAILABLE with ``RetryInfo``.
    """
    server = grpc.aio.server(
        interceptors=(_Doorman(access),),
        maximum_concurrent_rpcs=intake.limits.rpcs,
        options=(
            ("grpc.max_receive_message_length", intake.limits.wire_bytes + _FRAME_BYTES),
            # We decompress ourselves, with a cap: the library's own limit counts compressed and plain size alike.
            ("grpc.per_message_decompression", 0),
            # Otherwise two servers could share a port, each getting half of the data.
            ("grpc.so_reuseport", 0),
        ),
    )
    server.add_generic_rpc_handlers(
        tuple(
            grpc.method_handlers_generic_handler(
                signal.service, {"Export": grpc.unary_unary_rpc_method_handler(_export(signal, intake))}
            )
            for signal in SIGNALS
        )
    )
    return server


class _Doorman(grpc.aio.ServerInterceptor):  # type: ignore[misc, unused-ignore]
    """Refuses calls without the token before their message is read."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        try:
            self._access.check_bearer(dict(details.invocation_metadata or ()).get("authorization"))
        except Refused as refusal:
            # As a stream: for a handler of single messages the library reads the message first.
            return grpc.stream_unary_rpc_method_handler(partial(_refuse, refusal))
        return await continuation(details)


async def _refuse(refusal: Refused, _messages: Any, context: Any) -> bytes:
    details = (("grpc-status-details-bin", refusal.status().SerializeToString()),)
    return bytes(await context.abort(_CODES[refusal.rpc_code], refusal.message, trailing_metadata=details))


def _export(signal: Signal, intake: Intake) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def export(message: bytes, context: Any) -> bytes:
        try:
            with intake.budget.hold() as holding:
                body = await intake.inflate(message, holding)
                batch = await intake.store(signal, body, "protobuf")
        except Refused as refusal:
            return await _refuse(refusal, None, context)
        return signal.answer("protobuf", rejected=batch.rejected, reason=batch.reason)

    return export
