"""How a turn is described: from its span, and from the calls below it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final, Generic, NamedTuple, TypeVar

from stagelight.conventions import attributes as names
from stagelight.sources.model import AttributeValue, SpanRow, StageBar, TurnRow

__all__ = ["BarOfCall", "Tree", "turn_row"]

_MOST_BARS: Final = 200
_SHARE: Final = f"{names.STAGELIGHT_TURN_SHARE}."

_Id = TypeVar("_Id", bound=Hashable)


class BarOfCall(NamedTuple):
    """A call of a turn."""

    stage: str
    start_ns: int
    duration_ns: int


class Tree(Generic[_Id]):
    """Parents and calls of one trace.

    Args:
        spans: id, parent's id, stage, start and duration in ns of each.
    """

    def __init__(self, spans: Iterable[tuple[_Id, _Id | None, str | None, int, int]]) -> None:
        self._parents: dict[_Id, _Id | None] = {}
        self._children: dict[_Id | None, list[_Id]] = {}
        self._stages: dict[_Id, str | None] = {}
        self._calls: dict[_Id, BarOfCall] = {}
        for span_id, parent_id, stage, start_ns, duration_ns in spans:
            self._parents[span_id] = parent_id
            self._children.setdefault(parent_id, []).append(span_id)
            self._stages[span_id] = stage
            if stage is not None and stage not in {"turn", "job"}:
                self._calls[span_id] = BarOfCall(stage, start_ns, duration_ns)

    def calls(self, span_id: _Id) -> Sequence[BarOfCall]:
        """The calls below a span in order of their start; at most 200."""
        below: list[BarOfCall] = []
        seen = {span_id}
        waiting = [span_id]
        while waiting:
            for child in self._children.get(waiting.pop(), ()):
                if child not in seen:  # ids are what the sender says: they may go in circles
                    seen.add(child)
                    waiting.append(child)
                    if child in self._calls:
                        below.append(self._calls[child])
        return sorted(below, key=lambda call: call[1:])[:_MOST_BARS]

    def is_top(self, span_id: _Id) -> bool:
        """Whether no turn is above a span."""
        seen = {span_id}
        above = self._parents.get(span_id)
        while above is not None and above not in seen:
            if self._stages.get(above) == "turn":
                return False
            seen.add(above)
            above = self._parents.get(above)
        return True


def turn_row(span: SpanRow, calls: Iterable[BarOfCall]) -> TurnRow:
    """A turn from its span and the calls below it."""
    attributes = span.attributes
    shares = {
        key.removeprefix(_SHARE): value
        for key, value in attributes.items()
        if key.startswith(_SHARE) and isinstance(value, float | int)
    }
    cost = _number(attributes, names.STAGELIGHT_TURN_COST)
    return TurnRow(
        trace_id=span.trace_id,
        span_id=span.span_id,
        name=_text(attributes, names.GEN_AI_WORKFLOW_NAME) or span.name,
        service=span.service,
        start_ns=span.start_ns,
        duration_ns=span.duration_ns,
        bars=tuple(
            StageBar(call.stage, call.start_ns, call.start_ns + call.duration_ns, shares.get(call.stage))
            for call in calls
        ),
        shares=shares,
        time_to_first_token_s=_number(attributes, names.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN),
        time_to_first_audio_s=_number(attributes, names.STAGELIGHT_TURN_TIME_TO_FIRST_AUDIO),
        # Amounts are doubles made from decimals: their shortest text is the exact amount.
        cost=None if cost is None else Decimal(repr(cost)),
        cost_status=_text(attributes, names.STAGELIGHT_TURN_COST_STATUS),
        outcome=_text(attributes, names.STAGELIGHT_OUTCOME),
        error_type=_text(attributes, names.ERROR_TYPE),
        feature=_text(attributes, names.STAGELIGHT_FEATURE),
        tenant=_text(attributes, names.STAGELIGHT_TENANT),
        user=_text(attributes, names.USER_HASH),
        conversation=_text(attributes, names.GEN_AI_CONVERSATION_ID),
        calls=_count(attributes, names.STAGELIGHT_TURN_CALLS),
        input_tokens=_count(attributes, names.STAGELIGHT_TURN_INPUT_TOKENS),
        output_tokens=_count(attributes, names.STAGELIGHT_TURN_OUTPUT_TOKENS),
    )


def _number(attributes: Mapping[str, AttributeValue], key: str) -> float | None:
    """The value if it is a number: a sender may put anything there."""
    value = attributes.get(key)
    return value if isinstance(value, float | int) and not isinstance(value, bool) else None


def _count(attributes: Mapping[str, AttributeValue], key: str) -> int | None:
    value = attributes.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(attributes: Mapping[str, AttributeValue], key: str) -> str | None:
    value = attributes.get(key)
    return value if isinstance(value, str) else None
