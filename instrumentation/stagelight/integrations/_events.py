"""Server-sent events that the caller takes apart, or a client hands on as bytes: read while they pass."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Final

from stagelight.facts import Response
from stagelight.integrations._watching import Chunks

__all__ = ["EventBytes"]

_LONGEST: Final = 1_048_576
"""Bytes of one event; after a longer one nothing more is read."""


class EventBytes:
    """The bytes of events in JSON; each event goes to what takes the client's own.

    Args:
        items: takes the events.
    """

    streamed: ClassVar[bool] = True

    def __init__(self, items: Chunks) -> None:
        self.finished = False
        self.failure: str | None = None
        self._items = items
        self._rest = bytearray()
        self._readable = True

    def take(self, chunk: Any) -> bool:
        if not self._readable:
            return bool(chunk)
        self._rest += chunk
        *lines, rest = bytes(self._rest).split(b"\n") if b"\n" in chunk else (bytes(self._rest),)
        self._rest = bytearray(rest)
        self._readable = len(rest) <= _LONGEST
        has_content = False
        for line in lines:
            has_content = self._line(line) or has_content
        self.finished, self.failure = self._items.finished, self._items.failure
        return has_content

    def _line(self, line: bytes) -> bool:
        name, _, value = line.partition(b":")
        if name != b"data":
            return False
        try:
            event = json.loads(value)
        except ValueError:  # the last one is no JSON
            return False
        return self._items.take(event)

    def response(self) -> Response | None:
        return self._items.response()
