"""The rules of ``STAGELIGHT_REQUEST_IDENTITY``: which fact of a request's owner is read where."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["EVERYTHING", "FIELDS", "SOURCES", "Rule", "parse_rules"]

FIELDS: Final = ("conversation_id", "session_id", "user_id", "tenant", "feature", "variant")
SOURCES: Final = ("header", "cookie", "jwt", "function")

EVERYTHING: Final = "*"
"""Field of a function that gives a mapping of several."""


class Rule(NamedTuple):
    """One fact and where it is read."""

    field: str
    """One of ``FIELDS``; ``*`` for a function that gives a mapping of several."""
    source: str
    name: str
    """Name of the header, cookie or claim (``a.b`` for nested ones), or ``module:function``."""


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Rules from a setting's text: ``user_id=jwt:sub,tenant=header:x-tenant,*=function:app.owners:owner_of``.

    Raises:
        ValueError: a field or source is not known, or a name is missing.
    """
    rules = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        field, _, rest = part.partition("=")
        source, _, name = rest.partition(":")
        rule = Rule(field.strip(), source.strip(), name.strip())
        is_function = rule.source == "function"
        known = rule.field in FIELDS or (is_function and rule.field == EVERYTHING)
        if not known or rule.source not in SOURCES or not rule.name or (is_function and ":" not in rule.name):
            raise ValueError(text)
        rules.append(rule._replace(name=rule.name.lower()) if rule.source == "header" else rule)
    return tuple(rules)
