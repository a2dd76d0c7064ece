"""What has piled up while Tempo was away is in Tempo afterwards: more traces at once than it takes by default."""

from __future__ import annotations

import secrets
from pathlib import Path

from stack.native import Stack
from stack.outputs import send, trace_request
from stack.programs import program
from stack.queries import exposed
from stack.waiting import eventually

TRACES = 20_000
AT_ONCE = 500


def test_nothing_is_discarded(tmp_path: Path) -> None:
    """Twenty thousand traces arrive within seconds; none of them is discarded after it was acknowledged."""
    program("tempo")
    with Stack(tmp_path, ["collector", "tempo"]) as stack:
        stack.kill("tempo")  # an orderly end takes it half a minute
        for _ in range(TRACES // AT_ONCE):
            request, first = trace_request()
            spans = request.resource_spans[0].scope_spans[0].spans
            for _ in range(AT_ONCE - 1):
                again = spans.add()
                again.CopyFrom(first)
                again.trace_id, again.span_id = secrets.token_bytes(16), secrets.token_bytes(8)
            send(stack, "traces", request)
        stack.start("tempo")

        def count(name: str) -> float:
            return sum(exposed(stack.url("tempo", 3200), name).values())

        eventually(lambda: count("tempo_live_store_traces_created_total"), lambda created: created >= TRACES)
        assert count("tempo_discarded_spans_total") == 0
        stack.kill("tempo")
