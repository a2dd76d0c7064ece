"""What the tests of delivery share: a small OTLP receiver that can misbehave, and providers that send to it."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from stack.substitution import free_port
from stagelight import _runtime, _self_metrics
from stagelight._handover import Handover
from stagelight._version import SCHEMA_URL, __version__
from stagelight.export.accumulators import SdkBackend
from stagelight.export.providers import Providers, build
from stagelight.instruments import Instruments
from stagelight.settings import Settings

_MESSAGES: Mapping[str, Any] = {
    "/v1/traces": trace_service_pb2.ExportTraceServiceRequest,
    "/v1/logs": logs_service_pb2.ExportLogsServiceRequest,
    "/v1/metrics": metrics_service_pb2.ExportMetricsServiceRequest,
}


@dataclass
class Sink:
    """What was received; set ``status`` to refuse, clear ``open`` to hang."""

    requests: list[Any] = field(default_factory=list)
    status: int = 200
    open: threading.Event = field(default_factory=threading.Event)
    http: str = ""
    grpc: str = ""

    def take(self, request: Any) -> int:
        self.open.wait(30)
        if self.status == 200:
            self.requests.append(request)
        return self.status

    @property
    def spans(self) -> list[Any]:
        """Spans in order of arrival."""
        return [
            span
            for request in self.requests
            for of in getattr(request, "resource_spans", ())
            for scope in of.scope_spans
            for span in scope.spans
        ]

    @property
    def logs(self) -> list[Any]:
        """Log records in order of arrival."""
        return [
            record
            for request in self.requests
            for of in getattr(request, "resource_logs", ())
            for scope in of.scope_logs
            for record in scope.log_records
        ]

    @property
    def pushes(self) -> list[dict[str, Any]]:
        """The metrics of every push by name."""
        return [
            {
                metric.name: metric
                for of in request.resource_metrics
                for scope in of.scope_metrics
                for metric in scope.metrics
            }
            for request in self.requests
            if hasattr(request, "resource_metrics")
        ]


def _handler(sink: Sink) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers["content-encoding"] == "gzip":
                body = gzip.decompress(body)
            status = sink.take(_MESSAGES[self.path].FromString(body))
            with contextlib.suppress(OSError):  # the client did not wait
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


def _grpc_server(sink: Sink) -> tuple[grpc.Server, int]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    for module, stubs, name in (
        (trace_service_pb2, trace_service_pb2_grpc, "Trace"),
        (logs_service_pb2, logs_service_pb2_grpc, "Logs"),
        (metrics_service_pb2, metrics_service_pb2_grpc, "Metrics"),
    ):
        answer = getattr(module, f"Export{name}ServiceResponse")

        def export(_self: Any, request: Any, context: Any, answer: Callable[[], Any] = answer) -> Any:
            if sink.take(request) != 200:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "refused")
            return answer()

        servicer = type(name, (getattr(stubs, f"{name}ServiceServicer"),), {"Export": export})
        getattr(stubs, f"add_{name}ServiceServicer_to_server")(servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


@contextlib.contextmanager
def receiving(*, with_grpc: bool = False) -> Iterator[Sink]:
    """A receiver on free ports."""
    sink = Sink()
    sink.open.set()
    server = _Http(("127.0.0.1", 0), _handler(sink))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    sink.http = f"http://127.0.0.1:{server.server_address[1]}"
    beside, port = _grpc_server(sink) if with_grpc else (None, 0)
    sink.grpc = f"http://127.0.0.1:{port}"
    try:
        yield sink
    finally:
        sink.open.set()
        server.shutdown()
        server.server_close()
        thread.join()
        if beside is not None:
            beside.stop(0).wait()


def refused() -> str:
    """An address where nobody listens."""
    return f"http://127.0.0.1:{free_port()}"


@contextlib.contextmanager
def delivering(endpoint: str, **variables: str) -> Iterator[tuple[Providers, _runtime.Runtime]]:
    """Providers and a runtime as ``configure()`` makes them, in the environment given; stopped after the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        patch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "600000")
        for name, value in variables.items():
            patch.setenv(name, value)
        scope = InstrumentationScope(_runtime.SCOPE, __version__, SCHEMA_URL)
        providers = build(Resource.create({}), variables, scope)
    meter = providers.meter_provider.get_meter(_runtime.SCOPE, __version__, schema_url=SCHEMA_URL)
    runtime = _runtime.Runtime(
        tracer=providers.tracer_provider.get_tracer(_runtime.SCOPE, __version__, schema_url=SCHEMA_URL),
        instruments=Instruments(providers.accumulators or SdkBackend(meter)),
        logger=providers.events,
        handover=Handover(inline=True),
        settings=Settings(),
        configured=True,
    )
    _self_metrics.observe(meter, runtime, providers.balances)
    try:
        with _runtime.replaced(runtime):
            yield providers, runtime
    finally:
        providers.shutdown(0.2)
