"""What is read of statements that may search vectors: pure functions, for any text."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stagelight.facts import Request
from stagelight.integrations._pgvector import Search, is_suspect, request_of, search_of, value_in
from stagelight.integrations._sql import statement_of

FUSED = """
WITH meaning AS (
  SELECT id, RANK() OVER (ORDER BY embedding <=> %(near)s) AS rank
  FROM docs ORDER BY embedding <=> %(near)s LIMIT 20
), words AS (
  SELECT id, RANK() OVER (ORDER BY ts_rank_cd(body, query) DESC) AS rank
  FROM docs, plainto_tsquery('english', %(text)s) query WHERE body @@ query LIMIT 20
)
SELECT COALESCE(meaning.id, words.id), 1.0 / (60 + meaning.rank) FROM meaning
FULL OUTER JOIN words ON meaning.id = words.id ORDER BY 2 DESC LIMIT 5
"""
RERANKED = """
SELECT * FROM (
  SELECT * FROM shelf.docs ORDER BY binary_quantize(embedding)::bit(3) <~> binary_quantize('[1,-2,3]') LIMIT 20
) AS near ORDER BY embedding <=> '[1,-2,3]' LIMIT 5
"""

READ: list[tuple[str, dict[str, Any]]] = [
    ("select id from docs order by embedding <-> '[1,2]' limit 5", {"limit": 5, "scale": ("euclid", False)}),
    ('SELECT id FROM "Docs" ORDER BY e <=> $1::vector LIMIT $2', {"table": "Docs", "limit": 1, "is_limit_given": True}),
    ("SELECT id FROM a.docs d JOIN tags t ON t.id = d.id ORDER BY d.e <=> $1", {"table": "a.docs"}),
    ("SELECT id FROM tags t LEFT JOIN docs AS d USING (id) ORDER BY d.e <=> $1", {"table": "docs"}),
    ("SELECT id FROM tags, LATERAL (SELECT * FROM docs) d ORDER BY d.e <=> $1", {"table": "docs"}),
    ("SELECT * FROM (SELECT id, e <=> $1 AS d FROM docs) x WHERE d < 1 LIMIT 3", {"column": "d", "limit": 3}),
    ("SELECT e <=> $1 FROM docs", {"column": "?column?"}),
    ("SELECT (e <=> $1)::float FROM docs", {"column": "float8"}),
    ("SELECT 1 - (e <=> $1) similarity FROM docs", {"column": "similarity", "scale": ("cosine", True)}),
    ("SELECT 1 - cosine_distance(e, $1) AS s FROM docs", {"column": "s", "scale": ("cosine", True)}),
    ("SELECT -1 * (e <#> $1) AS s FROM docs", {"column": "s", "scale": ("dot", True)}),
    ("SELECT -(e <#> $1) AS s FROM docs", {"column": "s", "scale": ("dot", True)}),
    ("SELECT 1 / (1 + (e <-> '[1]')) AS s FROM docs", {"column": None, "scale": ("euclid", False)}),
    ("SELECT DISTINCT ON (a) a, e <+> $1 AS d FROM docs", {"column": "d", "scale": ("manhattan", False)}),
    ("SELECT id FROM docs WHERE e <=> $1 < 0.5 ORDER BY 1", {"filtered": False}),
    ("SELECT id FROM docs WHERE e <=> $1 BETWEEN 0 AND 1", {"filtered": False}),
    ("SELECT id FROM docs WHERE lang = 'de' AND e <=> $1 < 0.5", {"filtered": True}),
    ("SELECT id FROM docs WHERE e IS DISTINCT FROM NULL ORDER BY e <=> $1", {"filtered": True, "table": "docs"}),
    ("SELECT id FROM docs ORDER BY e <=> $1 FETCH FIRST 7 ROWS ONLY", {"limit": 7}),
    ("SELECT id FROM docs ORDER BY e <=> $1 FETCH FIRST ROW ONLY", {"limit": 1}),
    ("SELECT id FROM docs ORDER BY e <=> $1 LIMIT ALL", {"limit": None}),
    ("SELECT id FROM docs ORDER BY e <=> (SELECT e FROM docs WHERE id = 1 LIMIT 1) LIMIT 4", {"limit": 4}),
    ("SELECT id FROM docs ORDER BY e OPERATOR(public.<=>) $1", {"scale": ("cosine_distance", False)}),
    ("SELECT id FROM docs WHERE a <> %s AND b = '100%s' ORDER BY e <%%> %s LIMIT %s", {"limit": 3}),
    ("SELECT id FROM docs ORDER BY e <->-1 * $1::vector", {"scale": ("euclid", False)}),
    ("SELECT id FROM docs ORDER BY e <=>$1 -- the <#> nearest\n /* of /* all */ */ LIMIT 2;", {"limit": 2}),
    ("(SELECT id FROM a ORDER BY e <=> $1 LIMIT 9) UNION ALL (SELECT id FROM b) LIMIT 4", {"table": "a", "limit": 4}),
    ("SELECT id FROM a UNION SELECT id FROM b ORDER BY e <=> $1 LIMIT 4", {"limit": 4}),
    ("DECLARE c CURSOR WITH HOLD FOR SELECT id FROM docs ORDER BY e <=> $1 LIMIT 4", {"limit": 4, "table": "docs"}),
    ("SELECT id FROM docs ORDER BY e <-> $1::sparsevec", {"mode": "sparse"}),
    (FUSED, {"mode": "hybrid", "table": "docs", "limit": 5, "filtered": False, "column": None}),
    (RERANKED, {"table": "shelf.docs", "limit": 5, "scale": ("cosine_distance", False)}),
]


@pytest.mark.parametrize(("statement", "expected"), READ)
def test_a_search_is_read(statement: str, expected: dict[str, Any]) -> None:
    """Table, limit, metric, filter and the column with the scores are where PostgreSQL finds them."""
    found = search_of(statement)

    assert is_suspect(statement)
    assert found is not None
    assert {name: getattr(found, name) for name in expected} == expected


NO_SEARCHES = [
    "",
    "SELECT 1",
    "SELECT '<=>' FROM docs",
    "SELECT 1 -- <=> '[1]' FROM docs",
    'SELECT "<=>" FROM docs',
    "SELECT cosine_distance('[1]', '[2]')",
    "INSERT INTO near SELECT id FROM docs ORDER BY e <=> $1",
    "WITH x AS (SELECT 1 FROM docs ORDER BY e <=> $1) DELETE FROM docs",
    "EXPLAIN SELECT id FROM docs ORDER BY e <=> $1",
    "CREATE INDEX ON docs USING hnsw (e vector_l2_ops) WHERE e <-> '[1]' < 1",
    "SET x = 1; SELECT id FROM docs ORDER BY e <=> $1",
    "SELECT geom <-> ST_MakePoint(1, 2) FROM places",
    "SELECT id FROM places ORDER BY p <-> 'SRID=4326;POINT(1 2)'::geometry",
    "SELECT id FROM places ORDER BY p <-> point '(1,2)'",
    "SELECT id FROM people ORDER BY name <-> 'tides'",
    "SELECT id FROM docs ORDER BY e <=> '[1",
    "SELECT id FROM docs ORDER BY (e <=> $1",
    "SELECT id FROM docs ORDER BY e <=> $1)",
    "SELECT id FROM docs ORDER BY e <=> $1]",
    "SELECT id FROM docs WHERE body = $x$ e <=> $1",
]


@pytest.mark.parametrize("statement", NO_SEARCHES)
def test_what_searches_no_vectors_is_not_read(statement: str) -> None:
    """Texts, comments, other commands, other types' operators, and what PostgreSQL would refuse."""
    assert search_of(statement) is None


VALUES: list[tuple[Any, bool]] = [
    ("[1,2]", True),
    (" {1:1}/2", True),
    ([1.0, 2.0], True),
    (None, True),
    (b"\x00", True),
    ("tides", False),
    (1.5, False),
    ({"type": "Point"}, False),
]


@pytest.mark.parametrize(("value", "is_search"), VALUES)
def test_a_parameter_tells_whose_operator_it_is(value: Any, is_search: bool) -> None:
    """``<->`` belongs to other types, too: a parameter that cannot be a vector decides."""
    search = search_of("SELECT id FROM docs ORDER BY e <-> %s LIMIT %s")
    assert search is not None
    request = request_of(search, value_in((value, 3)))

    assert (request is not None) is is_search
    assert request is None or request == Request(
        db_system="postgresql", db_operation="SELECT", source="docs", top_k=3, mode="dense", filtered=False
    )


@pytest.mark.parametrize(
    ("parameters", "top_k"), [({"k": 4}, 4), ({}, None), (None, None), ({"k": "5"}, 5), ([1], None)]
)
def test_a_named_limit(parameters: Any, top_k: int | None) -> None:
    """A limit that is a parameter has its value; one that is not known is absent."""
    search = search_of("SELECT id FROM docs ORDER BY e <=> %(near)s LIMIT %(k)s")
    assert search is not None
    request = request_of(search, value_in(parameters))

    assert request is not None
    assert request.top_k == top_k


PIECES = st.sampled_from([
    "SELECT ", "FROM ", "WITH ", "AS ", "docs ", "WHERE ", "ORDER BY ", "LIMIT ", "UNION ", "e <=> $1 ", "a <-> b ",
    "(", ")", "[", "]", "'", "''", '"', "--", "/*", "*/", "\n", "$$", "$a$", "%s", "%(x)s", "%%", "::", ".", ",", ";",
    "1 - ", "* -1", "cosine_distance(", "OPERATOR(", "E'\\'", "between ", "and ", "fetch first ", "5", "ÿ", "\x00",
])  # fmt: skip


@given(st.one_of(st.text(max_size=300), st.lists(PIECES, max_size=60).map("".join)))
def test_reading_never_raises(statement: str) -> None:
    """Any text is either a search with all its facts or none, the same each time."""
    is_suspect(statement)
    found = search_of(statement)

    assert found is None or isinstance(found, Search)
    assert search_of(statement) == found
    assert found is None or isinstance(request_of(found, value_in([])), Request | None)


@given(st.lists(PIECES, max_size=40).map("".join))
@settings(max_examples=50)
def test_parentheses_are_paired(statement: str) -> None:
    """Where a statement is read, every opening parenthesis has its closing one, and every token its query."""
    read = statement_of(statement)
    if read is None:
        return
    opened = [at for at, token in enumerate(read.tokens) if token.is_mark("(", "[")]

    assert sorted(read.pairs) == opened
    assert len(read.places) == len(read.tokens)


HOSTILE = [
    "(", "(select a <=> b from t where ", "::x", "a <=> b,", "'", "$a$ $b$ ", "/*", "- ", "1-(", "<", "%(", "operator(",
    "as (", "limit (select ", "case when a <=> b ", "with a as (", "e'\\", '"', "x.", "between ",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_grows_with_length_only(piece: str) -> None:
    """A statement built to be slow takes no more than some times as long when it is twice as long, and never long."""

    def seconds(times: int) -> float:
        statement = f"select a <=> b as c {piece * times} from t where a <=> b order by c"  # noqa: S608
        begun = time.process_time()
        search_of(statement)
        return time.process_time() - begun

    size = 20_000 // len(piece)
    short, long = min(seconds(size // 4) for _ in range(3)), min(seconds(size) for _ in range(2))

    assert long < max(12 * short, 0.5)
    assert seconds(1_000_000 // len(piece)) < 2


@pytest.mark.parametrize("piece", ["+", "<=>", "/**/", "--\n", "a ", "a,"])
def test_statements_of_too_many_parts_are_not_read(piece: str) -> None:
    """Whatever the parts are; the limit for characters alone would let a statement of one-character parts take long."""
    filled = f"select a <=> b from t where c = d {piece * (200_000 // len(piece))}"  # noqa: S608

    assert len(filled) < 262_144
    assert statement_of(filled) is None


def test_operators_of_postgresql_are_read_up_to_its_limit() -> None:
    """63 characters, twice as many where a client wants ``%%`` for ``%``."""
    read = statement_of(f"select a {'%%' * 63} b from t")  # noqa: S608

    assert read is not None
    assert [token.text for token in read.tokens if token.kind == "operator"] == ["%" * 63]
