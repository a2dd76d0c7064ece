"""Traces and turns from Tempo, with what Loki has of them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from itertools import islice
from typing import Final

from stagelight.sources._loki import Loki, Record, TooManyRecords, quoted
from stagelight.sources._loki_ledger import Ledger, trace_cost
from stagelight.sources._loki_logs import log_rows, selector
from stagelight.sources._tempo import Tempo
from stagelight.sources._tempo_calls import TOP_TURN, failures_of_trace, top_turns
from stagelight.sources._trace_ids import choose, prefix_of
from stagelight.sources._turn_rows import Tree, turn_row
from stagelight.sources.model import SpanRow, Trace, TraceRow, TurnRow, Window

__all__ = ["GatewayTraces"]

_S: Final = 1_000_000_000
_BEFORE_NS, _AFTER_NS = 60 * _S, 15 * 60 * _S  # how far from its spans the records of a trace are looked for
_MOST_LOGS: Final = 5_000
_MOST_BEGINNINGS: Final = 10_000
_EVERYTHING: Final = Window(0, 2**63 - 1)


class GatewayTraces:
    """Lists of traces and turns, and one of them."""

    def __init__(self, tempo: Tempo, loki: Loki, ledger: Ledger) -> None:
        self._tempo = tempo
        self._loki = loki
        self._ledger = ledger

    def newest_turns(self, window: Window, limit: int) -> list[TurnRow]:
        """The newest top-level turns that started in the window."""
        rows: list[TurnRow] = []
        for trace_id in self._newest(TOP_TURN, window, limit):
            turns = turns_of(self._tempo.trace(trace_id))
            rows += [row for row in turns if window.since_ns <= row.start_ns < window.until_ns]
            if len(rows) >= limit:
                break
        return sorted(rows, key=lambda row: row.start_ns, reverse=True)[:limit]

    def slowest_turns(self, window: Window, limit: int) -> list[TurnRow]:
        """The slowest top-level turns that started in the window."""
        slowest = heapq.nlargest(limit, top_turns(self._tempo, window), key=lambda call: call.duration_ns)
        traces = {trace_id: self._tempo.trace(trace_id) for trace_id in dict.fromkeys(one.trace_id for one in slowest)}
        described = {(row.trace_id, row.span_id): row for spans in traces.values() for row in turns_of(spans)}
        return [row for one in slowest if (row := described.get((one.trace_id, one.span_id)))]

    def newest(self, window: Window, limit: int) -> list[TraceRow]:
        """The newest traces whose root or first known span started in the window."""
        found: dict[str, Sequence[SpanRow]] = {}
        for trace_id in self._newest("{ }", window, limit):
            spans = self._tempo.trace(trace_id)
            if any(window.since_ns <= span.start_ns < window.until_ns for span in _entries(spans)):
                found[trace_id] = spans
            if len(found) >= limit:
                break
        if not found:
            return []
        ledger = self._ledger.of_traces(list(found), _around([span for spans in found.values() for span in spans]))
        rows = (self._row(spans, trace_cost(ledger.get(trace_id, ()))) for trace_id, spans in found.items())
        return sorted(rows, key=lambda row: row.start_ns, reverse=True)

    def one(self, trace_id: str) -> Trace | None:
        """One trace by its id or a unique prefix of it."""
        prefix = prefix_of(trace_id)
        if len(prefix) < 32:
            query = f"{{ trace:id =~ {quoted(f'{prefix}.*')} }}"
            # For a beginning of zeros Tempo 3.0 finds all traces there are.
            newest = islice(self._newest(query, _EVERYTHING, _MOST_BEGINNINGS), _MOST_BEGINNINGS)
            found = choose(trace_id, list(islice((one for one in newest if one.startswith(prefix)), 6)))
            if found is None:
                return None
            prefix = found
        spans = self._tempo.trace(prefix)
        if not spans:
            return None
        around = _around(spans)
        return Trace(
            trace_id=prefix,
            spans=tuple(spans),
            logs=tuple(log_rows(self._logs(prefix, around))),
            turns=tuple(sorted(turns_of(spans), key=lambda row: row.start_ns)),
            ledger=tuple(self._ledger.of_traces([prefix], around).get(prefix, ())),
        )

    def _newest(self, query: str, window: Window, page: int) -> Iterator[str]:
        return (trace.trace_id for trace in self._tempo.newest(query, window, page))

    def _logs(self, trace_id: str, window: Window) -> list[Record]:
        records: list[Record] = []
        with suppress(TooManyRecords):  # the first of them are enough
            records.extend(self._loki.records(f"{selector()} | trace_id={quoted(trace_id)}", window, most=_MOST_LOGS))
        return records

    def _row(self, spans: Sequence[SpanRow], cost: Decimal | None) -> TraceRow:
        start_ns = min(span.start_ns for span in spans)
        root = min(_entries(spans), key=lambda span: (span.parent_id is not None, span.start_ns), default=spans[0])
        return TraceRow(
            trace_id=root.trace_id,
            name=root.name,
            service=root.service,
            start_ns=start_ns,
            duration_ns=max(span.start_ns + span.duration_ns for span in spans) - start_ns,
            spans=len(spans),
            errors=len(failures_of_trace(spans)),
            cost=cost,
        )


def turns_of(spans: Sequence[SpanRow]) -> list[TurnRow]:
    """The top-level turns of a trace."""
    tree = Tree((span.span_id, span.parent_id, span.stage, span.start_ns, span.duration_ns) for span in spans)
    turns = (span for span in spans if span.stage == "turn" and tree.is_top(span.span_id))
    return [turn_row(span, tree.calls(span.span_id)) for span in turns]


def _entries(spans: Sequence[SpanRow]) -> list[SpanRow]:
    """Roots, and spans whose parent is not here."""
    known = {span.span_id for span in spans}
    return [span for span in spans if span.parent_id not in known]


def _around(spans: Sequence[SpanRow]) -> Window:
    start_ns = min(span.start_ns for span in spans)
    return Window(start_ns - _BEFORE_NS, max(span.start_ns + span.duration_ns for span in spans) + _AFTER_NS)
