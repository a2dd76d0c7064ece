"""A client that sends numbered spans and log records and a counter, each again and again until it is acknowledged."""

from __future__ import annotations

import http.client
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from stack.native import Stack
from stack.queries import lines, number
from stagelight.embedded.store import open_readonly

SERVICE = "load"
SPAN = "load"
COUNTER = "load.items"
PAGE = 5000
"""Records that Loki gives at once, at most."""
COUNTER_IN_PROMETHEUS = "load_items_total"

_RETRY_S = 0.1
_TIMEOUT_S = 20.0
_JOIN_S = 180.0


@dataclass(slots=True)
class Load:
    """Sends between ``with`` and its end; at the end everything that was made is acknowledged.

    Args:
        stack: with a Collector, which may come and go.
        spans_per_s: rate of the spans, in requests of ``batch`` each.
        logs_per_s: rate of the log records, in requests of a second each.
        batch: spans of a request.
        shift_s: added to every timestamp.
        padding: characters of an attribute of every span.
        run: names the series and begins the trace ids.
        first: number of the first span and record.
    """

    stack: Stack
    spans_per_s: int = 1000
    logs_per_s: int = 50
    batch: int = 100
    shift_s: float = 0.0
    padding: int = 0
    run: bytes = field(default_factory=lambda: secrets.token_bytes(8))
    first: int = 0
    spans: int = 0
    """Acknowledged."""
    logs: int = 0
    counter: int = 0
    """The counter's last acknowledged value."""
    refusals: int = 0
    """Requests that were refused or not answered, and sent again."""
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _start_ns: int = field(default_factory=time.time_ns)

    def __enter__(self) -> Self:
        jobs = ((self._send_spans, self.batch / self.spans_per_s), (self._send_logs, 1.0), (self._send_counter, 1.0))
        self._threads = [threading.Thread(target=self._repeat, args=job) for job in jobs]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(_JOIN_S)
        assert not any(thread.is_alive() for thread in self._threads), "the Collector took nothing any more"

    def missing_spans(self) -> int:
        """How many acknowledged spans are not in the store that stands in for Tempo."""
        database = open_readonly(self.stack.traces_database)
        try:
            rows = database.execute("SELECT trace_id FROM spans WHERE name = ?", (SPAN,)).fetchall()
        finally:
            database.close()
        stored = {int.from_bytes(trace_id[8:], "big") for (trace_id,) in rows if trace_id[:8] == self.run}
        return self.spans - len(stored & set(range(self.first, self.first + self.spans)))

    def missing_logs(self) -> int:
        """How many acknowledged log records are not in Loki."""
        since = self._start_ns / 1e9 + self.shift_s
        selector = f'{{service_name="{SERVICE}"}} |= "{self.run.hex()}"'
        found: set[str] = set()
        start = since - 60
        while page := lines(self.stack.url("loki"), selector, start=start, end=since + 3600, limit=PAGE):
            found |= {line.text for line in page}
            if len(page) < PAGE:
                break
            start = max(line.at_ns for line in page) / 1e9 - 1e-3  # records of one moment may stand on two pages
        return self.logs - len(found)

    def counter_in_prometheus(self) -> float | None:
        """The counter's last value there."""
        query = f'last_over_time({COUNTER_IN_PROMETHEUS}{{instance="{self.run.hex()}"}}[1h])'
        return number(self.stack.url("prometheus"), query, at=time.time() + self.shift_s)

    def _repeat(self, send: Callable[[], None], every_s: float) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            send()
            due = max(
                due + every_s, time.monotonic() - 1
            )  # after a pause the rate is kept, the rest is not made up for
            self._stopping.wait(max(0.0, due - time.monotonic()))

    def _send_spans(self) -> None:
        request = ExportTraceServiceRequest()
        scope = request.resource_spans.add(resource=self._resource()).scope_spans.add()
        now = self._now_ns()
        for at in range(self.first + self.spans, self.first + self.spans + self.batch):
            identity = at.to_bytes(8, "big")
            scope.spans.add(
                name=SPAN,
                trace_id=self.run + identity,
                span_id=(at + 1).to_bytes(8, "big"),
                start_time_unix_nano=now,
                end_time_unix_nano=now + 1_000_000,
                attributes=[text("padding", "x" * self.padding)] if self.padding else [],
            )
        self._deliver("traces", request)
        self.spans += self.batch

    def _send_logs(self) -> None:
        request = ExportLogsServiceRequest()
        scope = request.resource_logs.add(resource=self._resource()).scope_logs.add()
        now = self._now_ns()
        for at in range(self.first + self.logs, self.first + self.logs + self.logs_per_s):
            record = scope.log_records.add(time_unix_nano=now, severity_number=9, severity_text="INFO")
            record.body.string_value = f"{self.run.hex()} {at}"
        self._deliver("logs", request)
        self.logs += self.logs_per_s

    def _send_counter(self) -> None:
        request = ExportMetricsServiceRequest()
        metric = request.resource_metrics.add(resource=self._resource()).scope_metrics.add().metrics.add(name=COUNTER)
        metric.sum.is_monotonic = True
        metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        value = self.counter + 7
        metric.sum.data_points.add(
            start_time_unix_nano=self._start_ns + round(self.shift_s * 1e9),
            time_unix_nano=self._now_ns(),
            as_int=value,
        )
        self._deliver("metrics", request)
        self.counter = value

    def _deliver(self, signal: str, request: Any) -> None:
        body = request.SerializeToString()
        while not self._acknowledged(signal, body):
            self.refusals += 1
            time.sleep(_RETRY_S)

    def _acknowledged(self, signal: str, body: bytes) -> bool:
        connection = http.client.HTTPConnection(self.stack.address("collector", 4318), timeout=_TIMEOUT_S)
        headers = {"Content-Type": "application/x-protobuf", "Authorization": f"Bearer {self.stack.token}"}
        try:
            connection.request("POST", f"/v1/{signal}", body, headers)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return response.status == http.client.OK

    def _now_ns(self) -> int:
        return time.time_ns() + round(self.shift_s * 1e9)

    def _resource(self) -> Resource:
        return Resource(attributes=[text("service.name", SERVICE), text("service.instance.id", self.run.hex())])


def text(key: str, value: str) -> KeyValue:
    """An attribute."""
    return KeyValue(key=key, value=AnyValue(string_value=value))
