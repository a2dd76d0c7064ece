"""One search of the table ``docs``, whichever driver asks for it: what it leaves, how it fails, who sees it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from postgres import Postgres
from stagelight.conventions import attributes as a
from stagelight.integrations._instrumentor import Instrumentor
from stagelight.testing import Captured, capture

__all__ = [
    "SLOW", "cancel_while_searching", "check_a_failure", "check_a_search", "check_restored", "compare_with_alone",
]  # fmt: skip

SLOW = "SELECT id, pg_sleep(60) FROM docs ORDER BY embedding <=> '[1,1]' LIMIT 1"
COUNTED_NAME = re.compile(r"__asyncpg_([a-z]+)_[0-9a-f]+__")
"""Prepared statements and portals of asyncpg: their names count up in a process."""
LIMIT_S = 60


def check_a_search(captured: Captured, server: Postgres, *, is_scored: bool = True) -> None:
    """The three nearest of the even: a retrieval with its distances, and inside it the span of a database client.

    Args:
        captured: what was recorded.
        server: which was asked.
        is_scored: whether the driver's rows can be read for their distances.
    """
    database, retrieval = captured.spans
    scores = {
        a.STAGELIGHT_RETRIEVAL_TOP_SCORE: pytest.approx(0.0513, abs=0.0001),
        a.STAGELIGHT_RETRIEVAL_MIN_SCORE: pytest.approx(0.0513, abs=0.0001),
        a.STAGELIGHT_RETRIEVAL_MARGIN: pytest.approx(0.0912, abs=0.0001),
    }

    assert (retrieval.name, retrieval.kind) == ("retrieval docs", SpanKind.CLIENT)
    assert retrieval.attributes == {
        a.STAGELIGHT_STAGE: "retrieval",
        a.GEN_AI_OPERATION_NAME: "retrieval",
        a.GEN_AI_PROVIDER_NAME: "postgresql",
        a.GEN_AI_DATA_SOURCE_ID: "docs",
        a.GEN_AI_RETRIEVAL_TOP_K: 3,
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: server.port,
        a.STAGELIGHT_RETRIEVAL_MODE: "dense",
        a.STAGELIGHT_RETRIEVAL_FILTERED: True,
        a.STAGELIGHT_RETRIEVAL_COUNT: 2,
        a.STAGELIGHT_RETRIEVAL_EMPTY: False,
        a.STAGELIGHT_RETRIEVAL_METRIC: "cosine_distance",
        a.STAGELIGHT_RETRIEVAL_HIGHER_IS_BETTER: False,
        a.STAGELIGHT_OUTCOME: "completed",
        **(scores if is_scored else {}),
    }
    assert (database.name, database.kind) == ("SELECT docs", SpanKind.CLIENT)
    assert database.attributes == {
        a.DB_SYSTEM_NAME: "postgresql",
        a.DB_OPERATION_NAME: "SELECT",
        a.DB_COLLECTION_NAME: "docs",
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: server.port,
    }
    assert database.parent is not None
    assert database.parent.span_id == retrieval.context.span_id


def check_a_failure(captured: Captured, kind: str, *, state: str | None = "42P01") -> None:
    """Both spans failed with the class of the client's exception; the server's state is on the inner one."""
    database, retrieval = (span.attributes or {} for span in captured.spans)

    assert [told[a.ERROR_TYPE] for told in (database, retrieval)] == [kind] * 2
    assert [span.status.status_code for span in captured.spans] == [StatusCode.ERROR] * 2
    assert database.get(a.DB_RESPONSE_STATUS_CODE) == state
    assert retrieval[a.STAGELIGHT_OUTCOME] == "error"


async def cancel_while_searching(server: Postgres, search: Awaitable[Any]) -> None:
    """Cancel a search with ``SLOW``, once the server has begun it."""
    before = server.log.read_text().count("pg_sleep")
    task = asyncio.ensure_future(search)
    async with asyncio.timeout(LIMIT_S):
        while server.log.read_text().count("pg_sleep") == before:  # noqa: ASYNC110 - the server has no event for us
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def compare_with_alone(
    server: Postgres, instrumentor: Instrumentor, use: Callable[[], Any]
) -> tuple[Captured, list[str]]:
    """Use a client with us and then alone, which must be the same for the caller and for the server.

    Returns:
        What was recorded with us, and the statements that the server was sent each time.
    """

    def used() -> tuple[Any, list[str]]:
        before = len(server.statements())
        seen = use()
        return seen, [COUNTED_NAME.sub(r"\1", line) for line in server.statements()[before:]]

    with capture() as captured:
        observed = used()
    instrumentor.uninstrument()
    alone = used()

    assert observed == alone
    return captured, alone[1]


def check_restored(instrumentor: Instrumentor, places: Sequence[tuple[type, str]]) -> None:
    """Switched off, the classes have the very functions they had, which the wrapped ones name as theirs."""
    wrapped = [vars(owner)[name] for owner, name in places]
    instrumentor.uninstrument()
    originals = [vars(owner)[name] for owner, name in places]

    assert [one.__wrapped__ for one in wrapped] == originals
    assert not any(hasattr(one, "_self_wrapper") for one in originals)
