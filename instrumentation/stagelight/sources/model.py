"""What a reader of stored telemetry gets: frozen rows and the one interface that gives them.

Pages, command line and reports know only this module. Trace and span ids are lower-case hex text, times are unix
nanoseconds (``int``), durations end in ``_ns`` (``int``) or ``_s`` (``float`` seconds), money is US dollars as
``Decimal``. ``None`` means "not known", never zero. Text comes from the monitored programs: treat it as hostile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from decimal import Decimal
from typing import Literal, Protocol, TypeAlias

__all__ = [
    "COST_DIMENSIONS",
    "LATENCY_DIMENSIONS",
    "SERIES",
    "UNKNOWN_KEY",
    "AttributeValue",
    "Bucket",
    "CostDimension",
    "CostRow",
    "Description",
    "ErrorRow",
    "LatencyDimension",
    "LatencyRow",
    "LedgerRow",
    "LogRow",
    "SeriesName",
    "Source",
    "SourceUnavailable",
    "SpanEvent",
    "SpanLink",
    "SpanRow",
    "StageBar",
    "TailRecord",
    "Totals",
    "Trace",
    "TraceRow",
    "TurnOrder",
    "TurnRow",
    "Window",
    "accept",
]

AttributeValue: TypeAlias = "str | bool | int | float | Sequence[AttributeValue] | Mapping[str, AttributeValue] | None"
"""A decoded OTLP attribute; bytes appear as base64 text."""

CostDimension = Literal["model", "stage", "day", "feature", "tenant", "user"]
COST_DIMENSIONS: tuple[CostDimension, ...] = ("model", "stage", "day", "feature", "tenant", "user")

LatencyDimension = Literal["stage", "model"]
LATENCY_DIMENSIONS: tuple[LatencyDimension, ...] = ("stage", "model")

SeriesName = Literal["spend", "latency", "turns", "errors", "first_token"]
"""``spend``: USD, keyed by model. ``latency``: p95 seconds of calls, keyed by stage (turns and jobs are not calls).
``turns``: count, key ``turns``. ``errors``: count, key ``errors``. ``first_token``: p95 seconds from the start of a
turn to its first token, key ``p95``."""
SERIES: tuple[SeriesName, ...] = ("spend", "latency", "turns", "errors", "first_token")

TurnOrder = Literal["newest", "slowest"]

UNKNOWN_KEY = "-"
"""Key of the rows whose dimension (model, feature, user ...) was not given."""


class SourceUnavailable(Exception):  # noqa: N818 (a state of the world, not a fault of the program)
    """There is nothing to read; the message says where it looked and what to do."""


@dataclass(frozen=True, slots=True)
class Window:
    """Half-open range of time: ``since_ns <= time < until_ns``."""

    since_ns: int
    until_ns: int


@dataclass(frozen=True, slots=True)
class StageBar:
    """One call of a turn, as a piece of the turn's bar."""

    stage: str
    start_ns: int
    end_ns: int
    share: float | None
    """Share (0..1) of the turn's time that belongs to this *stage*; the same in all bars of one stage."""


@dataclass(frozen=True, slots=True)
class TurnRow:
    """A turn that is not nested inside another turn."""

    trace_id: str
    span_id: str
    name: str
    service: str
    start_ns: int
    duration_ns: int
    bars: tuple[StageBar, ...]
    """The calls below the turn in order of their start; at most 200."""
    shares: Mapping[str, float]
    """Share (0..1) of the turn's time per stage, ``other`` included; they sum to 1. Empty when not known."""
    time_to_first_token_s: float | None
    time_to_first_audio_s: float | None
    cost: Decimal | None
    cost_status: str | None
    outcome: str | None
    error_type: str | None
    feature: str | None
    tenant: str | None
    user: str | None
    """Pseudonym of the user."""
    conversation: str | None
    calls: int | None
    input_tokens: int | None
    output_tokens: int | None


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened at one moment of a span."""

    time_ns: int
    name: str
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class SpanLink:
    """Another span that this one refers to."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class SpanRow:
    """A span with everything that was sent."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    service: str
    kind: str
    """``UNSPECIFIED``, ``INTERNAL``, ``SERVER``, ``CLIENT``, ``PRODUCER`` or ``CONSUMER``."""
    start_ns: int
    duration_ns: int
    status: str
    """``UNSET``, ``OK`` or ``ERROR``."""
    status_message: str | None
    stage: str | None
    attributes: Mapping[str, AttributeValue]
    events: tuple[SpanEvent, ...]
    links: tuple[SpanLink, ...]
    resource: Mapping[str, AttributeValue]
    scope: str
    """Name (and version) of the library that made the span."""


@dataclass(frozen=True, slots=True)
class LogRow:
    """A log record. Usage events are not here: they are the ledger that ``Source.cost`` sums."""

    id: int
    """Grows with arrival; give the largest one seen as ``after``."""
    time_ns: int
    severity: str
    """Short text: ``TRACE``, ``DEBUG``, ``INFO``, ``WARN``, ``ERROR``, ``FATAL``, or ``-``."""
    service: str
    body: str
    """Text as sent; structured bodies as JSON."""
    event_name: str | None
    trace_id: str | None
    span_id: str | None
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What one call cost, from its usage event."""

    span_id: str | None
    cost: Decimal | None
    """``None`` when the call has no price."""
    components: Mapping[str, Decimal]
    """Amount per component of the price; they sum to ``cost``. Empty when the event does not name them."""


@dataclass(frozen=True, slots=True)
class Trace:
    """All spans of one trace in order of their start (parents before children at equal times), and its log records."""

    trace_id: str
    spans: tuple[SpanRow, ...]
    logs: tuple[LogRow, ...]
    turns: tuple[TurnRow, ...]
    """Its top-level turns; empty for a plain call."""
    ledger: tuple[LedgerRow, ...] = ()
    """The usage events of its calls in order of time."""


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One trace in a list."""

    trace_id: str
    name: str
    """Name of the root span, or of the first span when the root is not here."""
    service: str
    start_ns: int
    duration_ns: int
    """From the first start to the last end."""
    spans: int
    errors: int
    """Failures, counted where they arose: an error that passes through five spans is one."""
    cost: Decimal | None
    """Sum over the ledger; ``None`` when no call of the trace has a price."""


@dataclass(frozen=True, slots=True)
class CostRow:
    """Spend of one key, summed exactly over the ledger."""

    key: str
    calls: int
    input_tokens: int
    """All input tokens, cached ones included."""
    output_tokens: int
    cached_tokens: int
    """Input tokens served from a cache."""
    characters: int
    audio_seconds: float
    cost: Decimal
    """Sum of the priced and partial calls; unpriced ones add nothing."""
    exact: int
    estimated: int
    partial: int
    unpriced: int
    """``exact + estimated + partial + unpriced == calls``."""
    reasons: Mapping[str, int]
    """Why the unpriced calls have no price, with counts."""
    missing: Mapping[str, int]
    """Components that the partial calls lack a price for, with counts."""
    turns: int
    """Turns to divide by for "per turn": those of the same day, feature, tenant or user, all of the window for model
    and stage. 0 when there was none or they are not known any more (spans are kept for a shorter time)."""


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """Durations of one key, failed calls included. Percentiles are exact, nearest rank."""

    key: str
    calls: int
    errors: int
    p50_s: float
    p95_s: float
    p99_s: float
    first_p50_s: float | None
    """To the first chunk of a stream; for the stage ``turn`` to the first token."""
    first_p95_s: float | None


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """Failures of one kind, counted where they arose: a caller that failed only because a callee did is left out."""

    stage: str
    """A stage, ``turn``, ``job``, or ``-`` for a failed root span without one."""
    provider: str | None
    model: str | None
    error_type: str | None
    outcome: str | None
    count: int
    last_ns: int
    trace_id: str
    """Trace of the last one."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """One step of a series. Keys without data are absent, except counts, which are 0."""

    start_ns: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Totals:
    """The figures of a window."""

    spend: Decimal
    calls: int
    """Calls in the ledger, priced or not."""
    unpriced: int
    partial: int
    turns: int
    failed_turns: int
    errors: int
    """Sum of ``ErrorRow.count`` of the same window."""
    first_token_p95_s: float | None


@dataclass(frozen=True, slots=True)
class Description:
    """Where a source reads and how much is there."""

    location: str
    spans: int | None
    logs: int | None
    usage: int | None
    points: int | None
    """``None`` where they are too many to be counted."""
    oldest_ns: int | None
    newest_ns: int | None
    size_bytes: int | None


TailRecord: TypeAlias = SpanRow | LogRow


class Source(Protocol):
    """Reads stored telemetry. Safe to use from several threads; an answer from a database is a consistent snapshot."""

    @property
    def location(self) -> str:
        """Where it reads, for people: a path or an address."""

    def turns(self, window: Window, limit: int = 50, *, order: TurnOrder = "newest") -> list[TurnRow]:
        """Top-level turns that started in the window, newest or slowest first."""

    def traces(self, window: Window, limit: int = 50) -> list[TraceRow]:
        """Traces whose root (or first known span) started in the window, newest first."""

    def trace(self, trace_id: str) -> Trace | None:
        """One trace by its 32 hex digits, or by a unique prefix of 6 or more; ``None`` when there is none.

        Raises:
            ValueError: not hex, shorter than 6 digits, or a prefix of several traces (the message lists some).
        """

    def cost(self, window: Window, by: CostDimension, *, tz: tzinfo = UTC) -> list[CostRow]:
        """Spend per key, most expensive first (days in order of time, as ``2026-11-21`` in ``tz``)."""

    def count_turns(self, window: Window) -> int | None:
        """Top-level turns that started in the window; ``None`` where the ledger is kept and turns are not any more."""

    def latency(self, window: Window, by: LatencyDimension) -> list[LatencyRow]:
        """Durations per stage or model of the calls that started in the window, slowest p95 first."""

    def errors(self, window: Window) -> list[ErrorRow]:
        """Failures of the window, most frequent first."""

    def series(self, name: SeriesName, window: Window, steps: int) -> list[Bucket]:
        """``steps`` equal buckets over the window."""

    def logs(
        self, window: Window, limit: int = 100, *, after: int | None = None, service: str | None = None
    ) -> list[LogRow]:
        """Log records of the window, newest first; only those that arrived after the id ``after`` if given."""

    def tail(self, after: str | None = None, limit: int = 500) -> tuple[list[TailRecord], str]:
        """Spans and log records that arrived after the cursor, in order of time, and the next cursor.

        ``None`` starts at the end: it gives no record and the cursor of now.

        Raises:
            ValueError: the cursor is not one that ``tail`` returned.
        """

    def totals(self, window: Window) -> Totals:
        """The figures of the window."""

    def describe(self) -> Description:
        """Where this source reads and how much is there."""

    def close(self) -> None:
        """Free what is held open; idempotent."""


def accept(name: str, value: str, accepted: tuple[str, ...]) -> None:
    """Refuse an argument that is none of the accepted words.

    Raises:
        ValueError: it is another one; the message names all.
    """
    if value not in accepted:
        raise ValueError(f"{name}={value!r}: accepted are {', '.join(accepted)}")
