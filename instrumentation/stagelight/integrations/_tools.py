"""A tool that a client runs by itself because the model called it."""

from __future__ import annotations

from typing import Any

from stagelight._lifecycle import Attachment
from stagelight.facts import Request
from stagelight.integrations._engine import Observed

__all__ = ["ToolRun"]


class ToolRun:
    """One execution of a tool by a client.

    Args:
        name: name of the tool.
        wrapper: name of the exception class with which the client covers the tool's own.
    """

    __slots__ = ("_observed", "_wrapper")

    def __init__(self, name: str | None, wrapper: str = "") -> None:
        self._observed = Observed("tool", Request(name=name))
        self._wrapper = wrapper

    def active(self) -> Attachment:
        return Attachment(self._observed.call.context)

    def returned(self, _result: Any) -> None:
        self._observed.end()

    def failed(self, error: BaseException) -> None:
        own = error.__cause__ or error.__context__
        self._observed.fail(own if own is not None and type(error).__name__ == self._wrapper else error)
