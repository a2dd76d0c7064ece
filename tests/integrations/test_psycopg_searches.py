"""Vector searches over psycopg, sync and async, on a real PostgreSQL with pgvector."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy
import psycopg
import pytest
import stagelight
from integrations.postgres_searches import SLOW, cancel_while_searching, check_a_failure, check_a_search
from integrations.psycopg_connections import NEAREST, recorded_of
from opentelemetry.trace import StatusCode
from pgvector import Vector
from pgvector.psycopg import register_vector
from postgres import Postgres
from psycopg import sql
from stagelight.conventions import attributes as a
from stagelight.testing import Clock, capture

CLIENT = "psycopg"
pytestmark = pytest.mark.usefixtures("recorded")


def test_a_search(postgres: Postgres, kind: str, script: Any) -> None:
    """A search is a retrieval with its distances, and inside it the span of a database client."""

    async def scenario(connection: Any) -> None:
        await script.now(connection.execute(NEAREST, ("[1,1]", 3)))

    check_a_search(recorded_of(postgres, kind, scenario), postgres)


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

    attributes = recorded_of(postgres, "sync", scenario).call("retrieval").attributes
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

    attributes = recorded_of(postgres, "sync", scenario).call("retrieval").attributes

    assert (attributes[a.STAGELIGHT_RETRIEVAL_METRIC], attributes[a.STAGELIGHT_RETRIEVAL_COUNT]) == ("euclid", 2)
    assert a.STAGELIGHT_RETRIEVAL_TOP_SCORE not in attributes


def test_a_distance_that_is_no_number(postgres: Postgres) -> None:
    """The cosine distance of a zero vector is not a number: it is left out of the scores."""

    async def scenario(connection: Any) -> None:
        connection.execute("SELECT embedding <=> '[0,0]' AS d FROM docs ORDER BY d LIMIT 2")

    attributes = recorded_of(postgres, "sync", scenario).call("retrieval").attributes

    assert attributes[a.STAGELIGHT_RETRIEVAL_COUNT] == 2
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

    assert recorded_of(postgres, kind, scenario).spans == ()


def test_an_empty_result(postgres: Postgres, kind: str, script: Any) -> None:
    """A search that finds nothing is told apart."""

    async def scenario(connection: Any) -> None:
        await script.now(connection.execute("SELECT id FROM docs WHERE embedding <-> '[1,1]' < -1"))

    attributes = recorded_of(postgres, kind, scenario).call("retrieval").attributes

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

    calls = recorded_of(postgres, kind, scenario).calls

    assert [call.attributes[a.GEN_AI_DATA_SOURCE_ID] for call in calls] == ["public.docs", "docs"]
    assert [call.attributes[a.GEN_AI_RETRIEVAL_TOP_K] for call in calls] == [2, 2]


def test_vectors_of_pgvectors_own_classes(postgres: Postgres) -> None:
    """Parameters may be arrays and pgvector's vectors, by its adapters."""

    async def scenario(connection: Any) -> None:
        register_vector(connection)
        for near in (numpy.array([1.0, 1.0]), Vector([1, 1])):
            rows = connection.execute("SELECT embedding FROM docs ORDER BY embedding <-> %s LIMIT 1", (near,))
            assert len(rows.fetchall()) == 1

    assert len(recorded_of(postgres, "sync", scenario).calls) == 2


def test_a_failure(postgres: Postgres, kind: str, script: Any) -> None:
    """Both spans fail with the client's exception, which the caller gets; the server's state is on the inner one."""

    async def scenario(connection: Any) -> None:
        with pytest.raises(psycopg.errors.UndefinedTable):
            await script.now(connection.execute("SELECT id FROM nothing ORDER BY embedding <=> '[1]' LIMIT 1"))

    check_a_failure(recorded_of(postgres, kind, scenario), "psycopg.errors.UndefinedTable")


def test_a_cancelled_task(postgres: Postgres) -> None:
    """A task that is cancelled while the server searches is no error."""

    async def scenario() -> None:
        # Old versions leave the connection busy: only closing it is certain to work.
        connection = await psycopg.AsyncConnection.connect(postgres.url)
        await cancel_while_searching(postgres, connection.execute(SLOW))
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

    captured = recorded_of(postgres, kind, scenario)

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
