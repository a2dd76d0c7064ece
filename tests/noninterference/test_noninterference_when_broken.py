"""Whatever of Stagelight is broken, a call is the same as without it: as in production, where our errors are logged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
from noninterference.breaking import BREAKAGES
from noninterference.clients import INSTALLED, KINDS, title_of
from noninterference.playing import Notes, Run, differences, play, played
from noninterference.uses import Client, Kind, Options
from stagelight import _guard

NO_CHUNKS = frozenset({"asyncpg", "chromadb", "faiss", "psycopg", "qdrant", "sentence_transformers", "sqlalchemy"})
NO_TAKERS = NO_CHUNKS | {"langchain"}
UNTOUCHED: Mapping[str, Collection[str]] = {
    "dead exporter": {client.integration for client in INSTALLED},
    "broken takers of chunks": NO_TAKERS,
    "broken readers of chunks": NO_TAKERS,
    "broken clock of chunks": NO_CHUNKS,
    "broken stream end": NO_CHUNKS,
}
"""Clients whose calls never come to what is broken; everywhere else our error is counted, or nothing was broken."""


@pytest.fixture(autouse=True)
def as_in_production() -> Iterator[None]:
    """Errors of ours are counted and logged, not raised."""
    _guard.set_strict(False)
    yield
    _guard.set_strict(True)


@pytest.fixture(scope="module")
def alone() -> dict[Any, Run]:
    """What is seen without us, by client and kind."""
    return {}


@pytest.mark.parametrize(("client", "kind"), KINDS, ids=title_of)
@pytest.mark.parametrize("breakage", BREAKAGES)
def test_the_calls_are_the_same(
    client: Client, kind: Kind, breakage: str, serve: Any, observed: Any, alone: dict[Any, Run]
) -> None:
    """Results, chunks, exceptions and requests are those of the client alone, however it is used."""
    server = serve(client)
    uses = [use for use, which in client.rows() if which == kind]

    async def all_of(opened: Any, notes: Notes) -> None:
        for use in uses:
            notes.say("use", use.title)
            await play(use, opened, notes)

    def run() -> Run:
        return played(client, server, Options(kind), all_of)

    key = client.integration, kind
    if key not in alone:
        alone[key] = run()
    hosts = {urlsplit(server.origin).netloc: client.provider} if client.provider else {}
    before = _swallowed()
    with observed(client), BREAKAGES[breakage](client, hosts):
        assert differences(alone[key], run()) == []
    assert (_swallowed() > before) is (client.integration not in UNTOUCHED.get(breakage, frozenset()))


def _swallowed() -> int:
    return sum(_guard.errors().values())
