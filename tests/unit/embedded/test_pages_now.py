"""The state in words and the figures of the page Now."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from browser.traffic import SECOND, Traffic, Turn, add_turn
from stagelight.conventions import attributes as names
from stagelight.embedded.pages import now, ranges
from stagelight.embedded.pages.state import State, judge
from stagelight.sources import open_source
from stagelight.sources.model import ErrorRow, LatencyRow, Totals, Window
from stored import store

HOUR = ranges.RANGES["1h"]
NOW_NS = 1_795_262_430 * SECOND


def row(key: str, calls: int, errors: int = 0) -> LatencyRow:
    """Calls of a stage."""
    return LatencyRow(key, calls, errors, 1.0, 2.0, 3.0, None, None)


def error(stage: str, kind: str | None, count: int, model: str = "m") -> ErrorRow:
    """Errors of one kind."""
    return ErrorRow(stage, "openai", model, kind, "error", count, NOW_NS, "0" * 32)


def totals(*, turns: int = 10, calls: int = 30, errors: int = 0) -> Totals:
    """Figures of a window."""
    return Totals(Decimal("0.1"), calls, 0, 0, turns, 0, errors, 0.5)


@pytest.mark.parametrize(
    ("figures", "latency", "errors", "expected"),
    [
        (totals(), [row("llm", 30)], [], State("healthy", "All stages healthy.")),
        (
            totals(errors=1),
            [row("llm", 30, 1)],
            [error("llm", "timeout", 1)],
            State("notice", "1 error in the last hour: llm timeout."),
        ),
        (
            totals(errors=2),
            [row("tool", 2, 2)],
            [error("tool", "ValueError", 1), error("tool", "KeyError", 1)],
            State("notice", "2 errors in the last hour, mostly tool ValueError."),
        ),
        (
            totals(errors=3),
            [row("turn", 10, 3), row("llm", 30, 3), row("tts", 10)],
            [error("llm", "timeout", 2), error("llm", "timeout", 1, "other")],
            State("failing", "llm is failing: 3 of 30 calls ended in an error in the last hour, all timeout."),
        ),
        (
            totals(errors=3),
            [row("tts", 10, 3)],
            [error("tts", "500", 2), error("tts", "timeout", 1)],
            State("failing", "tts is failing: 3 of 10 calls ended in an error in the last hour, most often 500."),
        ),
        (
            totals(errors=5),
            [row("turn", 10, 5), row("llm", 30)],
            [error("turn", None, 5)],
            State("failing", "turn is failing: 5 of 10 turns ended in an error in the last hour."),
        ),
        (totals(turns=0, calls=0), [], [], State("quiet", "Quiet: nothing arrived in the last hour.")),
    ],
)
def test_state_is_told_in_words(
    figures: Totals, latency: list[LatencyRow], errors: list[ErrorRow], expected: State
) -> None:
    """A stage that fails is named with its figures; a turn only when no stage explains it."""
    told = judge(figures, latency, errors, HOUR)

    assert State(told.level, told.sentence.replace("\u00a0", " ")) == expected


@pytest.mark.parametrize("chosen", ranges.RANGES.values(), ids=ranges.RANGES)
def test_ranges_end_now_in_whole_steps(chosen: ranges.Range) -> None:
    """A range holds now, starts on a step, and stays the same until the next step begins."""
    window = chosen.window(NOW_NS)
    step = chosen.minutes * 60 * SECOND // chosen.steps

    assert window.since_ns <= NOW_NS - chosen.minutes * 60 * SECOND + step
    assert window.until_ns - step <= NOW_NS < window.until_ns
    assert window.until_ns - window.since_ns == chosen.minutes * 60 * SECOND
    assert window.since_ns % step == 0
    assert chosen.window(window.until_ns - 1) == window


def test_today_starts_at_midnight() -> None:
    """Today is at most a day long and ends now."""
    window = ranges.today(NOW_NS)

    assert window == Window(window.since_ns, NOW_NS + 1)
    assert NOW_NS - window.since_ns < 25 * 3_600 * SECOND


def test_models_beyond_the_fifth_share_a_row(tmp_path: Path) -> None:
    """Five models have a colour; the rest are one row, and the rows still sum to the total exactly."""
    traffic = Traffic()
    for index in range(8):
        add_turn(traffic, Turn(start_ns=NOW_NS - (60 + index) * SECOND, chat_model=f"model-{index}", speech=False))
    trace_id = traffic.trace_id()
    unpriced = {
        names.STAGELIGHT_STAGE: "llm",
        names.GEN_AI_REQUEST_MODEL: "model-0",
        names.STAGELIGHT_COST_STATUS: "unpriced",
        names.STAGELIGHT_COST_REASON: "no_usage",
    }
    traffic.call(trace_id, "chat model-0", NOW_NS - 30 * SECOND, SECOND, parent=b"", attributes=unpriced)
    store(tmp_path / "store.db", traffic.traces, traffic.logs)
    source = open_source(str(tmp_path / "store.db"))
    try:
        page = now.look(source, HOUR, "newest", NOW_NS)
    finally:
        source.close()

    assert [(model.style, model.calls) for model in page.models] == [
        ("m-1", 2), ("m-2", 1), ("m-3", 1), ("m-4", 1), ("m-5", 1), ("rest", 11),
    ]  # fmt: skip
    assert sum(model.cost for model in page.models) == page.totals.spend
    first = page.models[0]
    assert (first.name, first.price, first.explained) == ("model-0", "1 unpriced", "1 unpriced; 1 exact; 1 no_usage")
    assert page.models[-1].name == "4\u00a0more models"
    assert [figure.note.replace("\u00a0", " ") for figure in page.figures] == [
        "without 1 unpriced call",
        "17 billable calls",
        "0 failed turns",
        "from the start of a turn",
    ]
