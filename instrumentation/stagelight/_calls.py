"""Calls: one stage's work from start to end, and the facts given about it on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, get_current_span

from stagelight import _clock, cost
from stagelight._attributes import call_attributes, ledger_attributes, started
from stagelight._call_cost import NO_USAGE, price_of, stated_price
from stagelight._guard import guard, misuse
from stagelight._inbound import current_inbound
from stagelight._ledger import record_usage
from stagelight._lifecycle import CALL_KEY, Scope, end_span
from stagelight._operations import OPERATIONS, PRICED_STAGES, span_name
from stagelight._pace import Pace
from stagelight._shares import Interval
from stagelight._streaming import Stream
from stagelight._turns import Turn, context_below, turn_of_a_stage
from stagelight._upstream import offered, running, tell, told
from stagelight._validation import checked_price, checked_reasons, checked_retrieved, checked_text, checked_usage
from stagelight.facts import CallFacts, Cost, Identity, Outcome, Request, Response, Stage, Usage, merged

__all__ = ["Call", "current_call", "merged"]

_LENGTH_REASONS = frozenset({"length", "max_tokens"})
_NOBODY = Identity()

Source = TypeVar("Source")


def _has_content(item: Any) -> bool:
    return len(item) > 0 if isinstance(item, str | bytes | bytearray | memoryview) else item is not None


class Call(Scope):
    """One stage's call; made by the verbs (``stagelight.llm`` ...) and by the integrations.

    Use it as a block, or ``start`` it and ``end`` it yourself. No method raises, also after the end, except for misuse
    in strict mode.
    """

    __slots__ = (
        "_cost",
        "_has_children",
        "_in_flight_as",
        "_joined",
        "_offered",
        "_outer",
        "_pace",
        "_seen_content",
        "_turn",
        "attempts",
        "request",
        "response_facts",
        "stage",
        "stream_failure",
        "usage_facts",
        "watched",
    )

    def __init__(self, stage: Stage, request: Request) -> None:
        super().__init__()
        self.stage = stage
        self.request = request
        self.stream_failure = "provider_aborted" if OPERATIONS[stage].kind is SpanKind.CLIENT else "error"
        self.response_facts: Response | None = None
        self.usage_facts: Usage | None = None
        self._cost: Cost | None = None
        self._turn: Turn | None = None
        self._joined = False
        self._has_children = False
        self._offered: Any = None
        self._outer: Any = None
        self.attempts = 0
        """HTTP requests sent to the call's server."""
        self._pace: Pace | None = None
        self._seen_content = False
        self.watched = False
        """An integration counts the chunks where the client makes them; ``stream`` around them must not do it too."""

    def _start(self) -> None:
        stage, request = self.stage, self.request
        now = otel_context.get_current()
        if CALL_KEY in now and (around := current_call(now)) is not None:
            around.began_inside(stage)
        self._turn = turn = turn_of_a_stage(now)
        name, attributes = started(stage, request)
        before = context_below(turn, now)
        self._outer = running(stage, before)
        if self._outer is None:
            before, self._offered = offered(stage, before)
            self._begin(name, OPERATIONS[stage].kind, attributes, CALL_KEY, before)
        else:
            self._begin_inside(get_current_span(before), CALL_KEY, before)
        runtime = self._runtime
        self._in_flight_as = request.provider
        runtime.in_flight.change(stage, request.provider, 1)
        identity = self._identity()
        if runtime.configured and runtime.instruments.is_new(stage, request, identity):
            runtime.handover.put(partial(_first_call, runtime.instruments, stage, request, identity))

    def _identity(self) -> Identity:
        if self._turn is not None:
            return self._turn.identity
        inbound = current_inbound(self.context)
        return _NOBODY if inbound is None else inbound.identity

    # integrations

    def join(self, stage: Stage, request: Request) -> bool:
        """Become the one call of a client instrumented inside this block.

        Returns:
            False when the client's call is another one: another stage, another provider, or a second attempt.
        """
        mine = self.request
        other_provider = mine.provider is not None and request.provider not in {None, mine.provider}
        if not self.live or stage != self.stage or self._joined or other_provider:
            self._has_children = self._has_children or (self.live and stage == self.stage)
            return False
        self._joined = True
        self.request = merged(request, mine) or mine
        name = span_name(stage, self.request)
        if self._outer is None and name != span_name(stage, mine):
            self.span.update_name(name)
        return True

    def began_inside(self, stage: Stage) -> None:
        """Another call has begun inside this one, by whoever's hand."""

    def absorb(self, response: Response | None) -> None:
        """Take facts extracted from a response; the last value of each wins."""
        if response is None or not self.live:
            return
        self.response_facts = merged(self.response_facts, response)
        if response.usage is not None:
            self.usage_facts = merged(self.usage_facts, response.usage)

    def content(self) -> None:
        """The first non-empty text or audio has come."""
        if not self._seen_content:
            self._seen_content = True
            if self._turn is not None and self._turn.live:
                self._turn.first(self.stage, _clock.seconds() if self._pace is None else self._pace.last_s)

    def tick(self) -> None:
        """A chunk has come."""
        now, pace = _clock.seconds(), self._pace
        if pace is None:
            self._pace = Pace(now)
        elif (gaps := pace.tick(now)) and self._outer is None:
            record = self._runtime.instruments.gaps
            self._runtime.handover.put(partial(record, self.stage, self.request, gaps, self))

    @property
    def is_foreign(self) -> bool:
        """Inside a call of another instrumentation, which makes its span and its client metrics."""
        return self._outer is not None

    def last_item(self) -> None:
        """The provider has said that it is done: the other instrumentation may end its span with this very item."""
        if self.live:
            self._tell(self._facts(_clock.seconds(), "completed"))

    # streams

    def stream(self, source: Source) -> Source:
        """A stand-in for ``source`` that passes its items through and records first chunk, gaps and outcome.

        Args:
            source: an iterable or async iterable of text, bytes or anything else, or a context manager of one.

        Returns:
            An iterator of the same kind with the same items; ``source`` itself once the call has ended.
        """
        self.start()
        return cast("Source", Stream(source, self)) if self.live else source

    def chunk(self, item: Any) -> None:
        """A chunk came through ``stream``; empty text or bytes are a chunk but no first token."""
        with guard("chunk"):
            if self.watched or not self._open:
                return
            self.tick()
            if not self._seen_content and _has_content(item):
                self.content()

    def stream_began(self) -> None:
        super().stream_began()
        if self._turn is not None:
            so_far = NO_USAGE if self.stage in PRICED_STAGES else None
            self._turn.hold(id(self), Interval(self.stage, self.start_s, self.start_s), cost=so_far)

    def stream_ended(self, outcome: Outcome, kind: str | None, end_s: float, *, ends_scope: bool) -> None:
        super().stream_ended(outcome, kind, end_s, ends_scope=ends_scope)
        if self._turn is not None:
            self._turn.release(id(self), outcome, kind, end_s)

    def aside(self, work: Callable[[], None]) -> None:
        """Do ``work`` later: called inside a garbage collection."""
        self._runtime.handover.put_aside(work)

    # facts

    def usage(self, **quantities: float | Mapping[str, int] | bool | None) -> None:
        """Give billable quantities; the last value of each wins.

        Args:
            quantities: fields of ``facts.Usage``: ``input_tokens``, ``output_tokens``, ``cache_read_tokens``,
                ``cache_write_tokens`` (a number or a mapping per time-to-live), ``reasoning_tokens``,
                ``audio_input_tokens``, ``audio_output_tokens``, ``characters``, ``audio_seconds``, ... Counts are
                inclusive, integers >= 0; ``counted=True`` says that you counted them yourself: the cost is estimated.
        """
        with guard("usage"):
            given = checked_usage(quantities)
            if given and self.live:
                known = self.usage_facts
                self.usage_facts = Usage(**given) if known is None else known._replace(**given)

    def response(
        self,
        *,
        model: str | None = None,
        id: str | None = None,  # noqa: A002 - the conventions' word
        finish_reasons: Sequence[str] | None = None,
    ) -> None:
        """Give what came back: the model that answered, the provider's id, why it stopped."""
        with guard("response"):
            reasons = checked_reasons(finish_reasons)
            answered = checked_text("response", "model", model)
            self.absorb(Response(model=answered, id=checked_text("response", "id", id), finish_reasons=reasons))
            if reasons is not None and self.live and self.response_facts is not None:
                cut = not _LENGTH_REASONS.isdisjoint(reasons)
                self.response_facts = self.response_facts._replace(length_cut=cut)

    def results(
        self,
        *,
        scores: Sequence[float] | None = None,
        count: int | None = None,
        metric: str | None = None,
        higher_is_better: bool | None = None,
    ) -> None:
        """Give what a search found.

        Args:
            scores: score of each result, in order; their number is the count.
            count: number of results where there are no scores.
            metric: what the scores are: ``cosine``, ``dot``, ``euclid``, ``bm25`` ...
            higher_is_better: direction of the scores; default higher, ``False`` for distances.
        """
        with guard("results"):
            found = checked_retrieved(scores, count, metric, higher_is_better)
            if found is not None:
                self.absorb(Response(retrieved=found))

    def cost(self, amount: Any, currency: str = "USD") -> None:
        """Give the price the provider or gateway stated; it wins over any price data.

        Args:
            amount: a ``Decimal``, int, float or decimal text, >= 0.
            currency: ISO 4217; only ``USD`` can be summed with the rest, another needs a rate in the price overrides.
        """
        with guard("cost"):
            stated = checked_price(amount, currency)
            if stated is not None and self.live:
                self._cost = stated_price(stated)

    def record(self, response: Any) -> None:
        """Read a known SDK's response with the same extractor as its integration."""
        with guard("record"):
            from stagelight._readers import read

            facts = read(response)
            if facts is None:
                kind = f"{type(response).__module__}.{type(response).__qualname__}"
                misuse("unreadable", "record():", f"cannot read {kind}; accepted: responses of the supported clients")
            self.absorb(facts)

    # end

    def _price(self, outcome: Outcome) -> Cost | None:
        usage = self.usage_facts
        if self._cost is not None:
            return self._cost
        if self._has_children and not (self._joined and usage is not None):
            return None  # the cost is on the children; what a joined first attempt used is this call's own
        hosts = self._runtime.settings.provider_hosts
        price = price_of(usage, self.request, self.response_facts, at=self.start_ns / 1e9, hosts=hosts)
        billable = self.stage in PRICED_STAGES and (outcome != "error" or self._pace is not None)
        return NO_USAGE if price is None and billable else price

    def _record(self, end_s: float, outcome: Outcome) -> None:
        runtime = self._runtime
        if self._offered is not None:
            self._hear()
        if not runtime.configured and not self.span.is_recording():
            runtime.in_flight.change(self.stage, self._in_flight_as, -1)
            return
        facts = self._facts(end_s, outcome)
        if not facts.own:
            self._tell(facts)
        if self._turn is not None:
            self._turn.add(self.stage, self.start_s, end_s, facts.usage, facts.cost)
        # The owner of now: one who is named while this waits is not on the span of a call that was over before.
        runtime.handover.put(partial(self._hand_in, facts, self._identity(), self.end_ns(end_s)))

    def _facts(self, end_s: float, outcome: Outcome) -> CallFacts:
        response, pace = self.response_facts, self._pace
        if outcome == "completed" and response is not None and response.length_cut:
            outcome = "length_cut"
        return CallFacts(
            stage=self.stage,
            request=self.request,
            outcome=outcome,
            start_ns=self.start_ns,
            duration_s=end_s - self.start_s,
            response=response,
            usage=self.usage_facts,
            cost=self._price(outcome),
            error_type=self._error_type,
            first_chunk_s=None if pace is None else pace.first_s - self.start_s,
            chunks=pace.chunks if pace is not None else 0 if self.request.stream else None,
            gaps_s=() if pace is None else tuple(pace.gaps_s),
            longest_gap_s=None if pace is None else pace.longest_gap_s,
            attempts=self.attempts,
            own=self._outer is None,
        )

    def _tell(self, facts: CallFacts) -> None:
        with guard("upstream"):
            tell(self._outer, facts, self.span, self._attributes(facts, self._identity()))

    def _hear(self) -> None:
        """Take the facts of calls that another instrumentation left to this one."""
        with guard("upstream"):
            heard = told(self._offered)
            if heard is not None:
                self.request = merged(heard.request, self.request) or self.request
                self.response_facts = merged(heard.response, self.response_facts)
                self.usage_facts = merged(heard.response.usage, self.usage_facts)

    def _attributes(self, facts: CallFacts, identity: Identity) -> dict[str, Any]:
        return call_attributes(facts, identity, upstream_cost=self._runtime.settings.cost_names == "upstream")

    def _hand_in(self, facts: CallFacts, identity: Identity, end_ns: int) -> None:
        runtime, turn = self._runtime, self._turn
        runtime.in_flight.change(facts.stage, self._in_flight_as, -1)
        if facts.own:
            end_span(self.span, end_ns, self._attributes(facts, identity), facts.error_type)
        runtime.instruments.call(facts, self)
        if facts.own and facts.response is not None and facts.response.id is not None:
            runtime.recorded(facts.response.id, facts.request.provider)
        if facts.cost is None:
            return
        if turn is None:
            self._bill(facts, end_ns, identity)
        else:
            turn.bill(partial(self._bill, facts, end_ns))

    def _bill(self, facts: CallFacts, end_ns: int, identity: Identity) -> None:
        runtime = self._runtime
        runtime.instruments.billed(facts, identity)
        record_usage(runtime.logger, ledger_attributes(facts, identity), end_ns, self.context)


def _first_call(instruments: Any, stage: Stage, request: Request, identity: Identity) -> None:
    # The price data is read now, so that no later call waits for it.
    cost.price(Usage(input_tokens=1), provider=request.provider, request_model=request.model)
    instruments.announce(stage, request, identity)


def current_call(context: Context | None = None) -> Call | None:
    """The innermost call that has not ended; a turn begun inside a call hides it."""
    found = otel_context.get_value(CALL_KEY, context)
    call = found[0]() if isinstance(found, tuple) else None
    return call if isinstance(call, Call) and call.live else None
