"""Where an official instrumentation makes the database span, it is inside the retrieval, and we add none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy as sa
from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor as OfficialPsycopgInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor as OfficialSQLAlchemyInstrumentor
from postgres import Postgres
from sqlalchemy.pool import NullPool
from stagelight.conventions import attributes as a
from stagelight.integrations.asyncpg import AsyncpgInstrumentor
from stagelight.integrations.psycopg import PsycopgInstrumentor
from stagelight.integrations.sqlalchemy import SQLAlchemyInstrumentor
from stagelight.testing import Captured, Clock, capture

NEAREST = "SELECT id, embedding <=> '[1,1]' AS distance FROM docs WHERE even ORDER BY distance LIMIT 3"
OURS = (PsycopgInstrumentor, AsyncpgInstrumentor, SQLAlchemyInstrumentor)
OFFICIAL = (OfficialPsycopgInstrumentor, AsyncPGInstrumentor, OfficialSQLAlchemyInstrumentor)


def by_psycopg(server: Postgres) -> None:
    """A search by psycopg."""
    with psycopg.connect(server.url) as connection:
        assert len(connection.execute(NEAREST).fetchall()) == 2


def by_psycopg_async(server: Postgres) -> None:
    """A search by psycopg's async connection."""

    async def search() -> None:
        async with await psycopg.AsyncConnection.connect(server.url) as connection:
            assert len(await (await connection.execute(NEAREST)).fetchall()) == 2

    asyncio.run(search())


def by_asyncpg(server: Postgres) -> None:
    """A search by asyncpg."""

    async def search() -> None:
        connection = await asyncpg.connect(server.url)
        assert len(await connection.fetch(NEAREST)) == 2
        await connection.close()

    asyncio.run(search())


def by_sqlalchemy(server: Postgres) -> None:
    """A search by SQLAlchemy, whose driver is observed, too."""
    engine = sa.create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    with engine.connect() as connection:
        assert len(connection.execute(sa.text(NEAREST)).all()) == 2
    engine.dispose()


@pytest.fixture(params=["ours first", "theirs first"])
def both(request: pytest.FixtureRequest) -> Callable[[Callable[[Postgres], None], Postgres], Captured]:
    """Runs a search with both instrumentations on, in either order, and says what was recorded."""

    def record(search: Callable[[Postgres], None], server: Postgres) -> Captured:
        with capture(clock=Clock()) as captured, ExitStack() as on:
            order = (*OURS, *OFFICIAL) if request.param == "ours first" else (*OFFICIAL, *OURS)
            for kind in order:
                instrumentor = kind()
                on.callback(instrumentor.uninstrument)
                if kind in OURS:
                    assert instrumentor.switch_on()
                else:
                    instrumentor.instrument(tracer_provider=captured.tracer_provider)
            search(server)
        return captured

    return record


@pytest.mark.parametrize("search", [by_psycopg, by_psycopg_async, by_asyncpg])
def test_the_official_span_is_the_database_span(
    postgres: Postgres, both: Any, search: Callable[[Postgres], None]
) -> None:
    """The retrieval has the results, and one child: the official instrumentation's span."""
    captured = both(search, postgres)
    database, retrieval = captured.spans

    assert retrieval.name == "retrieval docs"
    assert database.instrumentation_scope.name.startswith("opentelemetry.instrumentation.")
    assert database.parent.span_id == retrieval.context.span_id
    assert captured.call("retrieval").attributes[a.STAGELIGHT_RETRIEVAL_COUNT] == 2


def test_sqlalchemy_is_one_retrieval(postgres: Postgres, both: Any) -> None:
    """The official spans of SQLAlchemy and of its driver are inside one retrieval; we add none."""
    captured = both(by_sqlalchemy, postgres)
    retrieval = captured.call("retrieval")
    inside = [span for span in captured.spans if span.parent and span.parent.span_id == retrieval.span.context.span_id]
    ours = [span.name for span in captured.spans if span.instrumentation_scope.name.startswith("stagelight")]

    assert ours == ["retrieval docs"]
    assert {span.instrumentation_scope.name.rpartition(".")[2] for span in inside} == {"psycopg", "sqlalchemy"}
