"""Cost, latency, errors and series, read from a small scene and compared with figures made by hand."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from scene import ALL, TRACE, call, turn, write_scene
from stagelight.sources import Source, Window, open_source
from stagelight.sources.model import (
    SERIES,
    Bucket,
    CostRow,
    ErrorRow,
    LatencyRow,
    Totals,
)
from stored import T0, S, logs, span, store, traces, usage


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the scene."""
    path = tmp_path_factory.mktemp("scene") / "store.db"
    write_scene(path)
    return path


@pytest.fixture
def source(path: Path) -> Iterator[Source]:
    """A source over it."""
    source = open_source(str(path))
    yield source
    source.close()


def _cost(key: str, calls: int, cost: str, turns: int, **more: object) -> CostRow:
    nothing = dict.fromkeys(("input_tokens", "output_tokens", "cached_tokens", "characters"), 0)
    statuses = dict.fromkeys(("exact", "estimated", "partial", "unpriced"), 0)
    given = {**nothing, "audio_seconds": 0.0, **statuses, "reasons": {}, "missing": {}, **more}
    return CostRow(key=key, calls=calls, cost=Decimal(cost), turns=turns, **given)  # type: ignore[arg-type]


def test_cost_by_model_and_stage(source: Source) -> None:
    """Exact sums from the ledger, unpriced calls with their reasons, the turns of the whole window."""
    gpt = {"input_tokens": 910, "output_tokens": 120, "cached_tokens": 512, "missing": {"audio_output": 1}}
    tts = {"characters": 1200, "audio_seconds": 2.5, "estimated": 1}

    assert source.cost(ALL, "model") == [
        _cost("tts-1", 1, "0.2", 2, **tts),
        _cost("gpt", 2, "0.1000001", 2, exact=1, partial=1, **gpt),
        _cost("-", 1, "0", 2, unpriced=1, reasons={"no_usage": 1}),
        _cost("new", 1, "0", 2, unpriced=1, reasons={"unknown_model": 1}),
    ]
    reasons = {"no_usage": 1, "unknown_model": 1}
    assert source.cost(ALL, "stage") == [
        _cost("tts", 1, "0.2", 2, **tts),
        _cost("llm", 4, "0.1000001", 2, exact=1, partial=1, unpriced=2, reasons=reasons, **gpt),
    ]


def test_cost_by_feature_tenant_and_user_counts_their_own_turns(source: Source) -> None:
    """What has no value is under a dash, with the turns that have none either."""
    found = {
        by: [(row.key, row.calls, row.cost, row.turns) for row in source.cost(ALL, by)]
        for by in ("feature", "tenant", "user")
    }

    rest = Decimal("0.0000001")
    assert found == {
        "feature": [("help", 2, Decimal("0.3"), 1), ("-", 3, rest, 1)],
        "tenant": [("-", 4, Decimal("0.2") + rest, 1), ("acme", 1, Decimal("0.1"), 1)],
        "user": [("-", 3, Decimal("0.2"), 1), ("h1:k:1", 2, Decimal("0.1") + rest, 1)],
    }


def test_cost_by_day_follows_the_time_zone(tmp_path: Path) -> None:
    """A day begins at midnight of the zone; the calls and turns of a day are its own."""
    midnight = 35_200  # seconds from T0 to the next midnight in UTC
    path = tmp_path / "store.db"
    store(
        path,
        logs(
            usage(midnight - 1, cost=1.0, status="exact"),
            usage(midnight, cost=2.0, status="exact"),
            usage(midnight + 86_400 * 2, cost=4.0, status="exact"),
        ),
        traces(turn(1, trace=1, at=midnight - 1, lasts=1), turn(1, trace=2, at=midnight + 5, lasts=1)),
    )
    source = open_source(str(path))

    for window in (Window(T0, T0 + 10**6 * S), Window(0, 2**63 - 1)):
        assert [(row.key, row.cost, row.turns) for row in source.cost(window, "day")] == [
            ("2026-09-21", 1, 1), ("2026-09-22", 2, 1), ("2026-09-24", 4, 0),
        ]  # fmt: skip
    behind = source.cost(Window(T0, T0 + 10**6 * S), "day", tz=timezone(timedelta(hours=-1)))
    assert [(row.key, row.cost) for row in behind] == [("2026-09-21", 3), ("2026-09-23", 4)]
    source.close()


def test_turns_per_cost_are_unknown_when_their_spans_are_gone(tmp_path: Path) -> None:
    """The ledger is kept longer than spans: then no figure per turn can be right."""
    path = tmp_path / "store.db"
    store(path, traces(turn(1, trace=1, at=5, lasts=1)), logs(usage(1, model="m", cost=1.0, status="exact")))
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO meta VALUES ('pruned_until_ns', ?)", (T0 + 2 * S,))
    connection.commit()
    connection.close()
    source = open_source(str(path))

    assert source.cost(ALL, "model") == [_cost("m", 1, "1.0", 0, exact=1)]
    store(path, logs(usage(10, model="m", cost=1.0, status="exact")))
    assert source.cost(Window(T0 + 3 * S, ALL.until_ns), "model") == [_cost("m", 1, "1.0", 1, exact=1)]
    source.close()


def test_sums_of_money_are_exact(tmp_path: Path) -> None:
    """Ten thousand small amounts beside a large one, and amounts no binary sum gets right."""
    path = tmp_path / "store.db"
    amounts = [0.1, 0.2, 1e-12, 123456789.125, *([0.000412] * 10_000), 3.3e-20, 7e22]
    store(path, logs(*(usage(number / 1000, cost=amount, status="exact") for number, amount in enumerate(amounts))))
    source = open_source(str(path))

    expected = Decimal("70000000000000123456793.545000000001000000033")
    assert source.cost(ALL, "model")[0].cost == expected
    assert source.totals(ALL).spend == expected
    source.close()


def test_latency_by_stage_and_model(source: Source) -> None:
    """Nearest-rank percentiles; turns have their first token, calls their first chunk; failures are counted."""
    assert source.latency(ALL, "stage") == [
        LatencyRow("llm", 3, 1, 2.0, 4.0, 4.0, 0.5, 0.5),
        LatencyRow("turn", 3, 2, 2.0, 4.0, 4.0, 1.25, 1.25),
        LatencyRow("tts", 1, 0, 1.0, 1.0, 1.0, None, None),
        LatencyRow("embedding", 1, 0, 0.25, 0.25, 0.25, None, None),
    ]
    assert source.latency(ALL, "model") == [
        LatencyRow("gpt", 3, 1, 2.0, 4.0, 4.0, 0.5, 0.5),
        LatencyRow("tts-1", 1, 0, 1.0, 1.0, 1.0, None, None),
        LatencyRow("emb", 1, 0, 0.25, 0.25, 0.25, None, None),
    ]


def test_percentiles_are_exact(tmp_path: Path) -> None:
    """Of 1 to 200 ms the p50 is 100, the p95 190, the p99 198 ms."""
    path = tmp_path / "store.db"
    store(path, traces(*(span(n, lasts=n / 1000, attributes={"stagelight.stage": "tool"}) for n in range(1, 201))))
    source = open_source(str(path))

    assert source.latency(ALL, "stage") == [LatencyRow("tool", 200, 0, 0.1, 0.19, 0.198, None, None)]
    source.close()


def test_an_error_is_counted_where_it_arose(source: Source) -> None:
    """Not again in the turns around it, nor in the HTTP span below it; a failed root without a stage counts."""
    assert source.errors(ALL) == [
        ErrorRow("-", None, None, None, None, 1, T0 + 30 * S, TRACE + "4"),
        ErrorRow(
            "llm", "openai", "gpt", "openai.RateLimitError", "error", 1, T0 + 21 * S // 2, TRACE + "2"
        ),
    ]  # fmt: skip


def test_errors_are_grouped_by_kind(tmp_path: Path) -> None:
    """Most frequent first; the database of a search is its provider; the last trace is named."""
    path = tmp_path / "store.db"
    search = {"stagelight.stage": "retrieval", "db.system.name": "qdrant", "error.type": "timeout"}
    own = {"stagelight.stage": "turn", "error.type": "KeyError"}
    store(
        path,
        traces(
            *(span(1, trace=number, at=number, attributes=search) for number in (1, 2)),
            turn(1, trace=3, at=5, lasts=1, error=True, attributes=own),
            call(2, "llm", trace=3, parent=1, at=5, lasts=1),
        ),
    )
    source = open_source(str(path))

    assert source.errors(ALL) == [
        ErrorRow("retrieval", "qdrant", None, "timeout", None, 2, T0 + 2 * S, TRACE + "2"),
        ErrorRow("turn", None, None, "KeyError", "completed", 1, T0 + 5 * S, TRACE + "3"),
    ]
    source.close()


def test_a_caller_who_hangs_up_is_no_error(tmp_path: Path) -> None:
    """The server's span fails, but the turn inside it says that it was cancelled: that is no failure."""
    path = tmp_path / "store.db"
    gone = {"error.type": "ConnectionError"}
    stopped = {"stagelight.outcome": "cancelled"}
    store(
        path,
        traces(
            span(1, trace=1, at=0, error=True, attributes=gone),
            turn(2, trace=1, parent=1, at=0, lasts=1, attributes=stopped),
            span(1, trace=2, at=2, error=True, attributes=gone),
        ),
    )
    source = open_source(str(path))

    assert source.errors(ALL) == [ErrorRow("-", None, None, "ConnectionError", None, 1, T0 + 2 * S, TRACE + "2")]
    assert source.totals(ALL).errors == 1
    source.close()


def test_series_have_equal_steps(source: Source) -> None:
    """Counts are 0 where nothing happened; other keys are absent there."""
    window = Window(T0, T0 + 40 * S)
    starts = [T0, T0 + 10 * S, T0 + 20 * S, T0 + 30 * S]

    assert {name: source.series(name, window, 4) for name in SERIES} == {
        "spend": _buckets(starts, {"gpt": 0.1, "tts-1": 0.2}, {"gpt": 1e-7}, {}, {}),
        "latency": _buckets(starts, {"llm": 2.0, "embedding": 0.25, "tts": 1.0}, {"llm": 1.0}, {"llm": 4.0}, {}),
        "turns": _buckets(starts, {"turns": 1.0}, {"turns": 1.0}, {"turns": 0.0}, {"turns": 0.0}),
        "errors": _buckets(starts, {"errors": 0.0}, {"errors": 1.0}, {"errors": 0.0}, {"errors": 1.0}),
        "first_token": _buckets(starts, {"p95": 1.25}, {}, {}, {}),
    }  # fmt: skip
    assert [bucket.start_ns - T0 for bucket in source.series("turns", Window(T0, T0 + 10), 3)] == [0, 4, 8]
    with pytest.raises(ValueError, match="name='rain': accepted are spend"):
        source.series("rain", window, 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps=0"):
        source.series("turns", window, 0)


def _buckets(starts: list[int], *values: dict[str, float]) -> list[Bucket]:
    return [Bucket(start_ns, given) for start_ns, given in zip(starts, values, strict=True)]


def test_totals(source: Source) -> None:
    """The figures of the window agree with the tables."""
    assert source.totals(ALL) == Totals(
        spend=Decimal("0.3000001"), calls=5, unpriced=2, partial=1, turns=2, failed_turns=1, errors=2,
        first_token_p95_s=1.25,
    )  # fmt: skip
    assert source.totals(Window(0, 1)) == Totals(Decimal(0), 0, 0, 0, 0, 0, 0, None)


@pytest.mark.parametrize("value", [17, 1.5, True, ["qdrant"], {"name": "qdrant"}])
def test_database_name_that_is_no_text(tmp_path: Path, value: object) -> None:
    """A failed span may send anything as the name of its database: only text counts as one."""
    path = tmp_path / "store.db"
    store(path, traces(span(1, error=True, attributes={"stagelight.stage": "retrieval", "db.system.name": value})))
    source = open_source(str(path))
    found = source.errors(ALL)
    source.close()

    assert [(row.stage, row.provider, row.count) for row in found] == [("retrieval", None, 1)]
