"""Stands in for the back ends: takes what the Collector sends to Tempo, Prometheus and Loki, and keeps it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from stack.native import Stack
from stack.queries import request as ask

PROTOBUF = "application/x-protobuf"
REQUESTS: Mapping[str, Any] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
"""The OTLP request of each signal."""


@dataclass(slots=True)
class Outputs:
    """What has arrived at the back ends."""

    traces: ExportTraceServiceRequest = field(default_factory=ExportTraceServiceRequest)
    metrics: ExportMetricsServiceRequest = field(default_factory=ExportMetricsServiceRequest)
    logs: ExportLogsServiceRequest = field(default_factory=ExportLogsServiceRequest)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, signal: str, request: Any) -> None:
        """Add a request of ``signal``."""
        with self._lock:
            getattr(self, signal).MergeFrom(request)

    def everything(self) -> bytes:
        """All that has arrived, as bytes to search in."""
        with self._lock:
            return b"".join(getattr(self, signal).SerializeToString() for signal in REQUESTS)

    def spans(self) -> list[Any]:
        """Spans in order of arrival."""
        with self._lock:
            groups = [scope for of in self.traces.resource_spans for scope in of.scope_spans]
            return [span for group in groups for span in group.spans]

    def records(self) -> list[Any]:
        """Log records in order of arrival."""
        with self._lock:
            groups = [scope for of in self.logs.resource_logs for scope in of.scope_logs]
            return [record for group in groups for record in group.log_records]

    def points(self) -> dict[str, list[Any]]:
        """The last points of each metric that is a sum, gauge or histogram, by name, in order of arrival."""
        found: dict[str, list[Any]] = {}
        with self._lock:
            for of in self.metrics.resource_metrics:
                for metric in (metric for scope in of.scope_metrics for metric in scope.metrics):
                    data = getattr(metric, str(metric.WhichOneof("data")))
                    found.setdefault(metric.name, []).extend(data.data_points)
        return found

    def kinds(self) -> dict[str, Any]:
        """A metric as it came last, by name."""
        with self._lock:
            groups = [scope for of in self.metrics.resource_metrics for scope in of.scope_metrics]
            return {metric.name: metric for group in groups for metric in group.metrics}


def attributes(fields: Any) -> dict[str, Any]:
    """Attributes of any OTLP message, as Python values."""
    return {one.key: value(one.value) for one in fields.attributes}


def value(any_value: Any) -> Any:
    """An OTLP value as a Python one."""
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value(one) for one in any_value.array_value.values]
    if kind == "kvlist_value":
        return {one.key: value(one.value) for one in any_value.kvlist_value.values}
    return getattr(any_value, kind) if kind else None


def put(into: Any, key: str, content: Any) -> None:
    """Add an attribute to any OTLP message."""
    _set(into.attributes.add(key=key).value, content)


def _set(target: Any, content: Any) -> None:
    if isinstance(content, Mapping):
        target.kvlist_value.SetInParent()
        for key, inner in content.items():
            _set(target.kvlist_value.values.add(key=key).value, inner)
    elif isinstance(content, list):
        target.array_value.SetInParent()
        for inner in content:
            _set(target.array_value.values.add(), inner)
    else:
        kinds = {bool: "bool_value", int: "int_value", float: "double_value", bytes: "bytes_value"}
        setattr(target, kinds.get(type(content), "string_value"), content)


def send(stack: Stack, signal: str, request: Any, *, token: str | None = None) -> None:
    """Post a request, or its bytes, to the Collector.

    Raises:
        stack.queries.Refused: it was not acknowledged.
    """
    body = request if isinstance(request, bytes) else request.SerializeToString()
    headers = {"content-type": PROTOBUF, "authorization": f"Bearer {token or stack.token}"}
    ask("POST", f"{stack.url('collector', 4318)}/v1/{signal}", body, headers)


@contextmanager
def receiving(stack: Stack) -> Iterator[Outputs]:
    """Listen where Tempo, Prometheus and Loki would."""
    outputs = Outputs()
    servers = [
        ThreadingHTTPServer(("127.0.0.1", stack.places[name, port]), _handler(outputs, signal))
        for name, port, signal in (("prometheus", 9090, "metrics"), ("loki", 3100, "logs"))
    ]
    threads = [threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}) for server in servers]
    tempo = _tempo(outputs, stack.places["tempo", 4317])
    for thread in threads:
        thread.start()
    try:
        yield outputs
    finally:
        tempo.stop(None).wait()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


def _handler(outputs: Outputs, signal: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            assert self.path.endswith(f"/v1/{signal}"), self.path
            outputs.take(signal, REQUESTS[signal].FromString(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-type", PROTOBUF)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler


def _tempo(outputs: Outputs, port: int) -> grpc.Server:
    class Servicer(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name in the protocol
            outputs.take("traces", request)
            return ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Servicer(), server)
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    server.start()
    return server
