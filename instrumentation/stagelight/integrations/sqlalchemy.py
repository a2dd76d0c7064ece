"""SQLAlchemy on PostgreSQL, core and ORM, sync and async: statements that search vectors with pgvector's operators."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

from stagelight.facts import Response
from stagelight.integrations import psycopg
from stagelight.integrations._database import DatabaseCall, retrieved
from stagelight.integrations._engine import around
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target
from stagelight.integrations._pgvector import Search, Server, begin_search, gated, value_in
from stagelight.integrations._reading import count, part, text

__all__ = ["SQLAlchemyInstrumentor", "read"]

_MOST_SCORES: Final = 1000
"""Scores of larger results are not read: the time would be the caller's."""

_DRIVERS: Final = {
    "psycopg": ("stagelight.integrations.psycopg", "PsycopgInstrumentor"),
    "psycopg_async": ("stagelight.integrations.psycopg", "PsycopgInstrumentor"),
    "asyncpg": ("stagelight.integrations.asyncpg", "AsyncpgInstrumentor"),
}
"""Drivers with an integration of their own."""


# what was asked


def _statement(_connection: Any, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
    return part(args[1], "statement")


def _begin(connection: Any, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> DatabaseCall | None:
    dialect, context = args[:2]
    if dialect.name != "postgresql" or context.executemany:
        return None
    if part(context, "_is_server_side") is True and _is_on(*_DRIVERS.get(dialect.driver, ("", ""))):
        return None  # the driver's integration sees the first fetch, which is the search
    parameters = context.parameters
    return begin_search(
        context.statement,
        value_in(parameters[0] if parameters else None),
        lambda _, search: _found(context.cursor, search),
        server=lambda: _server(connection),
        has_span=not _is_spanned(connection, dialect, context.cursor),
    )


def _server(connection: Any) -> Server:
    url = part(connection, "engine", "url")
    return Server(text(part(url, "host")), count(part(url, "port")))


def _is_on(module: str, instrumentor: str) -> bool:
    kind = part(sys.modules.get(module), instrumentor)
    return kind is not None and kind().is_instrumented_by_opentelemetry


def _is_spanned(connection: Any, dialect: Any, cursor: Any) -> bool:
    """Whether an official instrumentation, of SQLAlchemy or of the driver, makes the database client's span."""
    official = "opentelemetry.instrumentation."
    drivers_own = part(cursor, "_cursor")
    if any(type(one).__module__.startswith(official) for one in (cursor, drivers_own)):
        return True
    if dialect.driver == "asyncpg" and _is_on(f"{official}asyncpg", "AsyncPGInstrumentor"):
        return True
    listeners = part(connection, "dispatch", "before_cursor_execute") or ()
    return any(str(part(listener, "__module__")).startswith(official) for listener in listeners)


# what came back


def _found(cursor: Any, search: Search) -> Response | None:
    """What the driver's cursor holds; reading it takes no row."""
    for one in (cursor, part(cursor, "_cursor")):
        result = part(one, "pgresult")
        if result is not None:
            return psycopg.found_in(result, search)
    rows = part(cursor, "_rows")
    if rows is not None and part(cursor, "server_side") is not True:
        return _found_rows(list(rows), part(cursor, "description"), search)
    number = count(part(cursor, "rowcount"))
    return None if number is None else retrieved(number, (), search.scale)


def _found_rows(rows: list[Any], description: Any, search: Search) -> Response:
    names = [column[0] for column in description or ()]
    at = names.index(search.column) if names.count(search.column) == 1 and len(rows) <= _MOST_SCORES else None
    return retrieved(len(rows), () if at is None else [row[at] for row in rows], search.scale)


def read(_response: Any) -> Response | None:
    """Nothing: rows alone do not say what they are."""
    return None


class SQLAlchemyInstrumentor(Instrumentor):
    """Records searches with pgvector's operators that run over SQLAlchemy; the driver's integration leaves them out."""

    distribution = "sqlalchemy"
    supported = "sqlalchemy >= 2.0, < 3"
    coverage = Coverage(
        title="pgvector with SQLAlchemy",
        calls={"connection.execute": "retrieval", "session.execute": "retrieval", "session.scalars": "retrieval"},
        ways="core and ORM, sync and async engines; any driver of PostgreSQL",
        recorded=(
            "The same facts as with [psycopg](#pgvector-with-psycopg); one call, also where the driver has an"
            " integration, too.",
            "Scores with the drivers psycopg and asyncpg; with others, such as psycopg2, the number of results.",
            "Of a streamed result the first rows are the search where the driver has an integration.",
        ),
        not_recorded=(
            "The statement's text and parameters; statements that write vectors.",
            "Other databases than PostgreSQL; `executemany`.",
            "Scores where the statement does not select the distance, and of more than 1000 rows.",
            "The number of streamed results with other drivers.",
        ),
    )

    @property
    def targets(self) -> Sequence[Target]:
        return (Target("sqlalchemy.engine.base", "Connection._exec_single_context", gated(_statement, around(_begin))),)
