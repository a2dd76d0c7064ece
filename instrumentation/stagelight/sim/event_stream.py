"""Amazon's binary framing of events, ``application/vnd.amazon.eventstream``: headers, payload and two checksums.

https://docs.aws.amazon.com/transcribe/latest/dg/streaming-setting-up.html#streaming-event-stream
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final
from zlib import crc32

from stagelight.sim.wire import compact

__all__ = ["CONTENT_TYPE", "event_message", "exception_message"]

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
_TEXT: Final = 7  # type of a header's value


def event_message(kind: str, fields: Mapping[str, Any]) -> bytes:
    """Write one event.

    Args:
        kind: name of the event in the service description, such as ``contentBlockDelta``.
        fields: its members.
    """
    return _message({":event-type": kind, ":content-type": "application/json", ":message-type": "event"}, fields)


def exception_message(kind: str, fields: Mapping[str, Any]) -> bytes:
    """Write one error that ends a stream, such as ``modelStreamErrorException``."""
    return _message(
        {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}, fields
    )


def _message(headers: Mapping[str, str], fields: Mapping[str, Any]) -> bytes:
    head = b"".join(_header(name, value) for name, value in headers.items())
    payload = compact(fields)
    sizes = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    begun = sizes + struct.pack("!I", crc32(sizes)) + head + payload
    return begun + struct.pack("!I", crc32(begun))


def _header(name: str, value: str) -> bytes:
    return struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", _TEXT, len(value)) + value.encode()
