"""pgvector's operators, what their values are, and which column of a statement has them; pure reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from stagelight.integrations._database import Scale
from stagelight.integrations._sql import Kind, Query, Range, Statement

__all__ = ["FUNCTIONS", "OPERATORS", "Found", "score_column"]

OPERATORS: Final[Mapping[str, Scale]] = {
    "<->": ("euclid", False),
    "<=>": ("cosine_distance", False),
    "<#>": ("negative_dot", False),
    "<+>": ("manhattan", False),
    "<~>": ("hamming", False),
    "<%>": ("jaccard_distance", False),
}
FUNCTIONS: Final[Mapping[str, Scale]] = {
    "l2_distance": ("euclid", False),
    "cosine_distance": ("cosine_distance", False),
    "inner_product": ("dot", True),
    "l1_distance": ("manhattan", False),
    "hamming_distance": ("hamming", False),
    "jaccard_distance": ("jaccard_distance", False),
}
_TURNED: Final[Mapping[tuple[str, str], Scale]] = {
    ("1-", "cosine_distance"): ("cosine", True),
    ("1-", "jaccard_distance"): ("jaccard", True),
    ("-", "negative_dot"): ("dot", True),
}
"""Usual ways to make a similarity of a distance: ``1 - (a <=> b)``, ``-(a <#> b)``, ``(a <#> b) * -1``."""


_TYPE_NAMES: Final[Mapping[str, str]] = {"double": "float8", "real": "float4", "float": "float8", "decimal": "numeric"}
_MOST_COLUMNS: Final = 16
_MOST_CASTS: Final = 8
"""Bounds that keep the reading linear."""


class Found(NamedTuple):
    """One operator or function of pgvector's."""

    at: int
    scale: Scale
    query: Query
    clause: str


def score_column(statement: Statement, found: list[Found]) -> tuple[str, Scale] | None:
    """Name and scale of the outermost column with a distance, or with what is usually made of one."""
    selected = [one for one in found if one.clause == "select"]
    for one in sorted(selected, key=lambda one: (one.query.depth, one.at))[:_MOST_COLUMNS]:
        for item in statement.split(one.query.clauses["select"], ","):
            if item[0] <= one.at < item[1]:
                column = _column(statement, item)
                if column is not None:
                    return column
    return None


def _column(statement: Statement, item: Range) -> tuple[str, Scale] | None:
    begun, end = item
    if statement.at(begun).is_word("distinct", "all"):
        begun += 1
    name: str | None = None
    last, before = statement.at(end - 1), statement.at(end - 2)
    if end - begun > 2 and last.is_name and before.kind != Kind.OPERATOR and not before.is_mark("::", "."):
        name, end = last.text, end - (2 if before.is_word("as") else 1)
    expression, cast = _bare(statement, (begun, end))
    scale = _scale(statement, expression)
    if scale is None:
        return None
    # PostgreSQL calls a column without a name after its function, else after its cast.
    called = statement.at(expression[0]).text if _is_call(statement, expression) else None
    return name or called or cast or "?column?", scale


def _is_call(statement: Statement, within: Range) -> bool:
    begun, end = within
    return statement.at(begun).kind == Kind.WORD and statement.pairs.get(begun + 1) == end - 1


def _bare(statement: Statement, within: Range) -> tuple[Range, str | None]:
    """The expression inside its parentheses and casts, and PostgreSQL's name of the outermost type."""
    begun, end = within
    name = None
    for _ in range(_MOST_CASTS):
        if statement.pairs.get(begun) == end - 1:
            begun, end = begun + 1, end - 1
            continue
        outer = [at for at in statement.outer((begun, end)) if statement.tokens[at].kind in {Kind.OPERATOR, Kind.MARK}]
        casts = [at for at in outer if statement.tokens[at].is_mark("::")]
        if not casts or any(statement.tokens[at].kind == Kind.OPERATOR for at in outer):
            break
        kind = statement.at(casts[-1] + 1).text
        name, end = name or _TYPE_NAMES.get(kind, kind), casts[-1]
    return (begun, end), name


def _scale(statement: Statement, expression: Range) -> Scale | None:
    """What an expression's values are; ``None`` for anything but a distance and its usual similarity."""
    distance = _distance(statement, expression)
    if distance is not None:
        return distance
    turn, within = _turned(statement, expression)
    distance = _distance(statement, _bare(statement, within)[0]) if turn else None
    return _TURNED.get((turn, distance[0])) if distance is not None else None


def _distance(statement: Statement, expression: Range) -> Scale | None:
    operators = [
        statement.tokens[at].text for at in statement.outer(expression) if statement.tokens[at].kind == Kind.OPERATOR
    ]
    if len(operators) == 1:
        return OPERATORS.get(operators[0])
    is_call = not operators and _is_call(statement, expression)
    return FUNCTIONS.get(statement.at(expression[0]).text) if is_call else None


def _turned(statement: Statement, expression: Range) -> tuple[str, Range]:
    """``1 - x``, ``-x``, ``-1 * x`` or ``x * -1``: the kind and where x is."""
    begun, end = expression
    head = [statement.at(at).text for at in range(begun, min(begun + 3, end))]
    tail = [statement.at(at).text for at in range(max(begun, end - 3), end)]
    if head[:1] in (["1"], ["1.0"]) and head[1:2] == ["-"]:
        return "1-", (begun + 2, end)
    if head == ["-", "1", "*"]:
        return "-", (begun + 3, end)
    if head[:1] == ["-"]:
        return "-", (begun + 1, end)
    return ("-", (begun, end - 3)) if tail == ["*", "-", "1"] else ("", expression)
