"""OTLP's key-value lists as plain Python values and JSON text."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage

from stagelight.conventions import attributes as names
from stagelight.embedded.batch import Resource

__all__ = [
    "MAX_ATTRIBUTE_CHARACTERS",
    "MAX_PROMOTED_CHARACTERS",
    "MAX_TIME_NS",
    "MalformedError",
    "Slots",
    "check_text",
    "decode",
    "fill",
    "json_text",
    "moment",
    "plain",
    "resource_of",
    "scope_of",
]

Slots = Mapping[str, tuple[int, type]]
"""Attribute -> position in a row and the type it must have to go there."""

MAX_ATTRIBUTE_CHARACTERS: Final = 1 << 20
"""Longest value of one attribute, body or name; an item with a longer one is rejected."""
MAX_PROMOTED_CHARACTERS: Final = 512
"""Longer texts stay in the JSON, so that nobody can bloat the indexes."""
MAX_TIME_NS: Final = (1 << 63) - 1

_UNKNOWN_SERVICE = "unknown_service"  # what the OpenTelemetry SDKs send for a program without a name

# Which member of the AnyValue union a key had last time: asking for it first spares the slow WhichOneof.
_fields: dict[str, str] = {}
_MAX_FIELDS = 4096
_SCALARS = frozenset({"string_value", "int_value", "double_value", "bool_value"})


class MalformedError(ValueError):
    """An item cannot be stored; the message says why without repeating its content."""


def plain(value: AnyValue) -> Any:
    """One OTLP value as str, bool, int, float, list, dict or None; bytes as base64 text.

    Raises:
        MalformedError: not a finite number.
    """
    field = value.WhichOneof("value")
    if field is None:
        return None
    if field == "array_value":
        return [plain(item) for item in value.array_value.values]
    if field == "kvlist_value":
        return {item.key: plain(item.value) for item in value.kvlist_value.values}
    content = getattr(value, field)
    if field == "bytes_value":
        return base64.b64encode(content).decode()
    if field == "double_value" and content - content != 0.0:
        raise MalformedError("an attribute is not a finite number")
    return content


def decode(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    """A list of OTLP attributes as a dict; of equal keys the last one wins.

    Raises:
        MalformedError: a value is not a finite number.
    """
    return {item.key: plain(item.value) for item in attributes}


def fill(row: list[Any], attributes: Iterable[KeyValue], slots: Slots) -> str:
    """Put the attributes that have a slot into the row; the rest as JSON text. The hot loop of the store.

    Raises:
        MalformedError: a value is not a finite number, or too long.
    """
    rest = {}
    for item in attributes:
        key = item.key
        value = item.value
        field = _fields.get(key, "string_value")
        content = getattr(value, field)
        if not content:  # another member of the union, or the empty value of this one
            content = plain(value)
            field = value.WhichOneof("value") or "string_value"
            if field in _SCALARS:
                _remember(key, field)
        elif content.__class__ is float and content - content:  # only infinities and NaN differ from themselves
            raise MalformedError("an attribute is not a finite number")
        slot = slots.get(key)
        if slot is not None and content.__class__ is slot[1] and _is_short(content):
            row[slot[0]] = content
        elif slot is not None and slot[1] is float and content.__class__ is int:
            row[slot[0]] = float(content)
        else:
            rest[key] = content
    return json_text(rest)


def _is_short(content: Any) -> bool:
    return content.__class__ is not str or len(content) <= MAX_PROMOTED_CHARACTERS


def _remember(key: str, field: str) -> None:
    if len(_fields) >= _MAX_FIELDS:
        _fields.clear()
    _fields[key] = field


def json_text(attributes: Mapping[str, Any]) -> str:
    """Attributes as JSON.

    Raises:
        MalformedError: one of them is too long.
    """
    text = orjson.dumps(attributes)
    if len(text) > MAX_ATTRIBUTE_CHARACTERS:
        for key, value in attributes.items():
            check_text(key, "the name of an attribute")
            if len(orjson.dumps(value)) > MAX_ATTRIBUTE_CHARACTERS:
                raise MalformedError(f"an attribute is longer than {MAX_ATTRIBUTE_CHARACTERS} bytes")
    return text.decode()


def check_text(text: str, what: str) -> str:
    """The text itself.

    Raises:
        MalformedError: it is too long.
    """
    if len(text) > MAX_ATTRIBUTE_CHARACTERS:
        raise MalformedError(f"{what} is longer than {MAX_ATTRIBUTE_CHARACTERS} characters")
    return text


def moment(time_ns: int, what: str) -> int:
    """The time itself.

    Raises:
        MalformedError: it does not fit a signed 64-bit number.
    """
    if time_ns > MAX_TIME_NS:
        raise MalformedError(f"{what} is out of range")
    return time_ns


def resource_of(message: ResourceMessage) -> Resource:
    """The sending program.

    Raises:
        MalformedError: one of its attributes is.
    """
    attributes = decode(message.attributes)
    json_text(attributes)
    service = attributes.get(names.SERVICE_NAME)
    return Resource(
        service=service if isinstance(service, str) and service else _UNKNOWN_SERVICE,
        json=orjson.dumps(attributes, option=orjson.OPT_SORT_KEYS).decode(),
    )


def scope_of(message: InstrumentationScope) -> str:
    """Name and version of the instrumenting library, as ``name@version``.

    Raises:
        MalformedError: it is too long.
    """
    name = f"{message.name}@{message.version}" if message.version else message.name
    return check_text(name, "the name of a scope")
