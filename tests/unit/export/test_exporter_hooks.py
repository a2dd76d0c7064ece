"""The official exporters really use our encoder: the private names this relies on are those of the installed ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.metrics import Histogram
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext
from sinks import Sink, receiving
from stagelight.export.exporters import log_exporter, metric_exporter, span_exporter
from stagelight.export.protocols import protocol_of
from stagelight.export.pushed_metrics import wants_exponential

LONE = "a\ud800b"
SPAN = ReadableSpan(LONE, SpanContext(1, 2, False))
RECORD = ReadableLogRecord(LogRecord(observed_timestamp=1, event_name=LONE), Resource({}))
PROTOCOLS = ["http/protobuf", "grpc"]


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    """A receiver of both protocols."""
    with receiving(with_grpc=True) as found:
        yield found


@pytest.fixture(params=PROTOCOLS)
def environment(request: pytest.FixtureRequest, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Variables that lead to the receiver."""
    protocol: str = request.param
    sink.requests.clear()
    sink.status = 200
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.grpc if protocol == "grpc" else sink.http)
    return {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol}


def test_the_official_encoder_could_not_send_these() -> None:
    """The two tests below would fail if the official encoder were used."""
    with pytest.raises(UnicodeEncodeError):
        encode_spans([SPAN])
    with pytest.raises(UnicodeEncodeError):
        encode_logs([RECORD])


def test_spans_leave_through_our_encoder(environment: dict[str, str], sink: Sink) -> None:
    """What only our encoder can write arrives, by both protocols."""
    exporter = span_exporter(environment)

    assert exporter.export([SPAN]) is SpanExportResult.SUCCESS
    assert [span.name for span in sink.spans] == ["a?b"]
    exporter.shutdown()
    assert exporter.export([SPAN]) is SpanExportResult.FAILURE


def test_log_records_leave_through_our_encoder(environment: dict[str, str], sink: Sink) -> None:
    """As for spans."""
    exporter = log_exporter(environment)

    assert exporter.export([RECORD]) is LogRecordExportResult.SUCCESS
    assert [record.event_name for record in sink.logs] == ["a?b"]
    exporter.shutdown()
    assert exporter.export([RECORD]) is LogRecordExportResult.FAILURE


def test_a_refusal_is_a_failure(environment: dict[str, str], sink: Sink) -> None:
    """What the receiver does not accept is not counted as delivered."""
    sink.status = 400
    spans, logs, metrics = span_exporter(environment), log_exporter(environment), metric_exporter(environment)

    assert spans.export([SPAN]) is SpanExportResult.FAILURE
    assert logs.export([RECORD]) is LogRecordExportResult.FAILURE
    assert metrics.export(MetricsData([])) is MetricExportResult.FAILURE
    for exporter in (spans, logs, metrics):
        exporter.shutdown()


def test_a_forked_child_opens_connections_of_its_own(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three HTTP exporters forget the parent's connections and still work."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.http)
    sink.requests.clear()
    sink.status = 200
    for exporter, send in (
        (span := span_exporter({}), lambda: span.export([SPAN])),
        (log := log_exporter({}), lambda: log.export([RECORD])),
        (metric := metric_exporter({}), lambda: metric.export(MetricsData([]))),
    ):
        send()
        session = exporter._client._transport._session  # type: ignore[union-attr]
        before = dict(session.adapters)
        exporter._forget_connections()  # type: ignore[union-attr]
        send()
        assert not set(map(id, before.values())) & set(map(id, session.adapters.values()))
        assert before.keys() == session.adapters.keys()
        exporter.shutdown()
    assert len(sink.requests) == 6


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            "http/protobuf",
        ),
        ({"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "grpc"}, "http/protobuf"),
    ],
)
def test_a_signals_own_variable_wins(given: dict[str, str], expected: str) -> None:
    """The protocol of a signal is its own variable's, then the common one's, then HTTP."""
    assert protocol_of("traces", given) == expected


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_preferred_histogram_is_known(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporters keep the standard variable's answer where we read it."""
    kinds = {}
    for kind in ("explicit_bucket_histogram", "base2_exponential_bucket_histogram"):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", kind)
        exporter = metric_exporter({"OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
        kinds[kind] = wants_exponential(exporter)
        assert exporter._preferred_aggregation is not None
        found = isinstance(exporter._preferred_aggregation[Histogram], ExponentialBucketHistogramAggregation)
        assert found is kinds[kind]
        exporter.shutdown()

    assert kinds == {"explicit_bucket_histogram": False, "base2_exponential_bucket_histogram": True}
