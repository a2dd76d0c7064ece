"""Vector searches over asyncpg, on a real PostgreSQL with pgvector."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest
import stagelight
from integrations.postgres_searches import (
    SLOW,
    cancel_while_searching,
    check_a_failure,
    check_a_search,
    check_restored,
    compare_with_alone,
)
from pgvector import Vector
from pgvector.asyncpg import register_vector
from postgres import Postgres
from stagelight import _guard
from stagelight.conventions import attributes as a
from stagelight.integrations import asyncpg as integration
from stagelight.integrations.asyncpg import AsyncpgInstrumentor
from stagelight.testing import Captured, Clock, capture

NEAREST = "SELECT id, embedding <=> $1::vector AS distance FROM docs WHERE even ORDER BY distance LIMIT $2"
PATCHED = [
    (asyncpg.Connection, "_execute"),
    (asyncpg.Connection, "fetch"),
    (asyncpg.prepared_stmt.PreparedStatement, "_PreparedStatement__bind_execute"),
    (asyncpg.cursor.BaseCursor, "_bind_exec"),
    (asyncpg.cursor.BaseCursor, "_exec"),
]

Scenario = Callable[[Any], Awaitable[Any]]


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[AsyncpgInstrumentor]:
    """The client is instrumented."""
    instrumentor = AsyncpgInstrumentor()
    assert instrumentor.switch_on()
    yield instrumentor
    instrumentor.uninstrument()


@pytest.fixture(params=["connection", "pool"])
def kind(request: pytest.FixtureRequest) -> str:
    """A connection of its own, or one of a pool."""
    return str(request.param)


def play(server: Postgres, kind: str, scenario: Scenario) -> Any:
    """Run a scenario with a connection, whose text parameters are vectors as texts."""

    async def as_text(connection: Any) -> None:
        await connection.set_type_codec("vector", encoder=str, decoder=str, format="text")

    async def played() -> Any:
        if kind == "pool":
            async with (
                asyncpg.create_pool(server.url, min_size=1, max_size=1, init=as_text) as pool,
                pool.acquire() as taken,
            ):
                return await scenario(taken)
        connection = await asyncpg.connect(server.url)
        await as_text(connection)
        try:
            return await scenario(connection)
        finally:
            await connection.close()

    return asyncio.run(played())


def recorded(server: Postgres, kind: str, scenario: Scenario) -> Captured:
    """What was recorded of a scenario."""
    with capture(clock=Clock()) as captured:
        play(server, kind, scenario)
    return captured


def test_a_search(postgres: Postgres, kind: str) -> None:
    """A search is a retrieval with its distances, and inside it the span of a database client."""

    async def scenario(connection: Any) -> None:
        await connection.fetch(NEAREST, "[1,1]", 3)

    check_a_search(recorded(postgres, kind, scenario), postgres)


WAYS: list[tuple[Scenario, int]] = [
    (lambda connection: connection.fetch(NEAREST, "[1,1]", 3), 2),
    (lambda connection: connection.fetch(query=NEAREST.replace("$1", "'[1,1]'").replace("$2", "3")), 2),
    (lambda connection: connection.fetchrow(NEAREST, "[1,1]", 3), 1),
    (lambda connection: connection.fetchval(NEAREST, "[1,1]", 3), 1),
    (lambda connection: connection.fetch(NEAREST.replace("even", "id < 0"), "[1,1]", 3), 0),
    (lambda connection: connection.fetchval(NEAREST.replace("even", "id < 0"), "[1,1]", 3), 0),
]


@pytest.mark.parametrize(("way", "count"), WAYS)
def test_ways_to_fetch(postgres: Postgres, kind: str, way: Scenario, count: int) -> None:
    """All ways to fetch are one call, with as many results as the server sent; prepared statements too."""

    async def scenario(connection: Any) -> None:
        await way(connection)

    attributes = recorded(postgres, kind, scenario).call("retrieval").attributes

    assert attributes[a.STAGELIGHT_RETRIEVAL_COUNT] == count
    assert attributes[a.STAGELIGHT_RETRIEVAL_EMPTY] is (count == 0)
    assert (a.STAGELIGHT_RETRIEVAL_TOP_SCORE in attributes) is (count > 0)


def test_prepared_statements(postgres: Postgres, kind: str) -> None:
    """Preparing searches nothing; each execution is a call."""

    async def scenario(connection: Any) -> None:
        prepared = await connection.prepare(NEAREST)
        assert captured.calls == ()
        assert len(await prepared.fetch("[1,1]", 3)) == 2
        assert (await prepared.fetchrow("[1,1]", 3))["id"] == 2
        assert await prepared.fetchval("[1,1]", 3) == 2

    with capture(clock=Clock()) as captured:
        play(postgres, kind, scenario)

    assert [call.attributes[a.STAGELIGHT_RETRIEVAL_COUNT] for call in captured.calls] == [2, 1, 1]
    assert [call.attributes[a.GEN_AI_RETRIEVAL_TOP_K] for call in captured.calls] == [3] * 3


def test_cursors(postgres: Postgres, kind: str) -> None:
    """The first rows of a cursor are the search; later ones are none."""

    async def scenario(connection: Any) -> None:
        async with connection.transaction():
            cursor = await connection.cursor(NEAREST, "[1,1]", 3)
            assert captured.calls == ()
            assert [len(await cursor.fetch(1)) for _ in range(3)] == [1, 1, 0]
            assert [row["id"] async for row in connection.cursor(NEAREST, "[1,1]", 3, prefetch=1)] == [2, 4]
            prepared = await connection.prepare(NEAREST)
            assert [row["id"] async for row in prepared.cursor("[1,1]", 3)] == [2, 4]

    with capture(clock=Clock()) as captured:
        play(postgres, kind, scenario)

    assert [call.attributes[a.STAGELIGHT_RETRIEVAL_COUNT] for call in captured.calls] == [1, 1, 2]


def test_other_statements_are_left_alone(postgres: Postgres, kind: str) -> None:
    """Without an operator of pgvector, and where no rows come back, nothing is recorded."""

    async def scenario(connection: Any) -> None:
        await connection.fetch("SELECT id FROM docs WHERE id < $1", 3)
        await connection.fetch("SELECT point(id, 1) <-> point(0, 0) FROM docs")
        await connection.execute("CREATE TEMP TABLE near AS SELECT id FROM docs ORDER BY embedding <-> '[1,1]'")
        await connection.execute(NEAREST, "[1,1]", 3)
        await connection.executemany(NEAREST, [("[1,1]", 3)])

    assert recorded(postgres, kind, scenario).spans == ()


def test_vectors_of_pgvectors_own_classes(postgres: Postgres) -> None:
    """Parameters may be pgvector's vectors, by its codec."""

    async def scenario(_connection: Any) -> None:
        connection = await asyncpg.connect(postgres.url)
        await register_vector(connection)
        await connection.fetch("SELECT embedding FROM docs ORDER BY embedding <-> $1 LIMIT 1", Vector([1, 1]))
        await connection.close()

    assert len(recorded(postgres, "connection", scenario).calls) == 1


def test_a_failure(postgres: Postgres, kind: str) -> None:
    """Both spans fail with the client's exception, which the caller gets; the server's state is on the inner one."""

    async def scenario(connection: Any) -> None:
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.fetch("SELECT id FROM nothing ORDER BY embedding <=> '[1]' LIMIT 1")

    check_a_failure(recorded(postgres, kind, scenario), "asyncpg.exceptions.UndefinedTableError")


def test_time_out_and_cancellation(postgres: Postgres) -> None:
    """The client's own time-out is an error of that kind; a cancelled task is none."""

    async def scenario(connection: Any) -> None:
        with pytest.raises(TimeoutError):
            await connection.fetch(SLOW, timeout=0.2)
        await cancel_while_searching(postgres, connection.fetch(SLOW))

    captured = recorded(postgres, "connection", scenario)

    assert [call.outcome for call in captured.calls] == ["timeout", "cancelled"]


def test_a_manual_retrieval_is_one_call(postgres: Postgres, kind: str) -> None:
    """The client fills the retrieval it is called in; the database span is inside it."""

    async def scenario(connection: Any) -> None:
        with stagelight.turn("answer"), stagelight.retrieval(provider="pgvector", source="library"):
            await connection.fetch(NEAREST, "[1,1]", 3)

    captured = recorded(postgres, kind, scenario)

    assert [span.name for span in captured.spans] == ["SELECT docs", "retrieval library", "invoke_workflow answer"]
    assert captured.call("retrieval").attributes[a.STAGELIGHT_RETRIEVAL_COUNT] == 2


def test_two_searches_at_the_same_time(postgres: Postgres) -> None:
    """Searches of two tasks stay in their turns."""

    async def one(name: str) -> None:
        connection = await asyncpg.connect(postgres.url)
        with stagelight.turn(name):
            await connection.fetch(NEAREST.replace("$1", "'[1,1]'").replace("$2", "3"))
        await connection.close()

    async def both() -> None:
        await asyncio.gather(one("first"), one("second"))

    with capture(clock=Clock()) as captured:
        asyncio.run(both())

    assert [len(captured.turn(name).calls) for name in ("first", "second")] == [1, 1]


async def everything(connection: Any) -> list[Any]:
    """Use a connection in every way; what the caller sees, as values that can be compared."""
    rows = await connection.fetch(NEAREST, "[1,1]", 3)
    seen: list[Any] = [type(rows), [type(row) for row in rows], repr(rows)]
    seen += [repr(await connection.fetchrow(NEAREST, "[1,1]", 3)), await connection.fetchval(NEAREST, "[1,1]", 3)]
    prepared = await connection.prepare(NEAREST)
    seen += [repr(await prepared.fetch("[1,1]", 3)), prepared.get_statusmsg(), connection.is_in_transaction()]
    async with connection.transaction():
        cursor = await connection.cursor(NEAREST, "[1,1]", 3)
        seen += [type(cursor), repr(await cursor.fetch(1)), repr(await cursor.fetchrow()), await cursor.fetchrow()]
        seen += [[repr(row) async for row in connection.cursor(NEAREST, "[1,1]", 3, prefetch=1)]]
    for values in (("[1,1]",), (object(), 3), ("tides", 3)):
        try:
            await connection.fetch(NEAREST, *values)
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            seen += [type(error), str(error).split(" at 0x")[0], type(error.__cause__), error.__suppress_context__]
    waiting = connection.fetch(NEAREST, "[1,1]", 3)
    seen += [type(waiting), waiting.__qualname__]
    waiting.close()
    return seen


def test_the_caller_and_the_server_see_the_same(
    postgres: Postgres, kind: str, instrumented: AsyncpgInstrumentor
) -> None:
    """Records, exceptions and every statement that is sent are those of the client alone."""
    captured, statements = compare_with_alone(postgres, instrumented, lambda: play(postgres, kind, everything))

    assert len(captured.calls) == 9
    assert len(statements) >= 9


def test_our_errors_stay_ours(postgres: Postgres, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When reading a statement or a result fails inside us, the caller gets the client's result."""

    def broken(*_: Any, **__: Any) -> Any:
        raise LookupError("ours")

    async def scenario(connection: Any) -> list[int]:
        prepared = await connection.prepare(NEAREST)
        return [len(await connection.fetch(NEAREST, "[1,1]", 3)), len(await prepared.fetch("[1,1]", 3))]

    _guard.set_strict(False)
    for name in ("retrieved", "begin_search"):
        monkeypatch.setattr(integration, name, broken)
        assert play(postgres, kind, scenario) == [2, 2]
    assert _guard.errors()


def test_switching_on_and_off_restores_the_same_functions(instrumented: AsyncpgInstrumentor) -> None:
    """Afterwards the classes have the very functions they had."""
    check_restored(instrumented, PATCHED)
