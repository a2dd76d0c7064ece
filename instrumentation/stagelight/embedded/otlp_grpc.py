"""OTLP over gRPC: the ``Export`` methods of the trace, metrics and logs services, plain or gzip."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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
        options=(
            ("grpc.max_receive_message_length", intake.limits.wire_bytes + _FRAME_BYTES),
            # We decompress ourselves, with a cap: the library's own limit counts compressed and plain size alike.
            ("grpc.per_message_decompression", 0),
            # Otherwise two servers could share a port, each getting half of the data.
            ("grpc.so_reuseport", 0),
        )
    )
    server.add_generic_rpc_handlers(
        tuple(
            grpc.method_handlers_generic_handler(
                signal.service, {"Export": grpc.unary_unary_rpc_method_handler(_export(signal, intake, access))}
            )
            for signal in SIGNALS
        )
    )
    return server


def _export(signal: Signal, intake: Intake, access: Access) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def export(message: bytes, context: Any) -> bytes:
        try:
            access.check_bearer(dict(context.invocation_metadata() or ()).get("authorization"))
            with intake.budget.hold() as holding:
                body = await intake.inflate(message, holding)
                batch = await intake.store(signal, body, "protobuf")
        except Refused as refusal:
            details = (("grpc-status-details-bin", refusal.status().SerializeToString()),)
            return bytes(await context.abort(_CODES[refusal.rpc_code], refusal.message, trailing_metadata=details))
        return signal.answer("protobuf", rejected=batch.rejected, reason=batch.reason)

    return export
