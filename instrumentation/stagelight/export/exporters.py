"""The official OTLP exporters with our encoder: endpoints, headers, TLS, retries and back-off stay theirs.

The HTTP exporters encode and send in one method, so that method is given anew here; the gRPC ones have a hook for the
encoding. Both rely on names that are private to OpenTelemetry: a test fails when an update moves them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from stagelight._forks import in_every_child
from stagelight.export.accounting import Signal
from stagelight.export.otlp import logs_request, spans_request
from stagelight.export.protocols import protocol_of

__all__ = ["log_exporter", "metric_exporter", "span_exporter"]


class _ForkedConnections:
    """A forked child opens connections of its own: on a shared one, it would take the parent's answers."""

    def __init__(self) -> None:
        from requests.adapters import HTTPAdapter

        super().__init__()
        self._adapter = HTTPAdapter
        in_every_child(self._forget_connections)

    def _forget_connections(self) -> None:
        session = self._client._transport._session  # type: ignore[attr-defined]  # noqa: SLF001
        # Kept, not closed: another thread of the parent may have held the pool's lock at the fork.
        self._of_the_parent = dict(session.adapters)
        for prefix, adapter in self._of_the_parent.items():
            if type(adapter) is self._adapter:
                session.mount(prefix, self._adapter())


def span_exporter(environment: Mapping[str, str]) -> SpanExporter:
    """The exporter of spans the environment asks for."""
    return _grpc_spans(environment) if protocol_of("traces", environment) == "grpc" else _http_spans()


def log_exporter(environment: Mapping[str, str]) -> LogRecordExporter:
    """The exporter of log records the environment asks for."""
    return _grpc_logs(environment) if protocol_of("logs", environment) == "grpc" else _http_logs()


def metric_exporter(environment: Mapping[str, str]) -> MetricExporter:
    """The exporter of metrics the environment asks for; metrics are few and leave through the official encoder."""
    if protocol_of("metrics", environment) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc

        return Grpc(compression=_grpc_compression("metrics", environment))
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Http

    class Metrics(_ForkedConnections, Http):
        """The official exporter, safe after a fork."""

    return Metrics()


def _http_spans() -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    class Spans(_ForkedConnections, OTLPSpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            sent = not self._shutdown and self._client.export(spans_request(spans)).success
            return SpanExportResult.SUCCESS if sent else SpanExportResult.FAILURE

    return Spans()


def _http_logs() -> LogRecordExporter:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

    class Logs(_ForkedConnections, OTLPLogExporter):
        def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
            sent = not self._shutdown and self._client.export(logs_request(batch)).success
            return LogRecordExportResult.SUCCESS if sent else LogRecordExportResult.FAILURE

    return Logs()


def _grpc_compression(signal: Signal, environment: Mapping[str, str]) -> Any:
    """The gRPC exporters refuse ``none``, a value of the standard; for ``None`` they read the variables themselves."""
    from grpc import Compression  # type: ignore[import-untyped]

    variables = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION")
    given = next((value for name in variables if (value := environment.get(name, "").strip())), "")
    return Compression.NoCompression if given.lower() == "none" else None


def _grpc_spans(environment: Mapping[str, str]) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    class Spans(OTLPSpanExporter):
        def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
            request: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(spans_request(data))
            return request

    return Spans(compression=_grpc_compression("traces", environment))


def _grpc_logs(environment: Mapping[str, str]) -> LogRecordExporter:
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter

    class Logs(OTLPLogExporter):
        def _translate_data(self, data: Sequence[ReadableLogRecord]) -> ExportLogsServiceRequest:
            request: ExportLogsServiceRequest = ExportLogsServiceRequest.FromString(logs_request(data))
            return request

    return Logs(compression=_grpc_compression("logs", environment))
