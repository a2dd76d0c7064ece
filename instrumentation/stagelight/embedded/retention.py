"""What is kept: by age, and by the size of the file. Deletes in small steps, so that writing goes on between them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Pruner", "Retention"]

_DAY_S: Final = 86_400.0
_S: Final = 1_000_000_000
_CHUNK: Final = 2_000  # rows: about 60 ms of deleting, the longest that a writer waits
_VACUUM_PAGES: Final = 1_000
_IDLE_SHARE: Final = 0.2  # free pages are kept for reuse up to this share of the file
_SEEN_SLACK_NS: Final = 2 * 3600 * _S  # `seen_ns` is written once an hour
_MOST_NS: Final = 100 * 366 * 86_400 * _S  # so that times around now stay numbers of SQLite, which end in 2262
_AHEAD_NS: Final = 3600 * _S  # what the receiver accepts; files of earlier versions may hold later times
_TIMES: Final = (("spans", "start_ns"), ("logs", "time_ns"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much of the past is kept."""

    age_s: float = 7 * _DAY_S
    """Spans, log records and data points older than this are deleted, s. More than a century is for ever."""
    usage_age_s: float = 400 * _DAY_S
    """The same for the ledger, which is small and which costs are summed from, s."""
    size_bytes: int = 2 << 30
    """Size of the database file; beyond it the oldest rows go first, the ledger last. At least 1 MiB."""
    interval_s: float = 60.0
    """Time between two looks at the age, s. The size is checked at every commit."""

    def __post_init__(self) -> None:
        for name in ("age_s", "usage_age_s", "interval_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be more than 0 seconds")
        if self.size_bytes < 1 << 20:
            raise ValueError(f"size_bytes={self.size_bytes!r}: must be at least 1048576 (1 MiB)")


class Pruner:
    """Deletes on the writer's connection, outside its transactions."""

    def __init__(self, connection: sqlite3.Connection, retention: Retention) -> None:
        self._connection = connection
        self._retention = retention
        self._page_bytes = int(self._pragma("page_size"))
        # Not at once: a server that just started has more urgent things to do.
        self._next_look = time.monotonic() + retention.interval_s
        self._sweep: Iterator[None] | None = None

    def wait_s(self) -> float:
        """Seconds until ``step`` has something to do; 0 when it has now."""
        return 0.0 if self._sweep is not None else max(0.0, self._next_look - time.monotonic())

    def step(self) -> bool:
        """Delete one chunk of what is too old; True when rows may have gone."""
        if self._sweep is None:
            if time.monotonic() < self._next_look:
                return False
            self._sweep = self._by_age(time.time_ns())
        try:
            next(self._sweep)
        except StopIteration:
            self._sweep = None
            self._next_look = time.monotonic() + self._retention.interval_s
        except sqlite3.Error:
            self._sweep = None
            self._next_look = time.monotonic() + self._retention.interval_s
            raise
        return True

    def shrink(self) -> bool:
        """Delete the oldest rows until the file is within its size; True when rows went."""
        if self._used() <= self._retention.size_bytes:
            return False
        # A little more than needed, so that not every commit has to.
        goal = int(self._retention.size_bytes * 0.98)
        for _ in self._after(time.time_ns() + _AHEAD_NS):  # they would be the last to go, after all real data
            if self._used() <= goal:
                break
        while self._used() > goal:
            cutoff = self._oldest_chunk()
            if cutoff is None:
                self._drop_rest()
                break
            for _ in self._before(cutoff):
                pass
        self._truncate()
        return True

    def _by_age(self, now_ns: int) -> Iterator[None]:
        """What is further from now than its age, on either side."""
        kept = self._retention
        age_ns, usage_age_ns = (int(min(age_s * _S, _MOST_NS)) for age_s in (kept.age_s, kept.usage_age_s))
        yield from self._before(now_ns - age_ns)
        yield from self._delete("usage", "time_ns", now_ns - usage_age_ns)
        yield from self._after(now_ns + max(age_ns, _AHEAD_NS))
        if self._clock_is_sound():
            yield from self._delete("usage", "time_ns", now_ns + max(usage_age_ns, _AHEAD_NS), beyond=True)
        while self._pragma("freelist_count") > max(self._pragma("page_count") * _IDLE_SHARE, _VACUUM_PAGES):
            self._vacuum(_VACUUM_PAGES)
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # only this shortens the file
            yield

    def _before(self, cutoff_ns: int) -> Iterator[None]:
        """Everything but the ledger up to and including a time."""
        for chunk in self._delete("spans", "start_ns", cutoff_ns):
            self._connection.execute(
                "INSERT INTO meta VALUES ('pruned_until_ns', ?1) "
                "ON CONFLICT (key) DO UPDATE SET value = max(value, ?1)",
                (cutoff_ns,),
            )
            yield chunk
        yield from self._delete("logs", "time_ns", cutoff_ns)
        yield from self._delete_points(cutoff_ns)
        for table in ("resource", "scope"):
            self._connection.execute(
                f"DELETE FROM {table} WHERE seen_ns < ?",  # noqa: S608 (our own names)
                (cutoff_ns - _SEEN_SLACK_NS,),
            )

    def _after(self, cutoff_ns: int) -> Iterator[None]:
        """Everything but the ledger later than a time in the future."""
        if not self._clock_is_sound():
            return
        for table, column in _TIMES:
            yield from self._delete(table, column, cutoff_ns, beyond=True)
        yield from self._delete_points(cutoff_ns, beyond=True)

    def _clock_is_sound(self) -> bool:
        """False when our clock was set back since something was received: then what looks like the future is not."""
        seen_ns = self._scalar("SELECT max(seen_ns) FROM resource")
        return seen_ns is None or seen_ns <= time.time_ns() + _AHEAD_NS

    def _delete_points(self, cutoff_ns: int, *, beyond: bool = False) -> Iterator[None]:
        """Points up to and including a time, or beyond it, and series without any."""
        gone = False
        while self._connection.execute(
            "DELETE FROM points WHERE (series_id, time_ns) IN (SELECT points.series_id, points.time_ns "  # noqa: S608
            "FROM series CROSS JOIN points ON points.series_id = series.id "
            f"AND points.time_ns {'>' if beyond else '<='} ? LIMIT ?)",
            (cutoff_ns, _CHUNK),
        ).rowcount:
            gone = True
            yield
        if gone:
            self._connection.execute(
                "DELETE FROM series WHERE NOT EXISTS (SELECT 1 FROM points WHERE points.series_id = series.id)"
            )

    def _delete(self, table: str, column: str, cutoff_ns: int, *, beyond: bool = False) -> Iterator[None]:
        statement = (
            f"DELETE FROM {table} WHERE id IN "  # noqa: S608 (our own names)
            f"(SELECT id FROM {table} WHERE {column} {'>' if beyond else '<='} ? ORDER BY {column} LIMIT {_CHUNK})"
        )
        while self._connection.execute(statement, (cutoff_ns,)).rowcount:
            yield

    def _oldest_chunk(self) -> int | None:
        """A time up to which at least one row goes and no table loses much more than a chunk; None when all is gone."""
        ends = [self._chunk_end(table, column) for table, column in _TIMES]
        oldest_point = self._scalar(
            "SELECT min((SELECT min(time_ns) FROM points WHERE points.series_id = series.id)) FROM series"
        )
        if oldest_point is not None:
            span_ns = max(0, time.time_ns() - oldest_point)
            ends.append(oldest_point + span_ns // 50)
        return min((end for end in ends if end is not None), default=None)

    def _chunk_end(self, table: str, column: str) -> int | None:
        return self._scalar(
            f"SELECT max({column}) FROM "  # noqa: S608 (our own names)
            f"(SELECT {column} FROM {table} ORDER BY {column} LIMIT {_CHUNK})"
        )

    def _drop_rest(self) -> None:
        """With all else gone: the oldest part of the ledger, and names that nothing refers to."""
        for table in ("resource", "scope"):
            self._connection.execute(
                f"DELETE FROM {table} WHERE id NOT IN (SELECT {table}_id FROM usage)"  # noqa: S608 (our own names)
            )
        while self._used() > self._retention.size_bytes:
            end = self._chunk_end("usage", "time_ns")
            if end is None:
                return
            for _ in self._delete("usage", "time_ns", end):
                pass

    def _truncate(self) -> None:
        """Give pages beyond the bound back to the file system."""
        excess = self._pragma("page_count") - self._retention.size_bytes // self._page_bytes
        if excess > 0:
            self._vacuum(excess)

    def _vacuum(self, pages: int) -> None:
        # The statement steps once per page and has no columns: execute() would take the first step only.
        self._connection.executescript(f"PRAGMA incremental_vacuum({pages})")

    def _used(self) -> int:
        return (self._pragma("page_count") - self._pragma("freelist_count")) * self._page_bytes

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    def _scalar(self, query: str) -> int | None:
        value: int | None = self._connection.execute(query).fetchone()[0]
        return value
