"""What is kept: by age, by size, and that writing goes on."""

from __future__ import annotations

import math
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Gauge, Metric, NumberDataPoint
from stagelight.embedded.retention import Pruner, Retention
from stagelight.embedded.writer import Writer
from stored import T0, S, batch_of, logs, metrics, query, record, span, store, traces, usage

_COUNTS = (
    "SELECT (SELECT count(*) FROM spans), (SELECT count(*) FROM logs), (SELECT count(*) FROM points), "
    "(SELECT count(*) FROM series), (SELECT count(*) FROM usage)"
)
_MIB = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database that does not exist yet."""
    return tmp_path / "store.db"


def _ago(age_s: float) -> float:
    """That many seconds before now, in the seconds of the builders."""
    return (time.time_ns() - T0) / S - age_s


def _gauge(name: str, age_s: float) -> Metric:
    point = NumberDataPoint(time_unix_nano=T0 + round(_ago(age_s) * S), as_double=1.0)
    return Metric(name=name, gauge=Gauge(data_points=[point]))


def _until(path: Path, expected: tuple[int, ...]) -> None:
    """Wait until the tables have that many rows; fails after a minute."""
    deadline = time.monotonic() + 60
    while (found := query(path, _COUNTS)[0]) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def test_what_is_too_old_goes_and_the_rest_stays(path: Path) -> None:
    """Spans, log records, data points and series without points by one age, the ledger by its own."""
    requests = [
        traces(span(1, at=_ago(5000)), span(2, at=_ago(10))),
        logs(record("old", at=_ago(5000)), record("new", at=_ago(10))),
        logs(usage(_ago(5000), cost=1.0, status="exact"), usage(_ago(90_000), cost=1.0, status="exact")),
        metrics(_gauge("old", 5000), _gauge("new", 10)),
    ]
    store(path, *requests)
    assert query(path, _COUNTS) == [(2, 2, 2, 2, 2)]

    writer = Writer(path, retention=Retention(age_s=3600, usage_age_s=86_400, interval_s=0.05))
    writer.start()
    _until(path, (1, 1, 1, 1, 1))
    assert writer.close(timeout=60)

    assert query(path, "SELECT name FROM spans") == [("span 2",)]
    assert query(path, "SELECT body FROM logs") == [("new",)]
    assert query(path, "SELECT name FROM series") == [("new",)]
    assert query(path, "SELECT value / 1000000000 FROM meta WHERE key = 'pruned_until_ns'")[0][0] == pytest.approx(
        time.time() - 3600, abs=300
    )


@pytest.mark.parametrize("age_s", [1e10, math.inf])
def test_for_ever_is_accepted(path: Path, age_s: float) -> None:
    """Nothing goes with an age that reaches beyond the times that SQLite has numbers for."""
    store(path, traces(span(1, at=_ago(5000))), logs(record()), logs(usage()), metrics(_gauge("g", 0)))

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        pruner = Pruner(connection, Retention(age_s=age_s, usage_age_s=age_s, interval_s=1e-9))
        assert any(pruner.step() for _ in range(3))

    assert query(path, _COUNTS) == [(1, 1, 1, 1, 1)]


def test_many_old_rows_go_while_new_ones_come(path: Path) -> None:
    """Deleting works in chunks; batches are written between them, and names in use are kept or made anew."""
    store(
        path, *(traces(*(span(1 + number + 512 * part, at=_ago(9000)) for number in range(512))) for part in range(12))
    )
    writer = Writer(path, retention=Retention(age_s=3600, interval_s=0.05))
    writer.start()

    for number in range(100_000, 100_200):
        writer.submit(batch_of(traces(span(number, at=_ago(1))))).result(timeout=60)
        writer.submit(batch_of(metrics(_gauge("live", 0), _gauge("dead", 9000)))).result(timeout=60)
    assert writer.close(timeout=60)

    assert query(path, "SELECT count(*) FROM spans WHERE id > 6144 OR span_id >= x'00000000000186A0'") == [(200,)]
    assert query(path, "SELECT count(*) FROM points WHERE series_id NOT IN (SELECT id FROM series)") == [(0,)]
    assert query(path, "SELECT count(*) FROM spans WHERE resource_id NOT IN (SELECT id FROM resource)") == [(0,)]


def test_the_file_stays_within_its_size(path: Path) -> None:
    """The oldest go first, the newest are there, and the ledger is spared."""
    writer = Writer(path, retention=Retention(size_bytes=2 * _MIB))
    writer.start()
    writer.submit(batch_of(logs(usage(_ago(50_000), cost=1.0, status="exact")))).result(timeout=60)
    largest = 0
    for part in range(40):
        rows = [
            span(1 + number + 200 * part, at=_ago(10_000 - 10 * part), attributes={"text": "x" * 500})
            for number in range(200)
        ]
        writer.submit(batch_of(traces(*rows))).result(timeout=60)
        largest = max(largest, path.stat().st_size)
    assert writer.close(timeout=60)

    kept, oldest, newest = query(path, "SELECT count(*), min(span_id), max(span_id) FROM spans")[0]
    assert path.stat().st_size <= 2 * _MIB
    assert largest < 2.5 * _MIB
    assert 500 < kept < 8000
    assert int.from_bytes(newest) == 8000
    assert int.from_bytes(oldest) == 8000 - kept + 1
    assert query(path, "SELECT count(*) FROM usage") == [(1,)]


def test_a_flood_of_names_cannot_fill_the_file(path: Path) -> None:
    """Resources, scopes and series go with what referred to them, also when they are all the file holds."""
    writer = Writer(path, retention=Retention(size_bytes=_MIB))
    writer.start()
    for number in range(400):
        writer.submit(batch_of(traces(span(number + 1, at=_ago(1)), service=f"{number}" * 1500))).result(timeout=60)
        writer.submit(batch_of(metrics(_gauge(f"m{number}" * 200, 1)))).result(timeout=60)
    assert writer.close(timeout=60)

    assert path.stat().st_size <= _MIB
    assert query(path, "SELECT count(*) FROM spans WHERE resource_id NOT IN (SELECT id FROM resource)") == [(0,)]


def test_the_ledger_goes_last_when_it_is_all_there_is(path: Path) -> None:
    """The bound holds for it too, oldest first."""
    writer = Writer(path, retention=Retention(size_bytes=_MIB))
    writer.start()
    for part in range(30):
        events = [
            usage(_ago(9000 - part) + number / 1000, model="m" * 200, cost=0.1, status="exact") for number in range(200)
        ]
        writer.submit(batch_of(logs(*events))).result(timeout=60)
    assert writer.close(timeout=60)

    kept, newest_ns = query(path, "SELECT count(*), max(time_ns) FROM usage")[0]
    assert path.stat().st_size <= _MIB
    assert 100 < kept < 6000
    assert newest_ns > T0 + round(_ago(9000 - 28) * S)


def test_room_is_given_back_after_old_rows_have_gone(path: Path) -> None:
    """The file shrinks, it is not only reused."""
    store(
        path,
        *(
            traces(
                *(span(1 + number + 500 * part, at=_ago(9000), attributes={"t": "x" * 900}) for number in range(500))
            )
            for part in range(20)
        ),
    )
    before = path.stat().st_size

    writer = Writer(path, retention=Retention(age_s=60, interval_s=0.05))
    writer.start()
    _until(path, (0, 0, 0, 0, 0))
    deadline = time.monotonic() + 60
    while path.stat().st_size > before / 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert writer.close(timeout=60)

    assert path.stat().st_size < before / 2


@pytest.mark.parametrize("wrong", [{"age_s": 0}, {"usage_age_s": -1}, {"interval_s": 0}, {"size_bytes": 1000}])
def test_a_wrong_setting_is_named(wrong: dict[str, float]) -> None:
    """With its value and what is accepted."""
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name}={value}: must be"):
        Retention(**wrong)  # type: ignore[arg-type]


def _move_to_the_future(path: Path, ahead_s: float) -> None:
    """Put all rows of a database there, as an earlier version would have stored them."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, column in (("spans", "start_ns"), ("logs", "time_ns"), ("points", "time_ns"), ("usage", "time_ns")):
            future_ns = time.time_ns() + round(ahead_s * S)
            connection.execute(f"UPDATE {table} SET {column} = ?", (future_ns,))  # noqa: S608 - our own names


def test_what_is_too_far_in_the_future_goes(path: Path) -> None:
    """Rows that an earlier version stored with times further ahead than their age are deleted; nearer ones stay."""
    store(path, traces(span(1)), logs(record()), logs(usage()), metrics(_gauge("g", 0)))
    _move_to_the_future(path, 90_000)
    store(path, traces(span(2, at=_ago(10))), logs(record(at=_ago(10))), metrics(_gauge("h", 10)))

    writer = Writer(path, retention=Retention(age_s=3600, usage_age_s=100_000, interval_s=0.05))
    writer.start()
    _until(path, (1, 1, 1, 1, 1))
    assert writer.close(timeout=60)

    writer = Writer(path, retention=Retention(age_s=3600, usage_age_s=80_000, interval_s=0.05))
    writer.start()
    _until(path, (1, 1, 1, 1, 0))
    assert writer.close(timeout=60)


def test_clock_that_was_set_back_deletes_nothing(path: Path) -> None:
    """When the last thing was received in what is now the future, it is our clock that is wrong."""
    store(path, traces(span(1)))
    _move_to_the_future(path, 90_000)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE resource SET seen_ns = ?", (time.time_ns() + 90_000 * S,))

    writer = Writer(path, retention=Retention(age_s=3600, interval_s=0.05))
    writer.start()
    time.sleep(0.3)
    assert writer.close(timeout=60)
    assert query(path, _COUNTS) == [(1, 0, 0, 0, 0)]


def test_future_goes_before_real_data(path: Path) -> None:
    """When the file is full, rows from the future go first."""
    text = "x" * 1000
    store(path, traces(*(span(number, attributes={"text": text}) for number in range(1, 1001))))
    _move_to_the_future(path, 400 * 86_400)
    real = [span(number, trace=2, at=_ago(10), attributes={"text": text}) for number in range(1, 501)]
    store(path, traces(*real), retention=Retention(size_bytes=_MIB))

    assert query(path, "SELECT count(*) FROM spans WHERE trace_id = x'00000000000000000000000000000002'") == [(500,)]
