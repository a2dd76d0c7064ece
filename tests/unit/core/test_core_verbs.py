"""Every verb, in every way to use it, emits one span, its metrics and at most one line of the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
import stagelight
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.testing import Captured, Clock, capture

START_NS = 1_700_000_000_000_000_000
MODEL = {"provider": "acme", "model": "acme-1"}
MODEL_KEYS = {a.GEN_AI_PROVIDER_NAME: "acme", a.GEN_AI_REQUEST_MODEL: "acme-1"}
UNPRICED = {a.STAGELIGHT_COST_STATUS: "unpriced", a.STAGELIGHT_COST_REASON: "no_usage"}
CLIENT, INTERNAL = SpanKind.CLIENT, SpanKind.INTERNAL


class Case(NamedTuple):
    """One verb: how to call it and what its span is."""

    verb: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    name: str
    kind: SpanKind
    attributes: dict[str, Any]
    duration: str
    """The metric that takes its duration."""
    ledger: bool = False


CASES = {
    "embedding": Case(
        stagelight.embedding, (), {**MODEL, "dimensions": 256}, "embeddings acme-1", CLIENT,
        {**MODEL_KEYS, a.GEN_AI_OPERATION_NAME: "embeddings", a.GEN_AI_EMBEDDINGS_DIMENSION_COUNT: 256, **UNPRICED},
        m.GEN_AI_CLIENT_OPERATION_DURATION, True,
    ),
    "retrieval": Case(
        stagelight.retrieval, (),
        {"provider": "qdrant", "source": "docs", "top_k": 5, "mode": "hybrid", "filtered": True}, "retrieval docs",
        CLIENT,
        {a.GEN_AI_PROVIDER_NAME: "qdrant", a.GEN_AI_OPERATION_NAME: "retrieval", a.GEN_AI_DATA_SOURCE_ID: "docs",
         a.GEN_AI_RETRIEVAL_TOP_K: 5, a.STAGELIGHT_RETRIEVAL_MODE: "hybrid", a.STAGELIGHT_RETRIEVAL_FILTERED: True},
        m.GEN_AI_CLIENT_OPERATION_DURATION,
    ),
    "rerank": Case(
        stagelight.rerank, (), {**MODEL, "top_k": 3}, "rerank acme-1", CLIENT,
        {**MODEL_KEYS, a.GEN_AI_REQUEST_TOP_K: 3, **UNPRICED}, m.STAGELIGHT_STAGE_DURATION, True,
    ),
    "llm": Case(
        stagelight.llm, (),
        {**MODEL, "temperature": 0.5, "top_p": 0.9, "max_tokens": 100, "service_tier": "flex", "conversation_id": "c-1",
         "server_address": "api.acme.test", "server_port": 8443},
        "chat acme-1", CLIENT,
        {**MODEL_KEYS, a.GEN_AI_OPERATION_NAME: "chat", a.GEN_AI_REQUEST_TEMPERATURE: 0.5, a.GEN_AI_REQUEST_TOP_P: 0.9,
         a.GEN_AI_REQUEST_MAX_TOKENS: 100, a.OPENAI_REQUEST_SERVICE_TIER: "flex", a.GEN_AI_CONVERSATION_ID: "c-1",
         a.SERVER_ADDRESS: "api.acme.test", a.SERVER_PORT: 8443, **UNPRICED},
        m.GEN_AI_CLIENT_OPERATION_DURATION, True,
    ),
    "tts": Case(
        stagelight.tts, (), {**MODEL, "voice": "coral", "format": "wav", "characters": 12}, "text_to_speech acme-1",
        CLIENT,
        {**MODEL_KEYS, a.GEN_AI_OPERATION_NAME: "text_to_speech", a.GEN_AI_OUTPUT_TYPE: "speech",
         a.STAGELIGHT_TTS_VOICE: "coral", a.STAGELIGHT_TTS_FORMAT: "wav", a.STAGELIGHT_TTS_CHARACTERS: 12, **UNPRICED},
        m.GEN_AI_CLIENT_OPERATION_DURATION, True,
    ),
    "stt": Case(
        stagelight.stt, (), MODEL, "stt acme-1", CLIENT, {**MODEL_KEYS, **UNPRICED}, m.STAGELIGHT_STAGE_DURATION, True
    ),
    "tool": Case(
        stagelight.tool, ("lookup",), {}, "execute_tool lookup", INTERNAL,
        {a.GEN_AI_OPERATION_NAME: "execute_tool", a.GEN_AI_TOOL_NAME: "lookup"}, m.GEN_AI_EXECUTE_TOOL_DURATION,
    ),
    **{
        stage: Case(
            getattr(stagelight, stage), ("x",), {"provider": "acme"}, f"{stage} x", INTERNAL,
            {a.STAGELIGHT_NAME: "x", a.GEN_AI_PROVIDER_NAME: "acme"}, m.STAGELIGHT_STAGE_DURATION,
        )
        for stage in ("memory", "parse", "chunk", "enrich", "store")
    },
}  # fmt: skip

Use = Callable[[Case, Clock], None]


def _with(case: Case, clock: Clock) -> None:
    with case.verb(*case.args, **case.kwargs):
        clock.advance(0.25)


def _async_with(case: Case, clock: Clock) -> None:
    async def main() -> None:
        async with case.verb(*case.args, **case.kwargs):
            await asyncio.sleep(0)
            clock.advance(0.25)

    asyncio.run(main())


def _started(case: Case, clock: Clock) -> None:
    call = case.verb.start(*case.args, **case.kwargs)
    with call.active():
        clock.advance(0.25)
    call.end()


USES: dict[str, Use] = {"with": _with, "async with": _async_with, "start and end": _started}


def _durations(captured: Captured, name: str) -> list[tuple[float, int | None]]:
    return [(point.value, point.count) for point in captured.metric(name)]


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("stage", CASES)
def test_a_verb_is_one_span(stage: str, use: Use) -> None:
    """Name, kind, all attributes, times and status of the one span of a verb, however it is used."""
    case, clock = CASES[stage], Clock()
    with capture(clock=clock, ids=True) as captured:
        use(case, clock)
        (span,) = captured.spans

        assert (span.name, span.kind, dict(span.attributes or {})) == (
            case.name,
            case.kind,
            {a.STAGELIGHT_STAGE: stage, **case.attributes, a.STAGELIGHT_OUTCOME: "completed"},
        )
        assert (span.start_time, span.end_time) == (START_NS, START_NS + 250_000_000)
        assert (span.status.status_code, span.status.description, span.events) == (StatusCode.UNSET, None, ())
        assert _durations(captured, case.duration) == [(0.25, 1)]
        assert [event.span_id for event in captured.ledger] == ([span.context.span_id] if case.ledger else [])
        assert {point.value for point in captured.metric(m.STAGELIGHT_CALLS_IN_FLIGHT)} == {0}


@pytest.mark.parametrize("stage", CASES)
def test_an_unsampled_verb_is_still_counted(stage: str) -> None:
    """Metrics and the ledger do not depend on sampling, and no method raises on an unsampled call."""
    case, clock = CASES[stage], Clock()
    with capture(clock=clock, sampler=ALWAYS_OFF) as captured:
        with case.verb(*case.args, **case.kwargs) as call:
            call.usage(input_tokens=1)
            call.response(model="m", id="i", finish_reasons=["stop"])
            call.results(scores=[0.5])
            clock.advance(0.5)

        assert captured.spans == ()
        assert _durations(captured, case.duration) == [(0.5, 1)]
        assert len(captured.ledger) == 1


def test_a_turn_is_an_invoke_workflow_span() -> None:
    """The span of a turn with everything that can be said of it at its start."""
    clock = Clock()
    with capture(clock=clock) as captured:
        with stagelight.turn("answer", conversation_id="c", feature="help", variant="B", tenant="acme", route="/ask"):
            clock.advance(2.0)
        (span,) = captured.spans

    assert (span.name, span.kind, dict(span.attributes or {})) == (
        "invoke_workflow answer",
        INTERNAL,
        {
            a.STAGELIGHT_STAGE: "turn",
            a.GEN_AI_OPERATION_NAME: "invoke_workflow",
            a.GEN_AI_WORKFLOW_NAME: "answer",
            a.STAGELIGHT_FEATURE: "help",
            a.STAGELIGHT_VARIANT: "B",
            a.STAGELIGHT_TENANT: "acme",
            a.STAGELIGHT_ROUTE: "/ask",
            a.GEN_AI_CONVERSATION_ID: "c",
            a.STAGELIGHT_OUTCOME: "completed",
            a.STAGELIGHT_TURN_CALLS: 0,
            f"{a.STAGELIGHT_TURN_SELF_TIME}.other": 2.0,
            f"{a.STAGELIGHT_TURN_SHARE}.other": 1.0,
        },
    )


def test_a_job_is_never_a_turn() -> None:
    """A job has its own span name and duration metric and adds nothing to a turn's."""
    clock = Clock()
    with capture(clock=clock) as captured:
        with stagelight.job("ingest", feature="docs", tenant="acme"), stagelight.parse("pdf"):
            clock.advance(3.0)
        metrics = captured.metrics()

        assert [span.name for span in captured.spans] == ["parse pdf", "job ingest"]
        assert dict(captured.spans[-1].attributes or {}) == {
            a.STAGELIGHT_STAGE: "job",
            a.STAGELIGHT_JOB_NAME: "ingest",
            a.STAGELIGHT_FEATURE: "docs",
            a.STAGELIGHT_TENANT: "acme",
            a.STAGELIGHT_OUTCOME: "completed",
            a.STAGELIGHT_TURN_CALLS: 1,
        }
        assert _durations(captured, m.STAGELIGHT_JOB_DURATION) == [(3.0, 1)]
        assert not [name for name in metrics if name.startswith(("stagelight.turn", "gen_ai.invoke_workflow"))]


def test_ends_are_idempotent() -> None:
    """The first end counts; later ends, failures and facts change nothing and raise nothing."""
    clock = Clock()
    with capture(clock=clock) as captured:
        call = stagelight.llm.start(**MODEL)
        call.usage(input_tokens=5)
        clock.advance(1.0)
        call.end(outcome="client_abandoned")
        before = captured.spans
        clock.advance(1.0)
        call.end()
        call.end(outcome="error")
        call.fail(ValueError("late"))
        call.usage(input_tokens=99)
        call.response(model="late")
        call.results(scores=[1.0])
        call.cost("1.0")
        assert call.stream(items := [1, 2]) is items
        with call.active(), call:
            pass

        assert captured.spans == before
        (span,) = before
        assert dict(span.attributes or {})[a.STAGELIGHT_OUTCOME] == "client_abandoned"
        assert dict(span.attributes or {})[a.GEN_AI_USAGE_INPUT_TOKENS] == 5
        assert span.end_time == START_NS + 1_000_000_000
        assert span.status.status_code is StatusCode.UNSET
        assert len(captured.ledger) == 1


def test_a_turn_that_failed_after_its_end_stays_completed() -> None:
    """What is said about a turn after its end is not mixed into what is handed in later."""
    with capture() as captured:
        turn = stagelight.turn.start("answer")
        turn.end()
        turn.fail(ValueError("late"))

        assert (captured.turn("answer").outcome, captured.turn("answer").error_type) == ("completed", None)


def test_current_is_the_innermost_call() -> None:
    """``current`` follows blocks, turns hide the calls around them, and outside it accepts everything."""
    with capture():
        outside = stagelight.current()
        with stagelight.llm(**MODEL) as outer:
            assert stagelight.current() is outer
            with stagelight.tool("t") as inner:
                assert stagelight.current() is inner
            assert stagelight.current() is outer
            with stagelight.turn("sub"):
                assert stagelight.current() is outside
        assert stagelight.current() is outside

        outside.usage(input_tokens=1)
        outside.response(model="m")
        outside.results(scores=[1.0])
        outside.cost(1)
        outside.record(object())
        outside.end()
        outside.fail(ValueError())
        assert outside.stream(items := [1]) is items
        with outside.active(), outside.start():
            assert not stagelight.current().live


def test_a_started_call_is_current_in_its_active_block_only() -> None:
    """``start`` attaches nothing; ``active`` does for its block and does not end the call."""
    with capture() as captured:
        nothing = stagelight.current()
        call = stagelight.llm.start(**MODEL)
        assert stagelight.current() is nothing
        with call.active():
            assert stagelight.current() is call
        assert stagelight.current() is nothing
        assert captured.spans == ()
        call.end()

        assert [span.name for span in captured.spans] == ["chat acme-1"]


def test_a_block_entered_twice_leaves_nothing_behind() -> None:
    """The same object nested in itself is one call, and its context is gone afterwards."""
    with capture() as captured:
        nothing = stagelight.current()
        call = stagelight.llm(**MODEL)
        with call:
            with call:
                pass
            assert stagelight.current() is call

        assert stagelight.current() is nothing
        assert len(captured.spans) == 1


def test_usage_merges_and_the_last_value_wins() -> None:
    """Facts given in pieces add up; what is not said again stays as it was."""
    with capture() as captured:
        with stagelight.llm(**MODEL) as call:
            call.usage(input_tokens=1, output_tokens=2, counted=True)
            call.usage(input_tokens=10, cache_write_tokens={"5m": 3, "1h": 4}, audio_seconds=None)
            call.response(finish_reasons=["length"])
            call.response(id="r-1")
        found = captured.call("llm")

    assert {
        key: found.attributes.get(key)
        for key in (
            a.GEN_AI_USAGE_INPUT_TOKENS,
            a.GEN_AI_USAGE_OUTPUT_TOKENS,
            a.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS,
            a.STAGELIGHT_USAGE_COUNTED,
            a.GEN_AI_RESPONSE_ID,
        )
    } == {
        a.GEN_AI_USAGE_INPUT_TOKENS: 10,
        a.GEN_AI_USAGE_OUTPUT_TOKENS: 2,
        a.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: 7,
        a.STAGELIGHT_USAGE_COUNTED: True,
        a.GEN_AI_RESPONSE_ID: "r-1",
    }
    assert found.outcome == "length_cut"


def test_a_cut_that_was_taken_back_is_none() -> None:
    """The last finish reasons decide whether the answer was cut."""
    with capture() as captured:
        with stagelight.llm(**MODEL) as call:
            call.response(finish_reasons=["max_tokens"])
            call.response(finish_reasons=["stop"])

        assert captured.call("llm").outcome == "completed"


def test_the_price_of_the_provider_wins() -> None:
    """``cost`` is taken as stated, exact to the digit, and says where it is from."""
    with capture() as captured:
        with stagelight.llm(provider="openai", model="gpt-4o-mini") as call:
            call.usage(input_tokens=1000, output_tokens=1000)
            call.cost(Decimal("0.0123456789"))
        found = captured.call("llm")

        assert (found.cost, found.cost_status) == (Decimal("0.0123456789"), "exact")
        assert (
            found.attributes[a.STAGELIGHT_COST_SOURCE] == found.attributes[a.STAGELIGHT_COST_PRICE_SOURCE] == "provider"
        )
        assert captured.cost == Decimal("0.0123456789")


@pytest.mark.parametrize("names", ["own", "upstream"])
def test_upstream_cost_names_are_on_call_spans_only_and_on_request(names: str) -> None:
    """The proposed names of upstream appear behind their switch, and never on a turn."""
    with capture(cost_names=names) as captured:
        with stagelight.turn("answer"), stagelight.llm(**MODEL) as call:
            call.cost("0.5")
        shown = {span.name: a.GEN_AI_USAGE_COST_AMOUNT in (span.attributes or {}) for span in captured.spans}

    assert shown == {"chat acme-1": names == "upstream", "invoke_workflow answer": False}


def test_results_say_what_a_search_found() -> None:
    """Scores give count, best, worst and margin in the direction of their metric; no result is said to be empty."""
    with capture() as captured:
        with stagelight.retrieval(provider="qdrant", source="docs") as call:
            call.results(scores=[0.4, 0.1, 0.9], metric="euclid", higher_is_better=False)
        with stagelight.retrieval(provider="qdrant", source="none") as call:
            call.results(scores=[])
        with stagelight.retrieval(provider="qdrant", source="counted") as call:
            call.results(count=7)
        found = [
            {key: value for key, value in call.attributes.items() if key.startswith("stagelight.retrieval.")}
            for call in captured.calls
        ]

    assert found == [
        {
            a.STAGELIGHT_RETRIEVAL_COUNT: 3,
            a.STAGELIGHT_RETRIEVAL_EMPTY: False,
            a.STAGELIGHT_RETRIEVAL_METRIC: "euclid",
            a.STAGELIGHT_RETRIEVAL_HIGHER_IS_BETTER: False,
            a.STAGELIGHT_RETRIEVAL_TOP_SCORE: 0.1,
            a.STAGELIGHT_RETRIEVAL_MIN_SCORE: 0.1,
            a.STAGELIGHT_RETRIEVAL_MARGIN: pytest.approx(0.3),
        },
        {a.STAGELIGHT_RETRIEVAL_COUNT: 0, a.STAGELIGHT_RETRIEVAL_EMPTY: True},
        {a.STAGELIGHT_RETRIEVAL_COUNT: 7, a.STAGELIGHT_RETRIEVAL_EMPTY: False},
    ]


def test_speech_says_how_fast_it_was() -> None:
    """Real-time factor is generation time divided by the duration of the audio, absent where that is unknown."""
    clock = Clock()
    with capture(clock=clock) as captured:
        for seconds in (8.0, None):
            with stagelight.tts(**MODEL) as call:
                clock.advance(2.0)
                call.usage(characters=30, audio_seconds=seconds)
        factors = [call.attributes.get(a.STAGELIGHT_TTS_REAL_TIME_FACTOR) for call in captured.calls]

        assert factors == [0.25, None]
        assert [point.value for point in captured.metric(m.STAGELIGHT_TTS_CHARACTERS)] == [60]
        assert [point.value for point in captured.metric(m.STAGELIGHT_TTS_AUDIO_SECONDS)] == [8.0]


def test_facts_that_are_not_calls() -> None:
    """A cache lookup is a counter; an evaluation and a feedback are an event of the application and a histogram."""
    with capture() as captured:
        with stagelight.turn("answer", feature="help", variant="B") as turn:
            stagelight.cache("embedding", hit=True)
            stagelight.cache("embedding", hit=False)
            stagelight.evaluation("groundedness", score=0.91, label="pass")
            stagelight.feedback(score=0, comment_theme="too long", kind="thumbs")
        owner = {a.STAGELIGHT_FEATURE: "help", a.STAGELIGHT_VARIANT: "B"}
        judged = {a.GEN_AI_EVALUATION_NAME: "groundedness", a.GEN_AI_EVALUATION_SCORE_LABEL: "pass", **owner}
        said = {a.STAGELIGHT_FEEDBACK_THEME: "too long", a.STAGELIGHT_FEEDBACK_KIND: "thumbs", **owner}

        assert [(event.name, event.attributes, event.span_id) for event in captured.events] == [
            (
                "gen_ai.evaluation.result",
                {a.STAGELIGHT_RECORD_KIND: "app", **judged, a.GEN_AI_EVALUATION_SCORE_VALUE: 0.91},
                turn.span.get_span_context().span_id,
            ),
            (
                "stagelight.feedback.recorded",
                {a.STAGELIGHT_RECORD_KIND: "app", **said, a.STAGELIGHT_FEEDBACK_SCORE: 0.0},
                turn.span.get_span_context().span_id,
            ),
        ]
        lookups = captured.metric(m.STAGELIGHT_CACHE_LOOKUPS)
        assert [(point.attributes[a.STAGELIGHT_CACHE_RESULT], point.value) for point in lookups] == [
            ("hit", 1),
            ("miss", 1),
        ]
        assert [(dict(p.attributes), p.value) for p in captured.metric(m.STAGELIGHT_EVALUATION_SCORES)] == [
            (judged, 0.91)
        ]
        assert [(dict(p.attributes), p.value) for p in captured.metric(m.STAGELIGHT_FEEDBACK_SCORES)] == [(said, 0.0)]


def test_a_negative_score_is_in_the_event_only() -> None:
    """Histograms refuse negative values: nothing is logged about it, and the event keeps the score."""
    with capture() as captured:
        stagelight.feedback(score=-1)
        stagelight.evaluation("tone", score=-0.5)

        assert [
            event.attributes.get(a.STAGELIGHT_FEEDBACK_SCORE, event.attributes.get(a.GEN_AI_EVALUATION_SCORE_VALUE))
            for event in captured.events
        ] == [-1.0, -0.5]
        assert captured.metric(m.STAGELIGHT_FEEDBACK_SCORES) == captured.metric(m.STAGELIGHT_EVALUATION_SCORES) == ()
