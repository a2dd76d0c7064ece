"""The official OTLP exporters against a running server, over HTTP and gRPC, plain and gzip."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from receiving import PATIENCE_S, TOKEN, options, rows
from stagelight.embedded.background import EmbeddedServer
from stagelight.embedded.options import Addresses

RESOURCE = Resource({"service.name": "shop"})


@pytest.fixture
def exporters(protocol: str, is_compressed: bool, addresses: Addresses) -> tuple[Any, ...]:
    """Span, metric and log exporter for the running server."""
    headers = {"authorization": f"Bearer {TOKEN}"}
    if protocol == "http":
        packing = Compression.Gzip if is_compressed else Compression.NoCompression
        made: tuple[Any, ...] = tuple(
            kind(endpoint=f"{addresses.http_url}/v1/{path}", headers=headers, compression=packing, timeout=PATIENCE_S)
            for kind, path in ((HttpSpans, "traces"), (HttpMetrics, "metrics"), (HttpLogs, "logs"))
        )
    else:
        grpc_packing = grpc.Compression.Gzip if is_compressed else grpc.Compression.NoCompression
        made = tuple(
            kind(
                endpoint=addresses.grpc_url, insecure=True, headers=tuple(headers.items()),
                compression=grpc_packing, timeout=PATIENCE_S,
            )
            for kind in (GrpcSpans, GrpcMetrics, GrpcLogs)
        )  # fmt: skip
    return made


@pytest.fixture
def addresses(tmp_path: Path) -> Iterator[Addresses]:
    with EmbeddedServer(options(tmp_path, token=TOKEN)) as server:
        yield server.addresses


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("is_compressed", [False, True], ids=["plain", "gzip"])
def test_exporters(exporters: tuple[Any, ...], tmp_path: Path) -> None:
    """What an instrumented program records is in the database as soon as its exporter returned."""
    span_exporter, metric_exporter, log_exporter = exporters
    tracing = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(span_exporter))
    metering = MeterProvider([PeriodicExportingMetricReader(metric_exporter, 60_000)], RESOURCE, shutdown_on_exit=False)
    logging_ = LoggerProvider(RESOURCE, shutdown_on_exit=False)
    logging_.add_log_record_processor(SimpleLogRecordProcessor(log_exporter))
    with tracing.get_tracer("tests").start_as_current_span("checkout", attributes={"app.items": 3}) as span:
        pass
    metering.get_meter("tests").create_counter("app.orders").add(2)
    assert metering.force_flush()
    record = LogRecord(timestamp=1_790_000_000_000_000_000, severity_number=SeverityNumber.INFO, body="sold")
    logging_.get_logger("tests").emit(record)

    in_store = (
        rows(tmp_path, "SELECT lower(hex(trace_id)), name FROM spans"),
        rows(tmp_path, "SELECT name FROM series JOIN points ON series_id = series.id WHERE name = 'app.orders'"),
        rows(tmp_path, "SELECT body, time_ns FROM logs"),
    )
    for provider in (tracing, metering, logging_):
        provider.shutdown()
    assert in_store == (
        [(format(span.get_span_context().trace_id, "032x"), "checkout")],
        [("app.orders",)],
        [("sold", 1_790_000_000_000_000_000)],
    )


@pytest.mark.parametrize("kind", [HttpSpans, GrpcSpans])
def test_exporter_without_token(kind: Any, addresses: Addresses, caplog: pytest.LogCaptureFixture) -> None:
    """An exporter without the token gives up at once and says so; nothing is stored."""
    plain: dict[str, Any] = {"insecure": True} if kind is GrpcSpans else {}
    exporter = kind(
        endpoint=addresses.grpc_url if kind is GrpcSpans else f"{addresses.http_url}/v1/traces",
        timeout=PATIENCE_S,
        **plain,
    )
    tracing = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    with caplog.at_level(logging.ERROR):
        tracing.get_tracer("tests").start_span("refused").end()
    tracing.shutdown()

    assert rows(addresses.database.parent, "SELECT count(*) FROM spans") == [(0,)]
    assert "code: 401" in caplog.text or "UNAUTHENTICATED" in caplog.text
