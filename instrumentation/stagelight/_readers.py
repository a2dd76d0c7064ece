"""Reading a known SDK's response outside its integration: the module of the response's class names the integration."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from stagelight.facts import Response

__all__ = ["read"]


@cache
def _integrations() -> dict[str, list[str]]:
    """Modules of the integrations by the top-level package of their answers; our entry points are the list."""
    found: dict[str, list[str]] = {}
    for one in entry_points(group="opentelemetry_instrumentor"):
        if one.name.startswith("stagelight-"):
            found.setdefault(one.load().package, []).append(one.module)
    return found


def read(response: Any) -> Response | None:
    """The facts of a response, or ``None`` for one of no supported client."""
    for module in _integrations().get(type(response).__module__.partition(".")[0], ()):
        facts: Response | None = importlib.import_module(module).read(response)
        if facts is not None:
            return facts
    return None
