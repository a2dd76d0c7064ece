"""With sampling on: what is worth a look is kept whole, a tenth of the rest, and every span is counted before."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from stack.native import Stack
from stack.outputs import attributes, collecting, put, send, trace_request
from stack.queries import exposed
from stack.waiting import eventually
from stagelight.conventions import attributes as a

DECIDED = "otelcol_processor_tail_sampling_global_count_traces_sampled"
ORDINARY = 600
KEPT: Mapping[str, Mapping[str, Any]] = {
    "forced": {a.STAGELIGHT_KEEP: True},
    "expensive call": {a.STAGELIGHT_COST_AMOUNT: 0.06},
    "expensive turn": {a.STAGELIGHT_TURN_COST: 0.2},
    "low-rated": {a.STAGELIGHT_FEEDBACK_SCORE: 0.0},
    "error": {},
    "slow": {},
    "low-rated event": {},
}


def trace(name: str, fields: Mapping[str, Any]) -> ExportTraceServiceRequest:
    """A trace of a root and a child; the child is what may be worth a look."""
    request, root = trace_request()
    root.name = name
    child = request.resource_spans[0].scope_spans[0].spans.add()
    child.CopyFrom(root)
    child.name, child.span_id, child.parent_span_id = f"{name}, child", secrets.token_bytes(8), root.span_id
    for key, content in fields.items():
        put(child, key, content)
    if name == "error":
        child.status.code = 2
    if name == "slow":
        child.end_time_unix_nano = child.start_time_unix_nano + 11_000_000_000
    if name == "low-rated event":
        put(child.events.add(name="feedback"), a.STAGELIGHT_FEEDBACK_SCORE, 0.2)
    return request


def decisions(stack: Stack) -> Counter[str]:
    """How many traces are to be kept, by ``true`` and ``false``."""
    found: Counter[str] = Counter()
    for own, value in exposed(stack.url("collector", 8888), DECIDED).items():
        found[re.findall(r'sampled="(\w+)"', own)[0]] += int(value)
    return found


def test_sampling(tmp_path: Path) -> None:
    """Errors, slow, expensive, low-rated and forced traces come out whole; of 600 others about 60; all are counted."""
    with collecting(tmp_path, STAGELIGHT_SAMPLING="on") as (stack, outputs):
        for name, fields in KEPT.items():
            send(stack, "traces", trace(name, fields))
        ordinary = ExportTraceServiceRequest()
        for _ in range(ORDINARY):
            ordinary.MergeFrom(trace("ordinary", {a.STAGELIGHT_FEEDBACK_SCORE: 1.0, a.STAGELIGHT_COST_AMOUNT: 0.001}))
        send(stack, "traces", ordinary)

        def calls() -> int:
            last = {
                attributes(point)["span.name"]: point.as_int
                for point in outputs.points().get("traces.spanmetrics.calls", ())
            }
            return sum(last.values())

        counted = eventually(calls, lambda count: count == 2 * (ORDINARY + len(KEPT)))
        decided = eventually(lambda: decisions(stack), lambda seen: sum(seen.values()) == ORDINARY + len(KEPT))
        sampled = eventually(outputs.spans, lambda spans: len(spans) == 2 * decided["true"])
    names = [span.name for span in sampled if not span.name.startswith("ordinary")]
    others = len(sampled) - len(names)

    assert counted == 2 * (ORDINARY + len(KEPT))
    assert sorted(names) == sorted([*KEPT, *(f"{name}, child" for name in KEPT)])
    assert 2 * ORDINARY // 20 <= others <= 2 * ORDINARY // 5
    assert others % 2 == 0


def test_everything_is_kept_by_default(tmp_path: Path) -> None:
    """With sampling off, which is the default, every trace comes out."""
    with collecting(tmp_path) as (stack, outputs):
        for _ in range(20):
            send(stack, "traces", trace("ordinary", {}))
        spans = eventually(outputs.spans, lambda spans: len(spans) == 40)

    assert {span.name for span in spans} == {"ordinary", "ordinary, child"}
