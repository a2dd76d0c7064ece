"""A small OTLP/HTTP receiver, and subprocesses that send to it or to a collector that is not there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Received:
    """What has arrived."""

    def __init__(self) -> None:
        self.spans: Counter[str] = Counter()
        """Name of every span."""
        self.span_ids: Counter[bytes] = Counter()
        self.ledger: Counter[bytes] = Counter()
        """Span id of every log record."""
        self.points = 0
        self.requests = 0
        self._lock = threading.Lock()

    def take(self, path: str, body: bytes) -> None:
        with self._lock:
            self.requests += 1
            if path == "/v1/traces":
                for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in group.scope_spans:
                        self.spans.update(span.name for span in scope.spans)
                        self.span_ids.update(span.span_id for span in scope.spans)
            elif path == "/v1/logs":
                for logs in ExportLogsServiceRequest.FromString(body).resource_logs:
                    for log_scope in logs.scope_logs:
                        self.ledger.update(record.span_id for record in log_scope.log_records)
            else:
                for metrics in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    for metric_scope in metrics.scope_metrics:
                        self.points += len(metric_scope.metrics)


@contextmanager
def receiver(*, keeps_connections: bool = False) -> Iterator[tuple[Received, str]]:
    """A receiver on a free port, and its endpoint; connections stay open when asked for, as Collectors do it."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1" if keeps_connections else "HTTP/1.0"

        def do_POST(self) -> None:
            received.take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's word
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield received, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


@contextmanager
def nobody(*, listening: bool) -> Iterator[str]:
    """The endpoint of a port that refuses, or of one that accepts and never answers."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        if listening:
            held.listen(16)
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def environment(endpoint: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without its own telemetry settings, sending to ``endpoint``."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "STAGELIGHT_"))}
    return {**own, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "PYTHONUNBUFFERED": "1", **(extra or {})}


def python(script: str, endpoint: str, *, folder: Path | None = None, **variables: str) -> subprocess.Popen[str]:
    """A Python process that runs ``script``; the caller waits for it."""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment(endpoint, variables),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
