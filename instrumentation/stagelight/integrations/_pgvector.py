"""What a statement searches with pgvector's operators, told by its text and its parameters; pure reading.

Nothing here raises or keeps a statement's text beyond a small cache in memory, and none of it is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from stagelight._calls import current_call
from stagelight.facts import Request, Response
from stagelight.integrations._database import DatabaseCall, Scale, is_inside
from stagelight.integrations._instrumentor import Wrapper
from stagelight.integrations._pgvector_scores import FUNCTIONS, OPERATORS, Found, score_column
from stagelight.integrations._reading import count, text
from stagelight.integrations._sql import Kind, Query, Range, Statement, Token, statement_of

__all__ = [
    "Parameters",
    "Search",
    "Server",
    "begin_search",
    "gated",
    "is_suspect",
    "request_of",
    "search_of",
    "value_in",
]

_SYSTEM: Final = "postgresql"

Parameters = Callable[[int | str], Any]
"""The value of a parameter by its name or its position from 0; ``None`` where it is not known."""

_SIGNS: Final = (*OPERATORS, "<%%>")
_SHARED: Final = frozenset(("<->", "<#>"))
"""Operators that PostGIS, pg_trgm and PostgreSQL's own types have, too: their operands decide."""

_VECTOR_TYPES: Final = frozenset(("vector", "halfvec", "sparsevec", "bit", "varbit"))
_GEOMETRIC: Final = ("geo", "the_geom", "st_", "point", "box", "circle", "polygon", "lseg", "to_tsquery", "similarity")
_VECTOR_CLASSES: Final = frozenset(("Vector", "HalfVector", "SparseVector", "Bit", "ndarray"))
_FULL_TEXT: Final = ("to_tsquery", "plainto_tsquery", "phraseto_tsquery", "websearch_to_tsquery")
_TYPE_NAMES: Final[Mapping[str, str]] = {"double": "float8", "real": "float4", "float": "float8", "decimal": "numeric"}
_LONGEST_CACHED: Final = 4096
_MOST_TABLES_DEEP: Final = 8


class Search(NamedTuple):
    """What a statement searches."""

    table: str | None
    scale: Scale
    column: str | None
    """Name of the result's column that has the scores."""
    limit: int | str | None
    """A number in digits, or a parameter's position or name."""
    is_limit_given: bool
    """Whether ``limit`` is a parameter."""
    mode: str
    filtered: bool
    doubtful: tuple[int | str, ...]
    """Parameters that must be vectors, or this is another extension's operator."""


def is_suspect(statement: str) -> bool:
    """Whether a statement may search vectors: a substring test, all that any other statement costs."""
    if "<" in statement and any(sign in statement for sign in _SIGNS):
        return True
    return "_distance" in statement or "inner_product" in statement


def search_of(statement: str) -> Search | None:
    """What a statement searches; ``None`` for one that searches no vectors, or cannot be read."""
    return _cached(statement) if len(statement) <= _LONGEST_CACHED else _read(statement)


def request_of(search: Search, value: Parameters) -> Request | None:
    """What was asked, with the parameters' values; ``None`` when these show that no vectors are searched."""
    kinds = [_is_vector(value(parameter)) for parameter in search.doubtful]
    if False in kinds:
        return None
    limit = _number(value(search.limit)) if search.is_limit_given and search.limit is not None else search.limit
    return Request(
        db_system=_SYSTEM,
        db_operation="SELECT",
        source=text(search.table),
        top_k=count(limit),
        mode=search.mode,
        filtered=search.filtered,
    )


def _number(value: Any) -> int | None:
    if isinstance(value, bytes | str) and len(value) <= 16 and value.isdigit():
        return int(value)
    return value if isinstance(value, int) else None


def _is_vector(value: Any) -> bool | None:
    """Whether a parameter is a vector; ``None`` where that cannot be seen."""
    if type(value).__name__ in _VECTOR_CLASSES:
        return True
    match value:
        case str():
            return value.lstrip()[:1] in {"[", "{"}
        case list() | tuple() if value:
            return isinstance(value[0], int | float) or hasattr(value[0], "dtype")
        case int() | float() | dict():
            return False
        case _:
            return None


# where an operator stands


def _found(statement: Statement) -> Iterator[Found]:
    for at, token in enumerate(statement.tokens):
        scale = None
        if token.kind == Kind.OPERATOR:
            scale = OPERATORS.get(token.text)
        elif token.kind == Kind.WORD and statement.at(at + 1).is_mark("("):
            scale = FUNCTIONS.get(token.text)
        if scale is not None:
            query, clause = statement.places[at]
            yield Found(at, scale, query, clause)


def _outward(query: Query) -> Iterator[Query]:
    found: Query | None = query
    while found is not None:
        yield found
        found = found.parent


@lru_cache(maxsize=256)
def _cached(statement: str) -> Search | None:
    return _read(statement)


def _read(text_of_statement: str) -> Search | None:
    statement = statement_of(text_of_statement)
    if statement is None:
        return None
    found = [one for one in _found(statement) if "from" in one.query.clauses]
    kinds = [(one, _operands(statement, one)) for one in found]
    found = [one for one, (is_vector, _) in kinds if is_vector is not False]
    if not found:
        return None
    main = min(found, key=lambda one: (one.query.depth, one.clause != "order", one.at))
    column = score_column(statement, found)
    limit = _limit(statement, main.query)
    return Search(
        table=_table(statement, main),
        scale=column[1] if column is not None else main.scale,
        column=column[0] if column is not None else None,
        limit=None if limit is None else limit.parameter if limit.kind == Kind.PARAMETER else _number(limit.text),
        is_limit_given=limit is not None and limit.kind == Kind.PARAMETER,
        mode=_mode(statement),
        filtered=_is_filtered(statement, main.query),
        doubtful=next((names for one, (_, names) in kinds if one is main), ()),
    )


def _operands(statement: Statement, found: Found) -> tuple[bool | None, tuple[int | str, ...]]:
    """Whether an operator compares vectors, and which parameters would tell; ``None`` where its text does not."""
    if statement.tokens[found.at].text not in _SHARED:
        return True, ()
    verdicts, parameters = set[bool](), list[int | str]()
    for operand, cast in (_left(statement, found.at), _right(statement, found.at)):
        if cast.is_name:
            verdicts.add(cast.text.lower() in _VECTOR_TYPES)
        elif operand.kind == Kind.TEXT:
            verdicts.add(operand.text[:1] in {"[", "{"})
        elif operand.parameter is not None:
            parameters.append(operand.parameter)
        elif operand.is_name and operand.text.lower().startswith(_GEOMETRIC):
            verdicts.add(False)
    if verdicts:
        return True in verdicts, ()
    return None, tuple(parameters)


_NO_TOKEN: Final = Token("", "")
_ONE: Final = Token(Kind.NUMBER, "1")


def _right(statement: Statement, at: int) -> tuple[Token, Token]:
    """The first token right of an operator, and the name of the type it is cast to."""
    if statement.at(at + 2).is_mark("::"):
        return statement.at(at + 1), statement.at(at + 3)
    last = at + 1
    while statement.at(last + 1).is_mark(".") and statement.at(last + 2).is_name:
        last += 2
    return statement.at(last), _NO_TOKEN


def _left(statement: Statement, at: int) -> tuple[Token, Token]:
    last = at - 1
    if statement.at(last).is_mark(")"):  # the name of the function or type before the parentheses
        last = _opening(statement, last) - 1
    if statement.at(last - 1).is_mark("::"):
        return statement.at(last - 2), statement.at(last)
    return statement.at(last), _NO_TOKEN


def _opening(statement: Statement, closing: int) -> int:
    depth = 0
    for at in range(closing, max(-1, closing - 64), -1):
        depth += statement.tokens[at].is_mark(")") - statement.tokens[at].is_mark("(")
        if depth == 0:
            return at
    return 0


# what is searched


def _table(statement: Statement, found: Found) -> str | None:
    """The table of the operator's column: the one it is qualified with, or the first of its query."""
    before = found.at - 1
    is_qualified = statement.at(before).is_name and statement.at(before - 1).is_mark(".")
    qualifier = statement.at(before - 2).text if is_qualified else None
    query: Query | None = found.query
    common = _common(statement)
    for _ in range(_MOST_TABLES_DEEP):
        relations = list(statement.relations(query)) if query is not None else []
        if not relations:
            return None
        named = [one for one in relations if qualifier in {one.alias, one.name}]
        chosen = (named or relations)[0]
        inner = common.get(chosen.name) if chosen.name is not None else chosen.opened
        if inner is None or statement.queries.get(inner) is query:
            return chosen.name
        query, qualifier = statement.queries.get(inner), None
    return None


def _common(statement: Statement) -> dict[str | None, int]:
    """Where the queries of WITH are, by their names."""
    named: dict[str | None, int] = {}
    for at in statement.queries:
        if at > 0 and statement.places[at][1] == "with":
            name = at - 1
            while statement.at(name).is_word("as", "materialized", "not"):
                name -= 1
            if statement.at(name).is_mark(")"):
                name = _opening(statement, name) - 1
            named[statement.at(name).text] = at
    return named


def _limit(statement: Statement, query: Query) -> Token | None:
    """The outermost limit around a query."""
    for around in reversed(list(_outward(query))):
        clause = "limit" if "limit" in around.shared else "fetch"
        begun, end = around.shared.get(clause, (0, 0))
        for token in statement.tokens[begun : min(end, begun + 4)]:
            if token.kind in {Kind.NUMBER, Kind.PARAMETER}:
                return token
            if clause == "fetch" and token.is_word("row", "rows"):  # FETCH FIRST ROW ONLY
                return _ONE
            if not (token.is_mark("(") or token.is_word("first", "next")):
                break
    return None


def _mode(statement: Statement) -> str:
    tokens = statement.tokens
    if any(token.text == "@@" or token.is_word(*_FULL_TEXT) for token in tokens if token.kind != Kind.TEXT):
        return "hybrid"
    return "sparse" if any(token.is_word("sparsevec") for token in tokens) else "dense"


def _is_filtered(statement: Statement, query: Query) -> bool:
    """Whether a condition stands beside those on the distance."""
    within = query.clauses.get("where")
    if within is None:
        return False
    return any(not _has_distance(statement, part) for part in _conditions(statement, within))


def _conditions(statement: Statement, within: Range) -> Iterator[Range]:
    begun, is_between = within[0], False
    for at in statement.outer(within):
        if statement.tokens[at].is_word("between"):
            is_between = True
        elif statement.tokens[at].is_word("and"):
            if not is_between:
                yield begun, at
                begun = at + 1
            is_between = False
    yield begun, within[1]


def _has_distance(statement: Statement, within: Range) -> bool:
    tokens: Sequence[Token] = statement.tokens[within[0] : within[1]]
    return any(
        token.text in (OPERATORS if token.kind == Kind.OPERATOR else FUNCTIONS)
        for token in tokens
        if token.kind in {Kind.OPERATOR, Kind.WORD}
    )


# the call


_SAME_PROVIDER: Final = frozenset(("postgresql", "postgres", "pgvector"))
"""What a block around the client may call the provider."""


class Server(NamedTuple):
    """Where the database is."""

    address: str | None = None
    port: int | None = None


def begin_search(
    statement: str | None,
    value: Parameters,
    found: Callable[[Any, Search], Response | None],
    *,
    server: Callable[[], Server],
    has_span: bool = True,
) -> DatabaseCall | None:
    """Begin the call that a statement is; ``None`` for one that searches no vectors.

    Args:
        statement: the statement's text, which passed ``is_suspect``.
        value: its parameters.
        found: the client's result -> what came back.
        server: where the database is; asked only when the statement is a search.
        has_span: False where another instrumentation makes the database client's span.
    """
    search = search_of(statement) if statement is not None else None
    request = request_of(search, value) if search is not None else None
    if search is None or request is None or is_inside():
        return None
    ambient = current_call()
    named = ambient.request.provider if ambient is not None else None
    address, port = server()
    asked = request._replace(
        provider=named if named in _SAME_PROVIDER else _SYSTEM, server_address=address, server_port=port
    )
    return DatabaseCall("retrieval", asked, lambda result: found(result, search), has_span=has_span)


def gated(statement: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any], wrapper: Wrapper) -> Wrapper:
    """``wrapper`` for statements that may search vectors; for all others a substring test, and nothing around them.

    Args:
        statement: a call's instance, arguments and keywords -> its statement; only texts are tested here.
        wrapper: what stands around the others.
    """

    def gate(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = statement(instance, args, kwargs)
        if given is None or (isinstance(given, str) and not is_suspect(given)):
            return wrapped(*args, **kwargs)
        return wrapper(wrapped, instance, args, kwargs)

    return gate


def value_in(parameters: Any) -> Parameters:
    """The values in a client's sequence or mapping of parameters; nothing is called but ``list`` and ``dict``'s own."""

    def value(parameter: int | str) -> Any:
        if isinstance(parameter, str):
            return parameters.get(parameter) if isinstance(parameters, dict) else None
        is_there = isinstance(parameters, list | tuple) and 0 <= parameter < len(parameters)
        return parameters[parameter] if is_there else None

    return value
