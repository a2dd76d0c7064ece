"""Vector searches over psycopg's other cursors: on the server, streamed, in a pipeline."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from integrations.psycopg_connections import NEAREST, play, recorded_of
from postgres import Postgres
from stagelight.conventions import attributes as a
from stagelight.testing import Clock, capture

CLIENT = "psycopg"
pytestmark = pytest.mark.usefixtures("recorded")


def test_a_server_side_cursor(postgres: Postgres, kind: str, script: Any) -> None:
    """Declaring searches nothing; the first fetch is the search, and later ones are none."""
    seen: list[Any] = []

    async def scenario(connection: Any) -> None:
        async with script.inside(connection.cursor("named")) as cursor:
            await script.now(cursor.execute(NEAREST, ("[1,1]", 5)))
            seen.append(len(captured.calls))
            seen.append(await script.now(cursor.fetchone()))
            seen.append(len(captured.calls))
            seen.append(await script.now(cursor.fetchall()))

    with capture(clock=Clock()) as captured:
        play(postgres, kind, scenario)
    attributes = captured.call("retrieval").attributes

    assert seen[0] == 0
    assert seen[2] == 1
    assert [row[0] for row in (seen[1], *seen[3])] == [2, 4]
    assert (attributes[a.GEN_AI_RETRIEVAL_TOP_K], attributes[a.STAGELIGHT_RETRIEVAL_COUNT]) == (5, 1)
    assert attributes[a.STAGELIGHT_RETRIEVAL_TOP_SCORE] == pytest.approx(0.0513, abs=0.0001)
    assert [span.name for span in captured.spans] == ["SELECT docs", "retrieval docs"]


def test_a_streamed_result(postgres: Postgres, kind: str, script: Any) -> None:
    """A stream runs nothing before its first row; leaving it is no error, and only nothing is counted."""
    counted: list[int] = []

    async def scenario(connection: Any) -> None:
        rows = connection.cursor().stream(NEAREST, ("[1,1]", 5))
        counted.append(len(captured.calls))
        assert (await script.next(rows))[0] == 2
        counted.append(len(captured.calls))
        await script.now(rows.aclose() if kind == "async" else rows.close())
        empty = connection.cursor().stream("SELECT id FROM docs WHERE embedding <-> '[1,1]' < -1")
        assert [row async for row in script.each(empty)] == []

    with capture(clock=Clock()) as captured:
        play(postgres, kind, scenario)
    first, second = captured.calls

    assert counted == [0, 1]
    assert a.STAGELIGHT_RETRIEVAL_COUNT not in first.attributes
    assert second.attributes[a.STAGELIGHT_RETRIEVAL_EMPTY] is True
    assert [call.outcome for call in captured.calls] == ["completed"] * 2


CURSORS = [getattr(psycopg, name) for name in ("ClientCursor", "RawCursor") if hasattr(psycopg, name)]


@pytest.mark.parametrize("factory", CURSORS)
def test_other_cursors(postgres: Postgres, factory: Any) -> None:
    """Cursors that fill in parameters themselves, and those with the server's own parameters, are the same."""
    statement = NEAREST.replace("%s", "$1", 1).replace("%s", "$2") if factory.__name__ == "RawCursor" else NEAREST

    async def scenario(connection: Any) -> None:
        connection.execute(statement, ("[1,1]", 3))

    attributes = recorded_of(postgres, "sync", scenario, cursor_factory=factory).call("retrieval").attributes

    assert (attributes[a.GEN_AI_RETRIEVAL_TOP_K], attributes[a.STAGELIGHT_RETRIEVAL_COUNT]) == (3, 2)


def test_a_pipeline(postgres: Postgres, kind: str, script: Any) -> None:
    """In a pipeline results come after the call: it is recorded without a count."""

    async def scenario(connection: Any) -> None:
        async with script.inside(connection.pipeline()):
            cursor = await script.now(connection.execute(NEAREST, ("[1,1]", 3)))
            assert len(await script.now(cursor.fetchall())) == 2

    attributes = recorded_of(postgres, kind, scenario).call("retrieval").attributes

    assert a.STAGELIGHT_RETRIEVAL_COUNT not in attributes
    assert attributes[a.STAGELIGHT_OUTCOME] == "completed"
