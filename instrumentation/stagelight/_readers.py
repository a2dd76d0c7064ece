"""Reading a known SDK's response outside its integration: the module of the response's class names the integration."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from stagelight.facts import Response

__all__ = ["read"]


@cache
def _integrations() -> dict[str, str]:
    """Module of the integration by the top-level package of its library; our entry points are the list."""
    ours = (one for one in entry_points(group="opentelemetry_instrumentor") if one.name.startswith("stagelight-"))
    return {one.load().package: one.module for one in ours}


def read(response: Any) -> Response | None:
    """The facts of a response, or ``None`` for one of no supported client."""
    module = _integrations().get(type(response).__module__.partition(".")[0])
    if module is None:
        return None
    facts: Response | None = importlib.import_module(module).read(response)
    return facts
