"""The released profile is what the official packages 1.3b0 really emit, read from the installed packages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import NamedTuple

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader, MetricsData
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util.genai import _instruments as official
from opentelemetry.util.genai.handler import TelemetryHandler
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.conventions import spans, values

NOT_OURS = {"gen_ai.invoke_agent.duration"}
"""Metrics of the official package for spans that Stagelight does not make."""


class Recorded(NamedTuple):
    """One metric of the official package."""

    name: str
    identity: tuple[str | None, str | None, tuple[float, ...]]
    """Unit, description and bounds."""
    labels: set[str]


class Official:
    """The official package on providers in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.handler = TelemetryHandler(
            tracer_provider=tracers, meter_provider=MeterProvider(metric_readers=[self.reader])
        )

    def metrics(self) -> Iterator[Recorded]:
        """Yield each metric that was recorded."""
        data = self.reader.get_metrics_data()
        assert isinstance(data, MetricsData)
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    assert isinstance(metric.data, Histogram)
                    points = metric.data.data_points
                    yield Recorded(
                        metric.name,
                        (metric.unit, metric.description, tuple(points[0].explicit_bounds)),
                        {key for point in points for key in point.attributes or {}},
                    )


def inference(handler: TelemetryHandler) -> None:
    with handler.inference("openai", request_model="gpt-4o-mini", server_address="host", server_port=8080) as call:
        call.response_model_name, call.response_id, call.finish_reasons = "gpt-4o-mini-2024-07-18", "id", ["stop"]
        call.temperature, call.top_p, call.top_k, call.max_tokens, call.seed = 0.5, 0.9, 3, 10, 7
        call.frequency_penalty, call.presence_penalty, call.stop_sequences = 0.1, 0.2, ["."]
        call.request_choice_count, call.output_type = 2, "json"
        call.reasoning_level, call.previous_response_id = "low", "before"
        call.input_tokens, call.output_tokens = 10, 5
        call.cache_read_input_tokens, call.cache_write_input_tokens, call.thinking_tokens = 1, 2, 3
        call.set_input_tokens([("text", 7), ("audio", 2), ("image", 1)])
        call.set_output_tokens([("text", 3), ("audio", 1), ("image", 1)])
        call.set_cache_read_input_tokens([("audio", 1)])
        call.record_stream_chunk()
        call.record_stream_chunk()


def embedding(handler: TelemetryHandler) -> None:
    with handler.embedding("openai", request_model="text-embedding-3-small", server_address="host") as call:
        call.response_model_name, call.input_tokens = "text-embedding-3-small", 4
        call.dimension_count, call.encoding_formats = 3, ["float"]


def retrieval(handler: TelemetryHandler) -> None:
    with handler.retrieval(data_source_id="docs", provider="qdrant", server_address="host") as call:
        call.top_k = 5


def tool(handler: TelemetryHandler) -> None:
    with handler.tool("lookup", tool_type="function", tool_call_id="id"):
        pass


def workflow(handler: TelemetryHandler) -> None:
    with handler.workflow("answer"):
        pass


CALLS = [
    pytest.param(inference, values.Stage.LLM, id="llm"),
    pytest.param(embedding, values.Stage.EMBEDDING, id="embedding"),
    pytest.param(retrieval, values.Stage.RETRIEVAL, id="retrieval"),
    pytest.param(tool, values.Stage.TOOL, id="tool"),
    pytest.param(workflow, values.Stage.TURN, id="turn"),
]


def test_the_compared_packages_are_the_pinned_ones() -> None:
    """The comparison means what the profile says."""
    names = ("opentelemetry-util-genai", "opentelemetry-instrumentation-genai-openai")

    assert [version(name) for name in names] == ["1.3b0", "1.3b0"]


@pytest.mark.parametrize(("call", "stage"), CALLS)
def test_spans_carry_only_what_ours_may(call: Callable[[TelemetryHandler], None], stage: str) -> None:
    """Name, kind and every attribute of an official span are those of our span of the stage."""
    theirs = Official()
    call(theirs.handler)

    (span,) = theirs.exporter.get_finished_spans()
    ours = spans.SPAN_OF_STAGE[stage]
    found = dict(span.attributes or {})
    assert re.sub(r"\{(.*?)\}", lambda key: str(found[key[1]]), ours.name) == span.name
    assert ours.kind == span.kind.name.lower()
    assert ours.operation == found[a.GEN_AI_OPERATION_NAME]
    assert set() == set(found) - set(ours.attributes)


def test_metrics_are_the_official_ones() -> None:
    """Name, unit, description and bounds of every upstream metric of the profile equal the official ones."""
    theirs = Official()
    for call in (inference, embedding, retrieval, tool, workflow):
        call(theirs.handler)

    found = {metric.name: metric.identity for metric in theirs.metrics()}
    upstream = {
        row.name: (row.unit, row.description, row.buckets)
        for row in m.METRICS.values()
        if "released" in row.profiles and not row.name.startswith("stagelight.")
    }
    assert found == upstream


def test_no_official_metric_is_forgotten() -> None:
    """Every instrument of the official package is ours too, or is known not to be."""
    instruments = vars(official._Instruments(MeterProvider().get_meter("test")))

    theirs = {instrument.name for instrument in instruments.values()}

    assert theirs - NOT_OURS == {name for name in theirs if name in m.METRICS}
    assert theirs >= NOT_OURS


def test_labels_are_the_official_ones() -> None:
    """Every label of an official point is one that our metric of this name may carry."""
    theirs = Official()
    for call in (inference, embedding, retrieval, tool, workflow):
        call(theirs.handler)
    failing = theirs.handler.inference("openai", request_model="gpt-4o-mini")
    failing.input_tokens = 1
    failing.fail(LookupError())

    extra = {metric.name: metric.labels - set(m.METRICS[metric.name].labels) for metric in theirs.metrics()}

    assert {name: set() for name in extra} == extra
