"""Log records, what arrives, what is there, and what cannot be read."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from scene import ALL, TRACE, write_scene
from stagelight.embedded.retention import Retention
from stagelight.sources import Source, SourceUnavailable, Window, open_source
from stagelight.sources.model import (
    LogRow,
    SpanRow,
)
from stored import T0, S, logs, record, span, store, traces


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


def test_logs_are_newest_first(source: Source) -> None:
    """By window, service, and what arrived after a record; usage events are not among them."""
    rows = source.logs(ALL)

    assert [(row.body, row.severity, row.service, row.event_name) for row in rows] == [
        ("other", "INFO", "other", "tick"), ('{"k":[1]}', "INFO", "app", None), ("hello", "ERROR", "app", None),
    ]  # fmt: skip
    assert rows[2].trace_id == TRACE + "1"
    assert [row.body for row in source.logs(ALL, 1)] == ["other"]
    assert [row.body for row in source.logs(ALL, service="app")] == ['{"k":[1]}', "hello"]
    assert [row.body for row in source.logs(ALL, after=rows[1].id)] == ["other"]
    assert [row.body for row in source.logs(Window(T0, T0 + 40 * S))] == ["hello"]


def test_tail_gives_what_arrives(tmp_path: Path) -> None:
    """From now on, in order of time, each record once, in portions, and on after everything was deleted."""
    path = tmp_path / "store.db"
    store(path, traces(span(1)), logs(record("old")))
    source = open_source(str(path))
    nothing, cursor = source.tail()
    assert nothing == []

    store(path, traces(span(2, at=3), span(3, at=1)), logs(record("new", at=2)))
    records, cursor = source.tail(cursor)
    assert [record.body if isinstance(record, LogRow) else record.name for record in records] == [
        "span 3", "new", "span 2",
    ]  # fmt: skip
    assert source.tail(cursor) == ([], cursor)

    store(path, traces(*(span(number) for number in range(10, 15))))
    portions = []
    for _ in range(3):
        records, cursor = source.tail(cursor, limit=2)
        portions.append([record.name for record in records if isinstance(record, SpanRow)])
    assert portions == [["span 10", "span 11"], ["span 12", "span 13"], ["span 14"]]

    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM spans")
    connection.commit()
    connection.close()
    _, cursor = source.tail(cursor)
    store(path, traces(span(1)))
    records, _ = source.tail(cursor)
    assert len(records) == 1
    for wrong in ("", "1", "1.x", "-1.2", "9" * 30 + ".1"):
        with pytest.raises(ValueError, match="cursor"):
            source.tail(wrong)
    source.close()


def test_it_describes_itself(source: Source, path: Path) -> None:
    """Where, how much, from when to when."""
    described = source.describe()

    assert (described.location, described.spans, described.logs, described.usage, described.points) == (
        str(path), 12, 3, 5, 0,
    )  # fmt: skip
    assert (described.oldest_ns, described.newest_ns) == (T0, T0 + 41 * S)
    assert described.size_bytes >= path.stat().st_size > 0


def test_an_empty_store_has_an_answer_to_everything(tmp_path: Path) -> None:
    """No data is no error."""
    path = tmp_path / "store.db"
    store(path)
    source = open_source(str(path))

    assert (source.turns(ALL), source.traces(ALL), source.trace("0" * 32), source.errors(ALL)) == ([], [], None, [])
    assert (source.cost(ALL, "day"), source.cost(ALL, "user"), source.latency(ALL, "model")) == ([], [], [])
    assert source.describe().oldest_ns is None
    source.close()


def test_it_reads_while_another_writes_and_from_several_threads(tmp_path: Path) -> None:
    """Answers are consistent: spans of one batch are seen together."""
    path = tmp_path / "store.db"
    store(path, traces(span(1), span(2)))
    source = open_source(str(path))
    wrong: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            if (spans := source.describe().spans) % 2:
                wrong.append(spans)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    requests = [traces(span(number), span(number + 1)) for number in range(3, 200, 2)]
    try:
        store(path, *requests, retention=Retention(age_s=10**9))
    finally:
        done.set()
        for reader in readers:
            reader.join()

    assert wrong == []
    assert source.describe().spans == 200
    source.close()


def test_a_closed_source_says_so(path: Path) -> None:
    """Closing twice is fine, reading afterwards is not."""
    source = open_source(str(path))
    source.close()
    source.close()

    with pytest.raises(SourceUnavailable, match="closed"):
        source.describe()


def test_what_cannot_be_opened_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file: what to start. An address: what is accepted. Not ours: why."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    with pytest.raises(SourceUnavailable, match=r"no telemetry yet: .*share/stagelight/stagelight\.db.*stagelight up"):
        open_source(None)
    with pytest.raises(SourceUnavailable, match="there is no such file"):
        open_source(str(tmp_path / "missing.db"))
    with pytest.raises(SourceUnavailable, match="accepted are the path of a database file and the address"):
        open_source("ftp://localhost:4318")
    (tmp_path / "text").write_text("hello " * 100)
    with pytest.raises(SourceUnavailable, match="is not a database"):
        open_source(str(tmp_path / "text"))

    store(tmp_path / "share" / "stagelight" / "stagelight.db", traces(span(1)))
    source = open_source(None)
    assert source.describe().spans == 1
    source.close()


def test_a_file_that_is_damaged_later_is_explained(tmp_path: Path) -> None:
    """Not a traceback of the database."""
    path = tmp_path / "store.db"
    store(path, traces(*(span(number) for number in range(1, 300))))
    source = open_source(str(path))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)

    with pytest.raises(SourceUnavailable, match="cannot be read"):
        source.turns(ALL)
    source.close()
