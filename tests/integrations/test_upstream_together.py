"""With OpenTelemetry's own instrumentation beside ours every call is recorded once, whoever is outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import openai
import pytest
import stagelight
from openai_client import HAS_RESPONSES
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor as OfficialInstrumentor
from stagelight import _guard
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.integrations.openai import OpenAIInstrumentor
from stagelight.testing import Captured, capture

CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What do tides do?"}]}
STREAM: dict[str, Any] = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
OFFICIAL = "opentelemetry.instrumentation.genai.openai"
RATE = {"input": Decimal("0.15") / 10**6, "output": Decimal("0.60") / 10**6}


@contextmanager
def together(world: Any, *, ours: bool = True, ours_first: bool = True) -> Iterator[Captured]:
    """Both instrumentations on the same providers."""
    official = OfficialInstrumentor()
    with capture(provider_hosts={world.host: "openai"}) as captured:
        providers = {
            "tracer_provider": captured.tracer_provider,
            "meter_provider": captured.meter_provider,
            "logger_provider": captured.logger_provider,
        }
        switches: list[Callable[[], Any]] = [lambda: official.instrument(**providers)]
        if ours:
            switches.insert(0 if ours_first else 1, OpenAIInstrumentor().instrument)
        for switch in switches:
            switch()
        try:
            yield captured
        finally:
            official.uninstrument()
            if ours:
                OpenAIInstrumentor().uninstrument()


async def plain(client: Any, script: Any) -> None:
    """A chat completion in one piece."""
    await script.now(client.chat.completions.create(**CHAT))


async def streamed(client: Any, script: Any) -> None:
    """A stream read to its end."""
    stream = await script.now(client.chat.completions.create(**STREAM))
    assert len([chunk async for chunk in script.each(stream)]) > 2


async def response(client: Any, script: Any) -> None:
    """The responses API."""
    await script.now(client.responses.create(model="gpt-4o-mini", input="What do tides do?"))


async def response_streamed(client: Any, script: Any) -> None:
    """The responses API, as a stream."""
    stream = await script.now(client.responses.create(model="gpt-4o-mini", input="What do tides do?", stream=True))
    assert len([event async for event in script.each(stream)]) > 2


async def embedding(client: Any, script: Any) -> None:
    """An embedding."""
    await script.now(client.embeddings.create(model="text-embedding-3-small", input="tides"))


CHATS = (plain, streamed, response, response_streamed) if HAS_RESPONSES else (plain, streamed)
USES = {use.__name__: use for use in (*CHATS, embedding)}


def tokens_of(captured: Captured) -> dict[str, float]:
    """Sum of the token histogram by type, over all scopes."""
    found: dict[str, float] = {}
    for point in captured.metric(m.GEN_AI_CLIENT_TOKEN_USAGE):
        kind = point.attributes[a.GEN_AI_TOKEN_TYPE]
        found[kind] = found.get(kind, 0) + point.value
    return found


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_one_call_is_one_span_one_duration_and_one_cost(world: Any, script: Any, use: Any, ours_first: bool) -> None:
    """The official span is the only one; it has our cost, and its tokens are counted once."""
    with together(world, ours_first=ours_first) as captured, stagelight.turn("answer"):
        world.play(lambda client: use(client, script))
    (span,) = [span for span in captured.spans if a.STAGELIGHT_TURN_CALLS not in (span.attributes or {})]
    attributes = dict(span.attributes or {})
    durations = captured.metric(m.GEN_AI_CLIENT_OPERATION_DURATION)
    used = {"input": attributes[a.GEN_AI_USAGE_INPUT_TOKENS], "output": attributes.get(a.GEN_AI_USAGE_OUTPUT_TOKENS)}

    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == OFFICIAL
    assert [point.count for point in durations] == [1]
    assert tokens_of(captured) == {kind: count for kind, count in used.items() if count is not None}
    assert attributes[a.STAGELIGHT_COST_STATUS] == "exact"
    assert len(captured.ledger) == 1
    assert captured.ledger[0].span_id == span.context.span_id
    assert captured.turn("answer").cost == captured.cost > 0
    assert captured.turn("answer").attributes[a.STAGELIGHT_TURN_CALLS] == 1
    assert captured.metric(m.STAGELIGHT_DOUBLE_COUNTED) == ()


def test_a_refused_call_has_one_error(world: Any, script: Any) -> None:
    """Their span carries the error and its status; ours adds how it ended."""

    async def refused(client: Any) -> None:
        with pytest.raises(openai.BadRequestError):
            await script.now(client.chat.completions.create(model="gpt-4o-mini", messages=[]))

    with together(world) as captured:
        world.play(refused)
    (span,) = captured.spans

    assert (span.attributes or {})[a.STAGELIGHT_OUTCOME] == "error"
    assert not span.status.is_unset
    assert [point.count for point in captured.metric(m.GEN_AI_CLIENT_OPERATION_DURATION)] == [1]
    assert captured.ledger == ()


def test_a_stream_that_is_left_is_no_error_of_ours(world: Any, script: Any) -> None:
    """The caller's own choice stays visible on their span."""

    async def left(client: Any) -> None:
        stream = await script.now(client.chat.completions.create(**STREAM))
        await script.next(stream)
        await script.now(stream.close())

    with together(world) as captured:
        world.play(left)
    (span,) = captured.spans

    assert (span.attributes or {})[a.STAGELIGHT_OUTCOME] == "client_abandoned"
    assert [point.attributes[a.STAGELIGHT_OUTCOME] for point in captured.metric(m.STAGELIGHT_STREAM_OUTCOMES)] == [
        "client_abandoned"
    ]


@pytest.mark.parametrize("ours", [True, False], ids=["with our integration", "without it"])
@pytest.mark.parametrize("use", CHATS)
def test_their_call_inside_ours_is_ours(world: Any, script: Any, use: Any, ours: bool) -> None:
    """Inside a call recorded by hand they make no span and no metrics; what they learn is that call's."""

    async def scenario(client: Any) -> None:
        with stagelight.llm(provider="openai", model="gpt-4o-mini"):
            await use(client, script)

    with together(world, ours=ours) as captured:
        world.play(scenario)
    (span,) = captured.spans
    attributes = dict(span.attributes or {})
    used = {"input": attributes[a.GEN_AI_USAGE_INPUT_TOKENS], "output": attributes[a.GEN_AI_USAGE_OUTPUT_TOKENS]}

    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "stagelight"
    assert [point.count for point in captured.metric(m.GEN_AI_CLIENT_OPERATION_DURATION)] == [1]
    assert tokens_of(captured) == used
    assert attributes[a.GEN_AI_RESPONSE_MODEL] == "gpt-4o-mini-2024-07-18"
    assert attributes[a.GEN_AI_RESPONSE_ID]
    assert attributes[a.GEN_AI_RESPONSE_FINISH_REASONS] == ("stop",)
    assert captured.cost == sum(RATE[kind] * count for kind, count in used.items())


def test_a_call_after_its_block_is_theirs_again(world: Any, script: Any) -> None:
    """A context that outlives our call hides no later call of theirs."""

    async def scenario(client: Any) -> None:
        with stagelight.llm(provider="openai", model="gpt-4o-mini") as call:
            pass
        with call.active():
            await plain(client, script)

    with together(world, ours=False) as captured:
        world.play(scenario)

    assert [span.instrumentation_scope.name for span in captured.spans if span.instrumentation_scope] == [
        "stagelight",
        OFFICIAL,
    ]


def test_an_answer_recorded_by_two_is_told(
    world: Any, script: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instrumentation that knows nothing of the others doubles calls: a counter names both, and one line warns."""

    async def scenario(client: Any) -> None:
        tracer = captured.tracer_provider.get_tracer("another.instrumentation")
        for question in ("What do tides do?", "And the moon?"):
            answer = await script.now(
                client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": question}])
            )
            for operation in ("chat", "fetch_response"):
                with tracer.start_as_current_span("chat gpt-4o-mini") as span:
                    span.set_attributes({a.GEN_AI_OPERATION_NAME: operation, a.GEN_AI_PROVIDER_NAME: "openai",
                                         a.GEN_AI_RESPONSE_ID: answer.id})  # fmt: skip

    monkeypatch.setattr(_guard, "_reported_s", {})  # another test may have warned within this minute
    instrumentor = OpenAIInstrumentor()
    instrumentor.instrument()
    try:
        with capture(provider_hosts={world.host: "openai"}, clock=stagelight.testing.Clock()) as captured:
            world.play(scenario)
    finally:
        instrumentor.uninstrument()

    assert [(point.attributes, point.value) for point in captured.metric(m.STAGELIGHT_DOUBLE_COUNTED)] == [
        ({a.GEN_AI_PROVIDER_NAME: "openai", a.STAGELIGHT_INSTRUMENTATIONS: "another.instrumentation + stagelight"}, 2)
    ]
    (line,) = [record.message for record in caplog.records if "twice" in record.message]
    assert "openai was recorded twice, by another.instrumentation + stagelight" in line
