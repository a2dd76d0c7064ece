"""For tests of applications: what a block of code recorded, with a fake clock and counted ids on request.

Example::

    with stagelight.testing.capture() as captured:
        answer("How do I cancel?")

    assert captured.turn("answer").cost == Decimal("0.000412")
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Sampler

from stagelight import _clock, _runtime, _self_metrics, cost
from stagelight._handover import Handover
from stagelight._identity import Pseudonyms
from stagelight._turns import settle_all
from stagelight.conventions import attributes as a
from stagelight.conventions import events as e
from stagelight.export.accumulators import SdkBackend
from stagelight.export.foreign_spans import ForeignSpans
from stagelight.instruments import Instruments
from stagelight.settings import Settings, read

__all__ = ["Captured", "CapturedCall", "CapturedEvent", "CapturedTurn", "Clock", "Point", "capture"]

_EPOCH_NS = 1_700_000_000_000_000_000


class Clock:
    """A clock that stands still until it is told to move.

    Args:
        tick_s: seconds it moves by itself at every reading; default 0.
    """

    def __init__(self, tick_s: float = 0.0) -> None:
        self._tick_s = tick_s
        self._now_s = 0.0

    def advance(self, seconds: float) -> None:
        """Move on."""
        self._now_s += seconds

    def seconds(self) -> float:
        """Monotonic seconds."""
        self._now_s += self._tick_s
        return self._now_s

    def wall_ns(self) -> int:
        """Unix time in nanoseconds: 2023-11-14T22:13:20Z plus what has passed."""
        return _EPOCH_NS + round(self._now_s * 1e9)


class _CountedIds(IdGenerator):
    """Ids 1, 2, 3 ..."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def _next(self) -> int:
        with self._lock:
            self._last += 1
            return self._last

    def generate_span_id(self) -> int:
        return self._next()

    def generate_trace_id(self) -> int:
        return self._next()


@dataclass(frozen=True, slots=True)
class CapturedCall:
    """One ended call, turn or job."""

    name: str
    attributes: Mapping[str, Any]
    span: ReadableSpan

    @property
    def stage(self) -> str:
        """The verb: ``llm``, ``tts``, ``turn`` ..."""
        return str(self.attributes[a.STAGELIGHT_STAGE])

    @property
    def outcome(self) -> str:
        """How it ended: ``completed``, ``client_abandoned`` ..."""
        return str(self.attributes[a.STAGELIGHT_OUTCOME])

    @property
    def cost(self) -> Decimal | None:
        """Amount in USD, exact; ``None`` when there is none."""
        amount = self.attributes.get(a.STAGELIGHT_COST_AMOUNT)
        return None if amount is None else Decimal(repr(amount))

    @property
    def cost_status(self) -> str | None:
        """``exact``, ``estimated``, ``partial`` or ``unpriced``."""
        return self.attributes.get(a.STAGELIGHT_COST_STATUS)

    @property
    def error_type(self) -> str | None:
        """Class of the error that ended it."""
        return self.attributes.get(a.ERROR_TYPE)

    @property
    def duration_s(self) -> float:
        """Seconds from start to end."""
        return ((self.span.end_time or 0) - (self.span.start_time or 0)) / 1e9


@dataclass(frozen=True, slots=True)
class CapturedTurn(CapturedCall):
    """One ended turn or job with its calls."""

    calls: tuple[CapturedCall, ...] = field(default=())

    @property
    def cost(self) -> Decimal | None:
        """Sum of its calls' amounts in USD, exact."""
        amount = self.attributes.get(a.STAGELIGHT_TURN_COST)
        return None if amount is None else Decimal(repr(amount))

    @property
    def cost_status(self) -> str | None:
        """The worst status of its calls."""
        return self.attributes.get(a.STAGELIGHT_TURN_COST_STATUS)

    @property
    def time_to_first_token_s(self) -> float | None:
        """Seconds from the start to the first text."""
        return self.attributes.get(a.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN)

    @property
    def time_to_first_audio_s(self) -> float | None:
        """Seconds from the start to the first audio."""
        return self.attributes.get(a.STAGELIGHT_TURN_TIME_TO_FIRST_AUDIO)


@dataclass(frozen=True, slots=True)
class CapturedEvent:
    """One log event."""

    name: str
    attributes: Mapping[str, Any]
    trace_id: int
    span_id: int


@dataclass(frozen=True, slots=True)
class Point:
    """One metric point."""

    attributes: Mapping[str, Any]
    value: float
    """Total of a counter, value of a gauge, sum of a histogram."""
    count: int | None = None
    """Values in a histogram."""
    buckets: tuple[int, ...] = ()
    bounds: tuple[float, ...] = ()


class Captured:
    """What a block recorded; read it inside or after the block."""

    def __init__(self, settings: Settings, clock: Clock | None, ids: bool, sampler: Sampler | None) -> None:
        resource = Resource({})
        self._spans = InMemorySpanExporter()
        self._logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # the SDK left it untyped
        self._reader = InMemoryMetricReader()
        generator = _CountedIds() if ids else None
        tracers = TracerProvider(resource=resource, shutdown_on_exit=False, id_generator=generator, sampler=sampler)
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        loggers = LoggerProvider(resource=resource, shutdown_on_exit=False)
        loggers.add_log_record_processor(SimpleLogRecordProcessor(self._logs))
        meters = MeterProvider(metric_readers=[self._reader], resource=resource, shutdown_on_exit=False)
        meter = meters.get_meter(_runtime.SCOPE)
        self.tracer_provider, self.meter_provider, self.logger_provider = tracers, meters, loggers
        self.clock = clock
        key = settings.resolve_id_key()
        self.runtime = _runtime.Runtime(
            tracer=tracers.get_tracer(_runtime.SCOPE),
            instruments=Instruments(SdkBackend(meter), settings.semconv),
            logger=loggers.get_logger(_runtime.SCOPE),
            handover=Handover(inline=True),
            settings=settings,
            configured=True,
            pseudonyms=Pseudonyms(key) if key else None,
        )
        tracers.add_span_processor(ForeignSpans(_runtime.SCOPE, self.runtime.recorded))
        _self_metrics.observe(meter, self.runtime, {})

    def settle(self) -> None:
        """Bring what was handed over from destructors and running turns to its end."""
        self.runtime.handover.put(settle_all)
        self.runtime.handover.drain(5.0)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """Ended spans in the order of their end."""
        self.settle()
        return self._spans.get_finished_spans()

    @property
    def calls(self) -> tuple[CapturedCall, ...]:
        """Ended calls of all stages, without turns and jobs, in the order of their end."""
        return tuple(call for call in map(_call, self.spans) if call is not None and not _is_turn(call))

    @property
    def turns(self) -> tuple[CapturedTurn, ...]:
        """Ended turns and jobs, in the order of their end."""
        spans = self.spans
        found = (call for call in map(_call, spans) if call is not None and _is_turn(call))
        return tuple(
            CapturedTurn(turn.name, turn.attributes, turn.span, tuple(self._inside(turn.span))) for turn in found
        )

    def turn(self, name: str) -> CapturedTurn:
        """The one ended turn or job of this name.

        Raises:
            LookupError: there is none, or more than one.
        """
        found = [turn for turn in self.turns if turn.name.partition(" ")[2] == name]
        if len(found) != 1:
            raise LookupError(f"{len(found)} turns are named {name!r}; ended: {[turn.name for turn in self.turns]}")
        return found[0]

    def call(self, stage: str) -> CapturedCall:
        """The one ended call of this stage.

        Raises:
            LookupError: there is none, or more than one.
        """
        found = [call for call in self.calls if call.stage == stage]
        if len(found) != 1:
            raise LookupError(f"{len(found)} calls have the stage {stage!r}; ended: {[one.name for one in self.calls]}")
        return found[0]

    def _inside(self, turn: ReadableSpan) -> Iterator[CapturedCall]:
        inside = {turn.context.span_id} if turn.context is not None else set()
        for span in sorted(self._spans.get_finished_spans(), key=lambda one: one.start_time or 0):
            if span.context is not None and span.parent is not None and span.parent.span_id in inside:
                inside.add(span.context.span_id)
                call = _call(span)
                if call is not None and not _is_turn(call):
                    yield call

    @property
    def events(self) -> tuple[CapturedEvent, ...]:
        """Log events in their order."""
        self.settle()
        return tuple(
            CapturedEvent(
                one.log_record.event_name or "",
                dict(one.log_record.attributes or {}),
                one.log_record.trace_id or 0,
                one.log_record.span_id or 0,
            )
            for one in self._logs.get_finished_logs()
        )

    @property
    def ledger(self) -> tuple[CapturedEvent, ...]:
        """The usage events: one per priced or unpriced call."""
        return tuple(event for event in self.events if event.name == e.STAGELIGHT_USAGE_RECORDED)

    @property
    def cost(self) -> Decimal:
        """Sum of the ledger in USD, exact."""
        amounts = (event.attributes.get(a.STAGELIGHT_COST_AMOUNT) for event in self.ledger)
        return sum((Decimal(repr(amount)) for amount in amounts if amount is not None), Decimal(0))

    def metric(self, name: str) -> tuple[Point, ...]:
        """The points of one metric now; empty when it has none."""
        return tuple(self.metrics().get(name, ()))

    def metrics(self) -> dict[str, list[Point]]:
        """The points of all metrics now."""
        self.settle()
        data = self._reader.get_metrics_data()
        found: dict[str, list[Point]] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found.setdefault(metric.name, []).extend(map(_point, metric.data.data_points))
        return found


def _call(span: ReadableSpan) -> CapturedCall | None:
    attributes = dict(span.attributes or {})
    return CapturedCall(span.name, attributes, span) if a.STAGELIGHT_STAGE in attributes else None


def _is_turn(call: CapturedCall) -> bool:
    return call.stage in {"turn", "job"}


def _point(point: Any) -> Point:
    attributes = dict(point.attributes or {})
    if hasattr(point, "value"):
        return Point(attributes, point.value)
    counts = tuple(getattr(point, "bucket_counts", ()))
    return Point(attributes, point.sum, point.count, counts, tuple(getattr(point, "explicit_bounds", ())))


@contextmanager
def capture(
    *, clock: Clock | None = None, ids: bool = False, sampler: Sampler | None = None, **settings: Any
) -> Iterator[Captured]:
    """Record what the block does to memory, whatever else is configured.

    Args:
        clock: a fake clock to use in the block; default the real one.
        ids: make trace and span ids 1, 2, 3 ... instead of random ones.
        sampler: sampler of the spans; default all.
        settings: keywords of ``configure``; the environment is not read.

    Raises:
        SettingsError: a setting is unknown or its value is not accepted.
    """
    chosen, _ = read({}, **settings)
    captured = Captured(chosen, clock, ids, sampler)
    with ExitStack() as stack:
        stack.enter_context(_runtime.replaced(captured.runtime))
        if clock is not None:
            stack.enter_context(_clock.use(clock.wall_ns, clock.seconds))
        if chosen.prices is not None:
            cost.configure(chosen.prices)
            stack.callback(cost.configure, None)
        yield captured
        captured.settle()
