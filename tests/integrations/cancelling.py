"""Tasks that are cancelled while a provider keeps them waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from stagelight.sim import Hold

__all__ = ["cancel_while_held"]

PATIENCE_S = 60


async def cancel_while_held(waiting: Awaitable[Any], hold: Hold, *, begun: asyncio.Event | None = None) -> None:
    """Cancel what waits for the simulator, and let the simulator go on.

    Args:
        waiting: a client's call, or a function that reads a stream; it becomes a task.
        hold: where the simulator stops; nothing is cancelled before it is there.
        begun: set by ``waiting`` when it has read what comes before.
    """
    task = asyncio.ensure_future(waiting)
    if begun is not None:
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
    assert await asyncio.to_thread(hold.wait_reached, PATIENCE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    hold.release()
