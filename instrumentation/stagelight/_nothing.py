"""The call outside of any call: everything may be said to it, nothing happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["NOTHING", "Nothing"]


class Nothing:
    """Has the methods of a call; none does anything."""

    __slots__ = ()

    live = False

    def usage(self, **quantities: float | Mapping[str, int] | bool | None) -> None:
        """Nothing."""

    def response(self, **facts: Any) -> None:
        """Nothing."""

    def results(self, **facts: Any) -> None:
        """Nothing."""

    def cost(self, amount: Any, currency: str = "USD") -> None:
        """Nothing."""

    def record(self, response: Any) -> None:
        """Nothing."""

    def end(self, outcome: Any = None) -> None:
        """Nothing."""

    def fail(self, error: BaseException) -> None:
        """Nothing."""

    def stream(self, source: Any) -> Any:
        """``source`` itself."""
        return source


NOTHING = Nothing()
