"""Every way of searching vectors over psycopg."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from noninterference.servers import Server
from noninterference.uses import Client, Options, Use, each, now

__all__ = ["CLIENT"]

NEAREST = "SELECT id, embedding <=> %s::vector AS distance FROM docs WHERE even ORDER BY distance LIMIT %s"
ALL = "SELECT id, embedding <-> '[1,1]' AS distance FROM docs ORDER BY distance"
MISSING = "SELECT id FROM nothing ORDER BY embedding <-> '[1,1]'"


@asynccontextmanager
async def _open(server: Server, options: Options) -> AsyncIterator[Any]:
    import psycopg

    if options.kind == "async":
        async with await psycopg.AsyncConnection.connect(server.origin) as connection:
            yield connection
    else:
        with psycopg.connect(server.origin) as connection:
            yield connection


async def _execute(connection: Any) -> Any:
    cursor = connection.cursor()
    found = await now(cursor.execute(NEAREST, ("[1,1]", 3)))
    return found is cursor, await now(cursor.fetchall()), cursor.rowcount, cursor.statusmessage, cursor.description


async def _execute_binary(connection: Any) -> Any:
    cursor = connection.cursor(binary=True)
    await now(cursor.execute(ALL))
    return await now(cursor.fetchmany(2)), await now(cursor.fetchone()), cursor.rownumber


async def _composed(connection: Any) -> Any:
    from psycopg import sql

    query = sql.SQL("SELECT id FROM {} ORDER BY embedding <-> {}").format(sql.Identifier("docs"), sql.Literal("[1,1]"))
    return await now((await now(connection.execute(query))).fetchall())


async def _server_side(connection: Any) -> Any:
    cursor = connection.cursor(name="all")
    cursor.itersize = 2
    await now(cursor.execute(ALL))
    return cursor


EXECUTE, STREAM, SHORT = "cursor.execute", "cursor.stream", "connection.execute"

USES = (
    Use(EXECUTE, _execute, "fetched"),
    Use(EXECUTE, _execute_binary, "binary"),
    Use(EXECUTE, lambda connection: connection.cursor().execute(ALL), items=each),
    Use(EXECUTE, _server_side, "in the server", each),
    Use(EXECUTE, lambda connection: connection.cursor().execute(MISSING), "refused", fails=True),
    Use(STREAM, lambda connection: connection.cursor().stream(ALL), items=each),
    Use(STREAM, lambda connection: connection.cursor().stream(MISSING), "refused", each, fails=True),
    Use(SHORT, lambda connection: connection.execute(ALL)),
    Use(SHORT, _composed, "composed"),
)

CLIENT = Client("psycopg", "PsycopgInstrumentor", ("psycopg",), _open, USES, "postgres")
