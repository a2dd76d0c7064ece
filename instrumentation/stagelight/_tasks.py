"""What goes with a task into another process, and comes out there: trace, request id, and whose work it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import propagate
from opentelemetry.context import Context

from stagelight._inbound import REQUEST_KEY, Inbound, accepted_id, current_inbound
from stagelight._turns import current_turn
from stagelight.facts import Identity

__all__ = ["OWNER", "carried", "context_of", "with_owner"]

OWNER: Final = "stagelight-owner"
"""Key of a task's headers: JSON with the request's id and the facts of ``Identity`` that are known."""

_REQUEST: Final = "request_id"
_MOST_CHARACTERS: Final = 4096


def carried() -> dict[str, str]:
    """Headers for a task that is handed to another process now."""
    headers: dict[str, str] = {}
    textmap = propagate.get_global_textmap()
    # A task goes to one's own workers, whichever host the span around it is for.
    getattr(textmap, "inner", textmap).inject(headers)
    turn, inbound = current_turn(), current_inbound()
    identity = turn.identity if turn is not None else inbound.identity if inbound is not None else Identity()
    known = {name: value for name, value in identity._asdict().items() if value is not None}
    if inbound is not None and inbound.request_id is not None:
        known[_REQUEST] = inbound.request_id
    if known:
        headers[OWNER] = json.dumps(known)
    return headers


def context_of(headers: Mapping[str, Any]) -> Context:
    """The context in which a task runs: in the trace and for the owner of whoever sent it."""
    texts = {name: value for name, value in headers.items() if isinstance(value, str)}
    return with_owner(propagate.extract(texts, otel_context.get_current()), texts.get(OWNER))


def with_owner(context: Context, text: object) -> Context:
    """The context with the owner that a task's headers name; only a broker's own messages are to be trusted so far."""
    if not isinstance(text, str) or len(text) > _MOST_CHARACTERS:
        return context
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return context
    known = found if isinstance(found, dict) else {}
    facts = {name: value for name, value in known.items() if name in Identity._fields and isinstance(value, str)}
    given = known.get(_REQUEST)
    request_id = accepted_id(given) if isinstance(given, str) else None
    return otel_context.set_value(REQUEST_KEY, Inbound(request_id, Identity(**facts)), context)
