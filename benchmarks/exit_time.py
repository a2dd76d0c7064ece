"""How long the end of a process waits for delivery, beside the plain SDK, in one run.

A process records 2,000 spans, 2,000 log records and a counter, then its program ends; measured is the time from there
to the end of the process. The back end is healthy, refuses connections, or takes them and never answers. The plain SDK
is stopped after ``LIMIT_S``; ratios are then at least what is shown. Goal with a dead back end: at most 3 s.

    python benchmarks/exit_time.py [--json]
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from stagelight.embedded.background import ServerProcess
from stagelight.embedded.options import ServerOptions

LIMIT_S = 15.0
GOAL_S = 3.0
PROTOCOLS = ("http/protobuf", "grpc")

RECORD = """
import sys
from opentelemetry import metrics, trace
from opentelemetry._logs import LogRecord, get_logger
tracer, logger = trace.get_tracer("app"), get_logger("app")
metrics.get_meter("app").create_counter("orders").add(1)
for number in range(2000):
    tracer.start_span("step", attributes={"number": number}).end()
    logger.emit(LogRecord(body="line"))
print("done", flush=True)
"""

OURS = "import stagelight\nstagelight.configure(instrument=False)\n" + RECORD

PLAIN = (
    """
import os
from opentelemetry import metrics, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
if os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
traces, logs = TracerProvider(), LoggerProvider()
traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
trace.set_tracer_provider(traces)
set_logger_provider(logs)
metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
"""
    + RECORD
)


class Row(NamedTuple):
    """One back end by one protocol."""

    back_end: str
    protocol: str
    ours_s: float
    plain_s: float
    plain_ended: bool


@contextmanager
def silent() -> Iterator[str]:
    """A back end that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def refusing() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def exit_time(program: str, protocol: str, endpoint: str) -> tuple[float, bool]:
    """Seconds from the last line of the program to the end of its process, and whether it ended by itself."""
    environment = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "60000",
        "OTEL_BLRP_SCHEDULE_DELAY": "60000",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    assert process.stdout is not None
    if process.stdout.readline() != "done\n":
        raise RuntimeError("the program failed before its end")
    began = time.perf_counter()
    try:
        process.wait(LIMIT_S)
        return time.perf_counter() - began, True
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return LIMIT_S, False
    finally:
        process.stdout.close()


def rows() -> Iterator[Row]:
    """Every back end by every protocol."""
    with tempfile.TemporaryDirectory() as folder, silent() as hole:
        options = ServerOptions(http_port=0, grpc_port=0, database=Path(folder) / "store.db")
        with ServerProcess(options) as server:
            addresses = server.addresses
            ports = {"http/protobuf": addresses.http_port, "grpc": addresses.grpc_port}
            for back_end in ("healthy", "refused", "black hole"):
                for protocol in PROTOCOLS:
                    healthy = f"http://127.0.0.1:{ports[protocol]}"
                    endpoint = {"healthy": healthy, "refused": refusing(), "black hole": hole}[back_end]
                    ours, _ = exit_time(OURS, protocol, endpoint)
                    plain, ended = exit_time(PLAIN, protocol, endpoint)
                    yield Row(back_end, protocol, ours, plain, ended)


def main() -> int:
    """Print the figures, as JSON with ``--json``."""
    if "--json" in sys.argv[1:]:
        print(json.dumps([row._asdict() for row in rows()]))
        return 0
    print(f"{'back end':<12}{'protocol':<16}{'stagelight':>12}{'plain SDK':>12}{'ratio':>10}   goal {GOAL_S:g} s")
    for row in rows():
        more = "" if row.plain_ended else ">"
        plain, ratio = f"{more}{row.plain_s:.2f} s", f"{'<' if more else ''}{row.ours_s / row.plain_s:.2f}"
        print(f"{row.back_end:<12}{row.protocol:<16}{row.ours_s:>10.2f} s{plain:>12}{ratio:>10}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
