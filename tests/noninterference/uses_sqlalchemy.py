"""Every way of searching vectors over SQLAlchemy, with psycopg below it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from noninterference.servers import Server
from noninterference.uses import Client, Options, Use, each, now

__all__ = ["CLIENT"]


@asynccontextmanager
async def _open(server: Server, options: Options) -> AsyncIterator[Any]:
    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import create_async_engine

    url = server.origin.replace("postgresql://", "postgresql+psycopg://")
    if options.kind == "async":
        asynchronous = create_async_engine(url)
        async with asynchronous.connect() as connection:
            yield connection
        await asynchronous.dispose()
    else:
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            yield connection
        engine.dispose()


@cache
def _statements() -> tuple[Any, Any, Any]:
    """A search by Core, the same by text, and one of the ORM."""
    import sqlalchemy as sa
    from pgvector.sqlalchemy import Vector
    from sqlalchemy.orm import declarative_base

    base: Any = declarative_base()

    class Doc(base):
        __tablename__ = "docs"
        id = sa.Column(sa.Integer, primary_key=True)
        embedding = sa.Column(Vector(2))

        def __repr__(self) -> str:
            return f"Doc({self.id}, {self.embedding})"

    distance = Doc.embedding.cosine_distance([1, 1])
    core = sa.select(Doc.id, distance.label("distance")).order_by(distance).limit(3)
    text = sa.text("SELECT id FROM docs ORDER BY embedding <=> '[1,1]' LIMIT :k").bindparams(k=3)
    return core, text, sa.select(Doc).order_by(distance)


def _core(connection: Any) -> Any:
    return connection.execute(_statements()[0])


def _text(connection: Any) -> Any:
    return connection.execute(_statements()[1])


def _missing(connection: Any) -> Any:
    import sqlalchemy as sa

    return connection.execute(sa.text("SELECT id FROM nothing ORDER BY embedding <-> '[1,1]'"))


async def _streamed(connection: Any) -> Any:
    if hasattr(connection, "stream"):
        return await connection.stream(_statements()[0])
    return connection.execute(_statements()[0], execution_options={"stream_results": True, "yield_per": 1})


@asynccontextmanager
async def _session(connection: Any) -> AsyncIterator[Any]:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    if hasattr(connection, "stream"):
        async with AsyncSession(connection) as session:
            yield session
    else:
        with Session(connection) as opened:
            yield opened


async def _session_execute(connection: Any) -> Any:
    async with _session(connection) as session:
        return (await now(session.execute(_statements()[2]))).all()


async def _session_scalars(connection: Any) -> Any:
    async with _session(connection) as session:
        return (await now(session.scalars(_statements()[2]))).all()


EXECUTE = "connection.execute"

USES = (
    Use(EXECUTE, _core, seen=lambda result: (result.keys(), result.rowcount, result.all())),
    Use(EXECUTE, _text, "of a text", each),
    Use(EXECUTE, _streamed, "streamed", each),
    Use(EXECUTE, _missing, "refused", fails=True),
    Use("session.execute", _session_execute),
    Use("session.scalars", _session_scalars),
)

CLIENT = Client(
    "sqlalchemy",
    "SQLAlchemyInstrumentor",
    ("sqlalchemy", "psycopg", "pgvector"),
    _open,
    USES,
    "postgres",
)
