"""After configuration nothing grows with the number of calls: no threads, tasks, open files or objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from noninterference.clients import KINDS, title_of
from noninterference.growing import Growth, Settle, grown
from noninterference.uses import Client, Kind, Options
from sinks import delivering, receiving

CALLS, EACH = 1000, 25
"""Calls of all uses of a client together, and of each use."""
CALLS_OF_THE_OTHER_KIND, EACH_OF_THE_OTHER_KIND = 200, 10
"""The same of async calls, where a client has both kinds: what could grow by them, but for tasks, is the same."""


@pytest.fixture(scope="module")
def delivered() -> Iterator[Settle]:
    """What ``configure()`` sets up, with a receiver; settles it, so that nothing waits in a queue."""
    with receiving() as sink, delivering(sink.http) as (providers, _):

        def settle() -> None:
            assert providers.flush(60)
            sink.requests.clear()

        yield settle


@pytest.mark.parametrize(("client", "kind"), KINDS, ids=title_of)
def test_nothing_grows_with_the_calls(client: Client, kind: Kind, serve: Any, observed: Any, delivered: Settle) -> None:
    """Threads, tasks, files and objects are as many as before, unless the client alone makes more."""
    server = serve(client)
    uses = [use for use, which in client.rows() if which == kind]
    is_first = kind == client.kinds()[0]
    calls, each = (CALLS, EACH) if is_first else (CALLS_OF_THE_OTHER_KIND, EACH_OF_THE_OTHER_KIND)

    def more() -> tuple[Growth, Any]:
        return grown(client, uses, Options(kind), server, settle=delivered, calls=calls, each=each)

    with observed(client):
        with_us, made = more()
    if with_us.is_none:
        return
    alone, _ = more()
    print("GROWN", with_us, alone, made)

    assert Growth(*map(int.__sub__, with_us, alone)).is_none, (with_us, alone, made)
