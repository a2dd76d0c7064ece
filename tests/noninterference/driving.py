"""Drives a stream as no documentation shows it: any order of asking, waiting in vain, closing, throwing and leaving."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from noninterference.playing import Notes, answered, item_of, iterated
from noninterference.servers import Simulated
from noninterference.uses import Use, now

__all__ = ["STEPS", "Drive", "drive"]

STEPS = ("next", "next", "next", "close", "throw", "release", "leave")
"""What a caller can do; asking is what callers mostly do."""


class Drive(NamedTuple):
    """Steps in their order."""

    steps: Sequence[str]
    is_held: bool = False
    """Whether the server withholds what comes after the first item, until the step ``release``."""
    patience_s: float = 60.0
    """How long the caller waits for an item."""


class LeftError(Exception):
    """The user's own."""


async def drive(use: Use, client: Any, notes: Notes, plan: Drive, server: Any) -> None:
    """Call, and do with the stream what is planned."""
    with ExitStack() as stack:
        held = None
        if plan.is_held and isinstance(server, Simulated) and use.first is not None:
            held = stack.enter_context(server.simulator.hold("chunk", use.first + 1))
        try:
            async with answered(use, client, notes) as result:
                stream = use.items(result) if use.items is not None else result
                items = iterated(stream)
                for step in plan.steps:
                    if step == "leave":
                        raise LeftError("the user's own")
                    if step == "release" and held is not None:
                        held.release()
                    await _do(step, items, result, notes, plan.patience_s)
        except Exception as error:  # noqa: BLE001 - whatever the caller sees
            notes.raised(error)


async def _do(step: str, items: Any, result: Any, notes: Notes, patience_s: float) -> None:
    try:
        if step == "next":
            # A sync client has the same patience of its own.
            notes("item", await asyncio.wait_for(item_of(items), patience_s))
        elif step == "close":
            closing = [
                getattr(one, name) for name in ("aclose", "close") for one in (items, result) if hasattr(one, name)
            ]
            notes.say("closed", len(closing) > 0 and await now(closing[0]()))
        elif step == "throw":
            throwing = getattr(items, "athrow", None) or getattr(items, "throw", None)
            notes.say("threw", throwing is not None and await now(throwing(LeftError("thrown"))))
    except StopAsyncIteration:
        notes.say("end")
    except Exception as error:  # noqa: BLE001 - whatever the caller sees
        notes.raised(error)
