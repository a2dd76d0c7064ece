"""Turns: which ones count, and how one is described."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from stagelight.conventions import attributes as names
from stagelight.sources.model import StageBar, TurnOrder, TurnRow, Window

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

_MOST_BARS: Final = 200
_MOST_SPANS: Final = 5_000

_TURN: Final = """
SELECT turn.trace_id, turn.span_id, turn.name, resource.service, turn.start_ns, turn.duration_ns, turn.first_token_s,
  turn.outcome, turn.error_type, turn.feature, turn.tenant, turn.user, turn.conversation, turn.attributes
FROM spans AS turn LEFT JOIN resource ON resource.id = turn.resource_id
WHERE turn.stage = 'turn' AND
"""
_ORDERS: Final[Mapping[TurnOrder, str]] = {"newest": "turn.start_ns DESC", "slowest": "turn.duration_ns DESC"}


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
        f"turn.start_ns >= ? AND turn.start_ns < ? AND {TURN_IS_TOP} ORDER BY {_ORDERS[order]} LIMIT ?",
        (window.since_ns, window.until_ns, limit),
    )


def turns_of_trace(connection: sqlite3.Connection, trace_id: bytes) -> tuple[TurnRow, ...]:
    """The top-level turns of one trace, in order of time."""
    return tuple(_described(connection, f"turn.trace_id = ? AND {TURN_IS_TOP} ORDER BY turn.start_ns", (trace_id,)))


def _described(connection: sqlite3.Connection, condition: str, parameters: Sequence[Any]) -> list[TurnRow]:
    trees: dict[bytes, _Tree] = {}
    rows = []
    for row in connection.execute(_TURN + condition, parameters).fetchall():
        trace_id = row[0]
        if trace_id not in trees:
            trees[trace_id] = _Tree(connection, trace_id)
        rows.append(_turn(row, trees[trace_id]))
    return rows


def _turn(row: tuple[Any, ...], tree: _Tree) -> TurnRow:
    (
        trace_id, span_id, name, service, start_ns, duration_ns, first_token_s,
        outcome, error_type, feature, tenant, user, conversation, text,
    ) = row  # fmt: skip
    attributes: dict[str, Any] = json.loads(text)
    prefix = f"{names.STAGELIGHT_TURN_SHARE}."
    shares = {
        key.removeprefix(prefix): value
        for key, value in attributes.items()
        if key.startswith(prefix) and isinstance(value, float | int)
    }
    cost = _number(attributes, names.STAGELIGHT_TURN_COST)
    return TurnRow(
        trace_id=trace_id.hex(),
        span_id=span_id.hex(),
        name=_text(attributes, names.GEN_AI_WORKFLOW_NAME) or name,
        service=service or "-",
        start_ns=start_ns,
        duration_ns=duration_ns,
        bars=tuple(
            StageBar(stage, start, start + length, shares.get(stage)) for stage, start, length in tree.calls(span_id)
        ),
        shares=shares,
        time_to_first_token_s=first_token_s,
        time_to_first_audio_s=_number(attributes, names.STAGELIGHT_TURN_TIME_TO_FIRST_AUDIO),
        # Amounts are doubles made from decimals: their shortest text is the exact amount.
        cost=None if cost is None else Decimal(repr(cost)),
        cost_status=_text(attributes, names.STAGELIGHT_TURN_COST_STATUS),
        outcome=outcome,
        error_type=error_type,
        feature=feature,
        tenant=tenant,
        user=user,
        conversation=conversation,
        calls=_count(attributes, names.STAGELIGHT_TURN_CALLS),
        input_tokens=_count(attributes, names.STAGELIGHT_TURN_INPUT_TOKENS),
        output_tokens=_count(attributes, names.STAGELIGHT_TURN_OUTPUT_TOKENS),
    )


def _number(attributes: Mapping[str, Any], key: str) -> float | None:
    """The value if it is a number: a sender may put anything there."""
    value = attributes.get(key)
    return value if isinstance(value, float | int) and not isinstance(value, bool) else None


def _count(attributes: Mapping[str, Any], key: str) -> int | None:
    value = attributes.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(attributes: Mapping[str, Any], key: str) -> str | None:
    value = attributes.get(key)
    return value if isinstance(value, str) else None


class _Tree:
    """Parents and calls of one trace."""

    def __init__(self, connection: sqlite3.Connection, trace_id: bytes) -> None:
        self._children: dict[bytes | None, list[bytes]] = {}
        self._calls: dict[bytes, tuple[str, int, int]] = {}
        for span_id, parent_id, stage, start_ns, duration_ns in connection.execute(
            "SELECT span_id, parent_id, stage, start_ns, duration_ns FROM spans WHERE trace_id = ? "
            "ORDER BY start_ns LIMIT ?",
            (trace_id, _MOST_SPANS),
        ):
            self._children.setdefault(parent_id, []).append(span_id)
            if stage not in {None, "turn", "job"}:
                self._calls[span_id] = (stage, start_ns, duration_ns)

    def calls(self, span_id: bytes) -> list[tuple[str, int, int]]:
        """Stage, start and duration of the calls below a span, in order of their start."""
        below: list[tuple[str, int, int]] = []
        seen = {span_id}
        waiting = [span_id]
        while waiting:
            for child in self._children.get(waiting.pop(), ()):
                if child not in seen:  # ids are what the sender says: they may go in circles
                    seen.add(child)
                    waiting.append(child)
                    if child in self._calls:
                        below.append(self._calls[child])
        return sorted(below, key=lambda call: (call[1], call[2]))[:_MOST_BARS]
