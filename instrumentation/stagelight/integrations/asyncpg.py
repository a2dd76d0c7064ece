"""asyncpg: statements that search vectors with pgvector's operators; all others are left alone."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from stagelight.facts import Response
from stagelight.integrations._database import DatabaseCall, is_spanned, retrieved
from stagelight.integrations._engine import around_async
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target
from stagelight.integrations._pgvector import Search, Server, begin_search, gated, is_suspect, value_in
from stagelight.integrations._reading import count, part, text

__all__ = ["AsyncpgInstrumentor", "found_in", "read"]

_OFFICIAL: Final = "opentelemetry.instrumentation.asyncpg"
_MOST_SCORES: Final = 1000
"""Scores of larger results are not read: the time would be the caller's."""
_MOST_PORTALS: Final = 4096

Found = Callable[[Any, Search], Response | None]


# what was asked


def _server(connection: Any) -> Server:
    where = part(connection, "_addr")
    if isinstance(where, tuple) and len(where) == 2:
        return Server(text(where[0]), count(where[1]))
    return Server(text(where))


def _begin(connection: Any, query: Any, values: Any, found: Found, *, has_span: bool = True) -> DatabaseCall | None:
    if not isinstance(query, str) or not is_suspect(query):
        return None
    return begin_search(
        query,
        value_in(values),
        found,
        server=lambda: _server(connection),
        has_span=has_span and not is_spanned(_OFFICIAL),
    )


def _execute(connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DatabaseCall | None:
    """``fetch``, ``fetchrow`` and ``fetchval`` all run through it; ``execute`` does too, and returns no rows."""
    return None if kwargs.get("return_status") else _begin(connection, args[0], args[1], found_in)


def _prepared(statement: Any, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> DatabaseCall | None:
    return _begin(part(statement, "_connection"), part(statement, "_query"), args[0], found_in)


# cursors: a search is done when the first rows are there

_read_portals: OrderedDict[str, None] = OrderedDict()
"""Portals from which rows have been read; their names are unique in the process."""


def _first_page(cursor: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> DatabaseCall | None:
    return _begin(part(cursor, "_connection"), part(cursor, "_query"), part(cursor, "_args"), found_in)


def _page(cursor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DatabaseCall | None:
    query, portal = part(cursor, "_query"), part(cursor, "_portal_name")
    is_iterator = type(cursor).__name__ == "CursorIterator"  # its first page came with its binding
    if is_iterator or portal in _read_portals or not isinstance(query, str) or not is_suspect(query):
        return None
    _read_portals[portal] = None
    if len(_read_portals) > _MOST_PORTALS:
        _read_portals.popitem(last=False)
    return _first_page(cursor, args, kwargs)


# what came back


def found_in(rows: Any, search: Search) -> Response | None:
    """What a list of asyncpg's records holds."""
    if not isinstance(rows, list):
        return None
    scores: list[Any] = []
    if rows and search.column is not None and len(rows) <= _MOST_SCORES:
        columns = [at for at, name in enumerate(rows[0].keys()) if name == search.column]
        scores = [row[columns[0]] for row in rows] if len(columns) == 1 else []
    return retrieved(len(rows), scores, search.scale)


def read(_response: Any) -> Response | None:
    """Nothing: records alone do not say what they are."""
    return None


# below the official instrumentation, whose span is then the database client's


def _result(method: str, result: Any, search: Search) -> Response | None:
    if method == "fetchval":  # NULL and no row look the same
        return None if result is None else retrieved(1, (), search.scale)
    if method == "fetchrow":
        return found_in([] if result is None else [result], search)
    return found_in(result, search)


def _begin_traced(_official: Any, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> DatabaseCall | None:
    """The official instrumentation's wrapper runs: function, connection or prepared statement, arguments."""
    function, instance, given = args[:3]
    method = str(part(function, "__name__"))
    if method not in _METHODS:
        return None
    query = part(instance, "_query")
    connection = instance if query is None else part(instance, "_connection")
    values = given[1:] if query is None else given
    return _begin(connection, query or given[0], values, partial(_result, method), has_span=False)


def _is_official() -> bool:
    official = sys.modules.get(_OFFICIAL)
    return official is not None and official.AsyncPGInstrumentor().is_instrumented_by_opentelemetry


def _begin_outer(method: str, connection: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DatabaseCall | None:
    """A connection's method, below which is the official instrumentation's wrapper, if it was there first."""
    query, values = (args[0], args[1:]) if args else (kwargs.get("query"), ())
    return _begin(connection, query, values, partial(_result, method), has_span=False)


# the table


def _first(_instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs.get("query")


def _own(instance: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Any:
    return part(instance, "_query")


def _if_official(_instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _first(_instance, args, kwargs) if _is_official() else None


_METHODS: Final = ("fetch", "fetchrow", "fetchval")


class AsyncpgInstrumentor(Instrumentor):
    """Records searches with pgvector's operators that run over asyncpg."""

    distribution = "asyncpg"
    supported = "asyncpg >= 0.27, < 1"
    coverage = Coverage(
        title="pgvector with asyncpg",
        calls={
            **{f"connection.{method}": "retrieval" for method in _METHODS},
            **{f"prepared.{method}": "retrieval" for method in _METHODS},
            "connection.cursor": "retrieval",
        },
        ways="async; connections and pools, prepared statements and cursors",
        recorded=(
            "The same facts as with [psycopg](#pgvector-with-psycopg).",
            "Of a cursor the first rows are the search, and they are counted.",
        ),
        not_recorded=(
            "The statement's text and parameters; statements that write vectors.",
            "`execute`, `executemany` and `fetchmany`, `copy_from_query`, functions of your own that search.",
            "Scores where the statement does not select the distance, and of more than 1000 rows.",
        ),
    )

    @property
    def targets(self) -> Sequence[Target]:
        rows: tuple[tuple[str, str, Callable[..., Any], Callable[..., DatabaseCall | None]], ...] = (
            ("asyncpg.connection", "Connection._execute", _first, _execute),
            ("asyncpg.prepared_stmt", "PreparedStatement._PreparedStatement__bind_execute", _own, _prepared),
            ("asyncpg.cursor", "BaseCursor._bind_exec", _own, _first_page),
            ("asyncpg.cursor", "BaseCursor._exec", _own, _page),
            # Whichever of the two was switched on first, ours is around the official one.
            *(("asyncpg", f"Connection.{one}", _if_official, partial(_begin_outer, one)) for one in _METHODS),
        )
        official = (f"AsyncPGInstrumentor.{name}" for name in ("_do_execute", "_do_prepared_execute"))
        return (
            *(Target(module, path, gated(query, around_async(begin))) for module, path, query, begin in rows),
            *(Target(_OFFICIAL, path, around_async(_begin_traced)) for path in official),
        )
