"""OTLP bytes of text, values and attributes. Total: whatever a value is, its neighbours are written.

Lone surrogates become ``?``; integers beyond 64 bits become decimal text; nesting deeper than ``MAX_DEPTH`` and values
of types the protocol does not have are left out, as one such value would otherwise make the whole batch unreadable.

Field numbers: opentelemetry/proto/common/v1/common.proto (OTLP 1.x).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

__all__ = ["BYTE", "MAX_DEPTH", "attributes", "field", "fixed32", "fixed64", "text", "value", "varint"]

MAX_DEPTH = 24
"""Protobuf readers refuse messages nested deeper than 100; a level here is up to three of theirs, a span seven."""

fixed64 = struct.Struct("<Q").pack
fixed32 = struct.Struct("<I").pack
_double = struct.Struct("<d").pack
_MAX_CACHED_TEXT = 128

BYTE = tuple(bytes((number,)) for number in range(256))


def varint(number: int) -> bytes:
    """A non-negative number of at most 64 bits."""
    if number < 0x80:
        return BYTE[number]
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(tag: int, body: bytes) -> bytes:
    """A length-delimited field."""
    size = len(body)
    return BYTE[tag] + (BYTE[size] if size < 0x80 else varint(size)) + body


def text(tag: int, string: str) -> bytes:
    """A string field."""
    return field(tag, string.encode("utf-8", "replace"))


@lru_cache(maxsize=1024)
def _short_key(key: str) -> bytes:
    return text(0x0A, key)


def _key(key: str) -> bytes:
    return _short_key(key) if len(key) <= _MAX_CACHED_TEXT else text(0x0A, key)


def _pair(key: str, any_value: bytes) -> bytes:
    """A KeyValue and its length; its tag is the field's it stands in."""
    body = _key(key) + field(0x12, any_value)
    return varint(len(body)) + body


@lru_cache(maxsize=4096)
def _text_pair(key: str, string: str) -> bytes:
    return _pair(key, text(0x0A, string))


@lru_cache(maxsize=1024)
def _double_head(key: str) -> bytes:
    """All of a pair but the eight bytes of its double."""
    return _pair(key, b"\x21" + bytes(8))[:-8]


@lru_cache(maxsize=1024)
def _int_head(key: str, size: int) -> bytes:
    """All of a pair but the ``size`` bytes of its integer."""
    return _pair(key, b"\x18" + bytes(size))[:-size]


def _integer(number: int) -> bytes:
    if -(1 << 63) <= number < 1 << 63:
        return b"\x18" + varint(number & 0xFFFFFFFFFFFFFFFF)
    return text(0x0A, str(number))


def _sequence(given: Sequence[Any], depth: int) -> bytes:
    below = _below(depth)
    return field(0x2A, b"".join([field(0x0A, value(one, below)) for one in given]))


def _mapping(given: Mapping[Any, Any], depth: int) -> bytes:
    below = _below(depth)
    pairs = [text(0x0A, str(key)) + field(0x12, value(one, below)) for key, one in given.items()]
    return field(0x32, b"".join([field(0x0A, pair) for pair in pairs]))


def _below(depth: int) -> int:
    if depth >= MAX_DEPTH:
        raise ValueError("nested too deeply")
    return depth + 1


_WRITERS: Mapping[type, Callable[[Any, int], bytes]] = {
    str: lambda string, _: text(0x0A, string),
    bool: lambda truth, _: b"\x10\x01" if truth else b"\x10\x00",  # before int, which it is a kind of
    int: lambda number, _: _integer(number),
    float: lambda number, _: b"\x21" + _double(number),
    bytes: lambda data, _: field(0x3A, data),
    bytearray: lambda data, _: field(0x3A, bytes(data)),
    tuple: _sequence,
    Sequence: _sequence,
    Mapping: _mapping,
}
"""By type, or by the first of them that a value is a kind of."""


def value(given: Any, depth: int = 0) -> bytes:
    """The body of an ``AnyValue``.

    Raises:
        TypeError: the protocol has no such type.
        ValueError: nested too deeply, or an integer that Python does not print.
    """
    if given is None:
        return b""
    write = _WRITERS.get(type(given)) or next((it for kind, it in _WRITERS.items() if isinstance(given, kind)), None)
    if write is None:
        raise TypeError(f"OTLP has no type for {type(given).__qualname__}")
    return write(given, depth)


def _plain(given: Mapping[str, Any]) -> Mapping[str, Any]:
    # The SDK's containers are slow to iterate; their copy is a plain dict.
    copy = getattr(given, "copy", None)
    return given if copy is None else copy()


def attributes(given: Mapping[str, Any] | None, tag: int) -> bytes:
    """KeyValues with ``tag``."""
    if not given:
        return b""
    each = BYTE[tag]
    parts = [b""]
    for key, one in _plain(given).items():
        try:
            kind = type(one)
            short = len(key) <= _MAX_CACHED_TEXT
            if kind is str and short and len(one) <= _MAX_CACHED_TEXT:
                parts.append(_text_pair(key, one))
            elif kind is float and short:
                parts.append(_double_head(key) + _double(one))
            elif kind is int and 0 <= one < 1 << 63 and short:
                number = varint(one)
                parts.append(_int_head(key, len(number)) + number)
            else:
                parts.append(_pair(key, value(one)))
        except (AttributeError, TypeError, ValueError):
            continue  # this attribute only
    return each.join(parts)
