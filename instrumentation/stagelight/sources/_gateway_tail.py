"""What arrives at the back ends, found by asking again: they know when things happened, not when they came."""

from __future__ import annotations

import threading
import time
from itertools import islice
from typing import Final

from stagelight.sources._loki import Loki
from stagelight.sources._loki_logs import newest_logs
from stagelight.sources._tempo import Tempo
from stagelight.sources.model import LogRow, SpanRow, TailRecord, Window

__all__ = ["Tail"]

_S: Final = 1_000_000_000
_LOOK_BACK_NS: Final = 180 * _S
"""How old a record is at most when it is first seen; Tempo's search finds spans up to a minute after they came."""

_TRACES: Final = 500
_TRACES_READ: Final = 25  # of one look; the rest is for the next one

_Identity = tuple[str, str] | tuple[int, str, str | None]


class Tail:
    """Remembers what it has shown of the last minutes."""

    def __init__(self, tempo: Tempo, loki: Loki) -> None:
        self._tempo = tempo
        self._loki = loki
        self._lock = threading.Lock()
        self._seen: dict[_Identity, int] = {}

    def read(self, after: str | None, limit: int) -> tuple[list[TailRecord], str]:
        """What was not seen yet, in order of time, and the next cursor.

        Raises:
            ValueError: the cursor is not one.
        """
        if after is not None and not (after.isascii() and after.isdigit() and len(after) < 20):
            raise ValueError(f"cursor {after!r}: accepted is what an earlier call returned")
        with self._lock:
            now_ns = time.time_ns()
            window = Window(now_ns - _LOOK_BACK_NS, now_ns + _S)
            self._seen = {one: seen_ns for one, seen_ns in self._seen.items() if seen_ns > now_ns - 2 * _LOOK_BACK_NS}
            if after is None:
                for trace in islice(self._tempo.newest("{ }", window, _TRACES), _TRACES):
                    self._seen.update({(trace.trace_id, str(span["span_id"])): now_ns for span in trace.spans})
                self._seen.update({_identity(row): now_ns for row in newest_logs(self._loki, window, limit)})
                return [], str(now_ns)
            new = [row for row in self._records(window, limit) if _identity(row) not in self._seen]
            new.sort(key=lambda row: row.time_ns if isinstance(row, LogRow) else row.start_ns)
            self._seen.update({_identity(row): now_ns for row in new})
            return new, str(now_ns)

    def _records(self, window: Window, limit: int) -> list[TailRecord]:
        records: list[TailRecord] = [*newest_logs(self._loki, window, limit)]
        read = 0
        for trace in islice(self._tempo.newest("{ }", window, _TRACES), _TRACES):
            has_new = any((trace.trace_id, str(span["span_id"])) not in self._seen for span in trace.spans)
            if has_new or not trace.is_whole:
                records += self._tempo.trace(trace.trace_id)
                read += 1
            if read >= _TRACES_READ:
                break
        return records


def _identity(row: TailRecord) -> _Identity:
    return (row.trace_id, row.span_id) if isinstance(row, SpanRow) else (row.time_ns, row.body, row.span_id)
