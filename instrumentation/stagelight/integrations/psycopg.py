"""psycopg 3, sync and async: statements that search vectors with pgvector's operators; all others are left alone."""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

from stagelight._guard import guard, quietly
from stagelight.facts import Response
from stagelight.integrations._database import DatabaseCall, retrieved
from stagelight.integrations._engine import around, around_async
from stagelight.integrations._instrumentor import Coverage, Instrumentor, Target
from stagelight.integrations._pgvector import Search, Server, begin_search, gated, is_suspect, value_in
from stagelight.integrations._reading import count, part, text

__all__ = ["PsycopgInstrumentor", "found_in", "read"]

_TUPLES: Final = 2  # PGRES_TUPLES_OK: a whole result
_MOST_SCORES: Final = 1000
"""Scores of larger results are not read: the time would be the caller's."""
_DOUBLE, _FLOAT, _NUMERIC = 701, 700, 1700  # types of PostgreSQL's catalogue that never change
_SIGNS: Final = (b"<", b"_distance", b"inner_product")
_BINARY: Final = {_DOUBLE: ">d", _FLOAT: ">f"}


# what was asked


def _suspect(query: Any) -> str | None:
    """The statement's text if it may search vectors; templates are not read."""
    if isinstance(query, str):
        return query if is_suspect(query) else None
    if isinstance(query, bytes):
        return _suspect(query.decode("utf-8", "replace")) if any(sign in query for sign in _SIGNS) else None
    parts = _composed(query)
    if not any(kind == "SQL" and is_suspect(str(held)) for kind, held in parts):
        return None
    return "".join(_WRITTEN[kind](held) for kind, held in parts)


def _composed(query: Any) -> list[tuple[str, Any]]:
    """Class and content of the parts of a ``psycopg.sql`` object, without asking psycopg to write it."""
    found, waiting = list[tuple[str, Any]](), [query]
    while waiting:
        one = waiting.pop()
        kind, held = type(one).__name__, part(one, "_obj")
        if kind == "Composed" and isinstance(held, list):
            waiting.extend(reversed(held))
        elif kind in _WRITTEN:
            found.append((kind, held))
    return found


def _identifier(names: Any) -> str:
    return ".".join('"' + str(name).replace('"', '""') + '"' for name in names)


def _literal(value: Any) -> str:
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


_WRITTEN: Final[dict[str, Callable[[Any], str]]] = {
    "SQL": str,
    "Identifier": _identifier,
    "Literal": lambda value: _literal(value) if isinstance(value, int | str) else "NULL",
    "Placeholder": lambda name: f"%({name})s" if name else "%s",
}


def _query(_cursor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs.get("query")


def _server(cursor: Any) -> Server:
    connection = part(cursor, "connection")
    if connection is None or connection.closed:
        return Server()
    address = text(connection.info.host)
    # The path of a socket has no port.
    return Server(address, None if address is None or address.startswith("/") else count(connection.info.port))


def _begin(cursor: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, has_span: bool = True) -> DatabaseCall | None:
    statement = _suspect(_query(cursor, args, kwargs))
    if statement is None:
        return None
    return begin_search(
        statement,
        value_in(args[1] if len(args) > 1 else kwargs.get("params")),
        lambda _, search: found_in(part(cursor, "pgresult"), search),
        server=lambda: _server(cursor),
        has_span=has_span,
    )


def _begin_traced(_tracer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DatabaseCall | None:
    """The official instrumentation runs a cursor's ``execute`` and makes the database client's span itself."""
    cursor, method = args[:2]
    is_ours = any(kind.__module__.partition(".")[0] == "psycopg" for kind in type(cursor).__mro__)
    is_search = is_ours and part(method, "__name__") == "execute"
    return _begin(cursor, args[2:], kwargs, has_span=False) if is_search else None


# what came back


def found_in(result: Any, search: Search) -> Response | None:
    """What libpq's result holds; reading it takes no row from the cursor."""
    if result is None or result.status != _TUPLES:  # in a pipeline it comes later
        return None
    return retrieved(result.ntuples, _scores(result, search.column), search.scale)


def _scores(result: Any, name: str | None) -> list[float]:
    wanted = (name or "").encode("utf-8", "replace")
    columns = [at for at in range(result.nfields) if name and result.fname(at) == wanted]
    if len(columns) != 1 or result.ntuples > _MOST_SCORES:
        return []
    column = columns[0]
    kind, is_binary = result.ftype(column), result.fformat(column) == 1
    if kind not in (_BINARY if is_binary else (_DOUBLE, _FLOAT, _NUMERIC)):
        return []
    values = [result.get_value(row, column) for row in range(result.ntuples)]
    read_one = (lambda value: struct.unpack(_BINARY[kind], value)[0]) if is_binary else float
    return [read_one(value) for value in values if value is not None]


def read(_response: Any) -> Response | None:
    """Nothing: rows alone do not say what they are."""
    return None


# rows that come in pieces: a search is done when the first are there


def _sent(cursor: Any) -> tuple[str | None, Callable[[int | str], Any]]:
    """The statement and the parameters that the cursor has sent."""
    sent = part(cursor, "_query")
    query, values, formats = part(sent, "query"), part(sent, "params") or (), part(sent, "formats") or ()

    def value(parameter: int | str) -> Any:
        if not isinstance(parameter, int) or not 0 <= parameter < len(values) or values[parameter] is None:
            return None
        data = bytes(values[parameter])
        is_binary = parameter < len(formats) and formats[parameter] == 1
        if is_binary:
            return int.from_bytes(data, "big", signed=True) if len(data) in {2, 4, 8} else None
        return data.decode("utf-8", "replace")

    return (_suspect(query) if isinstance(query, bytes) else None), value


def _around_fetch(wrapped: Callable[..., Any], cursor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stands around the steps in which a server-side cursor fetches; those of its first fetch are the search."""
    # The result of a declaration has no command; that of a fetch has.
    is_first = part(cursor, "pgresult", "command_status") == b""
    return _watched(wrapped(*args, **kwargs), cursor, lambda _, search: found_in(cursor.pgresult, search), is_first)


def _around_row(wrapped: Callable[..., Any], cursor: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Stands around the steps in which ``stream`` gets a row; how many follow its first cannot be known."""
    is_first = args[0] if args else kwargs.get("first")
    return _watched(
        wrapped(*args, **kwargs),
        cursor,
        lambda row, search: None if row is not None else retrieved(0, (), search.scale),
        is_first is True,
    )


def _watched(
    steps: Generator[Any, Any, Any],
    cursor: Any,
    found: Callable[[Any, Search], Response | None],
    is_first: bool,
) -> Generator[Any, Any, Any]:
    def begin() -> DatabaseCall | None:
        statement, value = _sent(cursor)
        if statement is None:
            return None
        return begin_search(statement, value, found, server=lambda: _server(cursor))

    call = quietly("psycopg rows", begin, None) if is_first else None
    return steps if call is None else _to_the_end(steps, call)


def _to_the_end(steps: Generator[Any, Any, Any], call: DatabaseCall) -> Generator[Any, Any, Any]:
    try:
        result = yield from steps
    except BaseException as error:
        with guard("psycopg rows"):
            call.failed(error)
        raise
    with guard("psycopg rows"):
        call.returned(result)
    return result


class PsycopgInstrumentor(Instrumentor):
    """Records searches with pgvector's operators that run over psycopg 3."""

    distribution = "psycopg"
    supported = "psycopg >= 3.1.8, < 4"
    coverage = Coverage(
        title="pgvector with psycopg",
        calls={"cursor.execute": "retrieval", "cursor.stream": "retrieval", "connection.execute": "retrieval"},
        ways="sync and async; client-side, server-side and raw cursors; texts and `psycopg.sql`",
        recorded=(
            "Table, limit (`top_k`), whether a condition stands beside the distance, the number of results and their"
            " scores; the mode is `dense`, `sparse` (`sparsevec`), or `hybrid` where the statement searches texts,"
            " too.",
            "Only queries with an operator or a distance function of pgvector are read; others cost a substring test.",
            "Metric and direction are the operator's: `<->` `euclid`, `<=>` `cosine_distance`, `<#>` `negative_dot`,"
            " `<+>` `manhattan`, `<~>` `hamming`, `<%>` `jaccard_distance`; of `1 - (a <=> b)` `cosine`, of `(a <#> b)"
            " * -1` `dot`.",
            "Scores are those of a selected column that is such a distance; the result itself is not touched.",
            "Of a server-side cursor the first fetch is the search, and its rows are counted; of `stream` the first"
            " row, without a count unless nothing came.",
        ),
        not_recorded=(
            "The statement's text and parameters.",
            "Statements that write vectors: they are no stages.",
            "`executemany`, several statements in one call, functions of your own that search, template strings.",
            "Scores where the statement does not select the distance, and of more than 1000 rows.",
            "The number of results in pipeline mode: they come after the call.",
        ),
    )

    @property
    def targets(self) -> Sequence[Target]:
        official = "opentelemetry.instrumentation.dbapi"
        return (
            Target("psycopg.cursor", "Cursor.execute", gated(_query, around(_begin))),
            Target("psycopg.cursor_async", "AsyncCursor.execute", gated(_query, around_async(_begin))),
            Target("psycopg.cursor", "BaseCursor._stream_fetchone_gen", _around_row),
            # Where server-side cursors are since 3.3, and where they were before.
            Target("psycopg._server_cursor", "ServerCursorMixin._fetch_gen", _around_fetch),
            Target("psycopg.server_cursor", "ServerCursorMixin._fetch_gen", _around_fetch),
            Target(official, "CursorTracer.traced_execution", around(_begin_traced)),
            Target(official, "CursorTracer.traced_execution_async", around(_begin_traced), around_async(_begin_traced)),
        )
