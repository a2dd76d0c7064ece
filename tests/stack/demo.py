"""The demo's application and its forty questions, sent through the Collector, and an account of what it sent."""

from __future__ import annotations

import gzip
import http.client
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from stack.native import Stack
from stack.programs import ROOT
from stack.substitution import free_port
from stack.waiting import eventually
from stagelight.demo import programs, visitors

TURNS = 40
SERVICE = "voice-assistant"
RESOURCE = {"service.namespace": "demo", "service.version": "1.2.3", "deployment.environment.name": "test"}

_SCENARIO = Path(programs.__file__).with_name("scenario.yaml")
_STOP_S = 60.0


@dataclass(slots=True)
class Sent:
    """What the Collector acknowledged to the application."""

    spans: list[Span] = field(default_factory=list)
    records: list[LogRecord] = field(default_factory=list)
    metrics: dict[str, Metric] = field(default_factory=dict)
    """Each metric as it was sent last."""
    instances: set[str] = field(default_factory=set)
    """``service.instance.id`` of every request."""
    refused: list[tuple[str, int]] = field(default_factory=list)
    """Path and status of requests that were not answered with 200."""
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    """Path and body of each, in order."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, path: str, body: bytes) -> None:
        """Remember a request."""
        with self.lock:
            self.requests.append((path, body))
            if path == "/v1/traces":
                for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                    self._resource(group.resource)
                    self.spans += [span for scope in group.scope_spans for span in scope.spans]
            elif path == "/v1/logs":
                for logs in ExportLogsServiceRequest.FromString(body).resource_logs:
                    self._resource(logs.resource)
                    self.records += [record for scope in logs.scope_logs for record in scope.log_records]
            else:
                for metrics in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    self._resource(metrics.resource)
                    sent = [metric for scope in metrics.scope_metrics for metric in scope.metrics]
                    self.metrics |= {metric.name: metric for metric in sent}

    def _resource(self, resource: Any) -> None:
        self.instances |= {one.value.string_value for one in resource.attributes if one.key == "service.instance.id"}


@contextmanager
def accounted(stack: Stack) -> Iterator[tuple[Sent, str]]:
    """A door in front of the Collector that remembers what goes through, and its endpoint."""
    sent = Sent()

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            connection = http.client.HTTPConnection(stack.address("collector", 4318), timeout=60)
            try:
                connection.request("POST", self.path, body, dict(self.headers))
                response = connection.getresponse()
                answer = response.read()
            finally:
                connection.close()
            if response.status == http.client.OK:
                zipped = self.headers.get("Content-Encoding") == "gzip"
                sent.take(self.path, gzip.decompress(body) if zipped else body)
            else:
                sent.refused.append((self.path, response.status))
            self.send_response(response.status)
            self.send_header("Content-Type", response.getheader("Content-Type", ""))
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's word
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield sent, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


_PATIENT_UVICORN = """
import runpy, sys, stagelight
sys.modules["stagelight.configure"].EXIT_LIMIT_S = 60.0
runpy.run_module("uvicorn", run_name="__main__", alter_sys=True)
"""
"""A busy machine may take longer than the two seconds that an exit gives to delivery."""


def run(stack: Stack, folder: Path) -> Sent:
    """Ask the application forty questions; it has sent everything and ended when this returns.

    Args:
        stack: with a running Collector.
        folder: for the logs of the programs.
    """
    port = free_port()
    with accounted(stack) as (sent, endpoint):
        provider_command = ["-m", "stagelight.sim", "--speed", "20", "--seed", "7", "--scenario", str(_SCENARIO)]
        with _program(provider_command, folder / "provider.log", {}) as log:
            provider = eventually(lambda: log.read_text().strip(), lambda text: text.startswith("http"))
            application = ["-c", _PATIENT_UVICORN, "app:app", "--app-dir", str(ROOT / "examples" / "voice_assistant")]
            variables = _variables(stack, endpoint, provider)
            with _program([*application, "--port", str(port)], folder / "application.log", variables):
                eventually(lambda: _is_healthy(port), bool)
                planned = visitors.visits(TURNS, programs.application_folder() / "questions.txt")
                results = list(visitors.ask_all(f"http://127.0.0.1:{port}", planned))
    assert len(results) == TURNS
    return sent


def _variables(stack: Stack, endpoint: str, provider: str) -> dict[str, str]:
    return {
        "OPENAI_BASE_URL": provider,
        "OPENAI_API_KEY": "simulated",
        "OTEL_SERVICE_NAME": SERVICE,
        "OTEL_RESOURCE_ATTRIBUTES": ",".join(f"{key}={value}" for key, value in RESOURCE.items()),
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={quote(f'Bearer {stack.token}')}",
        "STAGELIGHT_PROVIDER_HOSTS": f"{provider.removeprefix('http://').split('/')[0]}=openai",
        "STAGELIGHT_ID_KEY": stack.secrets.id_key,
    }


@contextmanager
def _program(arguments: list[str], log: Path, variables: dict[str, str]) -> Iterator[Path]:
    own = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "STAGELIGHT_"))}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**own, "PYTHONUNBUFFERED": "1", **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield log
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()
