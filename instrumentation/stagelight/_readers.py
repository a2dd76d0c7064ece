"""Reading a known SDK's response outside its integration: the module of the response's class names the integration."""

from __future__ import annotations

import importlib
from typing import Any

from stagelight.facts import Response

__all__ = ["READERS", "read"]

READERS = {"openai": "stagelight.integrations.openai", "qdrant_client": "stagelight.integrations.qdrant"}
"""Top-level package of a response's class -> the integration with a ``read(response) -> Response | None``."""


def read(response: Any) -> Response | None:
    """The facts of a response, or ``None`` for one of no supported client."""
    package = type(response).__module__.partition(".")[0]
    if package not in READERS:
        return None
    facts: Response | None = importlib.import_module(READERS[package]).read(response)
    return facts
