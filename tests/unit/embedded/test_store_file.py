"""The database file: where it is, who may read it, what can be wrong with it, how it is brought up to date."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from stagelight.embedded import schema
from stagelight.embedded.store import NoStoreError, StoreError, default_path, open_readonly, open_writable
from stagelight.embedded.writer import Writer
from stored import query, span, store, traces


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database that does not exist yet, in a directory that does not either."""
    return tmp_path / "share" / "stagelight" / "stagelight.db"


def test_the_default_is_in_the_users_data_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG_DATA_HOME when it is absolute, as its specification asks; otherwise ``.local/share`` at home."""
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_path() == Path("/data/stagelight/stagelight.db")
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    assert default_path() == Path("/home/someone/.local/share/stagelight/stagelight.db")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert default_path() == Path("/home/someone/.local/share/stagelight/stagelight.db")


def test_only_the_owner_can_read_it(path: Path) -> None:
    """The directory has mode 0700, the file and those beside it 0600, whatever the umask."""
    before = os.umask(0o000)
    try:
        connection = open_writable(path)
        connection.execute("INSERT INTO meta VALUES ('x', 1)")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        connection.close()
    finally:
        os.umask(before)

    assert modes == {"stagelight.db": 0o600, "stagelight.db-wal": 0o600, "stagelight.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_closed_to_them(path: Path) -> None:
    """Someone may have made it, or copied it, with the usual mode."""
    open_writable(path).close()
    path.chmod(0o644)

    open_writable(path).close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_is_set_up_for_killing_and_shrinking(path: Path) -> None:
    """Write-ahead log, incremental vacuum, our number in the header, all steps done."""
    connection = open_writable(path, synchronous="FULL")
    settings = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "auto_vacuum", "user_version", "synchronous")
    }
    connection.close()

    assert settings == {"journal_mode": "wal", "auto_vacuum": 2, "user_version": schema.VERSION, "synchronous": 2}


def test_a_newer_file_is_refused(path: Path) -> None:
    """By writers and readers alike, with both numbers and the way out; the file is left as it is."""
    connection = open_writable(path)
    connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.close()

    for opening in (open_writable, open_readonly):
        with pytest.raises(StoreError, match=rf"newer version .* {schema.VERSION + 1}, .* {schema.VERSION}.*upgrade"):
            opening(path)


def test_a_reader_asks_to_update_an_older_file(path: Path) -> None:
    """Readers change nothing; the writer does."""
    connection = open_writable(path)
    connection.execute("PRAGMA user_version = 0")
    connection.close()

    with pytest.raises(StoreError, match=r"older version .*stagelight up"):
        open_readonly(path)


def test_what_is_not_a_database_is_refused(path: Path) -> None:
    """Its content is not touched."""
    path.parent.mkdir(parents=True)
    path.write_text("Dear diary, " * 100)

    for opening in (open_writable, open_readonly):
        with pytest.raises(StoreError, match="is not a database: name another file"):
            opening(path)
    assert path.read_text() == "Dear diary, " * 100


def test_the_database_of_another_program_is_refused(path: Path) -> None:
    """Its tables are not touched, and none of ours are put beside them."""
    path.parent.mkdir(parents=True)
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE bookmarks (url TEXT)")
    other.commit()

    for opening in (open_writable, open_readonly):
        with pytest.raises(StoreError, match="database of another program"):
            opening(path)
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]
    other.close()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The message names the file and the reason."""
    blocked = tmp_path / "file"
    blocked.write_text("")

    with pytest.raises(StoreError, match=r"cannot write .*file/store\.db"):
        open_writable(blocked / "store.db")
    with pytest.raises(StoreError, match="cannot write"):
        Writer(blocked / "store.db").start()


def test_a_wrong_setting_is_named(path: Path) -> None:
    """The message has the value received and those accepted."""
    with pytest.raises(StoreError, match="synchronous='OFF': accepted are NORMAL and FULL"):
        open_writable(path, synchronous="OFF")  # type: ignore[arg-type]


def test_a_missing_or_empty_file_is_no_store(path: Path) -> None:
    """A reader makes no file, and takes one without tables for none."""
    with pytest.raises(NoStoreError, match="no database"):
        open_readonly(path)
    assert not path.exists()
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(NoStoreError, match="empty"):
        open_readonly(path)


def test_readers_cannot_write(path: Path) -> None:
    """Not even by mistake."""
    open_writable(path).close()
    connection = open_readonly(path)

    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM spans")
    connection.close()


def test_steps_are_taken_in_order_once(path: Path) -> None:
    """A file of an earlier version gets exactly the steps it lacks and keeps its rows."""
    store(path, traces(span(1)))
    connection = open_writable(path)
    steps = (*schema.MIGRATIONS, "ALTER TABLE meta ADD COLUMN note TEXT;", "CREATE TABLE later (id INTEGER);")

    schema.migrate(connection, schema.VERSION, steps)

    assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION + 2,)
    assert connection.execute("SELECT note FROM meta").fetchall() == []
    assert connection.execute("SELECT count(*) FROM later").fetchone() == (0,)
    assert connection.execute("SELECT count(*) FROM spans").fetchone() == (1,)
    connection.close()


def test_a_step_that_fails_leaves_the_version_before_it(path: Path) -> None:
    """Half a step is never kept: the file works as before, and the step is tried again at the next start."""
    store(path, traces(span(1)))
    connection = open_writable(path)
    steps = (*schema.MIGRATIONS, "CREATE TABLE later (id INTEGER); DROP TABLE missing;")

    with pytest.raises(sqlite3.OperationalError, match="missing"):
        schema.migrate(connection, schema.VERSION, steps)

    assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'later'").fetchone() == (0,)
    connection.close()
    assert query(path, "SELECT count(*) FROM spans") == [(1,)]


def test_columns_and_tables_agree(path: Path) -> None:
    """Every column that rows are made for exists, in every table that has rows."""
    connection = open_writable(path)
    for table, columns in (
        ("spans", schema.SPAN_COLUMNS),
        ("logs", schema.LOG_COLUMNS),
        ("usage", schema.USAGE_COLUMNS),
        ("series", schema.SERIES_COLUMNS),
        ("points", schema.POINT_COLUMNS),
    ):
        found = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        assert found - {"id"} == set(columns), table
    connection.close()


def test_foreign_files_keep_their_mode(tmp_path: Path) -> None:
    """A file that turns out not to be ours is refused as it is, also behind a link."""
    text, database, link = tmp_path / "notes.txt", tmp_path / "other.db", tmp_path / "link.db"
    text.write_text("a diary, more than the header of a database long " * 10)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE diary (day TEXT)")
    link.symlink_to(text)
    for file in (text, database):
        file.chmod(0o644)

    for path in (text, database, link):
        with pytest.raises(StoreError):
            open_writable(path)

    assert [stat.S_IMODE(file.stat().st_mode) for file in (text, database)] == [0o644, 0o644]
