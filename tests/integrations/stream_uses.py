"""What callers do with a stream, in the words of ``Script``, and what must be left of it whatever they do."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from stagelight.conventions import metrics as m
from stagelight.sim import Hold
from stagelight.testing import Captured

__all__ = [
    "break_out_of_a_block", "check_ended_once", "close_at_once", "exhaust", "forget", "raise_inside_a_block",
    "read_in_turns", "read_past", "take_two", "take_two_and_close", "use",
]  # fmt: skip


async def exhaust(script: Any, stream: Any) -> list[Any]:
    """Read to the end; the items."""
    return [item async for item in script.each(stream)]


async def take_two(script: Any, stream: Any) -> None:
    """Read two items and no more."""
    await script.next(stream)
    await script.next(stream)


async def take_two_and_close(script: Any, stream: Any) -> None:
    """Read two items, and close twice."""
    await take_two(script, stream)
    await script.now(stream.close())
    await script.now(stream.close())


async def break_out_of_a_block(script: Any, stream: Any) -> None:
    """Leave the stream's own block after its first item."""
    async with script.inside(stream) as entered:
        async for _ in script.each(entered):
            break


async def close_at_once(script: Any, stream: Any) -> None:
    """Read nothing."""
    await script.now(stream.close())


async def raise_inside_a_block(script: Any, stream: Any) -> None:
    """Fail in the stream's own block for a reason of the caller's."""

    async def reading() -> None:
        async with script.inside(stream) as entered:
            await script.next(entered)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await reading()


async def forget(script: Any, stream: Any) -> None:
    """Never look at it."""
    del script, stream


async def read_in_turns(script: Any, first: Any, second: Any) -> None:
    """Read two streams at the same time; the first to begin is the last to end."""
    await script.next(first)
    await script.next(second)
    await exhaust(script, second)
    await exhaust(script, first)


async def read_past(script: Any, stream: Any, *, hold: Hold, captured: Captured) -> Any:
    """Take the first item while the server keeps what comes later, then read to the end; the first item."""
    first = await script.next(stream)
    assert hold.wait_reached(60)
    assert captured.calls == ()
    hold.release()
    await exhaust(script, stream)
    return first


async def use(script: Any, start: Callable[[], Any], act: Callable[[Any, Any], Awaitable[Any]]) -> None:
    """Start a stream, do something with it, and let it go: not even garbage is left of it afterwards."""
    stream = await script.now(start())
    try:
        await act(script, stream)
    finally:
        del stream
        gc.collect()
        await asyncio.sleep(0)


def check_ended_once(captured: Captured, outcome: str) -> None:
    """The stream left one call, which ended once, with this outcome and no error."""
    call = captured.call("llm")

    assert (call.outcome, call.error_type, call.span.status.is_unset) == (outcome, None, True)
    assert [point.value for point in captured.metric(m.STAGELIGHT_STREAM_OUTCOMES)] == [1]
    assert [point.value for point in captured.metric(m.STAGELIGHT_CALLS_IN_FLIGHT)] == [0]
