"""Every verb, in every way to use it, emits one span, its metrics and at most one line of the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
