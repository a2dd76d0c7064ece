"""Psycopg beside Stagelight: the same for the caller and for the server."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from integrations.postgres_searches import check_restored, compare_with_alone
from integrations.psycopg_connections import NEAREST, play
from postgres import Postgres
from psycopg.rows import dict_row
from stagelight import _guard
from stagelight.integrations import psycopg as integration
from stagelight.integrations._instrumentor import Instrumentor

CLIENT = "psycopg"
pytestmark = pytest.mark.usefixtures("recorded")

PATCHED = [
    (psycopg.Cursor, "execute"),
    (psycopg.AsyncCursor, "execute"),
    (psycopg.cursor.BaseCursor, "_stream_fetchone_gen"),
    (next(kind for kind in psycopg.ServerCursor.__mro__ if kind.__name__ == "ServerCursorMixin"), "_fetch_gen"),
]


async def everything(connection: Any, script: Any) -> list[Any]:
    """Use a connection in every way; what the caller sees, as values that can be compared."""
    seen: list[Any] = []
    cursor = connection.cursor(row_factory=dict_row)
    returned = await script.now(cursor.execute(NEAREST, ("[1,1]", 3)))
    seen += [returned is cursor, cursor.rowcount, cursor.rownumber, cursor.statusmessage, repr(cursor).split(" at ")[0]]
    seen += [repr(cursor.description), await script.now(cursor.fetchone()), await script.now(cursor.fetchall())]
    seen += [connection.info.transaction_status, cursor._query.query, cursor._query.params]
    rows = connection.cursor().stream(NEAREST, ("[1,1]", 3))
    seen += [type(rows), repr(rows).split(" at ")[0], [row async for row in script.each(rows)]]
    async with script.inside(connection.cursor("named")) as named:
        await script.now(named.execute(NEAREST, ("[1,1]", 3)))
        seen += [type(named), named.rownumber, [row async for row in script.each(named)]]
    try:
        await script.now(connection.execute(NEAREST.replace("docs", "nothing"), ("[1,1]", 3)))
    except psycopg.Error as error:
        seen += [type(error), str(error), error.sqlstate, error.__cause__, error.__context__]
    seen += [connection.info.transaction_status]
    await script.now(connection.rollback())
    try:
        await script.now(connection.execute(NEAREST, (object(), 3)))
    except psycopg.Error as error:
        seen += [type(error), str(error)]
    return seen


def test_the_caller_and_the_server_see_the_same(
    postgres: Postgres, kind: str, script: Any, recorded: Instrumentor
) -> None:
    """Rows, descriptions, exceptions, transactions and every statement that is sent are those of the client alone."""

    async def scenario(connection: Any) -> list[Any]:
        return await everything(connection, script)

    captured, statements = compare_with_alone(postgres, recorded, lambda: play(postgres, kind, scenario))

    assert len(captured.calls) == 5
    assert len(statements) >= 5


def test_our_errors_stay_ours(postgres: Postgres, kind: str, script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When reading a statement or a result fails inside us, the caller gets the client's result."""

    def broken(*_: Any, **__: Any) -> Any:
        raise LookupError("ours")

    async def scenario(connection: Any) -> list[Any]:
        async with script.inside(connection.cursor("named")) as named:
            await script.now(named.execute(NEAREST, ("[1,1]", 3)))
            rows = connection.cursor().stream(NEAREST, ("[1,1]", 3)) if kind == "sync" else None
            return [
                len(await script.now((await script.now(connection.execute(NEAREST, ("[1,1]", 3)))).fetchall())),
                len(await script.now(named.fetchall())),
                rows is None or len(list(rows)),
            ]

    _guard.set_strict(False)
    for name in ("found_in", "begin_search"):
        monkeypatch.setattr(integration, name, broken)
        assert play(postgres, kind, scenario)[:2] == [2, 2]
    assert _guard.errors()


def test_switching_on_and_off_restores_the_same_functions(recorded: Instrumentor) -> None:
    """Afterwards the classes have the very functions they had, and the wrapped ones look like them."""
    check_restored(recorded, PATCHED)
