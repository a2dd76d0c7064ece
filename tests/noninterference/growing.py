"""Counts what there is in this process before and after many calls."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from noninterference.playing import call_only
from noninterference.servers import Server
from noninterference.uses import Client, Options, Use

__all__ = ["NOISE", "Growth", "Load", "Settle", "grown"]

WARM_UP = 5
"""Calls of each use after which caches, connections and threads are there."""
NOISE = 250
"""Objects that come and go with the servers in this process; one call of ours that is kept has about fifteen."""
PATIENCE_S = 30.0
"""For counting again: servers close their side of a connection late, some after five seconds."""

_NOT_OURS = re.compile(r"process_request_thread|^asyncio_\d+$")
"""Servers of the tests take one per connection, event loops one now and then to look up a name."""
_FILES = Path("/proc/self/fd" if Path("/proc/self/fd").exists() else "/dev/fd")

Settle = Callable[[], None]
"""Sends what waits in queues."""


class Growth(NamedTuple):
    """What there is more."""

    threads: int
    tasks: int
    files: int
    objects: int

    @property
    def is_none(self) -> bool:
        """Whether nothing grew, but for the noise of servers."""
        return max(self.threads, self.tasks, self.files) <= 0 and self.objects <= NOISE


def _counts() -> Growth:
    gc.collect()
    threads = sum(_NOT_OURS.search(thread.name) is None for thread in threading.enumerate())
    # Frozen objects are not among these: only those made since.
    return Growth(threads, len(asyncio.all_tasks()), len(list(_FILES.iterdir())), len(gc.get_objects()))


def _more(after: Growth, before: Growth) -> Growth:
    return Growth(*(one - other for one, other in zip(after, before, strict=True)))


async def _drop_timers() -> None:
    """Have the event loop drop cancelled timers, which hold the context of their call: else it keeps a hundred."""
    loop = asyncio.get_running_loop()
    for timer in [loop.call_later(3600, int) for _ in range(500)]:
        timer.cancel()  # now most are cancelled, so that the loop drops all of them in its next round
    await asyncio.sleep(0)


class Load(NamedTuple):
    """How much is called."""

    calls: int
    """Calls of all uses together; the first use makes up for what the others do not."""
    each: int
    """Calls of every other use."""
    is_patient: bool = False
    """Whether new objects may take their time to go away, as new files always may."""
    patience_s: float = PATIENCE_S
    """How long that may take, in seconds."""


async def _growth(before: Growth, load: Load) -> Growth:
    await _drop_timers()
    deadline = time.monotonic() + load.patience_s
    while True:
        more = _more(_counts(), before)
        if more.is_none or (more.files <= 0 and not load.is_patient) or time.monotonic() > deadline:
            return more
        await asyncio.sleep(0.2)


def grown(
    client: Client, uses: Sequence[Use], options: Options, server: Server, *, settle: Settle, load: Load
) -> tuple[Growth, list[tuple[str, int]]]:
    """What there is more after many calls, and the most frequent classes of new objects.

    Args:
        client: whose calls.
        uses: the first is called most often.
        options: how the client is made.
        server: what it talks to.
        settle: is called before anything is counted.
        load: how much is called.
    """
    first, *others = uses

    async def called() -> tuple[Growth, list[tuple[str, int]]]:
        async with client.open(server, options) as opened:

            async def call(*rounds: tuple[int, Sequence[Use]]) -> None:
                for times, these in rounds:
                    for use in list(these) * times:
                        await call_only(use, opened)
                settle()
                server.forget()

            await call((WARM_UP, uses))
            gc.collect()
            gc.freeze()
            before = _counts()
            await call((load.each, others), (max(load.each, load.calls - load.each * len(others)), [first]))
            more = await _growth(before, load)
            return more, Counter(type(one).__name__ for one in gc.get_objects()).most_common(12)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # some uses leave things open; pytest would keep what it hears
        return asyncio.run(called())
