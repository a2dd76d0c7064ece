"""With tail sampling on, spans say how many they stand for, so that Tempo's service graph counts all of them."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import yaml
from stack.outputs import collecting, send, trace_request
from stack.programs import ROOT
from stack.waiting import eventually

TRACES = 400
KEPT = re.compile(r"(?:^|,)ot=(?:[^,]*;)?th:(\w+)")


def stands_for(trace_state: str) -> float:
    """How many spans a sampled one stands for, by OpenTelemetry's sampling threshold in its trace state."""
    found = KEPT.search(trace_state)
    rejected = int(found[1].ljust(14, "0"), 16) / 16**14 if found else 0.0
    return 1 / (1 - rejected)


def test_sampled_spans_say_what_they_stand_for(tmp_path: Path) -> None:
    """Of what is kept by chance each span stands for ten, an error for itself; Tempo is told to use it."""
    message, first = trace_request()
    spans = message.resource_spans[0].scope_spans[0].spans
    for number in range(1, TRACES):
        again = spans.add()
        again.CopyFrom(first)
        again.trace_id, again.span_id = secrets.token_bytes(16), secrets.token_bytes(8)
        again.status.code = 2 if number % 4 == 0 else 0
    with collecting(tmp_path, STAGELIGHT_SAMPLING="on") as (stack, outputs):
        send(stack, "traces", message)
        errors = TRACES // 4 - 1
        kept = eventually(outputs.spans, lambda seen: sum(span.status.code == 2 for span in seen) == errors < len(seen))
        weights = [(span.status.code == 2, round(stands_for(span.trace_state), 3)) for span in kept]
    generator = yaml.safe_load((ROOT / "tempo" / "tempo.yaml").read_text())["metrics_generator"]

    assert set(weights) == {(True, 1.0), (False, 10.0)}
    assert generator["processor"]["service_graphs"]["enable_tracestate_span_multiplier"] is True
