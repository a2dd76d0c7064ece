"""Protobuf bodies looked at before they are parsed: how many entries they would become."""

from __future__ import annotations

from functools import cache
from typing import Any, Final, TypeAlias

from stagelight.embedded.refusal import TooLarge

__all__ = ["MAX_GROUPS", "MAX_ITEMS", "MAX_WEIGHT", "NotProtobufError", "check_entries"]

MAX_GROUPS: Final = 30_000
"""Parts of one request above its items; a resource with one scope has three. SDKs send one resource, collectors
one for each program."""
MAX_ITEMS: Final = 100_000
"""Spans, log records or metrics of one request. SDKs send 512, collectors 8,192 by default."""
MAX_WEIGHT: Final = 5_000_000
"""Fields of one request, messages counted four times: about 10,000 spans with 50 attributes each."""

_MESSAGE_WEIGHT: Final = 4  # an empty message has 2 bytes on the wire and about 50 in memory
_SMALL_BYTES: Final = 1 << 20  # cannot hold enough fields inside its items to matter
_ITEM_DEPTH: Final = 2  # a resource is at depth 0, a scope at 1

_Fields: TypeAlias = dict[int, Any]
"""Tag -> the fields of the message under it, or ``_PACKED``."""
_PACKED: Final[_Fields] = {}
_LENGTH_DELIMITED: Final = 2
_FIXED_BYTES: Final = {1: 8, 5: 4}


class NotProtobufError(ValueError):
    """A body cannot be parsed; the message says why."""


def check_entries(body: bytes, request: Any) -> None:
    """Refuse a body whose parsed form would be out of all proportion to its size.

    Entries are counted without being made; the content of items is looked into only when the body is large.

    Args:
        body: a request in protobuf.
        request: descriptor of its message.

    Raises:
        TooLarge: it has more entries than allowed.
        NotProtobufError: it is no protobuf.
    """
    try:
        _walk(body, _fields(request), most_depth=_ITEM_DEPTH if len(body) <= _SMALL_BYTES else 1 << 30)
    except IndexError:
        raise NotProtobufError("it ends too early") from None


@cache
def _fields(message: Any) -> _Fields:
    """What of a message has to be counted. Messages contain each other: a table is known before it is filled."""
    return _fill_in(message, {})


def _fill_in(message: Any, known: dict[str, _Fields]) -> _Fields:
    fields = known[message.full_name] = {}
    for field in message.fields:
        tag = field.number << 3 | _LENGTH_DELIMITED
        if field.message_type is not None:
            inner = field.message_type
            fields[tag] = known[inner.full_name] if inner.full_name in known else _fill_in(inner, known)
        elif field.cpp_type != field.CPPTYPE_STRING:
            fields[tag] = _PACKED
    return fields


def _walk(body: bytes, fields: _Fields, *, most_depth: int) -> None:  # noqa: PLR0912, PLR0915  (a call per field would cost more than parsing)
    """Visit every field down to a depth. A loop with a stack of its own: it is fast, and nesting cannot exhaust it."""
    position, end = 0, len(body)
    weight = groups = items = 0
    above: list[tuple[int, _Fields]] = []
    while True:
        while position == end:
            if not above:
                return
            end, fields = above.pop()
        tag = body[position]
        position += 1
        if tag > 0x7F:
            tag, position = _varint(body, position - 1)
        weight += 1
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            length = body[position]
            position += 1
            if length > 0x7F:
                length, position = _varint(body, position - 1)
            inner = fields.get(tag)
            if inner is None:
                position += length
            elif inner is _PACKED:
                position += length
                weight += length >> 3
            else:
                weight += _MESSAGE_WEIGHT
                depth = len(above)
                if depth < _ITEM_DEPTH:
                    groups += 1
                elif depth == _ITEM_DEPTH:
                    items += 1
                if depth >= most_depth:
                    position += length
                else:
                    above.append((end, fields))
                    if position + length > end:
                        raise NotProtobufError("a field is longer than its message")
                    end, fields = position + length, inner
            if groups > MAX_GROUPS or items > MAX_ITEMS or weight > MAX_WEIGHT:
                raise _too_many(groups, items)
        elif kind == 0:
            while body[position] > 0x7F:
                position += 1
            position += 1
        elif kind in _FIXED_BYTES:
            position += _FIXED_BYTES[kind]
        else:
            raise NotProtobufError(f"it has a field of wire type {kind}")
        if position > end:
            raise NotProtobufError("a field is longer than its message")


def _varint(body: bytes, position: int) -> tuple[int, int]:
    """A number of several bytes, and where the next field begins."""
    number = shift = 0
    while shift < 70:
        byte = body[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte <= 0x7F:
            return number, position
        shift += 7
    raise NotProtobufError("a number has more than 10 bytes")


def _too_many(groups: int, items: int) -> TooLarge:
    if groups > MAX_GROUPS:
        return TooLarge(f"the request has more than {MAX_GROUPS} parts of resources and scopes: send fewer at a time")
    if items > MAX_ITEMS:
        return TooLarge(f"the request has more than {MAX_ITEMS} items: send fewer at a time")
    return TooLarge(f"the request has too many entries to be held (weight above {MAX_WEIGHT}): send fewer at a time")
