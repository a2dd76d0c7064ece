"""Whose request it is, read from its headers, cookies, a JWT or a function of the application, as a setting says."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, Final

from stagelight._guard import misuse, quietly
from stagelight._remarks import owner_of
from stagelight._request_rules import EVERYTHING, FIELDS, Rule
from stagelight.facts import Identity

__all__ = ["Headers", "identity_of"]

_MOST_CHARACTERS: Final = 256  # of one value: longer ones are no ids
_MOST_TOKEN_CHARACTERS: Final = 16_384

Headers = Mapping[str, str]
"""Header names in lower case, and their values."""


def identity_of(rules: tuple[Rule, ...], headers: Headers) -> Identity:
    """What the rules find; a source that is missing or unreadable is no error and gives nothing.

    The claims of a JWT are read without checking its signature: whether the request is allowed is the application's
    business, and a forged claim is refused there. Say nothing here that access depends on.
    """
    found: dict[str, str] = {}
    nothing: dict[str, str] = {}
    for rule in rules:
        for field, value in quietly("request identity", partial(_read, rule, headers), nothing).items():
            found.setdefault(field, value)
    return owner_of("request", **found) if found else Identity()


def _read(rule: Rule, headers: Headers) -> dict[str, str]:
    value = _READERS[rule.source](rule.name, headers)
    # A claim may be an object as well: only a function of the application says more than the rule's own field.
    given = value if rule.field == EVERYTHING and isinstance(value, Mapping) else {rule.field: value}
    return {
        field: str(one)
        for field, one in given.items()
        if field in FIELDS
        and (isinstance(one, str) or (isinstance(one, int) and not isinstance(one, bool)))
        and 0 < len(str(one)) <= _MOST_CHARACTERS
    }


def _header(name: str, headers: Headers) -> str | None:
    return headers.get(name)


def _cookie(name: str, headers: Headers) -> str | None:
    # Not SimpleCookie: one cookie with a character it does not know hides all the others.
    for cookie in headers.get("cookie", "").split(";"):
        key, separator, value = cookie.partition("=")
        if separator and key.strip() == name:
            return value.strip().removeprefix('"').removesuffix('"')
    return None


def _claim(name: str, headers: Headers) -> Any:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    parts = token.strip().split(".")
    if scheme.lower() != "bearer" or len(parts) != 3 or len(token) > _MOST_TOKEN_CHARACTERS:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    for step in name.split("."):
        claims = claims.get(step) if isinstance(claims, dict) else None
    return claims


def _function(name: str, headers: Headers) -> Any:
    module, _, attribute = name.partition(":")
    try:
        function = getattr(import_module(module), attribute)
    except (ImportError, AttributeError):
        misuse("state", "STAGELIGHT_REQUEST_IDENTITY:", f"{name!r} cannot be imported; accepted: module:function")
        return None
    return function(dict(headers))  # a copy: what it takes out of it is still there for others


_READERS: Final[Mapping[str, Callable[[str, Headers], Any]]] = {
    "header": _header,
    "cookie": _cookie,
    "jwt": _claim,
    "function": _function,
}
