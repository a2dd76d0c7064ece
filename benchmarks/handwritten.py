"""The four calls as a careful engineer would instrument them by hand with the OpenTelemetry SDK."""

from __future__ import annotations

import itertools
import time

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

CHUNKS = 50
IDS = map("chatcmpl-{}".format, itertools.count())
"""Every answer has an id of its own."""
SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
TOKENS = [4**power for power in range(14)]


class HandWritten:
    """Spans with attributes, a duration and a token histogram, and for streams first chunk and gaps."""

    def __init__(self, spans, metrics) -> None:
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(BatchSpanProcessor(spans, max_queue_size=65_536))
        reader = PeriodicExportingMetricReader(metrics, export_interval_millis=15_000)
        self.meters = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
        self.tracer = self.tracers.get_tracer("hand")
        meter = self.meters.get_meter("hand")
        self.duration = meter.create_histogram("d", "s", explicit_bucket_boundaries_advisory=SECONDS)
        self.tokens = meter.create_histogram("t", "{token}", explicit_bucket_boundaries_advisory=TOKENS)
        self.first = meter.create_histogram("f", "s", explicit_bucket_boundaries_advisory=SECONDS)
        self.gap = meter.create_histogram("g", "s", explicit_bucket_boundaries_advisory=SECONDS)

    def flush(self) -> None:
        self.tracers.force_flush()
        self.meters.force_flush()

    def chat(self) -> None:
        labels = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
        }
        start = time.perf_counter()
        with self.tracer.start_as_current_span("chat gpt-4o-mini", kind=SpanKind.CLIENT, attributes=labels) as span:
            span.set_attribute("gen_ai.request.temperature", 0.2)
            span.set_attribute("gen_ai.request.max_tokens", 500)
            span.set_attribute("gen_ai.response.model", "gpt-4o-mini-2024-07-18")
            span.set_attribute("gen_ai.response.id", next(IDS))
            span.set_attribute("gen_ai.response.finish_reasons", ["stop"])
            span.set_attribute("gen_ai.usage.input_tokens", 900)
            span.set_attribute("gen_ai.usage.output_tokens", 120)
            span.set_attribute("gen_ai.usage.cache_read.input_tokens", 512)
            self.tokens.record(900, {**labels, "gen_ai.token.type": "input"})
            self.tokens.record(120, {**labels, "gen_ai.token.type": "output"})
            self.duration.record(time.perf_counter() - start, labels)

    def stream(self) -> None:
        labels = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
        }
        with self.tracer.start_as_current_span("chat gpt-4o-mini", kind=SpanKind.CLIENT, attributes=labels) as span:
            self._consume(labels, span)
            span.set_attribute("gen_ai.response.model", "gpt-4o-mini-2024-07-18")
            span.set_attribute("gen_ai.response.id", next(IDS))
            span.set_attribute("gen_ai.response.finish_reasons", ["stop"])
            span.set_attribute("gen_ai.usage.input_tokens", 900)
            span.set_attribute("gen_ai.usage.output_tokens", 120)
            self.tokens.record(900, {**labels, "gen_ai.token.type": "input"})
            self.tokens.record(120, {**labels, "gen_ai.token.type": "output"})

    def embedding(self) -> None:
        labels = {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "text-embedding-3-small",
        }
        start = time.perf_counter()
        name = "embeddings text-embedding-3-small"
        with self.tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=labels) as span:
            span.set_attribute("gen_ai.response.model", "text-embedding-3-small")
            span.set_attribute("gen_ai.usage.input_tokens", 40)
            self.tokens.record(40, {**labels, "gen_ai.token.type": "input"})
            self.duration.record(time.perf_counter() - start, labels)

    def speech(self) -> None:
        labels = {
            "gen_ai.operation.name": "text_to_speech",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "tts-1",
        }
        with self.tracer.start_as_current_span("text_to_speech tts-1", kind=SpanKind.CLIENT, attributes=labels) as span:
            self._consume(labels, span)
            span.set_attribute("voice", "coral")
            span.set_attribute("format", "wav")
            span.set_attribute("characters", 240)
            span.set_attribute("audio_seconds", 14.2)

    def _consume(self, labels, span) -> None:
        start = last = time.perf_counter()
        first = None
        for _ in self._chunks():
            now = time.perf_counter()
            if first is None:
                first = now - start
                self.first.record(first, labels)
            else:
                self.gap.record(now - last, labels)
            last = now
        span.set_attribute("gen_ai.response.time_to_first_chunk", first)
        self.duration.record(time.perf_counter() - start, labels)

    @staticmethod
    def _chunks():
        for _ in range(CHUNKS):
            yield "word"
