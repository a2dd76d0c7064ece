"""The database file: where it is, how it is opened, and what can be wrong with it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Literal

from stagelight.embedded.schema import VERSION, migrate

__all__ = [
    "APPLICATION_ID",
    "NoStoreError",
    "StoreError",
    "Synchronous",
    "default_path",
    "open_readonly",
    "open_writable",
]

Synchronous = Literal["NORMAL", "FULL"]

APPLICATION_ID = 0x53544C54
"""``STLT`` in the file's header: tells our file from any other SQLite database."""

_BUSY_S = 5.0


class StoreError(Exception):
    """The database file cannot be used; the message names it, says why and what to do."""


class NoStoreError(StoreError):
    """There is no database file yet."""


def default_path() -> Path:
    """``$XDG_DATA_HOME/stagelight/stagelight.db``; the home directory's ``.local/share`` when that is not set."""
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    if not base.is_absolute():  # the XDG specification tells to ignore relative ones, the empty one included
        base = Path.home() / ".local" / "share"
    return base / "stagelight" / "stagelight.db"


def demo_path() -> Path:
    """The database of ``stagelight demo``, beside the default one."""
    return default_path().with_name("demo.db")


def open_writable(path: Path, *, synchronous: Synchronous = "NORMAL") -> sqlite3.Connection:
    """Open the store for writing; made with mode 0600 (and its directory with 0700) when it is not there.

    Args:
        synchronous: ``NORMAL`` survives the kill of the process, ``FULL`` also the loss of power, about 10 % slower.

    Raises:
        StoreError: unwritable, not a database, of another program or of a newer version of Stagelight.
    """
    if synchronous not in ("NORMAL", "FULL"):
        raise StoreError(f"synchronous={synchronous!r}: accepted are NORMAL and FULL")
    _create(path)
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        version = _version(connection, path, may_be_new=True)
        _make_private(path)
        if version == 0:
            # Only before the first table can the kind of vacuum be chosen.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreError(f"{path} is on a file system without shared memory: put the store on a local disk")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA journal_size_limit = {64 << 20}")
        connection.execute("PRAGMA cache_size = -16384")
        # 16 MiB of log between two checkpoints: random pages of the index by ids are then written once, not many times.
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        migrate(connection, version)
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(_explain(path, error)) from error
    except StoreError:
        connection.close()
        raise
    return connection


def open_readonly(path: Path) -> sqlite3.Connection:
    """Open the store for reading, also while another process writes.

    Raises:
        NoStoreError: there is no such file.
        StoreError: unreadable, not a database, or of another version.
    """
    if not path.is_file():
        raise NoStoreError(f"there is no database at {path}")
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise StoreError(_explain(path, error)) from error
    try:
        version = _version(connection, path, may_be_new=False)
        if version < VERSION:
            raise StoreError(f"{path} was made by an older version of Stagelight: `stagelight up` brings it up to date")
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(_explain(path, error)) from error
    except StoreError:
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    """Make the directory and the file, private to their owner; SQLite gives ``-wal`` and ``-shm`` the file's mode."""
    try:
        if not path.parent.is_dir():
            path.parent.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"cannot write {path}: {reason}; name another file or fix its rights") from error


def _make_private(path: Path) -> None:
    """Take the rights of others from a file that is known to be ours, and from what SQLite has made beside it."""
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        try:
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(f"cannot make {file} private: {error.strerror}; name another file") from error


def _version(connection: sqlite3.Connection, path: Path, *, may_be_new: bool) -> int:
    """The number of steps the file has seen; refuses files that are not ours or from the future."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (tables or version):
        raise StoreError(f"{path} is a database of another program: name another file")
    if not tables and not may_be_new:
        raise NoStoreError(f"the database at {path} is empty")
    if version > VERSION:
        raise StoreError(
            f"{path} was made by a newer version of Stagelight (its format is {version}, this one reads {VERSION}): "
            "upgrade Stagelight or name another file"
        )
    return version


def _explain(path: Path, error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", None)  # absent on errors of the Python layer
    if code == sqlite3.SQLITE_NOTADB:
        return f"{path} is not a database: name another file"
    if code == sqlite3.SQLITE_CORRUPT:
        return f"{path} is damaged: move it away, a new one is made at the next start"
    return f"cannot use {path}: {error}"
