"""Vector searches over SQLAlchemy, core and ORM, by several drivers, on a real PostgreSQL with pgvector."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import sqlalchemy as sa
import stagelight
from integrations.postgres_searches import check_a_failure, check_a_search, check_restored, compare_with_alone
from pgvector.sqlalchemy import Vector
from postgres import Postgres
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Mapped, Session, declarative_base, mapped_column
from sqlalchemy.pool import NullPool
from stagelight import _guard
from stagelight.conventions import attributes as a
from stagelight.integrations import sqlalchemy as integration
from stagelight.integrations.asyncpg import AsyncpgInstrumentor
from stagelight.integrations.psycopg import PsycopgInstrumentor
from stagelight.integrations.sqlalchemy import SQLAlchemyInstrumentor
from stagelight.testing import Captured, Clock, capture

Base: Any = declarative_base()


class Doc(Base):
    """A row of the table that is searched."""

    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    even: Mapped[bool]
    embedding: Mapped[Any] = mapped_column(Vector(2))


DISTANCE = Doc.embedding.cosine_distance([1, 1])
NEAREST = sa.select(Doc.id, DISTANCE.label("distance")).where(Doc.even).order_by(DISTANCE).limit(3)
TEXT = sa.text("SELECT id FROM docs ORDER BY embedding <=> '[1,1]' LIMIT :k")
ASYNC = {"asyncpg", "psycopg_async"}
SCORED = {"psycopg", "psycopg_async", "asyncpg"}


@pytest.fixture(params=["psycopg", "psycopg_async", "asyncpg", "psycopg2", "pg8000"])
def driver(request: pytest.FixtureRequest) -> str:
    """Which driver."""
    return str(request.param)


@pytest.fixture(params=["drivers observed", "drivers alone"])
def drivers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whether the drivers' integrations are on, too."""
    with ExitStack() as on:
        if request.param == "drivers observed":
            for kind in (PsycopgInstrumentor, AsyncpgInstrumentor):
                assert kind().switch_on()
                on.callback(kind().uninstrument)
        yield


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[SQLAlchemyInstrumentor]:
    """SQLAlchemy is instrumented."""
    instrumentor = SQLAlchemyInstrumentor()
    assert instrumentor.switch_on()
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def url_of(server: Postgres, driver: str) -> str:
    """The server's address in SQLAlchemy's words."""
    return server.url.replace("postgresql://", f"postgresql+{driver}://")


def play(server: Postgres, driver: str, scenario: Callable[[sa.Connection], Any]) -> Any:
    """Run a scenario with a connection of its own; an async engine runs it as SQLAlchemy does."""

    async def played() -> Any:
        engine = create_async_engine(url_of(server, driver), poolclass=NullPool)
        try:
            async with engine.connect() as connection:
                return await connection.run_sync(scenario)
        finally:
            await engine.dispose()

    if driver in ASYNC:
        return asyncio.run(played())
    engine = sa.create_engine(url_of(server, driver), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return scenario(connection)
    finally:
        engine.dispose()


def recorded(server: Postgres, driver: str, scenario: Callable[[sa.Connection], Any]) -> Captured:
    """What was recorded of a scenario."""
    with capture(clock=Clock()) as captured:
        play(server, driver, scenario)
    return captured


@pytest.mark.usefixtures("drivers")
def test_a_search(postgres: Postgres, driver: str) -> None:
    """A search is one retrieval with the span of one database client inside, whoever else observes the driver."""
    captured = recorded(postgres, driver, lambda connection: connection.execute(NEAREST).all())

    check_a_search(captured, postgres, is_scored=driver in SCORED)


@pytest.mark.usefixtures("drivers")
def test_ways_to_execute(postgres: Postgres, driver: str) -> None:
    """Core, ORM, literal texts and the driver's own SQL are each one call."""

    def scenario(connection: sa.Connection) -> list[int]:
        with Session(connection) as session:
            scalars = session.scalars(sa.select(Doc).order_by(DISTANCE).limit(2)).all()
            return [
                len(scalars),
                len(session.execute(NEAREST).all()),
                len(connection.execute(TEXT, {"k": 4}).all()),
                len(connection.exec_driver_sql("SELECT id FROM docs ORDER BY embedding <=> '[1,1]' LIMIT 1").all()),
                len(connection.execute(sa.select(Doc.id).where(Doc.id < 3)).all()),
            ]

    with capture(clock=Clock()) as captured:
        found = play(postgres, driver, scenario)

    assert found == [2, 2, 4, 1, 2]
    assert [call.attributes[a.GEN_AI_RETRIEVAL_TOP_K] for call in captured.calls] == [2, 3, 4, 1]
    assert [call.attributes[a.STAGELIGHT_RETRIEVAL_COUNT] for call in captured.calls] == [2, 2, 4, 1]


@pytest.mark.usefixtures("drivers")
@pytest.mark.parametrize("driver", ["psycopg", "psycopg_async", "asyncpg"], indirect=True)
def test_a_streamed_result(postgres: Postgres, driver: str) -> None:
    """A streamed result is one call: of the execution, or of the first rows where the driver is observed."""

    def scenario(connection: sa.Connection) -> int:
        return len(connection.execution_options(stream_results=True, yield_per=1).execute(NEAREST).all())

    with capture(clock=Clock()) as captured:
        assert play(postgres, driver, scenario) == 2

    assert [span.name for span in captured.spans] == ["SELECT docs", "retrieval docs"]
    assert captured.call("retrieval").attributes[a.GEN_AI_RETRIEVAL_TOP_K] == 3


def test_an_empty_result(postgres: Postgres, driver: str) -> None:
    """A search that finds nothing is told apart."""
    nothing = sa.select(Doc.id).where(DISTANCE < -1)
    attributes = recorded(postgres, driver, lambda connection: connection.execute(nothing)).call("retrieval").attributes

    assert (attributes[a.STAGELIGHT_RETRIEVAL_COUNT], attributes[a.STAGELIGHT_RETRIEVAL_EMPTY]) == (0, True)


@pytest.mark.usefixtures("drivers")
def test_a_failure(postgres: Postgres, driver: str) -> None:
    """Both spans fail with SQLAlchemy's exception, which the caller gets."""
    missing = sa.text("SELECT id FROM nothing ORDER BY embedding <=> '[1]' LIMIT 1")

    def scenario(connection: sa.Connection) -> None:
        with pytest.raises(sa.exc.ProgrammingError):
            connection.execute(missing)

    captured = recorded(postgres, driver, scenario)

    check_a_failure(captured, "sqlalchemy.exc.ProgrammingError", state=None if driver == "pg8000" else "42P01")


def test_a_manual_retrieval_is_one_call(postgres: Postgres, driver: str) -> None:
    """The client fills the retrieval it is called in; the database span is inside it."""

    def scenario(connection: sa.Connection) -> None:
        with stagelight.turn("answer"), stagelight.retrieval(provider="pgvector", source="library"):
            connection.execute(NEAREST)

    captured = recorded(postgres, driver, scenario)

    assert [span.name for span in captured.spans] == ["SELECT docs", "retrieval library", "invoke_workflow answer"]
    assert captured.call("retrieval").attributes[a.STAGELIGHT_RETRIEVAL_COUNT] == 2


def test_another_database_is_left_alone() -> None:
    """Only PostgreSQL has these operators; elsewhere a statement with one is nobody's search."""
    engine = sa.create_engine("sqlite://")
    with capture(clock=Clock()) as captured, engine.connect() as connection:
        connection.execute(sa.text("SELECT '<=>' AS cosine_distance FROM sqlite_master"))
    engine.dispose()

    assert captured.spans == ()


def everything(connection: sa.Connection) -> list[Any]:
    """Use a connection in every way; what the caller sees, as values that can be compared."""
    result = connection.execute(NEAREST)
    seen: list[Any] = [type(result), result.rowcount, list(result.keys()), repr(result.first()), result.closed]
    seen += [repr(connection.execute(NEAREST).mappings().all()), connection.in_transaction()]
    with Session(connection) as session:
        seen += [[doc.id for doc in session.scalars(sa.select(Doc).order_by(DISTANCE))]]
    try:
        connection.execute(sa.text("SELECT id FROM nothing ORDER BY embedding <=> '[1]' LIMIT 1"))
    except sa.exc.DBAPIError as error:
        seen += [type(error), str(error), type(error.orig), type(error.__cause__), error.statement, error.params]
    return seen


def test_the_caller_and_the_server_see_the_same(
    postgres: Postgres, driver: str, instrumented: SQLAlchemyInstrumentor
) -> None:
    """Results, exceptions, events and every statement that is sent are those of SQLAlchemy alone."""
    play(postgres, driver, everything)  # first connections ask the server for its version and types
    captured, statements = compare_with_alone(postgres, instrumented, lambda: play(postgres, driver, everything))

    assert len(captured.calls) == 4
    assert len(statements) >= 4


def test_our_errors_stay_ours(postgres: Postgres, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When reading a statement or a result fails inside us, the caller gets SQLAlchemy's result."""

    def broken(*_: Any, **__: Any) -> Any:
        raise LookupError("ours")

    _guard.set_strict(False)
    for name in ("_found", "begin_search"):
        monkeypatch.setattr(integration, name, broken)
        assert len(play(postgres, driver, lambda connection: connection.execute(NEAREST).all())) == 2
    assert _guard.errors()


def test_switching_on_and_off_restores_the_same_function(instrumented: SQLAlchemyInstrumentor) -> None:
    """Afterwards the class has the very function it had."""
    check_restored(instrumented, [(sa.Connection, "_exec_single_context")])
