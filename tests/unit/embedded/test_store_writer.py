"""The writing thread: shared commits, a bounded queue, failures, and kills."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest
from stagelight.embedded.batch import Batch, Resource, WriteResult
from stagelight.embedded.store import open_writable
from stagelight.embedded.writer import QueueFull, WriteFailed, Writer, WriterClosed
from stored import batch_of, logs, query, record, span, store, traces


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that is held up by a test waits for as long as the test takes."""
    monkeypatch.setattr("stagelight.embedded.store._BUSY_S", 60.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database that does not exist yet."""
    return tmp_path / "data" / "store.db"


def test_waiting_batches_share_a_commit_and_every_future_ends(path: Path) -> None:
    """Many threads at once: all is written, each learns its own result."""
    writer = Writer(path)
    writer.start()
    futures: list[Future[WriteResult]] = []

    def send(base: int) -> None:
        futures.extend(writer.submit(batch_of(traces(span(base + number, trace=base)))) for number in range(20))

    threads = [threading.Thread(target=send, args=(1000 * (number + 1),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {future.result(timeout=60) for future in futures} == {WriteResult(spans=1)}
    assert writer.close(timeout=60)
    assert query(path, "SELECT count(*) FROM spans") == [(160,)]


def test_a_full_queue_refuses_at_once(path: Path) -> None:
    """While the writer cannot get at the file, only the bound waits; later all that was accepted is there."""
    writer = Writer(path, max_queued_bytes=3_000)
    writer.start()
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    accepted: list[Future[WriteResult]] = []

    def send() -> None:
        while len(accepted) < 1000:
            accepted.append(writer.submit(batch_of(traces(span(len(accepted) + 1)))))

    try:
        with pytest.raises(QueueFull):
            send()
    finally:
        blocker.execute("COMMIT")
        blocker.close()

    assert all(future.result(timeout=60) == WriteResult(spans=1) for future in accepted)
    assert writer.close(timeout=60)
    assert 3 < len(accepted) < 999


def test_a_cancelled_batch_is_not_written(path: Path) -> None:
    """Who gives up before the writer got to it leaves nothing behind, and harms no one."""
    writer = Writer(path)
    writer.start()
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    first = writer.submit(batch_of(traces(span(1))))
    while first.running() is False:
        pass
    second, third = (writer.submit(batch_of(traces(span(number)))) for number in (2, 3))
    assert second.cancel()
    blocker.execute("COMMIT")
    blocker.close()

    assert (first.result(timeout=60), third.result(timeout=60)) == (WriteResult(spans=1), WriteResult(spans=1))
    assert writer.close(timeout=60)
    assert query(path, "SELECT count(*) FROM spans") == [(2,)]


def test_closing_writes_what_waits_and_refuses_the_rest(path: Path) -> None:
    """Nothing accepted is lost by a normal end."""
    writer = Writer(path)
    with pytest.raises(WriterClosed):
        writer.submit(Batch())
    writer.start()
    futures = [writer.submit(batch_of(traces(span(number)))) for number in range(1, 50)]

    assert writer.close(timeout=60)
    assert writer.close(timeout=60)
    assert all(future.result(timeout=0) == WriteResult(spans=1) for future in futures)
    with pytest.raises(WriterClosed):
        writer.submit(Batch())


def test_a_full_disk_fails_the_write_and_only_that(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is acknowledged that is not there; when there is room again, the next batch is written."""
    writer = Writer(path)
    writer.start()
    writer.submit(batch_of(traces(span(1)))).result(timeout=60)
    connection = writer_connection(writer)
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    large = traces(*(span(number, attributes={"text": "x" * 900}) for number in range(2, 200)))
    with pytest.raises(WriteFailed, match="full"):
        writer.submit(batch_of(large)).result(timeout=60)
    assert query(path, "SELECT count(*) FROM spans") == [(1,)]
    connection.execute("PRAGMA max_page_count = 1000000")

    assert writer.submit(batch_of(large)).result(timeout=60) == WriteResult(spans=198)
    assert writer.close(timeout=60)
    assert "full" in caplog.text


def writer_connection(writer: Writer) -> sqlite3.Connection:
    """The writer's own connection: only there can SQLite be told that the disk is full."""
    assert writer._thread is not None
    connection = writer._thread._args[0]  # type: ignore[attr-defined]
    assert isinstance(connection, sqlite3.Connection)
    return connection


def test_one_bad_batch_does_not_take_its_neighbours_with_it(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A row that SQLite refuses fails its own future; those of the same transaction are written."""
    writer = Writer(path)
    writer.start()
    poison = batch_of(traces(span(2)))
    poison.spans[0] = poison.spans[0]._replace(rows=[(2**70, *poison.spans[0].rows[0][1:])])
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    futures = [writer.submit(batch) for batch in (batch_of(traces(span(1))), poison, batch_of(traces(span(3))))]
    blocker.execute("COMMIT")
    blocker.close()

    assert (futures[0].result(timeout=60), futures[2].result(timeout=60)) == (WriteResult(spans=1),) * 2
    with pytest.raises(WriteFailed):
        futures[1].result(timeout=60)
    assert writer.close(timeout=60)
    assert "could not be written" in caplog.text


def test_resources_are_stored_once(path: Path) -> None:
    """Also when a rolled back transaction was the first to name one."""
    connection = open_writable(path)
    connection.close()

    store(path, traces(span(1)), traces(span(2)), traces(span(3), service="b"), logs(record("x"), service="b"))

    assert query(path, "SELECT service, json FROM resource ORDER BY id") == [
        ("app", '{"service.name":"app"}'),
        ("b", '{"service.name":"b"}'),
    ]
    assert Resource("app", "{}").service == "app"


_CHILD = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from stored import batch_of, span, traces
from stagelight.embedded.writer import Writer
writer = Writer(Path(sys.argv[1]))
writer.start()
number = 0
while True:
    writer.submit(batch_of(traces(*(span(number + item + 1) for item in range(16))))).result()
    number += 16
    print(number, flush=True)
"""


def test_kill_loses_nothing_that_was_acknowledged(path: Path) -> None:
    """A process is killed three times while it writes: every span it reported is there, and the file is sound."""
    for round_ in range(1, 4):
        folder = Path(__file__).parents[2]
        target = path.with_name(f"{round_}.db")
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(target), str(folder), *sys.path], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        acknowledged = 0
        for line in child.stdout:
            acknowledged = int(line)
            if acknowledged >= 800 * round_:
                os.kill(child.pid, signal.SIGKILL)
                break
        # What it still managed to say before it died counts too.
        acknowledged = max([acknowledged, *(int(line) for line in child.stdout.read().splitlines() if line)])
        child.wait(timeout=60)
        child.stdout.close()

        found = query(target, "SELECT count(*) FROM spans")[0][0]
        assert acknowledged <= found <= acknowledged + 16
        assert query(target, "PRAGMA quick_check") == [("ok",)]
