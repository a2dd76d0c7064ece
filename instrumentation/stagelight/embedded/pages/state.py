"""One line that says in words how things are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stagelight.embedded.pages import units
from stagelight.embedded.pages.ranges import Range
from stagelight.sources.model import UNKNOWN_KEY, ErrorRow, LatencyRow, Totals

__all__ = ["State", "judge"]

# A stage that fails in this share of its calls, and this often, is failing; less is mentioned, not alarming.
_FAILING_SHARE, _FAILING_COUNT = 0.05, 3


@dataclass(frozen=True, slots=True)
class State:
    """How things are."""

    level: Literal["healthy", "notice", "failing", "quiet"]
    sentence: str


def judge(totals: Totals, latency: Sequence[LatencyRow], errors: Sequence[ErrorRow], chosen: Range) -> State:
    """State of a window from its figures; a stage is failing from 3 errors and 5 % of its calls on."""
    if not totals.turns and not totals.calls and not totals.errors and not latency:
        return State("quiet", f"Quiet: nothing arrived {chosen.words}.")
    if worst := _worst(latency):
        return State("failing", f"{units.visible(worst.key, 40)} is failing: {_failures(worst, errors, chosen.words)}.")
    if totals.errors:
        kinds = _kinds(errors)
        which = f"{', mostly' if len(kinds) > 1 else ':'} {kinds.most_common(1)[0][0]}" if kinds else ""
        return State("notice", f"{units.counted(totals.errors, 'error')} {chosen.words}{which}.")
    return State("healthy", "All stages healthy.")


def _worst(latency: Sequence[LatencyRow]) -> LatencyRow | None:
    """The stage that fails most often; turns and jobs only when no stage explains their failures."""
    failing = [row for row in latency if row.errors >= max(_FAILING_COUNT, _FAILING_SHARE * row.calls)]
    return max(failing, key=lambda row: (row.key not in {"turn", "job"}, row.errors / row.calls), default=None)


def _kinds(errors: Sequence[ErrorRow]) -> Counter[str]:
    """Errors by stage and type."""
    kinds: Counter[str] = Counter()
    for error in errors:
        stage = "" if error.stage == UNKNOWN_KEY else units.visible(error.stage, 40)
        kind = units.visible(error.error_type or error.outcome or "", 60)
        kinds[f"{stage} {kind}".strip()] += error.count
    return kinds


def _failures(row: LatencyRow, errors: Sequence[ErrorRow], words: str) -> str:
    noun = "turns" if row.key == "turn" else "jobs" if row.key == "job" else "calls"
    text = f"{units.count(row.errors)} of {units.count(row.calls)} {noun} ended in an error {words}"
    kinds: Counter[str] = Counter()
    for error in errors:
        if error.stage == row.key and error.error_type:
            kinds[error.error_type] += error.count
    if not kinds:
        return text
    return f"{text}, {'all' if len(kinds) == 1 else 'most often'} {units.visible(kinds.most_common(1)[0][0], 60)}"
