"""One line that says in words how things are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stagelight.embedded.pages import units
from stagelight.embedded.pages.ranges import Range
from stagelight.sources.model import ErrorRow, LatencyRow, Totals

__all__ = ["State", "judge"]

_FAILING_SHARE = 0.05  # of a stage's calls; below it single failures are mentioned, not alarming


@dataclass(frozen=True, slots=True)
class State:
    """How things are."""

    level: Literal["healthy", "notice", "failing", "quiet"]
    sentence: str


def judge(totals: Totals, latency: Sequence[LatencyRow], errors: Sequence[ErrorRow], chosen: Range) -> State:
    """State of a window from its figures; a stage is failing when 5 % of its calls or more end in an error."""
    if not totals.turns and not totals.calls and not totals.errors and not latency:
        return State("quiet", f"Quiet: nothing arrived {chosen.words}.")
    if worst := _worst(latency):
        return State("failing", f"{units.visible(worst.key, 40)} is failing: {_failures(worst, errors, chosen.words)}.")
    if totals.errors:
        return State("notice", f"Mostly healthy: {units.counted(totals.errors, 'error')} {chosen.words}.")
    return State("healthy", "All stages healthy.")


def _worst(latency: Sequence[LatencyRow]) -> LatencyRow | None:
    """The stage that fails most often; turns and jobs only when no stage explains their failures."""
    failing = [row for row in latency if row.errors / max(row.calls, 1) >= _FAILING_SHARE]
    return max(failing, key=lambda row: (row.key not in {"turn", "job"}, row.errors / row.calls), default=None)


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
