"""What figures need of spans: read from Tempo by search, without the rest of the trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from stagelight.conventions import attributes as names
from stagelight.sources._failures import Origin, without_caused
from stagelight.sources._tempo import Tempo
from stagelight.sources.model import AttributeValue, SpanRow, Window

__all__ = [
    "MOST_SPANS",
    "TOP_TURN",
    "Call",
    "calls_of",
    "count_top_turns",
    "failures",
    "failures_of_trace",
    "staged",
    "top_turns",
]

MOST_SPANS: Final = 20_000
"""Spans that are read one by one for one answer."""

_PARENT, _STATUS = "span:parentID", "status"
_STAGE: Final = f"span.{names.STAGELIGHT_STAGE}"
_ERROR_TYPE: Final = f"span.{names.ERROR_TYPE}"
_SELECTED: Final = ", ".join(
    (
        _PARENT,
        _STATUS,
        *(
            f"span.{name}"
            for name in (
                names.STAGELIGHT_STAGE,
                names.STAGELIGHT_OUTCOME,
                names.GEN_AI_PROVIDER_NAME,
                names.GEN_AI_REQUEST_MODEL,
                names.DB_SYSTEM_NAME,
                names.ERROR_TYPE,
                names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK,
                names.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN,
            )
        ),
    )
)
_TURN: Final = f'{_STAGE} = "turn"'
TOP_TURN: Final = f"{{ {_TURN} }} !>> {{ {_TURN} }}"
"""TraceQL for turns that are not nested inside another turn."""

_TRACES_AT_ONCE: Final = 50


class Call(NamedTuple):
    """A span with a stage, or one that failed."""

    trace_id: str
    span_id: str
    parent_id: str | None
    start_ns: int
    duration_ns: int
    stage: str | None
    provider: str | None
    model: str | None
    error_type: str | None
    outcome: str | None
    failed: bool
    first_s: float | None
    """To the first token of a turn, or to the first chunk of another stream."""


def staged(tempo: Tempo, window: Window) -> list[Call]:
    """Spans with a stage that started in the window, in order of time.

    Raises:
        TooManySpans: there are more than :data:`MOST_SPANS`.
    """
    return _calls(tempo, f"{{ {_STAGE} != nil }}", window, lambda call: call.stage is not None)


def top_turns(tempo: Tempo, window: Window) -> list[Call]:
    """Top-level turns that started in the window, in order of time.

    Raises:
        TooManySpans: there are more than :data:`MOST_SPANS`.
    """
    return _calls(tempo, TOP_TURN, window, lambda call: call.stage == "turn")


def count_top_turns(tempo: Tempo, window: Window, by: str | None) -> dict[str | None, int]:
    """How many top-level turns the window has, per value of an attribute, or under None all."""
    return tempo.count(TOP_TURN, window, by)


def failures(tempo: Tempo, window: Window) -> list[Origin]:
    """Failures of the window where they arose, in order of time.

    Raises:
        TooManySpans: there are more than :data:`MOST_SPANS`.
    """
    query = f"{{ {_STATUS} = error || {_ERROR_TYPE} != nil }}"
    failed = _calls(tempo, query, window, lambda call: call.failed)
    fine = _traces_with_a_turn_that_worked(tempo, window, sorted({call.trace_id for call in failed if not call.stage}))
    return without_caused(_origin(call) for call in failed if call.stage or call.trace_id not in fine)


def failures_of_trace(spans: Sequence[SpanRow]) -> list[Origin]:
    """Failures of one trace by the same rules."""
    calls = calls_of(spans)
    is_fine = any(call.stage == "turn" and not call.failed for call in calls)
    return without_caused(_origin(call) for call in calls if call.failed and (call.stage or not is_fine))


def calls_of(spans: Sequence[SpanRow]) -> list[Call]:
    """The spans of a trace, in their order."""
    return [
        _call(
            span.trace_id,
            {
                **span.attributes,
                _PARENT: span.parent_id,
                _STATUS: span.status.lower(),
                "span_id": span.span_id,
                "start_ns": span.start_ns,
                "duration_ns": span.duration_ns,
            },
        )
        for span in spans
    ]


def _calls(tempo: Tempo, query: str, window: Window, matches: Callable[[Call], bool]) -> list[Call]:
    found = (
        call
        for call in _found(tempo, query, window)
        if window.since_ns <= call.start_ns < window.until_ns and matches(call)
    )
    return sorted({(call.trace_id, call.span_id): call for call in found}.values(), key=lambda call: call.start_ns)


def _found(tempo: Tempo, query: str, window: Window) -> Iterator[Call]:
    for trace in tempo.traces(f"{query} | select({_SELECTED})", window, most=MOST_SPANS):
        if trace.is_whole:
            yield from (_call(trace.trace_id, span) for span in trace.spans)
        else:
            yield from calls_of(tempo.trace(trace.trace_id))


def _traces_with_a_turn_that_worked(tempo: Tempo, window: Window, trace_ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for at in range(0, len(trace_ids), _TRACES_AT_ONCE):
        chosen = "|".join(trace_ids[at : at + _TRACES_AT_ONCE])
        query = f'{{ trace:id =~ "{chosen}" && {_TURN} }}'
        # Their turns may have begun before the window.
        wider = Window(window.since_ns - 3600 * 1_000_000_000, window.until_ns)
        found |= {call.trace_id for call in _found(tempo, query, wider) if call.stage == "turn" and not call.failed}
    return found


def _call(trace_id: str, span: Mapping[str, AttributeValue]) -> Call:
    error_type = _text(span, names.ERROR_TYPE)
    parent_id = _text(span, _PARENT)
    first_s = span.get(names.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN, span.get(names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK))
    return Call(
        trace_id=trace_id,
        span_id=str(span["span_id"]),
        parent_id=parent_id.rjust(16, "0") if parent_id and parent_id.strip("0") else None,
        start_ns=_number(span["start_ns"]),
        duration_ns=_number(span["duration_ns"]),
        stage=_text(span, names.STAGELIGHT_STAGE),
        provider=_text(span, names.GEN_AI_PROVIDER_NAME) or _text(span, names.DB_SYSTEM_NAME),
        model=_text(span, names.GEN_AI_REQUEST_MODEL),
        error_type=error_type,
        outcome=_text(span, names.STAGELIGHT_OUTCOME),
        failed=span.get(_STATUS) == "error" or error_type is not None,
        first_s=first_s if isinstance(first_s, float) else None,
    )


def _origin(call: Call) -> Origin:
    return Origin(
        trace_id=bytes.fromhex(call.trace_id),
        span_id=bytes.fromhex(call.span_id),
        parent_id=bytes.fromhex(call.parent_id) if call.parent_id else None,
        start_ns=call.start_ns,
        stage=call.stage,
        provider=call.provider,
        model=call.model,
        error_type=call.error_type,
        outcome=call.outcome,
    )


def _number(value: AttributeValue) -> int:
    return value if isinstance(value, int) else 0


def _text(span: Mapping[str, AttributeValue], key: str) -> str | None:
    value = span.get(key)
    return value if isinstance(value, str) else None
