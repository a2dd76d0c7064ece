"""Questions to Loki: log records page by page, and sums over them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from stagelight.sources._gateway_http import GatewayClient, Parameters, understood
from stagelight.sources.model import SourceUnavailable, Window

__all__ = ["Loki", "Record", "TooManyRecords", "label", "quoted"]

_PAGE: Final = 5_000
_REACH_NS: Final = 400 * 86_400 * 1_000_000_000  # max_query_length, and as long as usage events are kept
_AHEAD_NS: Final = 26 * 3600 * 1_000_000_000  # further ahead than Loki takes records
_MS: Final = 1_000_000


class TooManyRecords(SourceUnavailable):
    """There are more records than were to be read."""

    def __init__(self, most: int) -> None:
        super().__init__(f"Loki has more than {most:,} log records in this range: narrow it, with --since and --until")


class Record(NamedTuple):
    """A log record."""

    time_ns: int
    line: str
    labels: Mapping[str, str]
    """Index labels of its stream."""
    metadata: Mapping[str, str]
    """Its attributes, and those of its resource, under Loki's names."""


class Loki:
    """Loki behind a gateway."""

    def __init__(self, client: GatewayClient) -> None:
        self._client = client

    def records(self, query: str, window: Window, *, most: int, newest_first: bool = False) -> Iterator[Record]:
        """Records of the window in order of time, in pages.

        Args:
            query: LogQL that gives records.
            window: its last 400 days are looked into.
            most: the most to give.
            newest_first: the other order.

        Raises:
            TooManyRecords: there are more; the first ``most`` have been given.
        """
        left = most
        since_ns, until_ns = _reach(window)
        while since_ns < until_ns:
            page = self._page(query, since_ns, until_ns, newest_first=newest_first)
            is_full = len(page) >= _PAGE
            if is_full:
                # It may have ended within a moment: that moment is read again, whole.
                edge_ns = page[-1].time_ns
                page = [record for record in page if record.time_ns != edge_ns]
                if not page:
                    raise SourceUnavailable(f"Loki has more than {_PAGE:,} records of one moment, which it cannot give")
                since_ns, until_ns = (since_ns, edge_ns + 1) if newest_first else (edge_ns, until_ns)
            yield from page[:left]
            left -= len(page)
            if left < 0 or (is_full and left == 0):
                raise TooManyRecords(most)
            if not is_full:
                return

    def newest(self, query: str, window: Window, limit: int) -> list[Record]:
        """The newest records of the window, at most ``limit``; newest first."""
        if limit <= _PAGE:
            return self._page(query, *_reach(window), newest_first=True, limit=limit)
        found: list[Record] = []
        with suppress(TooManyRecords):
            found.extend(self.records(query, window, most=limit, newest_first=True))
        return found

    def edge(self, query: str, window: Window, *, newest: bool) -> int | None:
        """Time of the newest or oldest record of the window; None when it has none."""
        found = self._page(query, *_reach(window), newest_first=newest, limit=1)
        return found[0].time_ns if found else None

    def total(self, aggregation: str, pipeline: str, window: Window) -> list[tuple[Mapping[str, str], float]]:
        """Values of a metric query over the whole window, with their labels.

        Args:
            aggregation: of LogQL, with ``{}`` for the pipeline and its range: ``sum(count_over_time({}))``.
            pipeline: selector and stages.
            window: starts at a full millisecond after its end; its last 400 days are looked into.
        """
        since_ns, until_ns = _reach(window)
        length_ms = math.ceil((until_ns - since_ns) / _MS)
        # A range leaves out its beginning and contains its end; a window is the other way round.
        query: Parameters = {"query": aggregation.format(f"{pipeline} [{length_ms}ms]"), "time": until_ns - 1}
        answer = self._client.get("loki", "/loki/api/v1/query", query)
        with understood("Loki"):
            return [(_texts(one["metric"]), float(one["value"][1])) for one in answer["data"]["result"]]

    def _page(
        self, query: str, since_ns: int, until_ns: int, *, newest_first: bool, limit: int = _PAGE
    ) -> list[Record]:
        answer = self._client.get(
            "loki",
            "/loki/api/v1/query_range",
            {
                "query": query,
                "start": since_ns,
                "end": until_ns,
                "limit": limit,
                "direction": "backward" if newest_first else "forward",
            },
        )
        with understood("Loki"):
            records = [
                _record(stream["stream"], *value) for stream in answer["data"]["result"] for value in stream["values"]
            ]
        return sorted(records, key=lambda record: record.time_ns, reverse=newest_first)


def quoted(text: str) -> str:
    """Text as a string of LogQL or TraceQL, whose strings are Go's."""
    return json.dumps(text.encode("utf-8", "replace").decode(), ensure_ascii=False)


def label(name: str) -> str:
    """Loki's and Prometheus' name of an attribute."""
    return "".join(character if character.isascii() and character.isalnum() else "_" for character in name)


def _reach(window: Window) -> tuple[int, int]:
    until_ns = min(window.until_ns, time.time_ns() + _AHEAD_NS)
    return max(window.since_ns, until_ns - _REACH_NS), until_ns


def _record(labels: Any, time_ns: str, line: str, details: Any = None) -> Record:
    metadata = (details or {}).get("structuredMetadata", {})
    return Record(int(time_ns), str(line), _texts(labels), _texts(metadata))


def _texts(values: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in values.items()}
