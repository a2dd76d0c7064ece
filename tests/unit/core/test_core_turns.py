"""A turn knows its stages: shares and self times, first token and audio, cost, tokens, and whose it is."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
import stagelight
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.testing import Captured, Clock, capture

KEY = "a key of the tests that is long enough"
LLM = {"provider": "acme", "model": "acme-1"}


def _parts(captured: Captured, template: str, name: str = "answer") -> dict[str, float]:
    attributes = captured.turn(name).attributes
    return {
        key.removeprefix(f"{template}."): value for key, value in attributes.items() if key.startswith(f"{template}.")
    }


Interval = tuple[str, float, float]


def _play(intervals: list[Interval], duration: float) -> Captured:
    """A turn of ``duration`` seconds with one call per interval, by a clock that is moved from event to event."""
    clock = Clock()
    moments = sorted({0.0, duration, *(moment for _, start, end in intervals for moment in (start, end))})
    running: dict[int, Any] = {}
    with capture(clock=clock) as captured, stagelight.turn("answer"):
        for moment in moments:
            clock.advance(moment - clock.seconds())
            for number, (_, start, end) in enumerate(intervals):
                if end == moment and number in running:
                    running.pop(number).end()
                if start == moment < end:
                    running[number] = _start(intervals[number][0])
    return captured


def _start(stage: str) -> Any:
    verb = getattr(stagelight, stage)
    return verb.start(**LLM) if stage in {"llm", "embedding", "tts"} else verb.start("x")


HAND_COMPUTED: dict[str, tuple[list[Interval], float, dict[str, float]]] = {
    "nothing": ([], 4.0, {"other": 4.0}),
    "one after another": (
        [("embedding", 0, 1), ("llm", 1, 3), ("tts", 3, 4)], 4.0, {"embedding": 1, "llm": 2, "tts": 1},
    ),
    "gaps are other": ([("llm", 1, 2), ("tts", 3, 4)], 5.0, {"other": 3, "llm": 1, "tts": 1}),
    "the last-ending one has the overlap": ([("llm", 0, 3), ("tts", 2, 4)], 4.0, {"llm": 2, "tts": 2}),
    "an inner one has nothing": ([("llm", 0, 4), ("parse", 1, 2)], 4.0, {"llm": 4}),
    "parallel ones of one stage are not counted twice": (
        [("parse", 0, 2), ("parse", 0, 3)], 4.0, {"parse": 3, "other": 1},
    ),
    "the earlier part of a covered one counts": (
        [("parse", 0, 2), ("llm", 1, 3), ("tts", 2.5, 4)], 4.0, {"parse": 1, "llm": 1.5, "tts": 1.5},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("intervals", "duration", "expected"), HAND_COMPUTED.values(), ids=HAND_COMPUTED)
def test_each_instant_belongs_to_the_last_ending_stage(
    intervals: list[Interval], duration: float, expected: dict[str, float]
) -> None:
    """Self times by hand, from the definition; shares are the same divided by the duration."""
    captured = _play(intervals, duration)

    assert _parts(captured, a.STAGELIGHT_TURN_SELF_TIME) == pytest.approx(expected)
    assert _parts(captured, a.STAGELIGHT_TURN_SHARE) == pytest.approx(
        {stage: seconds / duration for stage, seconds in expected.items()}
    )


def _by_definition(intervals: list[Interval], duration: float, steps: int) -> dict[str, float]:
    """Self times of the definition itself, instant by instant, on a grid the moments lie on."""
    times: dict[str, float] = {}
    step = duration / steps
    for number in range(steps):
        middle = (number + 0.5) * step
        active = [(end, stage) for stage, start, end in intervals if start < middle < end]
        latest = max((end for end, _ in active), default=0.0)
        stages = {stage for end, stage in active if end == latest} or {"other"}
        if len(stages) > 1:
            return {}  # two stages end in the same instant: either may have it
        (stage,) = stages
        times[stage] = times.get(stage, 0.0) + step
    return times


@settings(deadline=None, max_examples=120)
@given(
    st.lists(
        st.tuples(st.sampled_from(["llm", "tts", "parse", "store"]), st.integers(0, 16), st.integers(0, 16)), max_size=6
    )
)
def test_shares_sum_to_one(given_intervals: list[tuple[str, int, int]]) -> None:
    """Whatever overlaps: shares sum to 1, self times to the duration, and both follow the definition."""
    intervals = [(stage, min(one, two), max(one, two)) for stage, one, two in given_intervals if one != two]
    captured = _play([(stage, float(start), float(end)) for stage, start, end in intervals], 16.0)
    times = _parts(captured, a.STAGELIGHT_TURN_SELF_TIME)
    expected = _by_definition([(stage, float(start), float(end)) for stage, start, end in intervals], 16.0, 16)

    assert sum(times.values()) == pytest.approx(16.0)
    assert sum(_parts(captured, a.STAGELIGHT_TURN_SHARE).values()) == pytest.approx(1.0)
    assert times == pytest.approx(expected or times)


def test_a_turn_is_measured() -> None:
    """Duration, first token, first audio, cost, shares and self times are histograms of the turn."""
    clock = Clock()
    with capture(clock=clock) as captured:
        with stagelight.turn("answer", feature="help"):
            clock.advance(0.5)
            with stagelight.llm(**LLM) as call:
                clock.advance(0.5)
                list(call.stream(["text"]))
                call.cost("0.25")
            with stagelight.tts(**LLM) as call:
                clock.advance(1.0)
                list(call.stream([b"audio"]))
                call.cost("0.5")
        found = {
            name: [(point.attributes.get(a.STAGELIGHT_STAGE), point.value) for point in captured.metric(name)]
            for name in (
                m.GEN_AI_INVOKE_WORKFLOW_DURATION,
                m.STAGELIGHT_TURN_DURATION,
                m.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN,
                m.STAGELIGHT_TURN_TIME_TO_FIRST_AUDIO,
                m.STAGELIGHT_TURN_COST,
                m.STAGELIGHT_TURN_STAGE_SELF_TIME,
            )
        }

    assert found == {
        m.GEN_AI_INVOKE_WORKFLOW_DURATION: [(None, 2.0)],
        m.STAGELIGHT_TURN_DURATION: [(None, 2.0)],
        m.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN: [(None, 1.0)],
        m.STAGELIGHT_TURN_TIME_TO_FIRST_AUDIO: [(None, 2.0)],
        m.STAGELIGHT_TURN_COST: [(None, 0.75)],
        m.STAGELIGHT_TURN_STAGE_SELF_TIME: [("tts", 1.0), ("llm", 0.5), ("other", 0.5)],
    }


def test_sums_are_exact() -> None:
    """Cost is summed in Decimal, tokens over the language models, calls over everything, nested turns included."""
    with capture() as captured:
        with stagelight.turn("answer"):
            for _ in range(10):
                with stagelight.llm(**LLM) as call:
                    call.usage(input_tokens=3, output_tokens=1)
                    call.cost("0.1")
            with stagelight.turn("sub"), stagelight.llm(**LLM) as call:
                call.usage(input_tokens=100)
                call.cost("0.0000001")
            with stagelight.embedding(**LLM) as call:
                call.usage(input_tokens=1000)
                call.cost("0.2")
        outer, inner = captured.turn("answer"), captured.turn("sub")

    assert (outer.cost, inner.cost) == (Decimal("1.2000001"), Decimal("0.0000001"))
    assert [
        (turn.attributes[a.STAGELIGHT_TURN_CALLS], turn.attributes[a.STAGELIGHT_TURN_INPUT_TOKENS])
        for turn in (outer, inner)
    ] == [(12, 130), (1, 100)]
    assert outer.attributes[a.STAGELIGHT_TURN_OUTPUT_TOKENS] == 10
    assert captured.cost == Decimal("1.2000001")
    assert inner.span.parent is not None
    assert inner.span.parent.span_id == outer.span.context.span_id  # type: ignore[union-attr]  # ended spans have one


STATUSES = {
    "exact": (["priced", "priced"], "exact", Decimal("0.2")),
    "estimated": (["priced", "counted"], "estimated", None),
    "partial": (["priced", "unpriced"], "partial", Decimal("0.1")),
    "partial the other way": (["unpriced", "priced"], "partial", Decimal("0.1")),
    "unpriced": (["unpriced", "unpriced"], "unpriced", None),
    "none": (["free"], None, None),
}


@pytest.mark.parametrize(("calls", "status", "amount"), STATUSES.values(), ids=STATUSES)
def test_a_turn_has_the_worst_status(calls: list[str], status: str | None, amount: Decimal | None) -> None:
    """A sum with something missing is partial, never an amount that looks complete."""
    with capture() as captured:
        with stagelight.turn("answer"):
            for kind in calls:
                if kind == "free":
                    with stagelight.tool("x"):
                        continue
                with stagelight.llm(provider="openai", model="gpt-4o-mini" if kind != "unpriced" else "nobody") as call:
                    call.usage(input_tokens=10, output_tokens=1, counted=kind == "counted")
                    if kind == "priced":
                        call.cost("0.1")
        turn = captured.turn("answer")

    assert turn.cost_status == status
    assert amount is None or turn.cost == amount
    assert (turn.cost is None) == (status in {"unpriced", None})


def test_the_cost_so_far_is_known_inside() -> None:
    """A budget can be checked between calls."""
    with capture(), stagelight.turn("answer") as turn:
        before = turn.cost_so_far
        with stagelight.llm(**LLM) as call:
            call.cost("0.125")

        assert (before, turn.cost_so_far) == (Decimal(0), Decimal("0.125"))


def test_a_stage_after_the_end_joins_the_trace_only() -> None:
    """What starts or ends after its turn is in the trace, not in the turn's figures."""
    clock = Clock()
    with capture(clock=clock) as captured:
        turn = stagelight.turn("answer", tenant="acme")
        with turn:
            late = stagelight.llm.start(**LLM)
            clock.advance(1.0)
        clock.advance(1.0)
        late.cost("1.0")
        late.end()
        with turn.active(), stagelight.llm(**LLM) as after:
            after.cost("1.0")
            clock.advance(1.0)
        found = captured.turn("answer")

        assert {span.context.trace_id for span in captured.spans if span.context} == {found.span.context.trace_id}  # type: ignore[union-attr]
        assert (found.duration_s, found.cost, found.attributes[a.STAGELIGHT_TURN_CALLS]) == (1.0, None, 0)
        assert [event.attributes.get(a.STAGELIGHT_TENANT) for event in captured.ledger] == ["acme", None]


def test_a_nested_turn_reports_to_the_outer() -> None:
    """The first token of an inner turn is the outer's too, counted from the outer's start."""
    clock = Clock()
    with capture(clock=clock) as captured:
        with stagelight.turn("answer", feature="help", tenant="acme"):
            clock.advance(1.0)
            with stagelight.turn("sub", feature="own"), stagelight.llm(**LLM) as call:
                clock.advance(1.0)
                list(call.stream(["x"]))

        assert captured.turn("sub").time_to_first_token_s == 1.0
        assert captured.turn("answer").time_to_first_token_s == 2.0
        assert captured.turn("sub").attributes[a.STAGELIGHT_FEATURE] == "own"
        assert captured.turn("sub").attributes[a.STAGELIGHT_TENANT] == "acme"


# where the work runs


def _in_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)


def _in_pool(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(2) as pool:
        futures: list[Future[None]] = [pool.submit(work)]
        for future in futures:
            future.result(60)


def _in_timer(work: Callable[[], None]) -> None:
    timer = threading.Timer(0.0, work)
    timer.start()
    timer.join(60)


async def _in_task(work: Callable[[], None]) -> None:
    async def task() -> None:
        work()

    await asyncio.create_task(task())


async def _to_thread(work: Callable[[], None]) -> None:
    await asyncio.to_thread(work)


async def _in_executor(work: Callable[[], None]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, work)


@pytest.fixture
def threads_carry_context() -> Iterator[None]:
    """What ``configure`` does for threads and executors."""
    instrumentor = ThreadingInstrumentor()
    was = instrumentor.is_instrumented_by_opentelemetry
    if not was:
        instrumentor.instrument()
    yield
    if not was:
        instrumentor.uninstrument()


def _work(name: str) -> Callable[[], None]:
    def work() -> None:
        with stagelight.tool(name), stagelight.llm(provider=name, model="m") as call:
            call.cost("0.1")

    return work


@pytest.mark.usefixtures("threads_carry_context")
@pytest.mark.parametrize("place", [_in_thread, _in_pool, _in_timer, _in_task, _to_thread, _in_executor])
def test_two_turns_at_once_never_mix(place: Any) -> None:
    """Two concurrent turns that hand work to threads, pools or tasks each get their own calls and cost."""

    def turns(name: str, meeting: threading.Barrier) -> None:
        with stagelight.turn(name):
            meeting.wait(60)
            for _ in range(3):
                place(_work(name))
            meeting.wait(60)

    async def aturn(name: str) -> None:
        async with stagelight.turn(name):
            for _ in range(3):
                await place(_work(name))
                await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(aturn("one"), aturn("two"))

    with capture() as captured:
        if asyncio.iscoroutinefunction(place):
            asyncio.run(both())
        else:
            meeting = threading.Barrier(2)
            threads = [threading.Thread(target=turns, args=(name, meeting)) for name in ("one", "two")]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
        found = {name: captured.turn(name) for name in ("one", "two")}

    assert {name: turn.cost for name, turn in found.items()} == {"one": Decimal("0.3"), "two": Decimal("0.3")}
    assert {
        name: sorted({str(call.attributes.get(a.GEN_AI_PROVIDER_NAME, call.name)) for call in turn.calls})
        for name, turn in found.items()
    } == {"one": ["execute_tool one", "one"], "two": ["execute_tool two", "two"]}


def test_many_calls_of_one_turn_are_all_counted() -> None:
    """Calls that end in eight threads at once lose nothing."""

    def work(turn: Any) -> None:
        with turn.active():
            for _ in range(100):
                with stagelight.llm(**LLM) as call:
                    call.usage(input_tokens=1)
                    call.cost("0.01")

    with capture() as captured:
        with stagelight.turn("answer") as turn:
            threads = [threading.Thread(target=work, args=(turn,)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
        found = captured.turn("answer")

        assert found.cost == Decimal("8.00") == captured.cost
        assert found.attributes[a.STAGELIGHT_TURN_CALLS] == found.attributes[a.STAGELIGHT_TURN_INPUT_TOKENS] == 800
        assert len(captured.ledger) == 800


# whose it is


def _owners(captured: Captured) -> list[tuple[Any, ...]]:
    keys = (a.STAGELIGHT_TENANT, a.STAGELIGHT_FEATURE, a.USER_HASH, a.SESSION_ID, a.GEN_AI_CONVERSATION_ID)
    return [tuple(event.attributes.get(key) for key in keys) for event in captured.ledger]


def _everything(captured: Captured) -> str:
    return repr(([json.loads(span.to_json()) for span in captured.spans], captured.events, captured.metrics()))


@pytest.mark.parametrize("when", ["at the start", "before", "between", "after"])
def test_every_call_of_a_turn_is_billed_to_its_owner(when: str) -> None:
    """Whenever ``identify`` comes, ledger and cost metric of all calls of the turn name the owner."""
    owner = {"user_id": "user-1", "session_id": "session-1", "tenant": "acme", "feature": "help"}
    pseudonym, session = "h1:", "h1:"
    with capture(id_key=KEY) as captured:
        with stagelight.turn("answer", conversation_id="c-1", **(owner if when == "at the start" else {})):
            if when == "before":
                stagelight.identify(**owner)
            with stagelight.llm(**LLM) as call:
                call.cost("0.25")
            if when == "between":
                stagelight.identify(tenant="acme")
                stagelight.identify(**owner)
            with stagelight.llm(**LLM) as call:
                call.cost("0.25")
            if when == "after":
                stagelight.identify(**owner)
        rows = _owners(captured)
        cost = [
            (point.attributes[a.STAGELIGHT_TENANT], point.attributes[a.STAGELIGHT_FEATURE], point.value)
            for point in captured.metric(m.STAGELIGHT_USAGE_COST)
            if point.value
        ]

        assert len(set(rows)) == 1
        assert len(rows) == 2
        tenant, feature, user, session_hash, conversation = rows[0]
        assert (tenant, feature, conversation) == ("acme", "help", "c-1")
        assert user.startswith(pseudonym)
        assert session_hash.startswith(session)
        assert cost == [("acme", "help", 0.5)]
        assert "user-1" not in _everything(captured)
        assert "session-1" not in _everything(captured)


def test_without_a_key_ids_are_dropped() -> None:
    """No key, no id: neither raw nor hashed, and nothing is complained about."""
    with capture() as captured:
        with stagelight.turn("answer", user_id="user-1", session_id="session-1"), stagelight.llm(**LLM) as call:
            call.cost("0.1")

        assert _owners(captured) == [(None, None, None, None, None)]
        assert "user-1" not in _everything(captured)
        assert "session-1" not in _everything(captured)


def test_a_pseudonym_is_the_same_everywhere() -> None:
    """The same id and key give the same pseudonym, another key another; a pseudonym passes unchanged."""

    def users(key: str, user: str) -> set[Any]:
        with capture(id_key=key) as captured:
            with stagelight.turn("answer", user_id=user), stagelight.llm(**LLM) as call:
                call.cost("0.1")
            spans = [(span.attributes or {}).get(a.USER_HASH) for span in captured.spans]
        return {*spans, *(row[2] for row in _owners(captured))}

    (one,) = users(KEY, "user-1")
    (again,) = users(KEY, "user-1")
    (passed,) = users(KEY, one)
    (other,) = users(KEY[::-1], "user-1")

    assert one == again == passed != other
    assert [len(part) for part in one.split(":")] == [2, 8, 32]


def test_a_flush_bills_what_waits() -> None:
    """Calls of a running turn wait for its owner until a flush, which sends everything recorded so far."""
    with capture() as captured:
        with stagelight.turn("answer"):
            with stagelight.llm(**LLM) as call:
                call.cost("0.5")
            waiting = len(captured._logs.get_finished_logs())
            stagelight.flush(60)
            flushed = len(captured._logs.get_finished_logs())

        assert (waiting, flushed, len(captured.ledger)) == (0, 1, 1)


def test_a_job_bills_at_once() -> None:
    """The calls of a job, which may run for hours, are in the ledger while it runs."""
    with capture() as captured, stagelight.job("ingest", tenant="acme"):
        with stagelight.embedding(**LLM) as call:
            call.cost("0.5")

        assert len(captured._logs.get_finished_logs()) == 1


def test_a_turn_of_very_many_calls_does_not_hoard() -> None:
    """More than a thousand waiting bills are sent with what is known, so that memory stays bounded."""
    with capture() as captured:
        with stagelight.turn("answer"):
            for _ in range(1500):
                with stagelight.tool("x") as call:
                    call.cost("0.001")
            waiting = 1500 - len(captured._logs.get_finished_logs())

        assert 0 < waiting <= 1000
        assert captured.turn("answer").cost == Decimal("1.5")


def test_an_ended_scope_is_freed_at_once() -> None:
    """Contexts refer to calls and turns weakly: nothing waits for the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        with capture() as captured:
            with stagelight.turn("answer") as turn, stagelight.llm(provider="p", model="m") as call:
                gone = weakref.ref(call), weakref.ref(turn)
                call.usage(input_tokens=1)
            del call, turn
            captured.settle()
            freed = [reference() for reference in gone]
    finally:
        gc.enable()

    assert freed == [None, None]


def test_a_task_that_outlives_an_inner_turn_finds_the_outer_one() -> None:
    """The inner turn is ended and gone, but what stood in the context before it is still known."""

    async def late(go: asyncio.Event) -> None:
        await go.wait()
        with stagelight.llm(provider="p", model="m") as call:
            call.usage(input_tokens=1)

    async def main() -> None:
        go = asyncio.Event()
        with stagelight.turn("outer"):
            with stagelight.turn("inner"):
                task = asyncio.create_task(late(go))
            go.set()
            await task

    with capture() as captured:
        asyncio.run(main())

    assert captured.turn("outer").attributes[a.STAGELIGHT_TURN_CALLS] == 1
    assert captured.turn("inner").attributes[a.STAGELIGHT_TURN_CALLS] == 0


def test_a_turn_dropped_without_an_end_is_billed() -> None:
    """Its span is lost with it, but what its calls cost is not."""
    with capture() as captured:
        turn = stagelight.turn.start("answer", tenant="acme")
        with turn.active(), stagelight.llm(provider="openai", model="gpt-4o-mini") as call:
            call.usage(input_tokens=1000)
        del turn, call
        gc.collect()

        [entry] = captured.ledger
        assert entry.attributes[a.STAGELIGHT_TENANT] == "acme"
        assert captured.cost == Decimal("0.00015")
