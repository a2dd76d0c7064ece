"""After configuration nothing grows with the number of calls: no threads, tasks, open files or objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from noninterference.clients import KINDS, title_of
from noninterference.growing import Growth, Load, Settle, grown
from noninterference.uses import Client, Kind, Options
from sinks import delivering, receiving

OFTEN = Load(1000, 25)
LESS = Load(200, 10)
"""For async calls, where a client has both kinds: what could grow by them, but for tasks, is the same."""


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
    load = OFTEN if kind == client.kinds()[0] else LESS

    def more(*, is_patient: bool) -> tuple[Growth, Any]:
        return grown(client, uses, Options(kind), server, settle=delivered, load=load._replace(is_patient=is_patient))

    # The servers in this process have objects, too: where these are in the way, wait until they are gone.
    for is_patient in (False, True):
        with observed(client):
            with_us, made = more(is_patient=is_patient)
        if with_us.is_none:
            return
        alone, _ = more(is_patient=is_patient)
        found = Growth(*map(int.__sub__, with_us, alone))
        if found.is_none:
            return

    raise AssertionError(f"{with_us} with us, {alone} alone; new objects: {made}")
