"""A back end that is away costs the host little memory and few lines of log, and everything lost is counted."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from opentelemetry import context as otel_context
from opentelemetry._logs import LogRecord, SeverityNumber
from sinks import delivering, receiving, refused
from stagelight.export.accounting import Signal
from stagelight.export.complaints import Complaints
from stagelight.export.providers import VALUE_CHARACTERS, Providers

PROTOCOLS = ["http/protobuf", "grpc"]
PATIENCE_S = 60.0
HANGS_S = 30.0
"""A receiver that hangs answers after this time."""


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    """Both protocols."""
    return str(request.param)


def work(providers: Providers, spans: int = 20) -> None:
    """Spans and log records of the application."""
    tracer, logger = providers.tracer_provider.get_tracer("app"), providers.logger_provider.get_logger("app")
    for number in range(spans):
        tracer.start_span(f"step {number}").end()
        logger.emit(LogRecord(body=f"line {number}", severity_number=SeverityNumber.INFO))


LARGE = """
import json, resource, sys
sys.path[:0] = ["tests"]
from sinks import delivering, refused

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

with delivering(refused(), **json.loads(sys.argv[1])) as (providers, _):
    tracer = providers.tracer_provider.get_tracer("app")
    tracer.start_span("warm").end()
    before = peak_mb()
    for number in range(3000):
        with tracer.start_as_current_span("step") as span:
            span.set_attribute("prompt", f"{number}" + "x" * 1_000_000)
            span.set_attribute("parts", ["y" * 100_000] * 10)
    growth = peak_mb() - before
    balance = providers.balances["traces"]()
print(json.dumps([growth, balance.made, balance.delivered, sum(balance.dropped.values()), balance.queued]))
"""


@pytest.mark.parametrize(
    "variables", [{}, {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1000000000"}], ids=["default", "no limit"]
)
def test_large_values_do_not_fill_the_memory(variables: dict[str, str]) -> None:
    """3,000 spans of 2 MB and nobody to take them: cut by default, bounded in bytes in any case, and counted."""
    run = subprocess.run(
        [sys.executable, "-c", LARGE, json.dumps(variables)], capture_output=True, text=True, timeout=180, check=True
    )

    growth, made, delivered, dropped, queued = json.loads(run.stdout)
    assert growth <= 150
    assert (made, delivered) == (3001, 0)
    assert dropped + queued == made
    assert len(run.stderr.splitlines()) <= 5


def test_values_are_cut_unless_a_standard_variable_says_otherwise() -> None:
    """The default length limit is ours; every standard variable replaces it."""
    cases: list[tuple[dict[str, str], int]] = [
        ({}, VALUE_CHARACTERS),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "100"}, 100),
        ({"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "50"}, 50),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1000000000"}, 20_000),
    ]
    for variables, expected in cases:
        with receiving() as sink, delivering(sink.http, **variables) as (providers, _):
            span = providers.tracer_provider.get_tracer("app").start_span("step", attributes={"long": "x" * 20_000})
            span.end()
            assert providers.flush(PATIENCE_S)
            assert len(sink.spans[0].attributes[0].value.string_value) == expected


def test_a_dead_collector_is_mentioned_once_a_minute(protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    """However many exports fail, one line says what was lost and why, and one at the end what came after it."""
    with delivering(
        refused(), OTEL_EXPORTER_OTLP_PROTOCOL=protocol, OTEL_EXPORTER_OTLP_TIMEOUT="0.1", OTEL_BSP_SCHEDULE_DELAY="10"
    ) as (providers, _):
        for _ in range(6):
            work(providers)
            assert not providers.flush(PATIENCE_S)
        lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(lines) == 1
        assert "; the exporter says: " in lines[0]
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    lost = {name: balance().dropped for name, balance in providers.balances.items()}

    assert len(lines) == 2
    assert all(line.startswith("stagelight: not delivered and dropped: ") for line in lines)
    said = [dict(pair.split() for pair in line.split("; ")[0].split(": ")[2].split(", ")) for line in lines]
    for signal, drops in lost.items():
        assert sum(int(each.get(signal, 0)) for each in said) == sum(drops.values()) > 0


def test_the_application_may_speak_of_its_own_exporters(caplog: pytest.LogCaptureFixture) -> None:
    """Only what our exports say is kept back, and only while they may run."""
    logger = logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter")
    complaints = Complaints()
    complaints.begin()
    logger.error("the application's")
    token = otel_context.attach(complaints.context("traces"))
    logger.error("ours")
    complaints.end()
    logger.error("ours, after the end")
    otel_context.detach(token)

    assert [record.getMessage() for record in caplog.records] == ["the application's", "ours, after the end"]
    assert complaints not in logger.filters


def test_the_words_that_are_quoted_are_about_what_was_lost(caplog: pytest.LogCaptureFixture) -> None:
    """What the exporter of another signal said waits until that one loses something."""
    logger = logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter")
    complaints = Complaints(period_s=0)
    complaints.begin()
    signals: tuple[Signal, ...] = ("logs", "traces")
    for signal in signals:
        token = otel_context.attach(complaints.context(signal))
        logger.error(f"no {signal}")  # noqa: G004  # OpenTelemetry drops a second line of the same format
        otel_context.detach(token)
    complaints.lost(2, "traces")
    complaints.lost(1, "traces")
    complaints.lost(3, "logs")
    complaints.end()

    assert [record.getMessage() for record in caplog.records] == [
        "stagelight: not delivered and dropped: traces 2; the exporter says: no traces",
        "stagelight: not delivered and dropped: traces 1",
        "stagelight: not delivered and dropped: logs 3; the exporter says: no logs",
    ]


def test_delivery_goes_on_when_the_back_end_is_back(protocol: str) -> None:
    """What was dropped is counted, what comes later arrives, cumulative metrics whole."""
    with (
        receiving(with_grpc=True) as sink,
        delivering(sink.grpc if protocol == "grpc" else sink.http, OTEL_EXPORTER_OTLP_PROTOCOL=protocol) as (
            providers,
            _,
        ),
    ):
        sink.status = 400
        work(providers, 10)
        assert not providers.flush(PATIENCE_S)
        sink.status = 200
        work(providers, 5)
        assert providers.flush(PATIENCE_S)
        traces, logs = providers.balances["traces"](), providers.balances["logs"]()

    assert (traces.made, traces.delivered, traces.dropped) == (15, 5, {"export_failed": 10})
    assert (logs.made, logs.delivered, logs.dropped) == (15, 5, {"export_failed": 10})
    assert [span.name for span in sink.spans] == [f"step {number}" for number in range(5)]


class OtelHandler(logging.Handler):
    """Sends every line of the process as a log record, as logging bridges do."""

    def __init__(self, providers: Providers) -> None:
        super().__init__(logging.DEBUG)
        self._logger = providers.logger_provider.get_logger("bridge")

    def emit(self, record: logging.LogRecord) -> None:
        self._logger.emit(LogRecord(body=record.getMessage(), severity_number=SeverityNumber.DEBUG))


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger at DEBUG."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.setLevel(level)


@pytest.mark.parametrize("alive", [True, False])
def test_exports_do_not_export_themselves(protocol: str, alive: bool, root: logging.Logger) -> None:
    """With a root handler at DEBUG that exports, one line of the application stays one record."""
    with receiving(with_grpc=True) as sink:
        endpoint = (sink.grpc if protocol == "grpc" else sink.http) if alive else refused()
        variables = {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_TIMEOUT": "60" if alive else "0.2"}
        with delivering(endpoint, **variables) as (providers, _):
            handler = OtelHandler(providers)
            root.addHandler(handler)
            try:
                logging.getLogger("app").info("one line")
                for _ in range(4):
                    assert providers.flush(PATIENCE_S) is alive
                made = providers.balances["logs"]().made
            finally:
                root.removeHandler(handler)

    assert made == 1
    assert [record.body.string_value for record in sink.logs] == (["one line"] if alive else [])


def test_a_burst_is_not_lost() -> None:
    """10,000 spans as fast as they can be made all arrive, each once."""
    with receiving() as sink, delivering(sink.http) as (providers, _):
        tracer = providers.tracer_provider.get_tracer("app")
        for number in range(10_000):
            tracer.start_span(str(number)).end()
        assert providers.flush(PATIENCE_S)
        balance = providers.balances["traces"]()

    assert (balance.made, balance.delivered, balance.dropped) == (10_000, 10_000, {})
    assert sorted(int(span.name) for span in sink.spans) == list(range(10_000))


def test_a_hung_back_end_costs_a_shutdown_its_deadline(protocol: str) -> None:
    """A receiver that takes requests and never answers does not hold up the end."""
    with receiving(with_grpc=True) as sink:
        sink.open.clear()
        endpoint = sink.grpc if protocol == "grpc" else sink.http
        variables = {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_TIMEOUT": "60"}
        with delivering(endpoint, **variables) as (providers, _):
            work(providers, 600)
            began = time.monotonic()
            sent = providers.shutdown(0.5)
            took = time.monotonic() - began
            balances = {name: balance() for name, balance in providers.balances.items()}

    assert not sent
    assert took < HANGS_S
    for balance in balances.values():
        assert balance.made == balance.delivered + sum(balance.dropped.values()) + balance.queued
    assert balances["traces"].queued <= 512  # the batch on its way may still arrive


def test_stopping_twice_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """An application that shuts the providers down itself loses nothing, and our own end says nothing more."""
    with receiving() as sink, delivering(sink.http) as (providers, _):
        work(providers, 3)
        providers.tracer_provider.shutdown()
        providers.logger_provider.shutdown()
        providers.meter_provider.shutdown()
        assert len(sink.spans) == len(sink.logs) == 3
        assert len(sink.pushes) == 1
        providers.shutdown(PATIENCE_S)

    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
