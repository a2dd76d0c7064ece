"""Every way of searching vectors over asyncpg."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from noninterference.servers import Server
from noninterference.uses import Client, Options, Use, each

__all__ = ["CLIENT"]

NEAREST = "SELECT id, embedding <=> $1::vector AS distance FROM docs WHERE even ORDER BY distance LIMIT $2"
MISSING = "SELECT id FROM nothing ORDER BY embedding <-> '[1,1]'"
GIVEN = ("[1,1]", 3)


@asynccontextmanager
async def _open(server: Server, options: Options) -> AsyncIterator[Any]:
    import asyncpg

    del options  # there is one kind only
    connection = await asyncpg.connect(server.origin)
    try:
        await connection.set_type_codec("vector", encoder=str, decoder=str, format="text")
        yield connection
    finally:
        await connection.close()


def _prepared(method: str) -> Any:
    async def use(connection: Any) -> Any:
        statement = await connection.prepare(NEAREST)
        return await getattr(statement, method)(*GIVEN), statement.get_statusmsg()

    return use


@asynccontextmanager
async def _iterated(connection: Any) -> AsyncIterator[Any]:
    async with connection.transaction():
        yield connection.cursor(NEAREST, *GIVEN, prefetch=1)


async def _cursor(connection: Any) -> Any:
    async with connection.transaction():
        cursor = await connection.cursor(NEAREST, *GIVEN)
        return await cursor.fetchrow(), await cursor.fetch(5)


CURSOR = "connection.cursor"
METHODS = ("fetch", "fetchrow", "fetchval")

USES = (
    Use("connection.fetch", lambda connection: connection.fetch(NEAREST, *GIVEN)),
    Use("connection.fetchrow", lambda connection: connection.fetchrow(NEAREST, *GIVEN)),
    Use("connection.fetchval", lambda connection: connection.fetchval(NEAREST, *GIVEN)),
    Use("connection.fetch", lambda connection: connection.fetch(MISSING), "refused", fails=True),
    Use("connection.fetch", lambda connection: connection.fetch(NEAREST), "without parameters", fails=True),
    *(Use(f"prepared.{method}", _prepared(method)) for method in METHODS),
    Use(CURSOR, _iterated, "iterated", each, is_block=True),
    Use(CURSOR, _cursor, "fetched"),
)

CLIENT = Client("asyncpg", "AsyncpgInstrumentor", ("asyncpg",), _open, USES, "postgres", kinds=lambda: ("async",))
