"""Turns: which ones count, and how one is described."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from stagelight.sources._rows import span_rows
from stagelight.sources._turn_rows import Tree, turn_row
from stagelight.sources.model import TurnOrder, TurnRow, Window

__all__ = ["TURN_IS_TOP", "TurnFacts", "turn_facts", "turn_rows", "turns_of_trace"]

# Cheapest question first: most turns are roots or alone in their trace; only the others climb to their root.
TURN_IS_TOP: Final = """(
  turn.parent_id IS NULL
  OR NOT EXISTS (SELECT 1 FROM spans AS other
    WHERE other.stage = 'turn' AND other.trace_id = turn.trace_id AND other.id <> turn.id)
  OR NOT EXISTS (
    WITH RECURSIVE above (span_id, depth) AS (
      VALUES (turn.parent_id, 0)
      UNION ALL
      SELECT spans.parent_id, above.depth + 1 FROM above
      JOIN spans ON spans.trace_id = turn.trace_id AND spans.span_id = above.span_id
      WHERE spans.parent_id IS NOT NULL AND above.depth < 100
    )
    SELECT 1 FROM above JOIN spans ON spans.trace_id = turn.trace_id AND spans.span_id = above.span_id
    WHERE spans.stage = 'turn'
  )
)"""

_MOST_SPANS: Final = 5_000

_CHOSEN: Final = "WHERE spans.id IN (SELECT turn.id FROM spans AS turn WHERE turn.stage = 'turn' AND {}) ORDER BY {}"
_OF_WINDOW: Final = f"turn.start_ns >= :since AND turn.start_ns < :until AND {TURN_IS_TOP} ORDER BY {{}} LIMIT :limit"
_ORDERS: Final[Mapping[TurnOrder, str]] = {"newest": "start_ns DESC", "slowest": "duration_ns DESC"}


class TurnFacts(NamedTuple):
    """What figures over many turns need of one."""

    start_ns: int
    failed: int
    first_token_s: float | None


def turn_facts(connection: sqlite3.Connection, window: Window) -> list[TurnFacts]:
    """The top-level turns that started in the window, in order of time."""
    rows = connection.execute(
        "SELECT turn.start_ns, turn.failed, turn.first_token_s FROM spans AS turn "  # noqa: S608 (our own text)
        f"WHERE turn.stage = 'turn' AND turn.start_ns >= ? AND turn.start_ns < ? AND {TURN_IS_TOP} "
        "ORDER BY turn.start_ns",
        (window.since_ns, window.until_ns),
    )
    return [TurnFacts(*row) for row in rows]


def turn_rows(connection: sqlite3.Connection, window: Window, limit: int, order: TurnOrder) -> list[TurnRow]:
    """The newest or slowest top-level turns that started in the window."""
    return _described(
        connection,
        _CHOSEN.format(_OF_WINDOW.format(f"turn.{_ORDERS[order]}"), f"spans.{_ORDERS[order]}"),
        {"since": window.since_ns, "until": window.until_ns, "limit": limit},
    )


def turns_of_trace(connection: sqlite3.Connection, trace_id: bytes) -> tuple[TurnRow, ...]:
    """The top-level turns of one trace, in order of time."""
    chosen = _CHOSEN.format(f"turn.trace_id = :trace AND {TURN_IS_TOP}", "spans.start_ns")
    return tuple(_described(connection, chosen, {"trace": trace_id}))


def _described(connection: sqlite3.Connection, rest: str, parameters: Mapping[str, Any]) -> list[TurnRow]:
    trees: dict[str, Tree[bytes]] = {}
    rows = []
    for span in span_rows(connection, rest, parameters):
        if span.trace_id not in trees:
            trees[span.trace_id] = _tree(connection, bytes.fromhex(span.trace_id))
        rows.append(turn_row(span, trees[span.trace_id].calls(bytes.fromhex(span.span_id))))
    return rows


def _tree(connection: sqlite3.Connection, trace_id: bytes) -> Tree[bytes]:
    return Tree(
        connection.execute(
            "SELECT span_id, parent_id, stage, start_ns, duration_ns FROM spans WHERE trace_id = ? "
            "ORDER BY start_ns LIMIT ?",
            (trace_id, _MOST_SPANS),
        )
    )
