"""After configuration nothing grows with the number of calls: no threads, tasks, open files or objects."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from noninterference.clients import ROWS, title_of
from noninterference.playing import call_only
from noninterference.servers import Server
from noninterference.uses import Client, Kind, Options, Use
from sinks import delivering, receiving

WARM_UP = 10
"""Calls after which caches, connections and threads are there."""
OFTEN = 1000
NOISE = 250
"""Objects that come and go with the servers in this process; one call of ours that is kept has about fifteen."""

NOT_OURS = re.compile(r"process_request_thread|^asyncio_\d+$")
"""Servers of the tests take one per connection, event loops one now and then to look up a name."""
FILES = Path("/proc/self/fd" if Path("/proc/self/fd").exists() else "/dev/fd")

Settle = Callable[[], None]


@pytest.fixture(scope="module")
def delivered() -> Iterator[Settle]:
    """What ``configure()`` sets up, with a receiver; settles it, so that nothing waits in a queue."""
    with receiving() as sink, delivering(sink.http) as (providers, _):

        def settle() -> None:
            assert providers.flush(60)
            sink.requests.clear()

        yield settle


class Counts(NamedTuple):
    """What there is in this process."""

    threads: frozenset[str]
    tasks: int
    files: int
    objects: int


def _counts() -> Counts:
    gc.collect()
    threads = frozenset(thread.name for thread in threading.enumerate() if not NOT_OURS.search(thread.name))
    # Frozen objects are not among these: only those made since.
    return Counts(threads, len(asyncio.all_tasks()), len(list(FILES.iterdir())), len(gc.get_objects()))


def grown(client: Client, use: Use, kind: Kind, server: Server, settle: Settle) -> tuple[Counts, Counter[str]]:
    """What is there more after many calls, and the classes of the new objects."""
    calls = use.calls if kind == client.kinds()[0] else min(use.calls, OFTEN // 10)

    async def called() -> tuple[Counts, Counter[str]]:
        async with client.open(server, Options(kind)) as opened:
            for _ in range(WARM_UP):
                await call_only(use, opened)
            settle()
            server.forget()
            gc.collect()
            gc.freeze()
            before = _counts()
            for _ in range(calls):
                await call_only(use, opened)
            settle()
            server.forget()
            after = _counts()
            made = Counter(type(one).__name__ for one in gc.get_objects())
            more = Counts(
                after.threads - before.threads,
                after.tasks - before.tasks,
                after.files - before.files,
                after.objects - before.objects,
            )
            return more, made

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # some uses leave things open; pytest would keep what it hears
        return asyncio.run(called())


@pytest.mark.parametrize(("client", "use", "kind"), ROWS, ids=title_of)
def test_nothing_grows_with_the_calls(
    client: Client, use: Use, kind: Kind, serve: Any, observed: Any, delivered: Settle
) -> None:
    """Threads, tasks and files are as many as before, and objects too, unless the client alone makes more."""
    server = serve(client)
    with observed(client):
        more, made = grown(client, use, kind, server, delivered)
    if more.objects > NOISE or more.threads:
        alone, _ = grown(client, use, kind, server, delivered)
        print("ALONE", alone, more)
        more = more._replace(objects=more.objects - alone.objects)

    assert more.objects <= NOISE, made.most_common(12)
    assert more._replace(objects=0) == Counts(frozenset(), 0, 0, 0)
