"""Models of LangChain over a recorded client: one call for each request, which is the client's own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import langchain_scene as scene
import openai
import pytest
import stagelight
from integrations.langchain_models import ASKED, alone, invoke, stream, with_client
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel, FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from stagelight._calls import current_call
from stagelight.conventions import attributes as a
from stagelight.sim import Simulator

CLIENTS = ("openai", "anthropic")
pytestmark = pytest.mark.usefixtures("langchain")


@pytest.fixture(params=["openai", "anthropic"])
def provider(request: pytest.FixtureRequest) -> str:
    """Both providers."""
    return str(request.param)


@pytest.mark.parametrize("ask", [invoke, stream])
def test_the_clients_call_is_the_call(way: scene.Way, simulator: Simulator, provider: str, ask: Any) -> None:
    """One span, one line in the ledger, the exact cost; outside a chain there is no turn."""
    more = {"stream_usage": True} if ask is stream else {}
    captured, _ = with_client(way, simulator, ask, provider, **more)
    call = captured.call("llm")

    assert (call.attributes[a.GEN_AI_PROVIDER_NAME], call.cost_status) == (provider, "exact")
    assert (call.attributes.get(a.STAGELIGHT_STREAM_CHUNKS) is not None) == (ask is stream)
    assert (len(captured.spans), len(captured.ledger)) == (1, 1)
    assert captured.cost == call.cost


@pytest.mark.filterwarnings("ignore:Unexpected type for token usage:UserWarning")  # the package's own, for no usage
def test_messages_at_once(simulator: Simulator) -> None:
    """Every list of messages given to ``generate`` is a call."""

    async def scenario(way: scene.Way, model: Any) -> Any:
        tides, moons = [HumanMessage(ASKED)], [HumanMessage("And moons?")]
        return model.generate([tides, moons]), await model.agenerate([tides])

    captured, (two, _) = with_client(scene.Way("sync"), simulator, scenario)

    assert len(two.generations) == 2
    assert [call.name for call in captured.calls] == ["chat gpt-4o-mini"] * 3


def test_events(simulator: Simulator) -> None:
    """Streams of LangChain's events, of either protocol, are one call each."""

    async def scenario(way: scene.Way, model: Any) -> Any:
        return [event["event"] async for event in model.astream_events(ASKED, version="v2")]

    captured, events = with_client(scene.Way("async"), simulator, scenario)
    captured_alone, events_alone = alone(scene.Way("async"), scene.LocalStream(), scenario)

    assert events[0] == events_alone[0] == "on_chat_model_start"
    assert captured.call("llm").outcome == "completed"
    assert captured_alone.call("llm").attributes[a.STAGELIGHT_STREAM_CHUNKS] >= 4  # LangChain may add an empty one


@pytest.mark.skipif(not hasattr(BaseChatModel, "_iter_v2_events"), reason="this version has no protocol of events")
@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_protocol_events(way: scene.Way, simulator: Simulator) -> None:
    """The newest protocol of events is one call as well."""

    async def scenario(way: scene.Way, model: Any) -> Any:
        if way.kind == "async":
            streamed = await model.astream_events(ASKED, version="v3")
            return [event["event"] async for event in streamed]
        return [event["event"] for event in model.stream_events(ASKED, version="v3")]

    captured, events = with_client(way, simulator, scenario)
    captured_alone, events_alone = alone(way, scene.LocalStream(), scenario)

    assert events[-1] == events_alone[-1] == "message-finish"
    assert captured.call("llm").outcome == "completed"
    told = captured_alone.call("llm").attributes
    assert told[a.STAGELIGHT_STREAM_CHUNKS] == 4
    assert told[a.GEN_AI_USAGE_INPUT_TOKENS] == 120


def test_fallbacks(way: scene.Way, simulator: Simulator) -> None:
    """A model that fails and the one that answers for it are a call each, in one turn."""

    async def scenario(way: scene.Way, model: Any) -> Any:
        bad = model.model_copy(update={"model_name": "gpt-4o"}).bind(
            extra_headers={"x-stagelight-fault": "server_error"}
        )
        return await way.invoke(bad.with_fallbacks([model]), ASKED)

    captured, _ = with_client(way, simulator, scenario)
    (turn,) = captured.turns

    assert [(call.name, call.outcome) for call in turn.calls] == [
        ("chat gpt-4o", "error"),
        ("chat gpt-4o-mini", "completed"),
    ]
    assert turn.outcome == "completed"


def test_a_failed_request(way: scene.Way, simulator: Simulator) -> None:
    """The client's error reaches the caller and is the one call's."""

    async def scenario(way: scene.Way, model: Any) -> None:
        with pytest.raises(openai.InternalServerError):
            await way.invoke(model, ASKED)

    captured, _ = with_client(way, simulator, scenario, default_headers={"x-stagelight-fault": "server_error"})

    assert [(call.outcome, call.error_type) for call in captured.calls] == [("error", "openai.InternalServerError")]


def test_the_caller_works_between_chunks(way: scene.Way, simulator: Simulator) -> None:
    """What the caller does with a chunk is outside the model's call, also another model's call."""

    async def scenario(way: scene.Way, model: Any) -> None:
        async with way.stream(scene.LocalStream(), ASKED) as chunks:
            async for _ in chunks:
                assert current_call() is None
                await way.invoke(model, ASKED)
                break

    captured, _ = with_client(way, simulator, scenario)

    assert sorted((call.name, call.outcome) for call in captured.calls) == [
        ("chat gpt-4o-mini", "completed"),
        ("chat tide-1", "client_abandoned"),
    ]
    assert all(span.parent is None for span in captured.spans)


def test_a_model_made_of_another(way: scene.Way, simulator: Simulator) -> None:
    """A model that asks another one is no second call, whether a client serves that or not."""

    class Outer(scene.Local):
        """Asks another model."""

        inner: Any

        def _generate(self, *args: Any, **more: Any) -> ChatResult:
            return ChatResult(generations=[ChatGeneration(message=AIMessage(self.inner.invoke(ASKED).content))])

        async def _agenerate(self, *args: Any, **more: Any) -> ChatResult:
            answer = await self.inner.ainvoke(ASKED)
            return ChatResult(generations=[ChatGeneration(message=AIMessage(answer.content))])

    async def scenario(way: scene.Way, model: Any) -> None:
        await way.invoke(Outer(inner=model), ASKED)
        await way.invoke(Outer(inner=scene.Local()), ASKED)

    captured, _ = with_client(way, simulator, scenario)

    assert [call.name for call in captured.calls] == ["chat gpt-4o-mini", "chat tide-1"]


def test_many_at_once(simulator: Simulator) -> None:
    """Concurrent chains of one task do not take each other's calls."""

    async def scenario(way: scene.Way, model: Any) -> None:
        async def one(number: int) -> None:
            with stagelight.turn(f"turn-{number}"):
                await asyncio.gather(model.ainvoke(ASKED), scene.LocalStream().ainvoke(ASKED))

        await asyncio.gather(*map(one, range(8)))

    captured, _ = with_client(scene.Way("async"), simulator, scenario)

    assert [sorted(call.name for call in captured.turn(f"turn-{number}").calls) for number in range(8)] == [
        ["chat gpt-4o-mini", "chat tide-1"]
    ] * 8


@pytest.fixture
def cache() -> Iterator[InMemoryCache]:
    """A cache for all models."""
    kept = InMemoryCache()
    set_llm_cache(kept)
    yield kept
    set_llm_cache(None)


def test_a_cached_answer_is_no_call(way: scene.Way, simulator: Simulator, cache: InMemoryCache) -> None:
    """The second time nobody is asked, whether a client serves the model or not."""

    async def twice(way: scene.Way, model: Any) -> Any:
        return [(await way.invoke(model, ASKED)).content for _ in range(2)]

    captured, (first, second) = with_client(way, simulator, twice)
    captured_alone, _ = alone(way, scene.Local(), twice)

    assert first == second
    assert [len(found.spans) for found in (captured, captured_alone)] == [1, 1]
    assert [len(found.ledger) for found in (captured, captured_alone)] == [1, 1]


def test_a_cached_completion_is_no_call(way: scene.Way, cache: InMemoryCache) -> None:
    """Models that complete text ask the cache before their run begins."""

    async def twice(way: scene.Way, model: Any) -> Any:
        return [await way.invoke(model, ASKED) for _ in range(2)]

    captured, answers = alone(way, FakeListLLM(responses=["one", "two"]), twice)

    assert answers == ["one", "one"]
    assert [call.name for call in captured.calls] == ["text_completion"]
