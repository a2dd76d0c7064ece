"""Vector searches over psycopg, sync and async, on a real PostgreSQL with pgvector."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy
import psycopg
import pytest
import stagelight
from opentelemetry.trace import SpanKind, StatusCode
from pgvector import Vector
from pgvector.psycopg import register_vector
from postgres import Postgres
from psycopg import sql
from psycopg.rows import dict_row
from stagelight import _guard
from stagelight.conventions import attributes as a
from stagelight.integrations import psycopg as integration
from stagelight.integrations.psycopg import PsycopgInstrumentor
from stagelight.testing import Captured, Clock, capture

NEAREST = "SELECT id, embedding <=> %s::vector AS distance FROM docs WHERE even ORDER BY distance LIMIT %s"
SLOW = "SELECT id, pg_sleep(60) FROM docs ORDER BY embedding <=> '[1,1]' LIMIT 1"
PATCHED = [
    (psycopg.Cursor, "execute"),
    (psycopg.AsyncCursor, "execute"),
    (psycopg.cursor.BaseCursor, "_stream_fetchone_gen"),
    (next(kind for kind in psycopg.ServerCursor.__mro__ if kind.__name__ == "ServerCursorMixin"), "_fetch_gen"),
]


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[PsycopgInstrumentor]:
    """The client is instrumented."""
    instrumentor = PsycopgInstrumentor()
    assert instrumentor.switch_on()
    yield instrumentor
    instrumentor.uninstrument()


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the two kinds of connections."""
    return str(request.param)


def play(server: Postgres, kind: str, scenario: Any, **options: Any) -> Any:
    """Run a scenario with a connection of its own."""

    async def played() -> Any:
        if kind == "async":
            async with await psycopg.AsyncConnection.connect(server.url, **options) as connection:
                return await scenario(connection)
        with psycopg.connect(server.url, **options) as connection:
            return await scenario(connection)

    return asyncio.run(played())


def recorded(server: Postgres, kind: str, scenario: Any, **options: Any) -> Captured:
    """What was recorded of a scenario."""
    with capture(clock=Clock()) as captured:
        play(server, kind, scenario, **options)
    return captured


def test_a_search(postgres: Postgres, kind: str, script: Any) -> None:
    """A search is a retrieval with its distances, and inside it the span of a database client."""

    async def scenario(connection: Any) -> None:
        await script.now(connection.execute(NEAREST, ("[1,1]", 3)))

    captured = recorded(postgres, kind, scenario)
    database, retrieval = captured.spans

    assert (retrieval.name, retrieval.kind) == ("retrieval docs", SpanKind.CLIENT)
    assert retrieval.attributes == {
        a.STAGELIGHT_STAGE: "retrieval",
        a.GEN_AI_OPERATION_NAME: "retrieval",
        a.GEN_AI_PROVIDER_NAME: "postgresql",
        a.GEN_AI_DATA_SOURCE_ID: "docs",
        a.GEN_AI_RETRIEVAL_TOP_K: 3,
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: postgres.port,
        a.STAGELIGHT_RETRIEVAL_MODE: "dense",
        a.STAGELIGHT_RETRIEVAL_FILTERED: True,
        a.STAGELIGHT_RETRIEVAL_COUNT: 2,
        a.STAGELIGHT_RETRIEVAL_EMPTY: False,
        a.STAGELIGHT_RETRIEVAL_METRIC: "cosine_distance",
        a.STAGELIGHT_RETRIEVAL_HIGHER_IS_BETTER: False,
        a.STAGELIGHT_RETRIEVAL_TOP_SCORE: pytest.approx(0.0513, abs=0.0001),
        a.STAGELIGHT_RETRIEVAL_MIN_SCORE: pytest.approx(0.0513, abs=0.0001),
        a.STAGELIGHT_RETRIEVAL_MARGIN: pytest.approx(0.0912, abs=0.0001),
        a.STAGELIGHT_OUTCOME: "completed",
    }
    assert (database.name, database.kind) == ("SELECT docs", SpanKind.CLIENT)
    assert database.attributes == {
        a.DB_SYSTEM_NAME: "postgresql",
        a.DB_OPERATION_NAME: "SELECT",
        a.DB_COLLECTION_NAME: "docs",
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: postgres.port,
    }
    assert database.parent is not None
    assert database.parent.span_id == retrieval.context.span_id


SEARCHES: list[tuple[str, str, bool, tuple[float, ...]]] = [
    ("embedding <-> '[1,1]'", "euclid", False, (0, 1, 2, 3, 4)),
    ("embedding <+> '[1,1]'", "manhattan", False, (0, 1, 2, 3, 4)),
    ("embedding <#> '[1,1]'", "negative_dot", False, (-6, -5, -4, -3, -2)),
    ("(embedding <#> '[1,1]') * -1", "dot", True, (2, 3, 4, 5, 6)),
    ("inner_product(embedding, '[1,1]')", "dot", True, (2, 3, 4, 5, 6)),
    ("l2_distance(embedding, '[1,1]')::float4", "euclid", False, (0, 1, 2, 3, 4)),
    ("round(embedding <-> '[1,1]')", "euclid", False, ()),
    ("half <-> '[1,1]'", "euclid", False, (0, 1, 2, 3, 4)),
    ("sparse <-> '{1:1,2:1}/2'::sparsevec", "euclid", False, (0, 1, 2, 3, 4)),
    ("bits <~> b'0000'", "hamming", False, (1, 1, 1, 2, 2)),
    ("1 - (embedding <=> '[1,1]')", "cosine", True, (0.8321, 0.8575, 0.8944, 0.9487, 1.0)),
]


@pytest.mark.parametrize(("expression", "metric", "higher", "scores"), SEARCHES)
@pytest.mark.parametrize("binary", [False, True])
def test_metric_and_scores(
    postgres: Postgres, expression: str, metric: str, higher: bool, scores: tuple[float, ...], binary: bool
) -> None:
    """Metric and direction are the operator's; scores are read from texts and from binary results."""

    async def scenario(connection: Any) -> None:
        connection.cursor().execute(f"SELECT {expression} FROM docs ORDER BY 1", binary=binary)  # noqa: S608

    attributes = recorded(postgres, "sync", scenario).call("retrieval").attributes
    best = (max if higher else min)(scores, default=None)

    assert attributes[a.STAGELIGHT_RETRIEVAL_COUNT] == 5
    assert attributes[a.STAGELIGHT_RETRIEVAL_METRIC] == metric
    assert attributes[a.STAGELIGHT_RETRIEVAL_HIGHER_IS_BETTER] is higher
    assert attributes.get(a.STAGELIGHT_RETRIEVAL_TOP_SCORE) == pytest.approx(best, abs=0.0001)
    assert attributes.get(a.STAGELIGHT_RETRIEVAL_MIN_SCORE) == pytest.approx(min(scores, default=None), abs=0.0001)


UNSCORED = ["SELECT id FROM docs", "SELECT *, 'x' AS d, embedding <-> '[1,1]' AS d FROM docs"]


@pytest.mark.parametrize("selected", UNSCORED)
def test_a_search_without_scores(postgres: Postgres, selected: str) -> None:
    """Distances that the statement does not select, or not under a name of their own, are absent; the metric stays."""

    async def scenario(connection: Any) -> None:
        connection.execute(f"{selected} ORDER BY embedding <-> '[1,1]' LIMIT 2")

    attributes = recorded(postgres, "sync", scenario).call("retrieval").attributes

    assert (attributes[a.STAGELIGHT_RETRIEVAL_METRIC], attributes[a.STAGELIGHT_RETRIEVAL_COUNT]) == ("euclid", 2)
    assert a.STAGELIGHT_RETRIEVAL_TOP_SCORE not in attributes


def test_other_statements_are_left_alone(postgres: Postgres, kind: str, script: Any) -> None:
    """Without an operator of pgvector, and with the same operator of another type, nothing is recorded."""

    async def scenario(connection: Any) -> None:
        for statement, values in (
            ("SELECT id FROM docs WHERE id < %s", (3,)),
            ("SELECT point(id, 1) <-> point(0, 0) FROM docs", ()),
            ("SELECT '<->' FROM docs", ()),
            ("EXPLAIN SELECT id FROM docs ORDER BY embedding <-> '[1,1]'", ()),
            ("SELECT cosine_distance('[1,1]'::vector, '[1,2]')", ()),
        ):
            await script.now(connection.execute(statement, values or None))

    assert recorded(postgres, kind, scenario).spans == ()


def test_an_empty_result(postgres: Postgres, kind: str, script: Any) -> None:
    """A search that finds nothing is told apart."""

    async def scenario(connection: Any) -> None:
        await script.now(connection.execute("SELECT id FROM docs WHERE embedding <-> '[1,1]' < -1"))

    attributes = recorded(postgres, kind, scenario).call("retrieval").attributes

    assert (attributes[a.STAGELIGHT_RETRIEVAL_COUNT], attributes[a.STAGELIGHT_RETRIEVAL_EMPTY]) == (0, True)
    assert attributes[a.STAGELIGHT_RETRIEVAL_FILTERED] is False


def test_statements_made_of_parts(postgres: Postgres, kind: str, script: Any) -> None:
    """A statement of psycopg.sql is read without being written, and bytes like a text."""
    written = sql.SQL("SELECT id FROM {} ORDER BY {} <-> {} LIMIT {}").format(
        sql.Identifier("public", "docs"), sql.Identifier("embedding"), sql.Placeholder("near"), sql.Literal(2)
    )

    async def scenario(connection: Any) -> None:
        await script.now(connection.execute(written, {"near": "[1,1]"}))
        await script.now(connection.execute(b"SELECT id FROM docs ORDER BY embedding <-> %s LIMIT 2", ["[1,1]"]))
        await script.now(connection.execute(sql.SQL("SELECT {}").format(sql.Literal("<->"))))

    calls = recorded(postgres, kind, scenario).calls

    assert [call.attributes[a.GEN_AI_DATA_SOURCE_ID] for call in calls] == ["public.docs", "docs"]
    assert [call.attributes[a.GEN_AI_RETRIEVAL_TOP_K] for call in calls] == [2, 2]


def test_vectors_of_pgvectors_own_classes(postgres: Postgres) -> None:
    """Parameters may be arrays and pgvector's vectors, by its adapters."""

    async def scenario(connection: Any) -> None:
        register_vector(connection)
        for near in (numpy.array([1.0, 1.0]), Vector([1, 1])):
            rows = connection.execute("SELECT embedding FROM docs ORDER BY embedding <-> %s LIMIT 1", (near,))
            assert len(rows.fetchall()) == 1

    assert len(recorded(postgres, "sync", scenario).calls) == 2


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

    attributes = recorded(postgres, "sync", scenario, cursor_factory=factory).call("retrieval").attributes

    assert (attributes[a.GEN_AI_RETRIEVAL_TOP_K], attributes[a.STAGELIGHT_RETRIEVAL_COUNT]) == (3, 2)


def test_a_distance_that_is_no_number(postgres: Postgres) -> None:
    """The cosine distance of a zero vector is not a number: it is left out of the scores."""

    async def scenario(connection: Any) -> None:
        connection.execute("SELECT embedding <=> '[0,0]' AS d FROM docs ORDER BY d LIMIT 2")

    attributes = recorded(postgres, "sync", scenario).call("retrieval").attributes

    assert attributes[a.STAGELIGHT_RETRIEVAL_COUNT] == 2
    assert a.STAGELIGHT_RETRIEVAL_TOP_SCORE not in attributes


def test_a_pipeline(postgres: Postgres, kind: str, script: Any) -> None:
    """In a pipeline results come after the call: it is recorded without a count."""

    async def scenario(connection: Any) -> None:
        async with script.inside(connection.pipeline()):
            cursor = await script.now(connection.execute(NEAREST, ("[1,1]", 3)))
            assert len(await script.now(cursor.fetchall())) == 2

    attributes = recorded(postgres, kind, scenario).call("retrieval").attributes

    assert a.STAGELIGHT_RETRIEVAL_COUNT not in attributes
    assert attributes[a.STAGELIGHT_OUTCOME] == "completed"


def test_a_failure(postgres: Postgres, kind: str, script: Any) -> None:
    """Both spans fail with the client's exception, which the caller gets; the server's state is on the inner one."""

    async def scenario(connection: Any) -> None:
        with pytest.raises(psycopg.errors.UndefinedTable):
            await script.now(connection.execute("SELECT id FROM nothing ORDER BY embedding <=> '[1]' LIMIT 1"))

    captured = recorded(postgres, kind, scenario)
    database, retrieval = captured.spans

    assert [(span.attributes or {})[a.ERROR_TYPE] for span in captured.spans] == ["psycopg.errors.UndefinedTable"] * 2
    assert [span.status.status_code for span in captured.spans] == [StatusCode.ERROR] * 2
    assert (database.attributes or {})[a.DB_RESPONSE_STATUS_CODE] == "42P01"
    assert (retrieval.attributes or {})[a.STAGELIGHT_OUTCOME] == "error"


def test_a_cancelled_task(postgres: Postgres) -> None:
    """A task that is cancelled while the server searches is no error."""

    async def scenario() -> None:
        # Old versions leave the connection busy: only closing it is certain to work.
        connection = await psycopg.AsyncConnection.connect(postgres.url)
        before = postgres.log.read_text().count("pg_sleep")
        task = asyncio.create_task(connection.execute(SLOW))
        while postgres.log.read_text().count("pg_sleep") == before:  # noqa: ASYNC110 - the server has no event for us
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await connection.close()

    with capture(clock=Clock()) as captured:
        asyncio.run(scenario())

    assert captured.call("retrieval").outcome == "cancelled"
    assert [span.status.status_code for span in captured.spans] == [StatusCode.UNSET] * 2


@pytest.mark.parametrize("provider", [None, "pgvector", "postgresql"])
def test_a_manual_retrieval_is_one_call(postgres: Postgres, kind: str, script: Any, provider: str | None) -> None:
    """The client fills the retrieval it is called in; the database span is inside it."""

    async def scenario(connection: Any) -> None:
        with stagelight.turn("answer"), stagelight.retrieval(provider=provider, source="library"):
            await script.now(connection.execute(NEAREST, ("[1,1]", 3)))

    captured = recorded(postgres, kind, scenario)

    assert [span.name for span in captured.spans] == ["SELECT docs", "retrieval library", "invoke_workflow answer"]
    assert captured.call("retrieval").attributes[a.STAGELIGHT_RETRIEVAL_COUNT] == 2
    assert captured.call("retrieval").attributes[a.GEN_AI_PROVIDER_NAME] == (provider or "postgresql")


def test_two_searches_at_the_same_time(postgres: Postgres) -> None:
    """Searches of two tasks stay in their turns."""

    async def one(name: str) -> None:
        async with await psycopg.AsyncConnection.connect(postgres.url) as connection:
            with stagelight.turn(name):
                await connection.execute(NEAREST, ("[1,1]", 3))

    async def both() -> None:
        await asyncio.gather(one("first"), one("second"))

    with capture(clock=Clock()) as captured:
        asyncio.run(both())

    assert [len(captured.turn(name).calls) for name in ("first", "second")] == [1, 1]


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
    postgres: Postgres, kind: str, script: Any, instrumented: PsycopgInstrumentor
) -> None:
    """Rows, descriptions, exceptions, transactions and every statement that is sent are those of the client alone."""

    async def scenario(connection: Any) -> list[Any]:
        return await everything(connection, script)

    def run() -> tuple[list[Any], list[str]]:
        before = len(postgres.statements())
        return play(postgres, kind, scenario), postgres.statements()[before:]

    with capture() as captured:
        observed = run()
    instrumented.uninstrument()
    alone = run()

    assert observed == alone
    assert len(captured.calls) == 5
    assert len(alone[1]) >= 5


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


def test_switching_on_and_off_restores_the_same_functions(instrumented: PsycopgInstrumentor) -> None:
    """Afterwards the classes have the very functions they had, and the wrapped ones look like them."""
    wrapped = [vars(owner)[name] for owner, name in PATCHED]
    instrumented.uninstrument()
    originals = [vars(owner)[name] for owner, name in PATCHED]

    assert [one.__wrapped__ for one in wrapped] == originals
    assert not any(hasattr(one, "_self_wrapper") for one in originals)
