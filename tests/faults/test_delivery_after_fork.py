"""A forked child begins at zero, delivers its own telemetry once, and is not stopped by what its parent was doing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from sinks import receiving
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m

PROGRAM = """
import json, os, sys, time
import stagelight

configured = stagelight.configure(instrument=False)
mode, child_calls = sys.argv[1], 3

def calls(count, name):
    for number in range(count):
        with stagelight.turn(name), stagelight.llm(provider="openai", model="gpt-4o-mini") as call:
            call.usage(input_tokens=1000, output_tokens=0)

def balances():
    return {name: balance._asdict() for name, balance in configured.delivery().items()}

calls(5, "parent")
if mode == "idle":
    stagelight.flush(60)
elif mode == "exporting":
    stagelight.flush(0.2)  # hangs in the receiver
pid = os.fork()
if pid == 0:
    began = balances()
    calls(child_calls, "child")
    print(json.dumps({"began": began, "sent": stagelight.flush(60), "ended": balances()}), flush=True)
    os._exit(0)
print("forked", flush=True)
status = os.waitpid(pid, 0)[1]
sent = stagelight.flush(60)
print(json.dumps({"status": status, "sent": sent, "ended": balances()}), flush=True)
"""


def spent(push: dict[str, Any]) -> float:
    """Spend in a push."""
    return sum(point.as_double for point in push[m.STAGELIGHT_USAGE_COST].sum.data_points)


def instance(request: Any) -> str:
    """The process a request comes from."""
    (of,) = [*getattr(request, "resource_metrics", ()), *getattr(request, "resource_spans", ())]
    return next(str(pair.value.string_value) for pair in of.resource.attributes if pair.key == a.SERVICE_INSTANCE_ID)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("mode", ["queued", "idle", "exporting"])
def test_parent_and_child_deliver_their_own(mode: str, protocol: str) -> None:
    """Whatever the parent was doing at the fork: every span once, the child's accounts and spend from zero."""
    with receiving(with_grpc=True) as sink:
        if mode == "exporting":
            sink.open.clear()
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, mode],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                "PATH": "/usr/bin:/bin",
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "OTEL_EXPORTER_OTLP_ENDPOINT": sink.grpc if protocol == "grpc" else sink.http,
                "OTEL_METRIC_EXPORT_INTERVAL": "600000",
            },
        )
        if mode == "exporting":
            assert process.stdout is not None
            assert process.stdout.readline() == "forked\n"  # nothing else is said while the receiver hangs
            sink.open.set()
        output, errors = process.communicate(timeout=180)

    child, parent = (json.loads(line) for line in output.splitlines() if line != "forked")
    assert [line for line in errors.splitlines() if "fork_posix" not in line] == []  # gRPC speaks of forks itself
    zero = {"made": 0, "delivered": 0, "dropped": {}, "queued": 0}
    assert child["began"] == {"traces": zero, "logs": zero, "metrics": zero}
    assert (child["sent"], parent["status"], parent["sent"]) == (True, 0, True)
    assert child["ended"]["traces"] == {"made": 6, "delivered": 6, "dropped": {}, "queued": 0}
    assert parent["ended"]["traces"] == {"made": 10, "delivered": 10, "dropped": {}, "queued": 0}
    turns = Counter(span.name for span in sink.spans if span.name.startswith("invoke_workflow"))
    assert turns == {"invoke_workflow parent": 5, "invoke_workflow child": 3}
    assert len({span.span_id for span in sink.spans}) == len(sink.spans) == 16
    by_instance: dict[str, float] = {}
    requests = [request for request in sink.requests if hasattr(request, "resource_metrics")]
    for request, push in zip(requests, sink.pushes, strict=True):
        by_instance[instance(request)] = spent(push)  # cumulative: the last one counts
    assert sorted(by_instance.values()) == [pytest.approx(3 * 150e-6), pytest.approx(5 * 150e-6)]
    for request in sink.requests:
        if hasattr(request, "resource_spans"):
            assert instance(request) in by_instance
