"""What is said of a call, and beside calls: usage, answers, costs, results, evaluations and feedback."""

from __future__ import annotations

from decimal import Decimal

import pytest
import stagelight
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.testing import Clock, capture

MODEL = {"provider": "acme", "model": "acme-1"}


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
