"""Standard variables decide where and how telemetry leaves; an exporter that cannot be made is off."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, DEFAULT_ON, Sampler
from sinks import delivering, receiving
from stagelight import _guard
from stagelight.export.batches import Limits
from stagelight.export.providers import Exporters, exporters
from stagelight.export.sampling import sampler


@pytest.fixture
def lenient() -> Iterator[None]:
    """As in a user's process."""
    _guard.set_strict(False)
    yield
    _guard.set_strict(True)


@pytest.mark.usefixtures("lenient")
def test_an_exporter_that_cannot_be_made_switches_its_signal_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A timeout that is no number stops neither the host nor the other signals."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon")

    made = exporters({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})

    assert made.traces is None
    assert made.logs is not None
    assert made.metrics is not None
    assert len(caplog.records) == 1
    made.logs.shutdown()
    made.metrics.shutdown()


def test_a_signal_may_be_switched_off() -> None:
    """What has no exporter is neither queued nor accounted for, and the rest works."""
    assert exporters(
        dict.fromkeys(("OTEL_TRACES_EXPORTER", "OTEL_LOGS_EXPORTER", "OTEL_METRICS_EXPORTER"), "none")
    ) == (Exporters(None, None, None))
    with (
        receiving() as sink,
        delivering(sink.http, OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none") as (
            providers,
            _,
        ),
    ):
        providers.tracer_provider.get_tracer("app").start_span("step").end()
        providers.logger_provider.get_logger("app").emit(LogRecord(body="line"))
        assert providers.flush(60)
        assert set(providers.balances) == {"logs"}
    assert (len(sink.spans), len(sink.logs), len(sink.pushes)) == (0, 1, 0)


def test_bounds_follow_the_standard_variables() -> None:
    """Queue, batch and delay are those of the batch processors' variables."""
    variables = {
        "OTEL_BSP_MAX_QUEUE_SIZE": "100",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10",
        "OTEL_BSP_SCHEDULE_DELAY": "250",
        "OTEL_BLRP_MAX_QUEUE_SIZE": "7",
    }
    with delivering("http://127.0.0.1:9", **variables) as (providers, _):
        spans, logs = (queue._limits for queue in providers._queues)

    assert spans == Limits(items=100, batch=10, delay_s=0.25)
    assert logs == Limits(items=7)


@pytest.mark.parametrize(
    ("name", "kept"), [("traceidratio", ALWAYS_ON), ("ParentBased_TraceIdRatio", DEFAULT_ON), ("always_off", None)]
)
def test_a_ratio_without_a_share_keeps_everything(name: str, kept: Sampler | None) -> None:
    """As the standard says; the SDK, which makes the other samplers, would complain."""
    assert sampler({"OTEL_TRACES_SAMPLER": name}) is kept
    assert sampler({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": "0.5"}) is None
