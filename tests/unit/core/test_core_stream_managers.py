"""A stream that is a context manager: its block is kept, and ends the stream."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import stagelight
from stagelight.testing import capture
from stream_sources import (
    LENGTH,
    AsyncManager,
    CallerError,
    HandledError,
    Manager,
    ProviderError,
    agenerator,
    generator,
    one_end,
)

MODEL = {"provider": "acme", "model": "acme-1"}


def _use(stream: Any, pulls: int, error: type[BaseException] | None) -> list[Any]:
    with stream as entered:
        got = [item for item, _ in zip(entered, range(pulls), strict=False)]
        if error is not None:
            raise error
    return got


async def _ause(stream: Any, pulls: int, error: type[BaseException] | None) -> list[Any]:
    got = []
    async with stream as entered:
        for _ in range(pulls):
            try:
                got.append(await anext(entered))
            except StopAsyncIteration:
                break
        if error is not None:
            raise error
    return got


BLOCKS = {
    "all": (LENGTH + 1, None, "completed", "left"),
    "part": (2, None, "client_abandoned", "left"),
    "none": (0, None, "client_abandoned", "left"),
    "error": (1, CallerError, "client_abandoned", "CallerError"),
    "swallowed": (1, HandledError, "client_abandoned", "HandledError"),
    "cancelled": (1, asyncio.CancelledError, "cancelled", "CancelledError"),
}


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("pulls", "error", "outcome", "left"), BLOCKS.values(), ids=BLOCKS)
def test_a_context_manager_keeps_its_block(
    pulls: int, error: type[BaseException] | None, outcome: str, left: str, awaited: bool
) -> None:
    """The manager is entered and left as without us, swallows what it swallows, and the stream ends with its block."""
    manager = AsyncManager(agenerator) if awaited else Manager(generator)
    with capture() as captured:
        with stagelight.llm(**MODEL) as call:
            stream: Any = call.stream(manager)
            caught: type[BaseException] | None = None
            try:
                asyncio.run(_ause(stream, pulls, error)) if awaited else _use(stream, pulls, error)
            except BaseException as raised:  # noqa: BLE001 - compared below
                caught = type(raised)
        assert manager.inside is call
        assert caught is (None if error is HandledError else error)

        assert manager.log == ["entered", left]
        assert one_end(captured) == outcome


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
def test_a_manager_that_cannot_be_entered_is_the_providers_failure(awaited: bool) -> None:
    """What ``__enter__`` raises reaches the caller and is the outcome."""
    manager = AsyncManager(agenerator, ProviderError) if awaited else Manager(generator, ProviderError)
    with capture() as captured:
        with stagelight.llm(**MODEL) as call:
            stream: Any = call.stream(manager)
            with pytest.raises(ProviderError):
                asyncio.run(_ause(stream, 1, None)) if awaited else _use(stream, 1, None)

        assert one_end(captured) == "provider_aborted"
