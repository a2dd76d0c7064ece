"""The same telemetry behind two sources: the stack's gateway, and the embedded store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import scene
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from stack.demo import Sent
from stack.gateway import Gateway
from stack.native import Stack
from stack.outputs import send
from stack.waiting import settled
from stagelight.conventions import attributes as names
from stagelight.conventions import events
from stagelight.sources import EmbeddedSource, GatewaySource, Window
from stored import T0, S, logs, pairs, record, store, traces, usage

REQUESTS = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
}
ODD = 'a "b" \\ c\n{d="e"} `f` é🙂'
"""Text that would end a string of LogQL or TraceQL, or a line."""


@dataclass(frozen=True, slots=True)
class Both:
    """The same telemetry behind two sources, and the times in which they have the same."""

    gateway: GatewaySource
    embedded: EmbeddedSource
    windows: dict[str, Window]
    cursor: str
    """Of the gateway's tail, from before the scene was sent."""


def odd_requests() -> list[Any]:
    """A turn, its call and its ledger, all with odd names, in a trace of their own."""
    odd = {
        names.STAGELIGHT_FEATURE: ODD,
        names.STAGELIGHT_TENANT: ODD,
        names.GEN_AI_REQUEST_MODEL: ODD,
        names.ERROR_TYPE: ODD,
    }
    turn = scene.turn(1, trace=0xABC, at=50, lasts=2, attributes=odd)
    call = scene.call(2, "llm", trace=0xABC, parent=1, at=50.5, lasts=1, attributes=odd)
    turn.name = ODD
    return [
        traces(turn, call, service=ODD),
        logs(
            usage(
                51, trace=0xABC, stage="llm", model=ODD, feature=ODD, tenant=ODD, user=ODD, cost=0.0125, status="exact"
            ),
            record("odd", at=52, trace=0xABC),
            service=ODD,
        ),
    ]


def at_once(request: Any, begin_ns: int) -> Any:
    """A request of a scene that begins at another time and goes ten times as fast."""

    def there(time_ns: int) -> int:
        return begin_ns + (time_ns - T0) // 10

    for group in getattr(request, "resource_spans", ()):
        for span in (span for scope in group.scope_spans for span in scope.spans):
            span.start_time_unix_nano = there(span.start_time_unix_nano)
            span.end_time_unix_nano = there(span.end_time_unix_nano)
    for group in getattr(request, "resource_logs", ()):
        for one in (one for scope in group.scope_logs for one in scope.log_records):
            one.time_unix_nano = there(one.time_unix_nano)
            if one.event_name == events.STAGELIGHT_USAGE_RECORDED:
                one.attributes.extend(pairs({names.STAGELIGHT_RECORD_KIND: "usage"}))
    return request


@contextmanager
def in_both(stack: Stack, sent: Sent, gateway: Gateway, folder: Path) -> Iterator[Both]:
    """The demo's turns, and a scene of nested turns, failures and odd names in a minute that nobody else writes in.

    Args:
        stack: what has the demo's turns already.
        sent: these turns.
        gateway: in front of the stack.
        folder: for the embedded store.
    """
    path = folder / "store.db"
    with closing(GatewaySource(gateway.url, gateway.token)) as through:
        cursor = through.tail()[1] if stack.has_tempo else ""
        begin_ns = (time.time_ns() // S + 1) * S
        requests = [at_once(request, begin_ns) for request in (*scene.requests(), *odd_requests())]
        for request in requests:
            send(stack, "traces" if isinstance(request, ExportTraceServiceRequest) else "logs", request)
        store(path, *(REQUESTS[kind].FromString(body) for kind, body in sent.requests), *requests)  # type: ignore[attr-defined]
        spans = [span.start_time_unix_nano for span in sent.spans]
        windows = {
            "demo": Window((min(spans) // S - 1) * S, (max(spans) // S + 2) * S),
            "scene": Window(begin_ns, begin_ns + 6 * S),
        }
        with closing(EmbeddedSource(path)) as embedded:
            _wait(stack, through, embedded, list(windows.values()))
            yield Both(through, embedded, windows, cursor)


def _wait(stack: Stack, gateway: GatewaySource, embedded: EmbeddedSource, windows: Sequence[Window]) -> None:
    def calls(source: GatewaySource | EmbeddedSource) -> list[int]:
        return [sum(row.calls for row in source.cost(window, "stage")) for window in windows]

    def spans(source: GatewaySource | EmbeddedSource) -> list[int]:
        return [sum(row.spans for row in source.traces(window, 100)) for window in windows]

    _agree("calls", lambda: calls(gateway), calls(embedded))
    if stack.has_tempo:
        _agree("spans", lambda: spans(gateway), spans(embedded))
        turns = [embedded.count_turns(window) for window in windows]
        _agree("turns", lambda: [gateway.count_turns(window) for window in windows], turns)


def _agree(what: str, found: Callable[[], object], expected: object) -> None:
    last = settled(found, expected)
    assert last == expected, f"{what}: {last} through the gateway, {expected} in the embedded store"
