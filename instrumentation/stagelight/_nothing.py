"""The call outside of any call: everything may be said to it, nothing happens."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ["NOTHING", "Nothing"]

Source = TypeVar("Source")


class Nothing:
    """Has the methods of a call; none does anything."""

    __slots__ = ()

    live = False

    def start(self) -> Self:
        """Nothing."""
        return self

    def active(self) -> AbstractContextManager[None]:
        """A block in which nothing is different."""
        return nullcontext()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing."""

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

    def stream(self, source: Source) -> Source:
        """``source`` itself."""
        return source


NOTHING = Nothing()
