"""A back end elsewhere that is away for long does not keep the stack's own from getting everything, once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from stack.native import Stack
from stack.outputs import Outputs, log_request, metric_request, put, receiving, send, trace_request
from stack.queries import exposed
from stack.substitution import free_port
from stack.waiting import eventually

REQUESTS = 40
FULL = "otelcol_exporter_enqueue_failed_{}"


def test_a_full_queue_for_elsewhere_stops_nothing(tmp_path: Path) -> None:
    """Its queue is full: what more there is for it is dropped and counted; ours have every record, and each once."""
    variables = {"OTHER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}", "OTHER_OTLP_AUTHORIZATION": "Bearer x"}
    example = tmp_path / "collector" / "etc-otelcol" / "examples" / "otlp.yaml"
    stack = Stack(tmp_path, ["collector"], flags={"collector": [f"--config={example}"]})
    assert example == stack.path("collector", "/etc/otelcol/examples/otlp.yaml")
    text = example.read_text()
    for name, content in variables.items():  # compose would pass them to the container
        text = text.replace(f"${{env:{name}}}", content)
    example.write_text(
        text.replace("queue_size: 134217728", "queue_size: 20000").replace("min_size: 262144", "min_size: 1")
    )
    with receiving(stack) as outputs, stack:
        for number in range(REQUESTS):
            trace, span = trace_request()
            log, record = log_request()
            metric, point = metric_request(f"app.orders.{number}")
            for into in (span, record, point):
                put(into, "app.padding", "x" * 1000)
            for signal, request in (("traces", trace), ("logs", log), ("metrics", metric)):
                send(stack, signal, request)
        eventually(lambda: arrived(outputs), lambda seen: min(seen.values()) >= REQUESTS)
        for kind in ("spans", "log_records", "metric_points"):
            eventually(lambda kind=kind: exposed(stack.url("collector", 8888), FULL.format(kind)), bool)  # type: ignore[misc]

    assert arrived(outputs) == {"spans": REQUESTS, "records": REQUESTS, "metrics": REQUESTS}


def arrived(outputs: Outputs) -> Counter[str]:
    """How much of each signal our back ends have."""
    points = [point for name, found in outputs.points().items() if name.startswith("app.orders") for point in found]
    return Counter(spans=len(outputs.spans()), records=len(outputs.records()), metrics=len(points))
