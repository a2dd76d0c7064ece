"""Which instruments take which facts, stage by stage, in both generations of upstream names."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import stagelight
from opentelemetry._logs import NoOpLogger
from opentelemetry.trace import NoOpTracer
from stagelight import _runtime
from stagelight._calls import Call
from stagelight._handover import Handover
from stagelight._modalities import modal_counts
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.conventions.metrics import METRICS
from stagelight.export.accumulators import Accumulators, CounterSeries, HistogramSeries
from stagelight.facts import RateLimit, Request, Response, Usage
from stagelight.instruments import Instruments
from stagelight.settings import Settings
from stagelight.testing import Clock, Point, capture

OBSERVED = {
    m.STAGELIGHT_HEARTBEAT,
    m.STAGELIGHT_CALLS_IN_FLIGHT,
    m.STAGELIGHT_LABELS_BOUNDED,
    m.STAGELIGHT_MISUSES,
    m.STAGELIGHT_INTERNAL_ERRORS,
}


def llm(clock: Clock) -> None:
    """A streamed call with every kind of token."""
    with stagelight.llm(provider="openai", model="gpt-4o-mini", stream=True) as call:
        for _ in call.stream(iter("abc")):
            clock.advance(0.5)
        call.usage(input_tokens=100, output_tokens=20, cache_read_tokens=10, cache_write_tokens={"5m": 2, "1h": 3})
        call.usage(reasoning_tokens=4, audio_input_tokens=30, image_input_tokens=5)


def embedding(clock: Clock) -> None:
    """An embedding."""
    with stagelight.embedding(provider="openai", model="text-embedding-3-small") as call:
        clock.advance(0.25)
        call.usage(input_tokens=7)


def retrieval(clock: Clock) -> None:
    """A search with scores."""
    with stagelight.retrieval(provider="qdrant", source="docs", mode="dense") as call:
        clock.advance(0.25)
        call.results(scores=[0.25, 0.75], metric="cosine", higher_is_better=True)


def distance(clock: Clock) -> None:
    """A search whose best score is the smallest."""
    with stagelight.retrieval(provider="qdrant", source="docs") as call:
        clock.advance(0.25)
        call.results(scores=[2.0, 0.5, 1.0], metric="euclid", higher_is_better=False)


def nothing_found(clock: Clock) -> None:
    """A search without results."""
    with stagelight.retrieval(provider="qdrant", source="docs") as call:
        clock.advance(0.25)
        call.results(count=0)


def tts(clock: Clock) -> None:
    """Speech, four times faster than it is listened to."""
    with stagelight.tts(provider="openai", model="tts-1", voice="coral") as call:
        clock.advance(1)
        call.usage(characters=100, audio_seconds=4.0)


def stt(clock: Clock) -> None:
    """A transcription."""
    with stagelight.stt(provider="openai", model="whisper-1") as call:
        clock.advance(1)
        call.usage(audio_seconds=9.0)


def tool(clock: Clock) -> None:
    """A tool that fails."""
    with pytest.raises(LookupError), stagelight.tool("lookup"):  # noqa: PT012 - the block takes time
        clock.advance(0.25)
        raise LookupError


def parse(clock: Clock) -> None:
    """A stage without an operation of upstream's."""
    with stagelight.parse("pdf"):
        clock.advance(0.25)


CLIENT = {a.GEN_AI_OPERATION_NAME: "chat", a.GEN_AI_PROVIDER_NAME: "openai", a.GEN_AI_REQUEST_MODEL: "gpt-4o-mini"}
OPENAI = {a.GEN_AI_PROVIDER_NAME: "openai"}
DOCS = {a.GEN_AI_DATA_SOURCE_ID: "docs"}
STAGED = {a.STAGELIGHT_STAGE: "llm", **OPENAI, a.GEN_AI_REQUEST_MODEL: "gpt-4o-mini"}
EMBEDDED = {**CLIENT, a.GEN_AI_OPERATION_NAME: "embeddings", a.GEN_AI_REQUEST_MODEL: "text-embedding-3-small"}
SPOKEN = {**OPENAI, a.GEN_AI_REQUEST_MODEL: "tts-1"}
SEARCHED = {a.GEN_AI_OPERATION_NAME: "retrieval", a.GEN_AI_PROVIDER_NAME: "qdrant"}
QDRANT = {a.GEN_AI_PROVIDER_NAME: "qdrant"}

Rows = list[tuple[str, Mapping[str, Any], float]]


def typed(kind: str) -> dict[str, Any]:
    """Labels of the token histogram."""
    return {**CLIENT, a.GEN_AI_TOKEN_TYPE: kind}


def modal(kind: str) -> dict[str, Any]:
    """Labels of the token counters."""
    return {**CLIENT, a.GEN_AI_TOKEN_MODALITY: kind}


STREAMED: Rows = [(m.STAGELIGHT_STREAM_OUTCOMES, {**STAGED, a.STAGELIGHT_OUTCOME: "completed"}, 1)]
RELEASED: list[tuple[Callable[[Clock], None], Rows]] = [
    (
        llm,
        [
            (m.GEN_AI_CLIENT_OPERATION_DURATION, CLIENT, 1.5),
            (m.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK, CLIENT, 0),
            (m.GEN_AI_CLIENT_OPERATION_TIME_PER_OUTPUT_CHUNK, CLIENT, 1.0),
            (m.GEN_AI_CLIENT_TOKEN_USAGE, typed("input"), 100),
            (m.GEN_AI_CLIENT_TOKEN_USAGE, typed("output"), 20),
            *STREAMED,
        ],
    ),
    (
        embedding,
        [
            (m.GEN_AI_CLIENT_OPERATION_DURATION, EMBEDDED, 0.25),
            (m.GEN_AI_CLIENT_TOKEN_USAGE, {**EMBEDDED, a.GEN_AI_TOKEN_TYPE: "input"}, 7),
        ],
    ),
]
LATEST: list[tuple[Callable[[Clock], None], Rows]] = [
    (
        llm,
        [
            (m.GEN_AI_CLIENT_INFERENCE_DURATION, CLIENT, 1.5),
            (m.GEN_AI_CLIENT_INFERENCE_TIME_TO_FIRST_CHUNK, CLIENT, 0),
            (m.GEN_AI_CLIENT_INFERENCE_TIME_PER_OUTPUT_CHUNK, CLIENT, 1.0),
            (m.GEN_AI_CLIENT_INFERENCE_OPERATION_INPUT_TOKENS, CLIENT, 100),
            (m.GEN_AI_CLIENT_INFERENCE_OPERATION_OUTPUT_TOKENS, CLIENT, 20),
            (m.GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS, modal("text"), 65),
            (m.GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS, modal("audio"), 30),
            (m.GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS, modal("image"), 5),
            (m.GEN_AI_CLIENT_INFERENCE_USAGE_OUTPUT_TOKENS, modal("text"), 20),
            (m.GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_READ_INPUT_TOKENS, modal("text"), 10),
            (m.GEN_AI_CLIENT_INFERENCE_USAGE_CACHE_WRITE_INPUT_TOKENS, modal("text"), 5),
            (m.GEN_AI_CLIENT_INFERENCE_USAGE_REASONING_OUTPUT_TOKENS, modal("text"), 4),
            *STREAMED,
        ],
    ),
    (embedding, [(m.GEN_AI_CLIENT_OPERATION_DURATION, EMBEDDED, 0.25)]),
]
BOTH: list[tuple[Callable[[Clock], None], Rows]] = [
    (
        retrieval,
        [
            (m.GEN_AI_CLIENT_OPERATION_DURATION, SEARCHED, 0.25),
            (m.STAGELIGHT_RETRIEVAL_RESULTS, {**DOCS, **QDRANT, a.STAGELIGHT_RETRIEVAL_MODE: "dense"}, 2),
            (
                m.STAGELIGHT_RETRIEVAL_SEARCHES,
                {**DOCS, **QDRANT, a.STAGELIGHT_RETRIEVAL_MODE: "dense", a.STAGELIGHT_RETRIEVAL_EMPTY: False},
                1,
            ),
            *(
                (name, {**DOCS, a.STAGELIGHT_RETRIEVAL_MODE: "dense", a.STAGELIGHT_RETRIEVAL_METRIC: "cosine"}, value)
                for name, value in ((m.STAGELIGHT_RETRIEVAL_TOP_SCORE, 0.75), (m.STAGELIGHT_RETRIEVAL_MARGIN, 0.5))
            ),
        ],
    ),
    (
        distance,
        [
            (m.GEN_AI_CLIENT_OPERATION_DURATION, SEARCHED, 0.25),
            (m.STAGELIGHT_RETRIEVAL_RESULTS, {**DOCS, **QDRANT}, 3),
            (m.STAGELIGHT_RETRIEVAL_SEARCHES, {**DOCS, **QDRANT, a.STAGELIGHT_RETRIEVAL_EMPTY: False}, 1),
            (m.STAGELIGHT_RETRIEVAL_TOP_SCORE, {**DOCS, a.STAGELIGHT_RETRIEVAL_METRIC: "euclid"}, 0.5),
            (m.STAGELIGHT_RETRIEVAL_MARGIN, {**DOCS, a.STAGELIGHT_RETRIEVAL_METRIC: "euclid"}, 0.5),
        ],
    ),
    (
        nothing_found,
        [
            (m.GEN_AI_CLIENT_OPERATION_DURATION, SEARCHED, 0.25),
            (m.STAGELIGHT_RETRIEVAL_RESULTS, {**DOCS, **QDRANT}, 0),
            (m.STAGELIGHT_RETRIEVAL_SEARCHES, {**DOCS, **QDRANT, a.STAGELIGHT_RETRIEVAL_EMPTY: True}, 1),
        ],
    ),
    (
        tts,
        [
            (m.GEN_AI_CLIENT_OPERATION_DURATION, {**SPOKEN, a.GEN_AI_OPERATION_NAME: "text_to_speech"}, 1),
            (m.STAGELIGHT_TTS_CHARACTERS, SPOKEN, 100),
            (m.STAGELIGHT_TTS_AUDIO_SECONDS, SPOKEN, 4),
            (m.STAGELIGHT_TTS_REAL_TIME_FACTOR, SPOKEN, 0.25),
        ],
    ),
    (
        stt,
        [
            (
                m.STAGELIGHT_STAGE_DURATION,
                {
                    a.STAGELIGHT_STAGE: "stt",
                    **OPENAI,
                    a.GEN_AI_REQUEST_MODEL: "whisper-1",
                    a.STAGELIGHT_OUTCOME: "completed",
                },
                1,
            ),
            (m.STAGELIGHT_STT_AUDIO_SECONDS, {**OPENAI, a.GEN_AI_REQUEST_MODEL: "whisper-1"}, 9),
        ],
    ),
    (
        tool,
        [(m.GEN_AI_EXECUTE_TOOL_DURATION, {a.GEN_AI_TOOL_NAME: "lookup", a.ERROR_TYPE: "LookupError"}, 0.25)],
    ),
    (
        parse,
        [(m.STAGELIGHT_STAGE_DURATION, {a.STAGELIGHT_STAGE: "parse", a.STAGELIGHT_OUTCOME: "completed"}, 0.25)],
    ),
]
MONEY = {m.STAGELIGHT_USAGE_COST, m.STAGELIGHT_USAGE_UNPRICED}
CASES = [
    pytest.param(profile, act, rows, id=f"{profile}-{act.__name__}")
    for profile, of in (("released", RELEASED + BOTH), ("latest", LATEST + BOTH))
    for act, rows in of
]


def rows_of(points: Mapping[str, list[Point]]) -> list[tuple[str, dict[str, Any], float]]:
    """Everything recorded, but what is observed and money, which the tests of prices look at."""
    found = [
        (name, dict(point.attributes), point.value)
        for name, many in points.items()
        if name not in OBSERVED | MONEY
        for point in many
    ]
    return sorted(found, key=repr)


@pytest.mark.parametrize(("profile", "act", "rows"), CASES)
def test_a_stage_is_recorded_in_exactly_these_instruments(
    profile: str, act: Callable[[Clock], None], rows: Rows
) -> None:
    """Names, labels and values, and nothing else."""
    clock = Clock()
    with capture(clock=clock, semconv=profile) as captured:
        act(clock)
        points = captured.metrics()

    assert rows_of(points) == sorted(((name, dict(labels), value) for name, labels, value in rows), key=repr)


def test_instruments_are_registered_ones() -> None:
    """Unit, description and kind in the SDK are the registry's."""
    with capture() as captured:
        for act in (llm, embedding, retrieval, tts, stt, tool, parse):
            act(Clock())
        with stagelight.turn("answer"):
            pass
        data = captured._reader.get_metrics_data()

    assert data is not None
    (scope,) = data.resource_metrics[0].scope_metrics
    found = {metric.name: (metric.unit, metric.description) for metric in scope.metrics}
    assert len(found) > 15
    assert found == {name: (METRICS[name].unit, METRICS[name].description) for name in found}


def test_a_failed_call_says_so_in_duration_and_tokens() -> None:
    """As the official packages do: the class of the error is a label of both."""
    with capture() as captured:
        with pytest.raises(TimeoutError), stagelight.llm(provider="openai", model="gpt-4o-mini") as call:  # noqa: PT012
            call.usage(input_tokens=5)
            raise TimeoutError
        points = captured.metrics()

    for name in (m.GEN_AI_CLIENT_OPERATION_DURATION, m.GEN_AI_CLIENT_TOKEN_USAGE):
        assert [point.attributes[a.ERROR_TYPE] for point in points[name]] == ["TimeoutError"]


@pytest.mark.parametrize("profile", ["released", "latest"])
def test_tier_and_server_are_labels(profile: str) -> None:
    """What the response says of the service tier, and where the server is."""
    with capture(semconv=profile) as captured:
        request = Request(provider="openai", model="gpt-4o-mini", server_address="proxy", server_port=8443)
        with Call("llm", request) as call:
            call.absorb(Response(service_tier="flex", usage=Usage(input_tokens=5, output_tokens=1)))
        points = captured.metrics()

    tokens = m.GEN_AI_CLIENT_TOKEN_USAGE if profile == "released" else m.GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS
    expected = {a.SERVER_ADDRESS: "proxy", a.SERVER_PORT: 8443, a.OPENAI_RESPONSE_SERVICE_TIER: "flex"}
    assert all(expected.items() <= point.attributes.items() for point in points[tokens])


def test_remaining_rate_limits_are_gauges() -> None:
    """The last answer counts; the two limits are independent of each other."""
    with capture() as captured:
        for left in (RateLimit(remaining_requests=10, remaining_tokens=500), RateLimit(remaining_requests=9)):
            with Call("llm", Request(provider="openai", model="gpt-4o-mini")) as call:
                call.absorb(Response(rate_limit=left))
        points = captured.metrics()

    model = {a.GEN_AI_PROVIDER_NAME: "openai", a.GEN_AI_REQUEST_MODEL: "gpt-4o-mini"}
    assert points[m.STAGELIGHT_RATELIMIT_REMAINING_REQUESTS] == [Point(model, 9)]
    assert points[m.STAGELIGHT_RATELIMIT_REMAINING_TOKENS] == [Point(model, 500)]


def test_text_is_what_other_modalities_leave() -> None:
    """Counts are inclusive; a total smaller than its parts leaves no text, and never a negative count."""
    rows = modal_counts(Usage(input_tokens=10, audio_input_tokens=8, image_input_tokens=4, output_tokens=0))

    assert rows == [
        (m.GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS, "text", 0),
        (m.GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS, "audio", 8),
        (m.GEN_AI_CLIENT_INFERENCE_USAGE_INPUT_TOKENS, "image", 4),
        (m.GEN_AI_CLIENT_INFERENCE_USAGE_OUTPUT_TOKENS, "text", 0),
    ]


def test_threads_lose_nothing() -> None:
    """Calls that end in eight threads at once are all counted, in one series."""
    accumulators = Accumulators()
    runtime = _runtime.Runtime(
        tracer=NoOpTracer(),
        instruments=Instruments(accumulators),
        logger=NoOpLogger("test"),
        handover=Handover(inline=True),
        settings=Settings(),
        configured=True,
    )

    def work() -> None:
        for _ in range(200):
            with stagelight.llm(provider="openai", model="gpt-4o-mini") as call:
                call.usage(input_tokens=1000, output_tokens=1)

    with _runtime.replaced(runtime):
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    series = {metric.name: many for metric, many in accumulators.all()}
    durations = [
        sum(one.counts) for one in series[m.GEN_AI_CLIENT_OPERATION_DURATION] if isinstance(one, HistogramSeries)
    ]
    spent = [one.value for one in series[m.STAGELIGHT_USAGE_COST] if isinstance(one, CounterSeries) and one.value]
    assert durations == [1600]
    assert sorted(spent) == [pytest.approx(1600 * 0.6e-6), pytest.approx(1600 * 150e-6)]
    assert set(runtime.in_flight.counts().values()) == {0}
