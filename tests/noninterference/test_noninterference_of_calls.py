"""A call with Stagelight and one without: the caller sees the same, and so does the server."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from noninterference.clients import ROWS, title_of
from noninterference.playing import differences, play, played
from noninterference.uses import Client, Kind, Options, Use
from stagelight.testing import capture

FAULTY = [(client, use, kind, fault) for client, use, kind in ROWS if not use.fails for fault in client.faults]


def compared(client: Client, use: Use, server: Any, options: Options, observed: Any) -> tuple[Any, Any, int]:
    """What is seen and sent without Stagelight and with it, and the number of calls that it recorded."""

    def run() -> Any:
        return played(client, server, options, lambda opened, notes: play(use, opened, notes))

    alone = run()
    hosts = {urlsplit(server.origin).netloc: client.provider} if client.provider else {}
    with observed(client), capture(provider_hosts=hosts) as captured:
        with_us = run()
    return alone, with_us, len(captured.calls)


@pytest.mark.parametrize(("client", "use", "kind"), ROWS, ids=title_of)
def test_the_caller_and_the_server_see_the_same(
    client: Client, use: Use, kind: Kind, serve: Any, observed: Any
) -> None:
    """Types, texts, attributes, chunks and their order, exceptions, and when each byte and header is sent."""
    alone, with_us, calls = compared(client, use, serve(client), Options(kind), observed)

    assert use.fails == any(what[0] == "raised" for what in alone[0]), alone[0][-3:]
    assert differences(alone, with_us) == []
    assert calls > 0


@pytest.mark.parametrize(("client", "use", "kind", "fault"), FAULTY, ids=title_of)
def test_failures_are_the_same(client: Client, use: Use, kind: Kind, fault: str, serve: Any, observed: Any) -> None:
    """Exceptions with their arguments, causes and frames, and what came before them."""
    # Only the simulator's rate limit says how soon to try again; else clients wait half a second.
    options = Options(kind, {"x-stagelight-fault": client.faults[fault]}, retries=1 if fault == "rate limit" else 0)
    alone, with_us, calls = compared(client, use, serve(client), options, observed)

    assert differences(alone, with_us) == []
    assert calls > 0
