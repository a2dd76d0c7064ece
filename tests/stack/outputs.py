"""Stands in for the back ends: takes what the Collector sends to Tempo, Prometheus and Loki, and keeps it."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
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

    def status(self, signal: str, request: Any) -> int:
        """What to answer by HTTP; a request that is not answered with 200 is not kept."""
        return 200

    def forget(self) -> None:
        """Forget what has arrived."""
        with self._lock:
            for signal in REQUESTS:
                getattr(self, signal).Clear()

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
def receiving(stack: Stack, outputs: Outputs | None = None) -> Iterator[Outputs]:
    """Listen where Tempo, Prometheus and Loki would; what arrives goes to new ``Outputs`` or to these."""
    outputs = outputs or Outputs()
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
            request = REQUESTS[signal].FromString(self.rfile.read(int(self.headers["content-length"])))
            status = outputs.status(signal, request)
            if status == 200:
                outputs.take(signal, request)
            self.send_response(status)
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


@contextmanager
def collecting(folder: Path, **variables: str) -> Iterator[tuple[Stack, Outputs]]:
    """The Collector alone, in the environment that compose would be started in, and what comes out of it."""
    stack = Stack(folder, ["collector"], variables=variables)
    with receiving(stack) as outputs, stack:
        yield stack, outputs


def trace_request(resource: Mapping[str, Any] | None = None) -> tuple[ExportTraceServiceRequest, Any]:
    """A request with one finished span, and the span."""
    request = ExportTraceServiceRequest()
    of = request.resource_spans.add()
    _put_all(of.resource, {"service.name": "shop", **(resource or {})})
    scope = of.scope_spans.add()
    now = time.time_ns()
    return request, scope.spans.add(
        trace_id=secrets.token_bytes(16),
        span_id=secrets.token_bytes(8),
        name="step",
        kind=1,
        start_time_unix_nano=now - 5_000_000,
        end_time_unix_nano=now,
    )


def log_request(resource: Mapping[str, Any] | None = None) -> tuple[ExportLogsServiceRequest, Any]:
    """A request with one log record, and the record."""
    request = ExportLogsServiceRequest()
    of = request.resource_logs.add()
    _put_all(of.resource, {"service.name": "shop", **(resource or {})})
    return request, of.scope_logs.add().log_records.add(time_unix_nano=time.time_ns(), severity_number=9)


def metric_request(name: str, resource: Mapping[str, Any] | None = None) -> tuple[ExportMetricsServiceRequest, Any]:
    """A request with one cumulative counter, and the counter's only point."""
    request = ExportMetricsServiceRequest()
    of = request.resource_metrics.add()
    _put_all(of.resource, {"service.name": "shop", **(resource or {})})
    metric = of.scope_metrics.add().metrics.add(name=name)
    metric.sum.aggregation_temporality = 2
    metric.sum.is_monotonic = True
    now = time.time_ns()
    return request, metric.sum.data_points.add(start_time_unix_nano=now - 1_000_000_000, time_unix_nano=now, as_int=1)


def _put_all(into: Any, fields: Mapping[str, Any]) -> None:
    for key, content in fields.items():
        put(into, key, content)
