"""One trace as text: what its turns took and cost, and a bar for every span."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation

from stagelight.cli.bars import span_bar
from stagelight.cli.output import BAD, DIM, STAGE_STYLES, STRONG, WARN, Cell, Column, Content, Screen
from stagelight.conventions import attributes as names
from stagelight.sources.format import UNKNOWN, clock, count, counted, duration, money, money_places, percent
from stagelight.sources.model import LogRow, SpanRow, Trace, TurnRow

__all__ = ["draw"]

_DEEPEST = 12
_LOG_LINES = 20
_FIRST_TOKEN, _FIRST_AUDIO, _FIRST_CHUNK = "T", "A", "|"
_MARKS = {
    _FIRST_TOKEN: "first token of the turn",
    _FIRST_AUDIO: "first audio of the turn",
    _FIRST_CHUNK: "first chunk of a stream",
}


def draw(screen: Screen, trace: Trace, *, utc: bool, limit: int) -> None:
    """Print a trace: its turns in words, at most ``limit`` spans as a waterfall, its log lines."""
    screen.line(Cell("trace ", DIM), Cell(trace.trace_id, STRONG))
    for turn in trace.turns:
        _describe(screen, turn, utc=utc)
    screen.line("")
    _waterfall(screen, trace, limit)
    _log_lines(screen, trace.logs, utc=utc)


def _describe(screen: Screen, turn: TurnRow, *, utc: bool) -> None:
    outcome = turn.outcome or UNKNOWN
    ended = Cell(f"{outcome}: {turn.error_type}", BAD) if turn.error_type else Cell(outcome)
    screen.line(Cell(turn.name, STRONG), "  ", ended, f"  {clock(turn.start_ns, utc)}  {turn.service}")
    figures = [f"took {duration(turn.duration_ns / 1e9)}"]
    if turn.time_to_first_token_s is not None:
        figures.append(f"first token after {duration(turn.time_to_first_token_s)}")
    if turn.time_to_first_audio_s is not None:
        figures.append(f"first audio after {duration(turn.time_to_first_audio_s)}")
    if turn.calls is not None:
        figures.append(counted(turn.calls, "call"))
    amount = f"{money(turn.cost)} USD" if turn.cost is not None else "not known"
    screen.line("  ", ", ".join(figures), ", cost ", amount, Cell(f" ({turn.cost_status or 'no status'})", DIM))
    if turn.shares:
        shares = sorted(turn.shares.items(), key=lambda item: (item[0] == "other", -item[1]))
        screen.line("  time: ", ", ".join(f"{stage} {percent(share)}" for stage, share in shares))
    known = {
        "feature": turn.feature, "tenant": turn.tenant, "user": turn.user, "conversation": turn.conversation
    }  # fmt: skip
    if any(known.values()):
        screen.line("  ", ", ".join(f"{name} {value}" for name, value in known.items() if value))


def _waterfall(screen: Screen, trace: Trace, limit: int) -> None:
    origin = min(span.start_ns for span in trace.spans)
    whole = max(span.start_ns + span.duration_ns for span in trace.spans) - origin
    width = min(max(screen.width - 84, 20), 60) if screen.is_terminal else 40
    places = money_places(_amount(span) for span in trace.spans)
    columns = [
        Column("stage", spare=1),
        Column("span", wrap=24),
        Column("start", right=True, spare=2),
        Column("took", right=True),
        Column("cost USD", right=True),
        Column(f"0 to {duration(whole / 1e9)}"),
        Column("facts", wrap=24, spare=3),
    ]
    lines: list[list[Content]] = []
    seen: set[str] = set()
    for depth, span in _tree(trace)[:limit]:
        marks = _marks(span, origin)
        seen.update(marks)
        bar = span_bar(
            span.start_ns - origin,
            span.start_ns - origin + span.duration_ns,
            whole,
            width=width,
            marks=marks,
            failed=span.status == "ERROR",
            style=STAGE_STYLES.get(span.stage or "", ""),
            fill="█" if screen.is_terminal else "=",
        )
        lines.append(
            [
                Cell(span.stage or UNKNOWN, STAGE_STYLES.get(span.stage or "", "")),
                "  " * min(depth, _DEEPEST) + span.name,
                duration((span.start_ns - origin) / 1e9),
                duration(span.duration_ns / 1e9),
                _cost(span, places),
                bar,
                _facts(span),
            ]
        )
    screen.table(columns, lines)
    if seen:
        screen.line(Cell(", ".join(f"{mark} {_MARKS[mark]}" for mark in _MARKS if mark in seen), DIM))
    if len(trace.spans) > limit:
        screen.line(Cell(f"{count(len(trace.spans) - limit)} more spans; --limit or --json shows them.", DIM))


def _tree(trace: Trace) -> list[tuple[int, SpanRow]]:
    """Spans with their depth, children below their parent; whatever hangs nowhere starts at the left."""
    known = {span.span_id for span in trace.spans}
    children: dict[str | None, list[SpanRow]] = {}
    for span in trace.spans:
        parent = span.parent_id if span.parent_id in known else None
        children.setdefault(parent, []).append(span)
    ordered: list[tuple[int, SpanRow]] = []
    placed: set[str] = set()

    def place(root: SpanRow) -> None:
        waiting = [(0, root)]
        while waiting:
            depth, span = waiting.pop()
            if span.span_id in placed:
                continue
            placed.add(span.span_id)
            ordered.append((depth, span))
            waiting.extend((depth + 1, child) for child in reversed(children.get(span.span_id, ())))

    for root in children.get(None, ()):
        place(root)
    for span in trace.spans:  # spans that name each other as parents
        place(span)
    return ordered


def _marks(span: SpanRow, origin: int) -> dict[str, int]:
    moments = {
        _FIRST_TOKEN: _number(span, names.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN),
        _FIRST_AUDIO: _number(span, names.STAGELIGHT_TURN_TIME_TO_FIRST_AUDIO),
        _FIRST_CHUNK: _number(span, names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK),
    }
    start = span.start_ns - origin
    return {mark: start + int(seconds * 1e9) for mark, seconds in moments.items() if seconds is not None}


def _amount(span: SpanRow) -> Decimal | None:
    value = span.attributes.get(names.STAGELIGHT_COST_AMOUNT, span.attributes.get(names.STAGELIGHT_TURN_COST))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        amount = Decimal(repr(value))
    except InvalidOperation:  # an integer too long for a decimal
        return None
    return amount if amount.is_finite() else None


def _cost(span: SpanRow, places: int) -> Cell:
    status = span.attributes.get(names.STAGELIGHT_COST_STATUS, span.attributes.get(names.STAGELIGHT_TURN_COST_STATUS))
    amount = _amount(span)
    if amount is None:
        return Cell(str(status) if status else UNKNOWN, WARN if status else "")
    return Cell(money(amount, places), "" if status == "exact" else WARN)


def _number(span: SpanRow, name: str) -> float | None:
    value = span.attributes.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9 else None


def _facts(span: SpanRow) -> Cell:
    """What came of a span, in a few words; the error first."""
    error = span.attributes.get(names.ERROR_TYPE)
    words = [str(error)] if error else []
    words += _counts(span.attributes)
    status = span.attributes.get(names.STAGELIGHT_COST_STATUS)
    reason = span.attributes.get(names.STAGELIGHT_COST_REASON)
    if status not in {None, "exact"}:
        words.append(f"{status} ({reason})" if reason else str(status))
    outcome = span.attributes.get(names.STAGELIGHT_OUTCOME)
    if outcome not in {None, "completed", "error"}:
        words.append(str(outcome))
    return Cell(", ".join(words), BAD if error else "")


_COUNTED = (
    (names.GEN_AI_USAGE_INPUT_TOKENS, "{} tokens in"),
    (names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, "{} cached"),
    (names.GEN_AI_USAGE_OUTPUT_TOKENS, "{} out"),
    (names.STAGELIGHT_RETRIEVAL_COUNT, "{} results"),
    (names.STAGELIGHT_TTS_CHARACTERS, "{} characters"),
)
_MEASURED = (
    (names.STAGELIGHT_RETRIEVAL_TOP_SCORE, "best {:.3g}"),
    (names.STAGELIGHT_TTS_AUDIO_SECONDS, "{:.3g} s of audio"),
    (names.STAGELIGHT_STT_AUDIO_SECONDS, "{:.3g} s of audio"),
)


def _counts(attributes: Mapping[str, object]) -> Iterator[str]:
    for name, form in _COUNTED:
        value = attributes.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            yield form.format(count(value))
    for name, form in _MEASURED:
        value = attributes.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield form.format(value)


def _log_lines(screen: Screen, logs: tuple[LogRow, ...], *, utc: bool) -> None:
    if not logs:
        return
    screen.line("")
    screen.line(Cell("log lines", STRONG))
    for row in logs[:_LOG_LINES]:
        style = BAD if row.severity in {"ERROR", "FATAL"} else ""
        screen.line(Cell(clock(row.time_ns, utc), DIM), "  ", Cell(row.severity.ljust(5), style), "  ", row.body)
    if len(logs) > _LOG_LINES:
        screen.line(Cell(f"{count(len(logs) - _LOG_LINES)} more; --json shows them.", DIM))
