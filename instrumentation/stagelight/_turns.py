"""Turns and jobs: the unit a user feels. A turn knows its stages and sums up what they took and cost."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar, cast

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from stagelight._attributes import cost_status, turn_attributes, turn_start_attributes
from stagelight._inbound import Inbound, current_inbound
from stagelight._lifecycle import CALL_KEY, SPAN_KEY, TURN_KEY, Scope, end_span
from stagelight._shares import Interval, self_times
from stagelight._streaming import Stream
from stagelight.conventions import attributes as a
from stagelight.facts import Cost, Identity, Outcome, Stage, TurnFacts, Unpriced, Usage

__all__ = ["RequestTurn", "Turn", "context_below", "current_turn", "settle_all", "turn_of_a_stage"]

Source = TypeVar("Source")

_FOLD_AT = 512
_MAX_INTERVALS = 4096
"""Calls of one turn whose time is attributed to their stage; a turn of more is a job, and the rest counts as other."""
_MAX_UNBILLED = 1000

_SERVER_ERROR = 500

_WORST = ("exact", "estimated", "partial", "unpriced")
"""Statuses from best to worst; a turn has the worst of its calls."""


class _Entry(NamedTuple):
    interval: Interval
    usage: Usage | None
    cost: Cost | None


class _Totals:
    """Running sums of a turn: entries are appended without a lock and folded into sums later."""

    __slots__ = ("_folding", "amount", "calls", "entries", "input_tokens", "intervals", "output_tokens", "status")

    def __init__(self) -> None:
        self._folding = threading.RLock()  # re-entrant: a signal handler may flush while its thread folds
        self.entries: deque[_Entry] = deque()
        self.intervals: list[Interval] = []
        self.calls = 0
        self.amount: Decimal | None = None
        self.status: str | None = None
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None

    def add(self, entry: _Entry) -> None:
        self.entries.append(entry)
        if len(self.entries) >= _FOLD_AT:
            self.fold()

    def fold(self) -> None:
        with self._folding:
            while self.entries:
                self._take(self.entries.popleft())

    def _take(self, entry: _Entry) -> None:
        self.calls += 1
        if len(self.intervals) < _MAX_INTERVALS:
            self.intervals.append(entry.interval)
        if entry.usage is not None and entry.interval.stage == "llm":
            self.input_tokens = _plus(self.input_tokens, entry.usage.input_tokens)
            self.output_tokens = _plus(self.output_tokens, entry.usage.output_tokens)
        cost = entry.cost
        if cost is None:
            return
        status = cost_status(cost)
        if self.status is None or _WORST.index(status) > _WORST.index(self.status):
            self.status = status
        if not isinstance(cost, Unpriced):
            self.amount = cost.amount if self.amount is None else self.amount + cost.amount
            if self.status == "unpriced":
                self.status = "partial"
        elif self.amount is not None:
            self.status = "partial"


def _plus(total: int | None, more: int | None) -> int | None:
    if more is None:
        return total
    return more if total is None else total + more


class Turn(Scope):
    """One request from question to answer, or one job; made by ``stagelight.turn`` and ``stagelight.job``."""

    __slots__ = (
        "_end_s",
        "_first_audio_s",
        "_first_token_s",
        "_held",
        "_totals",
        "_unbilled",
        "identity",
        "kind",
        "name",
        "outer",
    )

    def __init__(self, kind: Literal["turn", "job"], name: str, identity: Identity) -> None:
        super().__init__()
        self.kind = kind
        self.name = name
        self.identity = identity
        self.outer: Turn | None = None
        self._end_s: float | None = None
        self._held: dict[int, _Entry] = {}
        """Calls whose stream was open at the last look; after the end, those that it did not wait for."""
        self._totals = _Totals()
        self._first_token_s: float | None = None
        self._first_audio_s: float | None = None
        self._unbilled: deque[Callable[[Identity], None]] = deque()

    def _start(self) -> None:
        self.outer = current_turn()
        inbound = current_inbound()
        if self.outer is not None:
            self.identity = _inherit(self.identity, self.outer.identity)
        elif inbound is not None:
            self.identity = _inherit(self.identity, inbound.identity)
            inbound.name = None  # the application says itself what its turns are
        self._begin_turn(context_below(self.outer, otel_context.get_current()), inbound)

    def _begin_turn(self, before: Context, inbound: Inbound | None, since: tuple[int, float] | None = None) -> None:
        attributes = turn_start_attributes(self.kind, self.name, self.identity)
        if inbound is not None and inbound.request_id is not None:
            attributes[a.STAGELIGHT_REQUEST_ID] = inbound.request_id
        verb = "invoke_workflow" if self.kind == "turn" else "job"
        name = f"{verb} {self.name}".encode("utf-8", "replace").decode()
        self._begin(name, SpanKind.INTERNAL, attributes, TURN_KEY, before, since)
        self.context = otel_context.set_value(CALL_KEY, None, self.context)

    def stream(self, source: Source) -> Source:
        """A stand-in for ``source``; the turn stays open until it has ended."""
        self.start()
        return cast("Source", Stream(source, self)) if self.live else source

    def stream_began(self) -> None:
        super().stream_began()
        if self.outer is not None:
            self.outer.stream_began()

    def stream_ended(self, outcome: Outcome, kind: str | None, end_s: float, *, ends_scope: bool) -> None:
        super().stream_ended(outcome, kind, end_s, ends_scope=ends_scope)
        if self.outer is not None:
            self.outer.release(None, outcome, kind, end_s)

    def hold(self, call: int, interval: Interval, *, cost: Cost | None) -> None:
        """A stream of one of its calls began: the turn stays open until that has ended.

        Args:
            call: id of the call among those that are held.
            interval: what it is, and when it began.
            cost: what is known of its cost, should the turn end before it.
        """
        if self._end_s is None:
            self._held[call] = _Entry(interval, None, cost)
        super().stream_began()
        if self.outer is not None:
            self.outer.hold(call, interval, cost=cost)

    def release(self, call: int | None, outcome: Outcome, kind: str | None, end_s: float) -> None:
        """A stream of one of its calls ended; its outcome is the turn's where the stream was all that was left."""
        if call is not None and (self._end_s is None or end_s <= self._end_s):
            self._held.pop(call, None)
        left = self._block_used and not self._blocks
        outcome, kind = (outcome, kind) if left else ("completed", None)
        super().stream_ended(outcome, kind, end_s, ends_scope=False)
        if self.outer is not None:
            self.outer.release(call, outcome, kind, end_s)

    def chunk(self, item: Any) -> None:
        """A turn records no chunks of its own: its calls do."""

    def aside(self, work: Callable[[], None]) -> None:
        self._runtime.handover.put_aside(work)

    # what its calls report

    def first(self, stage: Stage, moment_s: float) -> None:
        """The first text or audio of a call; the turn keeps the earliest."""
        if stage == "llm" and self._first_token_s is None:
            self._first_token_s = moment_s - self.start_s
        elif stage == "tts" and self._first_audio_s is None:
            self._first_audio_s = moment_s - self.start_s
        if self.outer is not None and self.outer.live:
            self.outer.first(stage, moment_s)

    def add(self, stage: Stage, start_s: float, end_s: float, usage: Usage | None, cost: Cost | None) -> None:
        """A call of this turn ended; what one that ends after the turn used is in the trace only."""
        if self._end_s is None or end_s <= self._end_s:
            self._totals.add(_Entry(Interval(stage, start_s, end_s), usage, cost))
        if self.outer is not None:
            self.outer.add(stage, start_s, end_s, usage, cost)

    @property
    def cost_so_far(self) -> Decimal:
        """Sum of the known amounts of the calls that have ended, in USD."""
        self._totals.fold()
        return self._totals.amount or Decimal(0)

    def bill(self, bill: Callable[[Identity], None]) -> None:
        """Bill a call once it is known for whom: at the turn's end; a job's calls at once.

        Runs in the hand-over only.
        """
        if self.kind == "turn" and self.live and self.of_this_process:
            self._unbilled.append(bill)
            with _settling:
                _unsettled.add(self)
            if len(self._unbilled) <= _MAX_UNBILLED:
                return
            self.settle()
        else:
            bill(self.identity)

    def settle(self) -> None:
        """Bill everything that waited."""
        with _settling:
            _unsettled.discard(self)
        while self._unbilled:
            try:
                bill = self._unbilled.popleft()
            except IndexError:  # another thread took the last one
                return
            bill(self.identity)

    def __del__(self) -> None:
        """A turn that was started and dropped without an end: what its calls cost is billed all the same."""
        unbilled = getattr(self, "_unbilled", None)
        if unbilled and self.of_this_process:
            self.aside(partial(_bill_all, list(unbilled), self.identity))

    # end

    def _record(self, end_s: float, outcome: Outcome) -> None:
        self._end_s = end_s
        self._runtime.handover.put(lambda: self._hand_in(end_s, outcome))

    def _hand_in(self, end_s: float, outcome: Outcome) -> None:
        self.settle()
        facts, end_ns = self._facts(end_s, outcome), self.end_ns(end_s)
        end_span(self.span, end_ns, turn_attributes(facts, self.identity), facts.error_type)
        self._runtime.instruments.turn(facts, self.identity, self)

    def _facts(self, end_s: float, outcome: Outcome) -> TurnFacts:
        totals = self._totals
        for held in list(self._held.values()):  # what they used is not known yet, but they are calls
            totals.add(held._replace(interval=held.interval._replace(end=end_s)))
        totals.fold()
        return TurnFacts(
            kind=self.kind,
            name=self.name,
            outcome=outcome,
            start_ns=self.start_ns,
            duration_s=end_s - self.start_s,
            error_type=self._error_type,
            time_to_first_token_s=self._first_token_s,
            time_to_first_audio_s=self._first_audio_s,
            calls=totals.calls,
            input_tokens=totals.input_tokens,
            output_tokens=totals.output_tokens,
            cost=totals.amount,
            cost_status=totals.status,  # type: ignore[arg-type]  # one of _WORST
            self_time_s=self_times(totals.intervals, self.start_s, end_s) if self.kind == "turn" else {},
        )


class RequestTurn(Turn):
    """The turn of a request whose application opens none itself: it began with the request."""

    __slots__ = ("_inbound", "entry_span")

    def __init__(self, inbound: Inbound) -> None:
        name, route = inbound.name() if inbound.name is not None else ("request", None)
        super().__init__("turn", name, _inherit(inbound.identity, Identity(route=route)))
        self._inbound = inbound
        self.entry_span: Any = None

    def _start(self) -> None:
        inbound = self._inbound
        before = otel_context.get_current() if inbound.entry is None else inbound.entry
        self.entry_span = before.get(SPAN_KEY)
        self._begin_turn(before, inbound, (inbound.start_ns, inbound.start_s))

    def stands_for(self, span: Any) -> bool:
        """Whether a span is that of a server, in whose place the request's stages see their turn."""
        return span is self.entry_span or any(span is one for one in self._inbound.mounted)

    def answered(self, status: int | None, error: BaseException | None, *, abandoned: bool) -> None:
        """End with the request: how it went is what its client saw.

        Args:
            status: status code of the answer, if one was begun.
            error: what left the application.
            abandoned: the client went away before it had the whole answer; no error of ours.
        """
        if abandoned:
            self.end("client_abandoned")
        elif error is not None:
            self.fail(error)
        else:
            if status is not None and status >= _SERVER_ERROR:
                self._note("error", str(status))
            self.end()


def _bill_all(bills: list[Callable[[Identity], None]], identity: Identity) -> None:
    for bill in bills:
        bill(identity)


_unsettled: weakref.WeakSet[Turn] = weakref.WeakSet()
"""Turns with calls that wait to be billed."""
_settling = threading.RLock()


def settle_all() -> None:
    """Bill the calls of turns that still run, before the process ends or a flush promises that all is sent."""
    with _settling:
        turns = list(_unsettled)
    for turn in turns:
        turn.settle()


def _forget_the_parents() -> None:
    """What waited at a fork is the parent's to bill."""
    global _settling  # noqa: PLW0603 - a thread of the parent may have held it
    _settling = threading.RLock()
    for turn in list(_unsettled):
        turn._unbilled.clear()  # noqa: SLF001 - this module's own
    _unsettled.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_parents)


def _inherit(own: Identity, outer: Identity) -> Identity:
    return Identity(*(outer_value if value is None else value for value, outer_value in zip(own, outer, strict=True)))


def current_turn(context: Context | None = None) -> Turn | None:
    """The innermost turn or job that has not ended; else the request's own, if one was opened."""
    now = otel_context.get_current() if context is None else context
    stated = _stated_turn(now)
    if stated is not None:
        return stated
    inbound = current_inbound(now)
    own: Turn | None = None if inbound is None else inbound.turn
    return own if own is not None and own.live else None


def _stated_turn(now: Context) -> Turn | None:
    found: Any = now.get(TURN_KEY)
    while found is not None:
        reference, found = found
        turn: Turn | None = reference()
        if turn is not None and turn.live:
            return turn
    return None


def turn_of_a_stage(now: Context) -> Turn | None:
    """The turn that a stage belongs to: the current one, or the request's own, which its first stage opens."""
    stated = _stated_turn(now)
    inbound = None if stated is not None else current_inbound(now)
    return stated if inbound is None else cast("Turn | None", inbound.opened(_opened_turn))


def _opened_turn(inbound: Inbound) -> RequestTurn:
    return RequestTurn(inbound).start()


def context_below(turn: Turn | None, now: Context) -> Context:
    """The current context; directly below a server's span, with the span of the request's own turn instead."""
    if isinstance(turn, RequestTurn) and turn.stands_for(now.get(SPAN_KEY)):
        return Context({**now, SPAN_KEY: turn.span})
    return now
