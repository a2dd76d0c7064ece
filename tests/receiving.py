"""What the tests of the receivers share: OTLP requests, a bare HTTP client, and a look into the store."""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from stagelight.embedded.options import Addresses, ServerOptions
from stagelight.embedded.retention import Retention
from stagelight.embedded.store import open_readonly

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
PATIENCE_S = 60.0
"""How long an answer may take on a busy machine."""
TOKEN = "a-token-that-is-long-enough"
TABLES = ("spans", "logs", "usage", "points")
START_NS = 1_790_000_000_000_000_000
KEEP = Retention(age_s=1e10, usage_age_s=1e10)
"""Nothing below is too old, however long a server runs."""


class Answer(NamedTuple):
    """An HTTP response; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def options(folder: Path, **changes: Any) -> ServerOptions:
    """Options of a server on free ports, with its database in ``folder``."""
    return ServerOptions(
        **{"http_port": 0, "grpc_port": 0, "database": folder / "store.db", "retention": KEEP, **changes}
    )


def ask(
    addresses: Addresses,
    path: str,
    body: bytes | Iterable[bytes] | None = None,
    *,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own; an iterable body is sent in chunks."""
    connection = http.client.HTTPConnection(addresses.host, addresses.http_port, timeout=PATIENCE_S)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def post(addresses: Addresses, path: str, body: bytes, **headers: str) -> Answer:
    """Post protobuf, or what the keyword ``content_type`` says; other keywords are headers with ``_`` for ``-``."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(addresses, path, body, headers={"content-type": PROTOBUF, **fields})


def works(addresses: Addresses) -> bool:
    """Whether a good request is answered."""
    return post(addresses, "/v1/traces", spans().SerializeToString()).status == 200


def stored(folder: Path) -> dict[str, int]:
    """Rows per table in the database of ``options(folder)``; tables without rows are left out."""
    counts = {table: rows(folder, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}  # noqa: S608 - our names
    return {table: count for table, count in counts.items() if count}


def rows(folder: Path, query: str) -> list[Any]:
    """Result of a query on the database of ``options(folder)``."""
    connection = open_readonly(folder / "store.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def spans(count: int = 1) -> ExportTraceServiceRequest:
    """A request with ``count`` spans of one new trace."""
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    _service(resource_spans.resource)
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "tests"
    trace_id = secrets.token_bytes(16)
    for index in range(count):
        span = scope_spans.spans.add(
            trace_id=trace_id,
            span_id=secrets.token_bytes(8),
            name=f"step {index}",
            kind=1,
            start_time_unix_nano=START_NS + index,
            end_time_unix_nano=START_NS + index + 5_000_000,
        )
        span.attributes.add(key="app.index").value.int_value = index
        span.links.add(trace_id=trace_id, span_id=secrets.token_bytes(8))
    return request


def logs(count: int = 1) -> ExportLogsServiceRequest:
    """A request with ``count`` log records that differ in their body."""
    request = ExportLogsServiceRequest()
    resource_logs = request.resource_logs.add()
    _service(resource_logs.resource)
    scope_logs = resource_logs.scope_logs.add()
    for index in range(count):
        record = scope_logs.log_records.add(
            time_unix_nano=START_NS + index,
            severity_number=9,
            trace_id=secrets.token_bytes(16),
            span_id=secrets.token_bytes(8),
        )
        record.body.string_value = f"line {index}"
    return request


def metrics(count: int = 1) -> ExportMetricsServiceRequest:
    """A request with ``count`` points of one counter."""
    request = ExportMetricsServiceRequest()
    resource_metrics = request.resource_metrics.add()
    _service(resource_metrics.resource)
    metric = resource_metrics.scope_metrics.add().metrics.add(name="app.orders", unit="{order}")
    metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    metric.sum.is_monotonic = True
    for index in range(count):
        point = metric.sum.data_points.add(
            start_time_unix_nano=START_NS, time_unix_nano=START_NS + 1 + index, as_int=index
        )
        point.exemplars.add(trace_id=secrets.token_bytes(16), span_id=secrets.token_bytes(8), as_int=1)
    return request


def otlp_json(request: Any) -> bytes:
    """A request in OTLP/JSON: protobuf's JSON, but with hex ids and numeric enums."""
    import base64

    def with_hex_ids(node: Any) -> Any:
        if isinstance(node, list):
            return [with_hex_ids(item) for item in node]
        if not isinstance(node, dict):
            return node
        return {
            key: base64.b64decode(value).hex() if key in {"traceId", "spanId", "parentSpanId"} else with_hex_ids(value)
            for key, value in node.items()
        }

    return json.dumps(with_hex_ids(MessageToDict(request, use_integers_for_enums=True))).encode()


def _service(resource: Any) -> None:
    resource.attributes.add(key="service.name").value.string_value = "shop"
