"""OTLP's key-value lists as plain Python values and JSON text."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage

from stagelight.conventions import attributes as names
from stagelight.embedded.batch import Resource

__all__ = [
    "MAX_AHEAD_NS",
    "MAX_ATTRIBUTE_CHARACTERS",
    "MAX_NAME_CHARACTERS",
    "MAX_PROMOTED_CHARACTERS",
    "MAX_RESOURCE_BYTES",
    "MalformedError",
    "Plans",
    "check_text",
    "decode",
    "fill",
    "json_text",
    "moment",
    "plain",
    "resource_of",
    "scope_of",
]

MAX_ATTRIBUTE_CHARACTERS: Final = 1 << 20
"""Longest value of one attribute, body or name; an item with a longer one is rejected."""
MAX_NAME_CHARACTERS: Final = 1 << 10
"""Longest name of an attribute; an item with a longer one is rejected."""
MAX_RESOURCE_BYTES: Final = 1 << 16
"""Largest resource as JSON; all items of a larger one are rejected."""
MAX_PROMOTED_CHARACTERS: Final = 512
"""Longer texts stay in the JSON, so that nobody can bloat the indexes."""
MAX_AHEAD_NS: Final = 3600 * 1_000_000_000
"""How far ahead of our clock a time may be. Retention deletes the oldest first: later times would outlive real data."""

_UNKNOWN_SERVICE = "unknown_service"  # what the OpenTelemetry SDKs send for a program without a name

_MAX_PLANS = 4096
_MAX_PLANNED_CHARACTERS = 128  # longer names are not worth remembering: together they could take megabytes
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
        MalformedError: a value is not a finite number, or a name is too long.
    """
    return {_name(item.key): plain(item.value) for item in attributes}


def _name(key: str) -> str:
    if len(key) > MAX_NAME_CHARACTERS:
        raise MalformedError(f"the name of an attribute is longer than {MAX_NAME_CHARACTERS} characters")
    return key


class Plans(dict[str, tuple[str, int, type | None]]):
    """Attribute -> the member of the ``AnyValue`` union it had last time, its position in a row, and its column's type.

    Asking for the member a key usually has spares the slow ``WhichOneof``. Bounded: keys are what senders say.
    """

    def __init__(self, columns: Sequence[str], promoted: Mapping[str, tuple[str, type]]) -> None:
        super().__init__()
        self._slots = {key: (columns.index(column), kind) for key, (column, kind) in promoted.items()}

    def __missing__(self, key: str) -> tuple[str, int, type | None]:
        return self.note(_name(key), "string_value")

    def note(self, key: str, field: str) -> tuple[str, int, type | None]:
        """Remember the member that a key has now."""
        if len(key) > _MAX_PLANNED_CHARACTERS:
            return field, 0, None
        if len(self) >= _MAX_PLANS:
            self.clear()
        plan = self[key] = (field, *self._slots.get(key, (0, None)))
        return plan


def fill(row: list[Any], attributes: Iterable[KeyValue], plans: Plans) -> str:
    """Put the attributes that have a column into the row; the rest as JSON text. The hot loop of the store.

    Raises:
        MalformedError: a value is not a finite number, or too long.
    """
    rest = {}
    for item in attributes:
        key = item.key
        value = item.value
        field, position, kind = plans[key]
        content: Any = getattr(value, field)
        if not content:  # another member of the union, or the empty value of this one
            content = plain(value)
            other = value.WhichOneof("value")
            if other != field and other in _SCALARS:
                plans.note(key, other)
        elif content.__class__ is float and content - content:  # only infinities and NaN differ from themselves
            raise MalformedError("an attribute is not a finite number")
        if content.__class__ is not kind:
            if kind is float and content.__class__ is int:
                row[position] = float(content)
            else:
                rest[key] = content
        elif isinstance(content, str) and len(content) > MAX_PROMOTED_CHARACTERS:
            rest[key] = content
        else:
            row[position] = content
    return json_text(rest)


def json_text(attributes: Mapping[str, Any]) -> str:
    """Attributes as JSON.

    Raises:
        MalformedError: one of them is too long.
    """
    text = orjson.dumps(attributes)
    if len(text) > MAX_ATTRIBUTE_CHARACTERS:
        for value in attributes.values():
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
        MalformedError: it is too far in the future.
    """
    if time_ns > time.time_ns() + MAX_AHEAD_NS:
        raise MalformedError(f"{what} is more than an hour ahead of this machine's clock")
    return time_ns


def resource_of(message: ResourceMessage) -> Resource:
    """The sending program.

    Raises:
        MalformedError: one of its attributes is, or all together are too long.
    """
    attributes = decode(message.attributes)
    text = orjson.dumps(attributes, option=orjson.OPT_SORT_KEYS)
    if len(text) > MAX_RESOURCE_BYTES:
        raise MalformedError(f"a resource is longer than {MAX_RESOURCE_BYTES} bytes")
    service = attributes.get(names.SERVICE_NAME)
    return Resource(
        service=service if isinstance(service, str) and service else _UNKNOWN_SERVICE,
        json=text.decode(),
    )


def scope_of(message: InstrumentationScope) -> str:
    """Name and version of the instrumenting library, as ``name@version``.

    Raises:
        MalformedError: it is too long.
    """
    name = f"{message.name}@{message.version}" if message.version else message.name
    return check_text(name, "the name of a scope")
