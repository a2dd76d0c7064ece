"""The ways in which a request is refused, with their status in HTTP and in gRPC."""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "BUSY_RETRY_S",
    "Busy",
    "Forbidden",
    "Malformed",
    "MethodNotAllowed",
    "Misdirected",
    "NotFound",
    "Refused",
    "TimedOut",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedMedia",
]

BUSY_RETRY_S = 1
"""A full queue is written within about a second."""


class Refused(Exception):  # noqa: N818 - an answer to a client, not a fault of the program
    """A request that is not accepted; the message tells the client why.

    Args:
        message: one sentence for the person who reads the exporter's log.
        retry_after_s: when the client may try again, whole seconds; ``None`` says that trying again is useless.
    """

    http_status: ClassVar[int]
    rpc_code: ClassVar[int]
    """Of ``google.rpc.Code``; equal to gRPC's status code."""

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s

    def status(self) -> Any:
        """The refusal as a ``google.rpc.Status`` message, with ``RetryInfo`` when trying again makes sense."""
        from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped, unused-ignore]

        status = status_pb2.Status(code=self.rpc_code, message=self.message)
        if self.retry_after_s is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.seconds = self.retry_after_s
            status.details.add().Pack(retry)
        return status


class Malformed(Refused):
    """The body is not what it claims to be."""

    http_status, rpc_code = 400, 3


class Unauthenticated(Refused):
    """The token is missing or wrong."""

    http_status, rpc_code = 401, 16


class Forbidden(Refused):
    """A page of another site sent the request."""

    http_status, rpc_code = 403, 7


class NotFound(Refused):
    """There is nothing under this path."""

    http_status, rpc_code = 404, 5


class MethodNotAllowed(Refused):
    """The path exists, for another method."""

    http_status, rpc_code = 405, 12


class TimedOut(Refused):
    """The client did not send its request in time."""

    http_status, rpc_code = 408, 4


class TooLarge(Refused):
    """The body is larger than allowed. In gRPC, without a time to retry, OTLP clients drop the request."""

    http_status, rpc_code = 413, 8


class UnsupportedMedia(Refused):
    """The content type or encoding is not one of those accepted."""

    http_status, rpc_code = 415, 3


class Misdirected(Refused):
    """The Host header names something else than this server (a sign of DNS rebinding)."""

    http_status, rpc_code = 421, 3


class Busy(Refused):
    """More data is waiting than the server may hold."""

    http_status, rpc_code = 429, 14


class Unavailable(Refused):
    """The store cannot write now."""

    http_status, rpc_code = 503, 14
