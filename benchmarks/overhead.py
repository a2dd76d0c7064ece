"""What a call costs the host: Stagelight beside hand-written OpenTelemetry code, in one run.

Both sides record the same span attributes, duration, token and stream histograms, encode what they export as OTLP and
throw the bytes away, each with its own encoder. Stagelight also prices the call, keeps the turn and writes the ledger.
Rounds of both sides alternate; figures are medians, ratios are Stagelight / hand-written.

    python benchmarks/overhead.py [--rounds 15] [--calls 400]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import stagelight
from handwritten import IDS, HandWritten
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from stagelight import _runtime
from stagelight._handover import Handover
from stagelight.export.otlp import logs_request, spans_request
from stagelight.export.providers import Exporters, Providers
from stagelight.instruments import Instruments
from stagelight.settings import Settings

SCOPE = InstrumentationScope("stagelight")  # as configure() names it
CHUNKS = 50
WAYS = 64
WORK_S = 0.001  # Python work of one call in the throughput test; the openai client itself takes 2.4 ms


class NullSpans(SpanExporter):
    """Encodes and forgets."""

    def export(self, spans):
        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


class NullLogs(LogRecordExporter):
    """Encodes as Stagelight does, and forgets."""

    def export(self, batch):
        logs_request(batch)
        return LogRecordExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self) -> None:
        """Nothing to close."""


class NullMetrics(MetricExporter):
    """Encodes and forgets."""

    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        encode_metrics(metrics_data).SerializeToString()
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **kwargs):
        """Nothing to close."""


class OurSpans(NullSpans):
    """Encodes as Stagelight does, and forgets."""

    def export(self, spans):
        spans_request(spans)
        return SpanExportResult.SUCCESS


class Ours:
    """The four calls with Stagelight's API."""

    def __init__(self) -> None:
        self.providers = Providers(Resource.create({}), Exporters(OurSpans(), NullLogs(), NullMetrics()), SCOPE)
        self.runtime = _runtime.Runtime(
            tracer=self.providers.tracer_provider.get_tracer(SCOPE.name),
            instruments=Instruments(self.providers.accumulators),
            logger=self.providers.events,
            handover=Handover(),
            settings=Settings(),
            configured=True,
        )
        _runtime.install(self.runtime)

    def chat(self) -> None:
        with stagelight.llm(provider="openai", model="gpt-4o-mini", temperature=0.2, max_tokens=500) as call:
            call.response(model="gpt-4o-mini-2024-07-18", id=next(IDS), finish_reasons=["stop"])
            call.usage(input_tokens=900, output_tokens=120, cache_read_tokens=512)

    def stream(self) -> None:
        with stagelight.llm(provider="openai", model="gpt-4o-mini", stream=True) as call:
            for _ in call.stream(chunks()):
                pass
            call.response(model="gpt-4o-mini-2024-07-18", id=next(IDS), finish_reasons=["stop"])
            call.usage(input_tokens=900, output_tokens=120)

    def embedding(self) -> None:
        with stagelight.embedding(provider="openai", model="text-embedding-3-small") as call:
            call.response(model="text-embedding-3-small")
            call.usage(input_tokens=40)

    def speech(self) -> None:
        with stagelight.tts(provider="openai", model="tts-1", voice="coral", format="wav") as call:
            for _ in call.stream(chunks()):
                pass
            call.usage(characters=240, audio_seconds=14.2)

    def flush(self) -> None:
        self.runtime.handover.drain(30)
        self.providers.flush(30)


def chunks() -> Iterator[str]:
    for _ in range(CHUNKS):
        yield "word"


class Round(NamedTuple):
    """One round of one side: microseconds per call."""

    thread_us: float
    process_us: float


def measure(call: Callable[[], None], flush: Callable[[], None], calls: int) -> Round:
    gc.collect()
    process = time.process_time_ns()
    thread = time.thread_time_ns()
    for _ in range(calls):
        call()
    thread = time.thread_time_ns() - thread
    flush()
    process = time.process_time_ns() - process
    return Round(thread / calls / 1000, process / calls / 1000)


async def saturated(call: Callable[[], None], seconds: float) -> tuple[float, float]:
    """Calls per second and p99 latency of 64 tasks that keep one core busy."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def task() -> None:
        while (start := time.perf_counter()) < end:
            await asyncio.sleep(0)
            stop = time.thread_time() + WORK_S
            while time.thread_time() < stop:
                pass
            call()
            latencies.append(time.perf_counter() - start)

    begin = time.perf_counter()
    await asyncio.gather(*(task() for _ in range(WAYS)))
    elapsed = time.perf_counter() - begin
    latencies.sort()
    return len(latencies) / elapsed, latencies[int(len(latencies) * 0.99)]


def compare(name: str, rounds: int, calls: int, floor: HandWritten, ours: Ours) -> None:
    sides = {"hand": (getattr(floor, name), floor.flush), "ours": (getattr(ours, name), ours.flush)}
    results: dict[str, list[Round]] = {"hand": [], "ours": []}
    for call, flush in sides.values():
        measure(call, flush, calls)
    for _ in range(rounds):
        for side, (call, flush) in sides.items():
            results[side].append(measure(call, flush, calls))
    hand_thread, ours_thread = (statistics.median(r.thread_us for r in results[side]) for side in ("hand", "ours"))
    hand_cpu, ours_cpu = (statistics.median(r.process_us for r in results[side]) for side in ("hand", "ours"))
    print(
        f"{name:10} {hand_thread:9.1f} {ours_thread:9.1f} {ours_thread / hand_thread:8.2f}x"
        f" {hand_cpu:12.1f} {ours_cpu:9.1f} {ours_cpu / hand_cpu:8.2f}x"
    )


def throughput(rounds: int, floor: HandWritten, ours: Ours) -> None:
    rates: dict[str, list[float]] = {"hand": [], "ours": []}
    tails: dict[str, list[float]] = {"hand": [], "ours": []}
    for _ in range(rounds):
        for side, call, flush in (("hand", floor.chat, floor.flush), ("ours", ours.chat, ours.flush)):
            rate, tail = asyncio.run(saturated(call, 2.0))
            flush()
            rates[side].append(rate)
            tails[side].append(tail)
    hand, mine = statistics.median(rates["hand"]), statistics.median(rates["ours"])
    hand_tail, my_tail = statistics.median(tails["hand"]), statistics.median(tails["ours"])
    print(f"\n64 tasks that keep one core busy, chat with {WORK_S * 1000:.0f} ms of work:")
    print(f"  hand-written {hand:5.0f}/s, p99 {hand_tail * 1000:4.0f} ms")
    print(f"  Stagelight   {mine:5.0f}/s, p99 {my_tail * 1000:4.0f} ms; throughput {mine / hand:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=400)
    options = parser.parse_args()
    floor, ours = HandWritten(NullSpans(), NullMetrics()), Ours()
    print(f"{'':10} {'calling thread, us per call':^29} {'whole process, us CPU per call':^33}")
    print(f"{'':10} {'by hand':>9} {'ours':>9} {'ratio':>9} {'by hand':>12} {'ours':>9} {'ratio':>9}")
    for name in ("chat", "stream", "embedding", "speech"):
        compare(name, options.rounds, options.calls, floor, ours)
    throughput(max(options.rounds // 3, 1), floor, ours)
    print("\ngoals: calling thread <= 0.8x, whole process <= 1.3x, throughput >= 95 % with p99 no worse")


if __name__ == "__main__":
    main()
