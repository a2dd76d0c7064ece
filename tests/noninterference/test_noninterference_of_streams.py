"""Streams with Stagelight and without: chunks when they come, and the same to a caller who does anything with them."""

from __future__ import annotations

import gc
from typing import Any
from weakref import ref
from zlib import crc32

import pytest
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st
from noninterference.clients import ROWS, title_of
from noninterference.driving import STEPS, Drive, drive
from noninterference.playing import Notes, Run, answered, differences, item_of, iterated, played
from noninterference.uses import Client, Kind, Options, Use, now
from stagelight.testing import capture

STREAMS = [row for row in ROWS if row[1].items is not None]
HELD = [row for row in STREAMS if row[1].first is not None]
PATIENCE_S = (0.04, 0.4, 4.0, 30.0)
"""How long a caller waits for an item in vain. The first is too short for a busy machine, the last is not."""


@pytest.mark.parametrize(("client", "use", "kind"), HELD, ids=title_of)
def test_the_first_item_comes_while_the_server_withholds_the_second(
    client: Client, use: Use, kind: Kind, serve: Any, observed: Any
) -> None:
    """Nothing is collected on the way to the caller."""
    server = serve(client)

    async def first(opened: Any, notes: Notes) -> None:
        assert use.first is not None
        assert use.items is not None
        with server.simulator.hold("chunk", use.first + 1) as hold:
            async with answered(use, opened, notes) as result:
                items = iterated(use.items(result))
                notes("first", await item_of(items))
                hold.release()
                notes("second", await item_of(items))

    def run() -> Run:
        return played(client, server, Options(kind, timeout_s=60), first)

    alone = run()
    with observed(client), capture() as captured:
        with_us = run()

    assert [what for what, *_ in alone[0]].count("first") == 1
    assert differences(alone, with_us) == []
    assert captured.calls


@pytest.mark.parametrize(("client", "use", "kind"), STREAMS, ids=title_of)
def test_any_order_of_steps_is_the_same_to_the_caller(
    client: Client, use: Use, kind: Kind, serve: Any, observed: Any, request: pytest.FixtureRequest
) -> None:
    """However a caller asks, waits in vain, closes, throws and leaves, everything is as without us."""
    server = serve(client)

    def driven(plan: Drive) -> Run:
        options = Options(kind, timeout_s=plan.patience_s)
        return played(client, server, options, lambda opened, notes: drive(use, opened, notes, plan, server))

    def compared(plan: Drive) -> list[str]:
        alone = driven(plan)
        with observed(client), capture():
            return differences(alone, driven(plan))

    @example(["next", "next", "release", "next", "close", "next"], True)
    @example(["next", "throw", "next"], False)
    @example(["next", "leave"], False)
    @seed(crc32(request.node.name.encode()))  # every row has examples of its own, the same in every run
    @settings(max_examples=6, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.sampled_from(STEPS), max_size=6), st.booleans())
    def same(steps: list[str], is_held: bool) -> None:
        if not is_held or use.first is None or not use.gives_up:
            assert compared(Drive(steps)) == []
            return
        # On a busy machine an item may come too late once with us and once without: that is no difference.
        assert [] in (compared(Drive(steps, True, patience_s)) for patience_s in PATIENCE_S)

    same()


async def _dropped(use: Use, opened: Any, notes: Notes, taken: int) -> bool | None:
    """Whether a stream that was dropped after some items, or after it failed, is freed without a collection."""
    result = await now(use.call(opened))
    items = iterated(use.items(result)) if use.items is not None else None
    for _ in range(taken):
        try:
            await item_of(items)
        except Exception as error:  # noqa: BLE001 - whatever the caller sees
            notes.raised(error)
    watched = ref(items)
    del result, items
    return watched() is None


@pytest.mark.parametrize("taken", [0, 1])
@pytest.mark.parametrize(
    ("client", "use", "kind"),
    [row for row in STREAMS if row[2] == "sync" and not row[1].is_block],
    ids=title_of,
)
def test_a_dropped_stream_is_freed_as_early_as_alone(
    client: Client, use: Use, kind: Kind, taken: int, serve: Any, observed: Any
) -> None:
    """Where a client takes care that a dropped stream needs no garbage collection, it needs none with us."""
    server = serve(client)

    async def drop(opened: Any, notes: Notes) -> None:
        gc.disable()
        try:
            notes.say("freed", await _dropped(use, opened, notes, taken))
        finally:
            gc.enable()

    def run() -> Run:
        return played(client, server, Options(kind), drop)

    alone = run()
    with observed(client), capture():
        assert differences(alone, run()) == []
