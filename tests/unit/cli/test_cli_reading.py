"""The reading commands on a small fixed database: whole outputs, JSON, and what they say when there is nothing."""

from __future__ import annotations

import dataclasses
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from stagelight.sources.model import CostRow, ErrorRow, LatencyRow, Trace, TraceRow, TurnRow
from stored import identifier, logs, record, span, store, traces, usage

from .conftest import DAY, HOSTILE, KEEP, Run

GOLDEN = Path(__file__).parent / "golden"
SECOND = identifier(2, 16).hex()
THIRD = identifier(3, 16).hex()

OUTPUTS = {
    "turns": ("turns", *DAY),
    "turns_slowest": ("turns", *DAY, "--slowest", "--limit", "1"),
    "turn": ("turns", SECOND, "--utc"),
    "turn_failed": ("turns", THIRD, "--utc"),
    "turn_limited": ("turns", SECOND, "--utc", "--limit", "2"),
    "cost_by_model": ("cost", *DAY),
    "cost_by_stage": ("cost", *DAY, "--by", "stage"),
    "cost_by_day": ("cost", *DAY, "--by", "day"),
    "cost_by_user": ("cost", *DAY, "--by", "user", "--limit", "1"),
    "latency": ("latency", *DAY),
    "latency_by_model": ("latency", *DAY, "--by", "model"),
    "errors": ("errors", *DAY),
    "traces": ("traces", *DAY),
    "tail": ("tail", *DAY, "--once"),
    "tail_logs": ("tail", *DAY, "--once", "--only", "logs", "--last", "2"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_output_is_as_agreed(name: str, run: Run, scene: Path) -> None:
    """A pipe gets aligned plain text: whole values, no colour, no box."""
    result = run(*OUTPUTS[name], "--source", scene)

    assert (result.status, result.err) == (0, "")
    assert result.out == (GOLDEN / f"{name}.txt").read_text("utf-8")
    assert result.out.isascii()


def document_of(run: Run, scene: Path, *words: str) -> Any:
    """The one JSON document that a command prints."""
    result = run(*words, "--json", "--source", scene)
    assert (result.status, result.err) == (0, "")
    return json.loads(result.out)


def names_of(row: type) -> set[str]:
    """The fields of a row."""
    return {field.name for field in dataclasses.fields(row)}


@pytest.mark.parametrize(
    ("words", "row", "more"),
    [
        (("turns",), TurnRow, {"order"}),
        (("traces",), TraceRow, set()),
        (("latency",), LatencyRow, {"by"}),
        (("errors",), ErrorRow, set()),
    ],
)
def test_json_lists_rows_by_their_field_names(
    words: tuple[str, ...], row: type, more: set[str], run: Run, scene: Path
) -> None:
    """Every list has the same frame, and rows whose keys are the fields of the source's rows."""
    document = document_of(run, scene, *words, *DAY)

    assert set(document) == {"source", "since_ns", "until_ns", "rows"} | more
    assert document["rows"]
    assert all(set(item) == names_of(row) for item in document["rows"])


def test_json_of_cost_has_exact_amounts_as_text(run: Run, scene: Path) -> None:
    """Amounts are text with all digits; an unpriced row has null and not 0; the total sums all rows."""
    document = document_of(run, scene, "cost", *DAY)
    rows = {row["key"]: row for row in document["rows"]}

    assert set(document) == {"source", "since_ns", "until_ns", "by", "currency", "total", "rows"}
    assert all(set(row) == names_of(CostRow) | {"per_turn", "status"} for row in rows.values())
    assert rows["gpt-4o-mini"]["cost"] == "0.0003372"
    assert (rows["house-model"]["cost"], rows["house-model"]["per_turn"]) == (None, None)
    assert rows["house-model"]["status"] == "unpriced (unknown_model)"
    assert Decimal(document["total"]["cost"]) == sum(Decimal(row["cost"]) for row in rows.values() if row["cost"])


def test_json_of_a_limited_cost_still_has_the_whole_total(run: Run, scene: Path) -> None:
    """A limit cuts rows, never the sum."""
    whole = document_of(run, scene, "cost", *DAY)
    limited = document_of(run, scene, "cost", *DAY, "--limit", "1")

    assert limited["total"] == whole["total"]
    assert limited["rows"] == whole["rows"][:1]


def test_json_of_one_turn_has_everything(run: Run, scene: Path) -> None:
    """The trace with spans, log lines and turns, found by a prefix in any case."""
    document = document_of(run, scene, "turns", SECOND.upper())

    assert set(document) == {"source", "trace"}
    assert set(document["trace"]) == names_of(Trace)
    assert [span["stage"] for span in document["trace"]["spans"]] == ["turn", "embedding", "retrieval", "llm", "tts"]
    assert [log["body"] for log in document["trace"]["logs"]] == ["asked the provider again"]


def test_json_of_tail_is_one_document_per_line(run: Run, scene: Path) -> None:
    """Each line says what it is and stands alone."""
    result = run("tail", *DAY, "--once", "--json", "--source", scene)
    documents = [json.loads(line) for line in result.out.splitlines()]

    assert {document["record"] for document in documents} == {"span", "log"}
    assert len(documents) == 10


def test_json_of_no_rows_is_a_document(run: Run, scene: Path) -> None:
    """A program gets an empty list and no advice."""
    document = document_of(run, scene, "turns", "--since", "1h")

    assert document["rows"] == []


@pytest.mark.parametrize("verb", ["turns", "cost", "latency", "errors", "traces"])
def test_data_outside_the_range_is_pointed_at(verb: str, run: Run, scene: Path) -> None:
    """An empty range of a filled database says where the data is."""
    result = run(verb, "--since", "1h", "--utc", "--source", scene)

    assert (result.status, result.err) == (0, "")
    assert result.out.splitlines()[1:] == [
        "The database has data from 2026-09-21 14:13:15Z to 2026-09-21 14:16:40Z: widen the range, `--since all`.",
        f"{scene}: 13 spans, 8 usage records, 3 log lines",
    ]


def test_one_of_a_thing_is_singular(run: Run, tmp_path: Path) -> None:
    """A database with one span does not have "1 spans"."""
    path = tmp_path / "one.db"
    store(path, traces(span(1)), logs(record("hello"), usage()), retention=KEEP)

    outside = run("turns", "--since", "1h", "--source", path).out
    doctor = run("doctor", "--source", path).out

    assert f"{path}: 1 span, 1 usage record, 1 log line\n" in outside
    assert f"{path}: 1 span, 1 usage record, 1 log line, " in doctor


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("turns", "--limit", "1"), "This is the newest one; --limit shows more."),
        (("turns", "--limit", "2"), "These are the newest 2; --limit shows more."),
        (("turns", "--limit", "2", "--slowest"), "These are the slowest 2; --limit shows more."),
        (("traces", "--limit", "1"), "This is the newest one; --limit shows more."),
    ],
)
def test_a_list_that_goes_on_says_so(words: tuple[str, ...], sentence: str, run: Run, scene: Path) -> None:
    """Of one row it is said in the singular."""
    assert run(*words, *DAY, "--source", scene).out.splitlines()[-1] == sentence


@pytest.mark.parametrize("verb", ["turns", "cost", "latency", "errors", "traces"])
def test_an_empty_database_says_what_to_do(verb: str, run: Run, tmp_path: Path) -> None:
    """Nothing was received yet: the answer is the next step, and no failure."""
    store(tmp_path / "empty.db")

    result = run(verb, "--source", tmp_path / "empty.db")

    assert (result.status, result.err) == (0, "")
    assert "The database is empty. Run `stagelight up`" in result.out


@pytest.mark.parametrize(
    ("verb", "advice"),
    [
        ("turns", "`stagelight traces` lists it"),
        ("cost", "call stagelight.configure()"),
        ("latency", "no stage in it"),
        ("errors", "Good news: 0 calls and no failure in this range."),
    ],
)
def test_other_telemetry_leads_to_other_advice(verb: str, advice: str, run: Run, tmp_path: Path) -> None:
    """Spans of other libraries only: the command says what is missing to see more."""
    path = tmp_path / "other.db"
    store(path, traces(span(1)), retention=KEEP)

    result = run(verb, *DAY, "--source", path)

    assert result.status == 0
    assert advice in result.out


@pytest.mark.parametrize("verb", ["turns", "cost", "latency", "errors", "traces", "tail"])
def test_no_database_is_one_sentence(verb: str, run: Run, tmp_path: Path) -> None:
    """Without a database the exit code is 3 and one line says what to do."""
    result = run(verb)

    assert (result.status, result.out) == (3, "")
    assert result.err.startswith("stagelight: There is no telemetry yet: there is no database at ")
    assert "`stagelight up`" in result.err
    assert result.err.count("\n") == 1


def test_a_file_that_is_no_database_is_named(run: Run, tmp_path: Path) -> None:
    """Another file is not read and not reported as empty."""
    other = tmp_path / "notes.txt"
    other.write_text("hello " * 1000)

    result = run("cost", "--source", other)

    assert (result.status, result.out) == (3, "")
    assert result.err == f"stagelight: {other} is not a database: name another file\n"


def test_the_source_can_come_from_the_environment(run: Run, scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """STAGELIGHT_SOURCE is read; the flag wins over it."""
    monkeypatch.setenv("STAGELIGHT_SOURCE", str(scene))
    assert run("errors", *DAY).out == (GOLDEN / "errors.txt").read_text("utf-8")

    assert run("errors", *DAY, "--source", "/nowhere.db").status == 3


@pytest.mark.parametrize(
    ("trace", "status", "message"),
    [
        ("abcdef0123", 1, "has an id that begins with 'abcdef0123'; `stagelight traces --since all` lists them"),
        ("nothex", 2, "accepted are 6 to 32 hexadecimal digits"),
        ("12", 2, "accepted are 6 to 32 hexadecimal digits"),
        ("0" * 20, 2, "is the start of several"),
    ],
)
def test_a_trace_that_is_not_there(trace: str, status: int, message: str, run: Run, scene: Path) -> None:
    """Unknown, malformed and ambiguous ids each get their own sentence."""
    result = run("turns", trace, "--source", scene)

    assert (result.status, result.out) == (status, "")
    assert message in result.err


def test_hostile_names_cannot_reach_the_terminal(run: Run, tmp_path: Path) -> None:
    """Escapes, controls, line ends and bidi overrides of telemetry are written out in every command."""
    path = tmp_path / "hostile.db"
    stage = {"stagelight.stage": "llm", "gen_ai.request.model": HOSTILE, "error.type": HOSTILE}
    turn = {"stagelight.stage": "turn", "gen_ai.workflow.name": HOSTILE, "stagelight.feature": HOSTILE}
    store(
        path,
        traces(
            span(1, name=HOSTILE, attributes=turn),
            span(2, parent=1, name=HOSTILE, error=True, attributes=stage),
            service=HOSTILE,
        ),
        logs(record(HOSTILE, trace=1), usage(model=HOSTILE, feature=HOSTILE, status=HOSTILE), service=HOSTILE),
        retention=KEEP,
    )
    written = r"evil\x1b[31mred\x1b]0;owned\x07\u202egnp.exe\r\nnext"

    for verb in ("turns", "traces", "latency", "errors", "cost", "tail"):
        by = ("--by", "model") if verb in {"latency", "cost"} else ("--once",) if verb == "tail" else ()
        result = run(verb, *DAY, *by, "--source", path)
        assert written in result.out, verb
        assert all(line.isprintable() for line in result.out.splitlines()), verb

    drawn = run("turns", identifier(1, 16).hex(), "--utc", "--source", path)
    assert drawn.out.count(written) >= 4
    assert all(line.isprintable() for line in drawn.out.splitlines())
    assert all(line.isprintable() for line in run("turns", *DAY, "--json", "--source", path).out.splitlines())


def test_spans_that_are_each_others_parents_are_all_drawn(run: Run, tmp_path: Path) -> None:
    """A malformed trace ends the drawing no later than a good one."""
    path = tmp_path / "cycle.db"
    store(path, traces(span(1, parent=2), span(2, parent=1), span(3, parent=3), span(4, parent=99)), retention=KEEP)

    result = run("turns", identifier(1, 16).hex(), "--utc", "--source", path)

    assert result.status == 0
    assert [line.split()[1:3] for line in result.out.splitlines()[3:7]] == [
        ["span", "4"], ["span", "1"], ["span", "2"], ["span", "3"]
    ]  # fmt: skip
