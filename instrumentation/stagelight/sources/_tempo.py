"""Questions to Tempo: searches, counts and whole traces, split where Tempo answers for so much time only."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from stagelight.sources._gateway_http import GatewayClient, Parameters, understood
from stagelight.sources._tempo_spans import attribute_value, spans_of
from stagelight.sources.model import AttributeValue, SourceUnavailable, SpanRow, Window

__all__ = ["KEPT_NS", "SHOWN_AFTER_S", "Found", "Tempo", "TooManySpans"]

_S: Final = 1_000_000_000
_DAY_S: Final = 86_400
_SEARCH_S: Final = 7 * _DAY_S  # the longest time of a search
_COUNT_S: Final = _DAY_S  # and of a metric query
_REACH_S: Final = 35 * _DAY_S  # more than traces are kept, and few empty searches
_TRACES: Final = 1_000
_TRACES_OF_A_SECOND: Final = 100_000
_SPANS: Final = 100  # of one trace, the most that a search gives

SHOWN_AFTER_S: Final = 45
"""Seconds after which Tempo shows what it has: 30 (its ``query_end_cutoff``), and some for clocks that differ."""

KEPT_NS: Final = 14 * _DAY_S * _S
"""For how long the stack keeps traces (``tempo/tempo.yaml``)."""


class TooManySpans(SourceUnavailable):
    """There are more spans than were to be read."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"Tempo has more than {most:,} spans to read for this answer: narrow the range, with --since and --until"
        )


class Found(NamedTuple):
    """A trace with the spans that a search matched in it."""

    trace_id: str
    start_ns: int
    spans: tuple[Mapping[str, AttributeValue], ...]
    """What was selected of each, and ``span_id``, ``start_ns`` and ``duration_ns``; ``nil`` values are left out."""
    is_whole: bool
    """Whether all spans that matched are here."""


class Tempo:
    """Tempo behind a gateway."""

    def __init__(self, client: GatewayClient) -> None:
        self._client = client

    def traces(self, query: str, window: Window, *, most: int) -> Iterator[Found]:
        """All traces of the window that a query finds, in no order; one may come again with more of its spans.

        Args:
            query: TraceQL.
            window: its last 35 days are looked into, to whole seconds.
            most: the most spans to give.

        Raises:
            TooManySpans: there are more.
        """
        seen: set[tuple[str, str]] = set()
        waiting = list(_parts(window, _SEARCH_S))
        while waiting:
            start_s, end_s = waiting.pop()
            limit = _TRACES if end_s - start_s > 1 else _TRACES_OF_A_SECOND
            found = self._search(query, start_s, end_s, limit)
            if len(found) >= limit:
                if end_s - start_s == 1:
                    raise _too_many_of_a_second()
                middle_s = (start_s + end_s) // 2
                waiting += [(start_s, middle_s), (middle_s, end_s)]
                continue
            for trace in found:
                fresh = tuple(span for span in trace.spans if (trace.trace_id, str(span["span_id"])) not in seen)
                seen.update((trace.trace_id, str(span["span_id"])) for span in fresh)
                if fresh:
                    yield trace._replace(spans=fresh)
            if len(seen) > most:
                raise TooManySpans(most)

    def newest(self, query: str, window: Window, page: int) -> Iterator[Found]:
        """The traces of the window that a query finds, newest first, each once; read as far as they are taken.

        Args:
            query: TraceQL.
            window: to whole seconds, so that some are just outside of it.
            page: how many are asked for at once, up to 1,000.
        """
        seen: set[str] = set()
        for start_s, last_s in reversed(list(_parts(window, _SEARCH_S))):
            end_s, limit = last_s, min(page, _TRACES)
            while start_s < end_s:
                found = self._search(f"{query} with (most_recent=true)", start_s, end_s, limit)
                fresh = [trace for trace in found if trace.trace_id not in seen]
                seen.update(trace.trace_id for trace in fresh)
                yield from sorted(fresh, key=lambda trace: trace.start_ns, reverse=True)
                if len(found) < limit:
                    break
                oldest_s = min(trace.start_ns for trace in found) // _S + 1
                if oldest_s >= end_s and limit == _TRACES_OF_A_SECOND:
                    raise _too_many_of_a_second()
                limit = min(page, _TRACES) if oldest_s < end_s else _TRACES_OF_A_SECOND
                end_s = min(oldest_s, end_s)

    def count(self, condition: str, window: Window, by: str | None) -> dict[str | None, int]:
        """How many spans a query matches, per value of an attribute of the span, or under None all.

        Args:
            condition: TraceQL that gives spans.
            window: to whole seconds.
            by: name of an attribute.
        """
        grouped = f" by (span.{by})" if by else ""
        counts: dict[str | None, int] = {}
        for start_s, end_s in _parts(window, _COUNT_S):
            query: Parameters = {"q": f"{condition} | count_over_time(){grouped}", "start": start_s, "end": end_s}
            answer = self._client.get("tempo", "/api/metrics/query", query)
            with understood("Tempo"):
                for series in answer.get("series") or ():
                    labels = {one["key"]: attribute_value(one["value"]) for one in series["labels"]}
                    key = _known(labels.get(f"span.{by}"))
                    name = key if isinstance(key, str) else None
                    counts[name] = counts.get(name, 0) + round(series.get("value", 0))
        return counts

    def trace(self, trace_id: str) -> list[SpanRow]:
        """All spans of one trace, in order of their start; none when it is not there.

        Raises:
            SourceUnavailable: it is too large for Tempo to give whole.
        """
        answer = self._client.get("tempo", f"/api/v2/traces/{trace_id}", {})
        with understood("Tempo"):
            if answer.get("status") == "PARTIAL":
                raise SourceUnavailable(f"trace {trace_id} is too large: Tempo gives a part of it only")
            spans = list(spans_of(answer["trace"]))
        return sorted(spans, key=lambda span: (span.start_ns, -span.duration_ns))

    def _search(self, query: str, start_s: int, end_s: int, limit: int) -> list[Found]:
        parameters: Parameters = {"q": query, "start": start_s, "end": end_s, "limit": limit, "spss": _SPANS}
        answer = self._client.get("tempo", "/api/search", parameters)
        with understood("Tempo"):
            found = [_found(trace) for trace in answer.get("traces") or ()]
            jobs = answer.get("metrics", {})
            is_partial = jobs.get("completedJobs", 0) < jobs.get("totalJobs", 0)
        if is_partial and len(found) < limit:
            raise SourceUnavailable("Tempo has not searched everything: try again, or a shorter range, with --since")
        return found


def _too_many_of_a_second() -> SourceUnavailable:
    return SourceUnavailable(f"Tempo has more than {_TRACES_OF_A_SECOND:,} traces of one second, which it cannot give")


def _parts(window: Window, longest_s: int) -> Iterator[tuple[int, int]]:
    """The window in seconds, oldest part first."""
    now_s = int(time.time())
    end_s = min(-(-window.until_ns // _S), now_s + 1)
    # Tempo looks until half a minute ago, and a range that begins later has no length for it.
    start_s = max(min(window.since_ns // _S, now_s - SHOWN_AFTER_S), end_s - _REACH_S, 0)
    while start_s < end_s:
        yield start_s, min(start_s + longest_s, end_s)
        start_s += longest_s


def _found(trace: Any) -> Found:
    sets = trace.get("spanSets") or [trace["spanSet"]]
    spans = {span["spanID"]: span for one in sets for span in one.get("spans", ())}
    return Found(
        trace_id=trace["traceID"].rjust(32, "0"),
        start_ns=int(trace["startTimeUnixNano"]),
        spans=tuple(_selected(span) for span in spans.values()),
        is_whole=all(one.get("matched", 0) <= len(one.get("spans", ())) for one in sets),
    )


def _selected(span: Any) -> Mapping[str, AttributeValue]:
    selected = {one["key"]: _known(attribute_value(one["value"])) for one in span.get("attributes", ())}
    return {
        **{key: value for key, value in selected.items() if value is not None},
        "span_id": span["spanID"].rjust(16, "0"),
        "start_ns": int(span["startTimeUnixNano"]),
        "duration_ns": int(span.get("durationNanos", 0)),
    }


def _known(value: AttributeValue) -> AttributeValue:
    """Searches and counts write ``nil`` for what a span does not have."""
    return None if value == "nil" else value
