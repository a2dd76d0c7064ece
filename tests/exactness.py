"""Bodies of a simulated provider against the models of its official client: nothing unknown, nothing missing."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Union, get_args, get_origin

import pydantic

__all__ = ["adapter", "assert_exact", "differences"]


def differences(value: Any, shape: Any, where: str = "$", *, complete: bool = False) -> list[str]:
    """Fields of a body that the client's model of it does not have; with ``complete`` also those the body lacks."""
    arguments = get_args(shape)
    if isinstance(value, list):
        item = arguments[0] if get_origin(shape) is list else next((a for a in arguments if get_origin(a) is list), Any)
        item = get_args(item)[0] if get_origin(item) is list else item
        found = [differences(one, item, f"{where}[{at}]", complete=complete) for at, one in enumerate(value)]
        return [name for names in found for name in names]
    if not isinstance(value, dict):
        return []
    if isinstance(shape, type) and issubclass(shape, pydantic.BaseModel):
        return _of_model(value, shape, where, complete)
    if get_origin(shape) is dict or shape is Any or shape is object or not arguments:
        return []
    if get_origin(shape) not in {Union, type(int | str)} and not hasattr(shape, "__metadata__"):
        arguments = arguments[:1]
    shapes = [
        one for one in arguments if get_args(one) or (isinstance(one, type) and issubclass(one, pydantic.BaseModel))
    ]
    fitting = [one for one in shapes if _names_kind(value, one)] or shapes
    return min((differences(value, one, where, complete=complete) for one in fitting), key=len, default=[])


def _of_model(value: dict[str, Any], shape: type[pydantic.BaseModel], where: str, complete: bool) -> list[str]:
    fields = {info.alias or name: info.annotation for name, info in shape.model_fields.items()}
    found = [f"{where}.{name} is unknown" for name in value if name not in fields]
    if complete:
        found += [f"{where}.{name} is missing" for name in fields if name not in value]
    known = [name for name in value if name in fields]
    inside = [differences(value[name], fields[name], f"{where}.{name}", complete=complete) for name in known]
    return found + [name for names in inside for name in names]


def _names_kind(value: dict[str, Any], shape: Any) -> bool:
    """Whether the model's own ``type`` is the body's."""
    if not (isinstance(shape, type) and issubclass(shape, pydantic.BaseModel)):
        return False
    kind = shape.model_fields.get("type")
    return kind is not None and value.get("type") in get_args(kind.annotation)


@cache
def adapter(shape: Any) -> pydantic.TypeAdapter[Any]:
    """A validator; made once per shape, because that takes long."""
    return pydantic.TypeAdapter(shape)


def assert_exact(body: Any, shape: Any, *, complete: bool = False) -> None:
    """The client's model accepts the body strictly, and knows every field of it."""
    adapter(shape).validate_json(json.dumps(body), strict=True)
    assert differences(body, shape, complete=complete) == []
