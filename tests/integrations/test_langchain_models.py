"""Models of LangChain: one call for each request, the client's own where one is recorded, else what LangChain tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import langchain_scene as scene
import openai
import pytest
import stagelight
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel, FakeListLLM
from langchain_core.language_models.fake import FakeStreamingListLLM
from langchain_core.language_models.llms import LLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from stagelight._calls import current_call
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.integrations.langchain import LangChainInstrumentor, read
from stagelight.sim import Simulator
from stagelight.testing import Captured

ASKED = "What do tides do?"


@pytest.fixture(autouse=True)
def recorded() -> Iterator[None]:
    """LangChain and its providers' clients are recorded."""
    with scene.recording("openai", "anthropic"):
        yield


@pytest.fixture(params=["sync", "async"])
def way(request: pytest.FixtureRequest) -> scene.Way:
    """Both ways of calling."""
    return scene.Way(request.param)


@pytest.fixture(params=["openai", "anthropic"])
def provider(request: pytest.FixtureRequest) -> str:
    """Both providers."""
    return str(request.param)


def with_client(
    way: scene.Way, simulator: Simulator, scenario: scene.Scenario, provider: str = "openai", **options: Any
) -> tuple[Captured, Any]:
    """A scenario with a model over a recorded client."""
    make = {"openai": scene.openai_model, "anthropic": scene.anthropic_model}[provider]
    hosts = {scene.host_of(simulator): provider}
    return scene.played(way, scenario, lambda: make(simulator, **options), provider_hosts=hosts)


def alone(way: scene.Way, model: Any, scenario: scene.Scenario) -> tuple[Captured, Any]:
    """A scenario with a model that no client serves."""
    return scene.played(way, scenario, lambda: scene.made(model))


async def invoke(way: scene.Way, model: Any) -> Any:
    """One answer."""
    return await way.invoke(model, ASKED)


async def stream(way: scene.Way, model: Any) -> Any:
    """One answer in chunks."""
    return await way.chunks(model, ASKED)


# with a client


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


def test_retries_of_a_runnable(way: scene.Way) -> None:
    """Each attempt of ``with_retry`` is a call."""

    class Twice(scene.Local):
        """Fails once."""

        def _generate(self, *args: Any, **more: Any) -> ChatResult:
            self.error = ConnectionError("gone") if self.asked == 0 else None
            return super()._generate(*args, **more)

    async def scenario(way: scene.Way, model: Any) -> Any:
        return await way.invoke(model.with_retry(wait_exponential_jitter=False, stop_after_attempt=3), ASKED)

    captured, _ = alone(way, Twice(), scenario)

    assert [call.outcome for call in captured.calls] == ["error", "completed"]
    assert len(captured.turns) == 1


def test_a_failed_request(way: scene.Way, simulator: Simulator) -> None:
    """The client's error reaches the caller and is the one call's."""

    async def scenario(way: scene.Way, model: Any) -> None:
        with pytest.raises(openai.InternalServerError):
            await way.invoke(model, ASKED)

    captured, _ = with_client(way, simulator, scenario, default_headers={"x-stagelight-fault": "server_error"})

    assert [(call.outcome, call.error_type) for call in captured.calls] == [("error", "openai.InternalServerError")]


# without a client


def test_a_model_without_a_client(way: scene.Way) -> None:
    """The call is what LangChain tells of it."""
    captured, answer = alone(way, scene.Local(), invoke)
    call = captured.call("llm")

    assert answer.content == "The tide comes in."
    assert call.name == "chat tide-1"
    assert {key: call.attributes.get(key) for key in call.attributes if key.startswith("gen_ai.")} == {
        a.GEN_AI_OPERATION_NAME: "chat",
        a.GEN_AI_PROVIDER_NAME: "mistral_ai",
        a.GEN_AI_REQUEST_MODEL: "tide-1",
        a.GEN_AI_REQUEST_TEMPERATURE: 0.5,
        a.GEN_AI_RESPONSE_MODEL: "tide-1-0521",
        a.GEN_AI_RESPONSE_ID: "answer-1",
        a.GEN_AI_RESPONSE_FINISH_REASONS: ("stop",),
        a.GEN_AI_USAGE_INPUT_TOKENS: 120,
        a.GEN_AI_USAGE_OUTPUT_TOKENS: 30,
        a.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: 100,
        a.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: 8,
        a.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: 10,
    }
    assert (call.outcome, call.cost_status, len(captured.ledger)) == ("completed", "unpriced", 1)


def test_a_streamed_model_without_a_client(way: scene.Way) -> None:
    """Chunks, the first of them, and what the last one tells."""
    captured, chunks = alone(way, scene.LocalStream(), stream)
    call = captured.call("llm")

    assert "".join(chunk.content for chunk in chunks) == "Thetidecomesin."
    assert call.outcome == "length_cut"
    assert call.attributes[a.GEN_AI_REQUEST_STREAM] is True
    assert call.attributes[a.STAGELIGHT_STREAM_CHUNKS] >= 4
    assert call.attributes[a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] > 0
    assert call.attributes[a.GEN_AI_USAGE_OUTPUT_TOKENS] == 30


def test_a_model_that_tells_no_usage(way: scene.Way) -> None:
    """Unknown is not zero."""
    captured, _ = alone(way, scene.Local(usage=None), invoke)
    call = captured.call("llm")

    assert (call.cost_status, call.attributes[a.STAGELIGHT_COST_REASON]) == ("unpriced", "no_usage")
    assert a.GEN_AI_USAGE_INPUT_TOKENS not in call.attributes


class RefusedError(Exception):
    """What a model's own HTTP client raises."""

    status_code = 429


def test_a_model_that_fails(way: scene.Way) -> None:
    """The very error reaches the caller; its class and its HTTP status are recorded."""
    error = RefusedError("secret")

    async def scenario(way: scene.Way, model: Any) -> None:
        with pytest.raises(RefusedError) as caught:
            await way.invoke(model, ASKED)
        assert caught.value is error

    captured, _ = alone(way, scene.Local(error=error), scenario)
    call = captured.call("llm")

    assert call.outcome == "error"
    assert str(call.error_type).endswith("RefusedError")
    assert call.attributes[a.HTTP_RESPONSE_STATUS_CODE] == 429
    assert "secret" not in repr(dict(call.attributes))


def test_a_stream_that_breaks(way: scene.Way) -> None:
    """An error after the first chunk is the provider's."""

    async def scenario(way: scene.Way, model: Any) -> None:
        with pytest.raises(ConnectionError):
            await way.chunks(model, ASKED)

    captured, _ = alone(way, scene.LocalStream(error=ConnectionError("gone"), fails_after=2), scenario)
    call = captured.call("llm")

    assert (call.outcome, call.error_type) == ("provider_aborted", "ConnectionError")
    assert call.attributes[a.STAGELIGHT_STREAM_CHUNKS] == 2


def test_a_stream_that_is_left(way: scene.Way) -> None:
    """Whoever leaves a stream is no error."""

    async def scenario(way: scene.Way, model: Any) -> None:
        async with way.stream(model, ASKED) as chunks:
            await anext(chunks)

    captured, _ = alone(way, scene.LocalStream(), scenario)
    call = captured.call("llm")

    assert (call.outcome, call.error_type) == ("client_abandoned", None)


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


def test_facts_given_by_the_model_itself() -> None:
    """A model of the application's own can add facts to its call."""

    class Telling(scene.Local):
        """Knows its usage."""

        def _generate(self, *args: Any, **more: Any) -> ChatResult:
            stagelight.current().usage(input_tokens=11, output_tokens=3)
            return super()._generate(*args, **more)

    captured, _ = alone(scene.Way("sync"), Telling(usage=None), invoke)

    assert captured.call("llm").attributes[a.GEN_AI_USAGE_INPUT_TOKENS] == 11


# blocks of the application's own


@pytest.mark.parametrize("ask", [invoke, stream])
def test_a_block_around_a_client(way: scene.Way, simulator: Simulator, ask: Any) -> None:
    """A manual call around a model is that call, which the client fills."""

    async def scenario(way: scene.Way, model: Any) -> None:
        with stagelight.llm(provider="openai", model="gpt-4o-mini"):
            await ask(way, model)

    captured, _ = with_client(way, simulator, scenario, stream_usage=True)

    assert (len(captured.spans), len(captured.ledger), captured.call("llm").cost_status) == (1, 1, "exact")


@pytest.mark.parametrize("ask", [invoke, stream])
def test_a_block_around_a_model_without_a_client(way: scene.Way, ask: Any) -> None:
    """LangChain fills it."""

    async def scenario(way: scene.Way, model: Any) -> None:
        with stagelight.llm(provider="acme", model="tide"):
            await ask(way, model)

    captured, _ = alone(way, scene.LocalStream(), scenario)
    call = captured.call("llm")

    assert len(captured.spans) == 1
    assert (call.name, call.attributes[a.GEN_AI_PROVIDER_NAME]) == ("chat tide", "acme")
    assert call.attributes[a.GEN_AI_USAGE_OUTPUT_TOKENS] == 30


@pytest.mark.parametrize("ask", [invoke, stream])
def test_a_block_inside_a_model(way: scene.Way, ask: Any) -> None:
    """A model class that records its own request is counted once, as it says."""

    class Recorded(scene.LocalStream):
        """Opens a block around its request."""

        def _generate(self, *args: Any, **more: Any) -> ChatResult:
            with stagelight.llm(provider="acme", model="tide") as call:
                call.usage(input_tokens=11, output_tokens=3)
                return super()._generate(*args, **more)

        def _stream(self, *args: Any, **more: Any) -> Iterator[Any]:
            with stagelight.llm(provider="acme", model="tide") as call:
                call.usage(input_tokens=11, output_tokens=3)
                yield from call.stream(super()._stream(*args, **more))

    captured, _ = alone(way, Recorded(), ask)

    assert [(span.name, len(captured.ledger)) for span in captured.spans] == [("chat tide", 1)]
    assert captured.call("llm").attributes[a.GEN_AI_USAGE_INPUT_TOKENS] == 11


def test_a_block_of_another_stage_inside_a_model(way: scene.Way) -> None:
    """A search inside a model does not make the model's answer its own."""

    class Searching(scene.Local):
        """Searches first."""

        def _generate(self, *args: Any, **more: Any) -> ChatResult:
            with stagelight.retrieval(provider="acme", source="tides"):
                return super()._generate(*args, **more)

    captured, _ = alone(way, Searching(), invoke)

    assert sorted(call.stage for call in captured.calls) == ["llm", "retrieval"]


def test_a_block_after_the_first_chunk_of_a_model() -> None:
    """A run that a chunk has made a call stays one, and ends."""

    class Late(scene.LocalStream):
        """Says a word by itself before it asks."""

        def _stream(self, *args: Any, **more: Any) -> Iterator[Any]:
            words = super()._stream(*args, **more)
            yield next(words)
            with stagelight.llm(provider="acme", model="tide"):
                yield from words

    captured, _ = alone(scene.Way("sync"), Late(), stream)

    assert sorted((call.name, call.outcome) for call in captured.calls) == [
        ("chat tide", "completed"),
        ("chat tide-1", "length_cut"),
    ]


def test_answers_that_are_recorded_by_hand() -> None:
    """``record`` reads messages and results of LangChain's models, and nothing else of LangChain's."""
    model = scene.Local()

    async def scenario(_way: scene.Way, _model: Any) -> None:
        for answer in (model.invoke(ASKED), model.generate([[HumanMessage(ASKED)]])):
            with stagelight.llm(provider="acme", model="tide") as call:
                call.record(answer)

    LangChainInstrumentor().uninstrument()
    captured, _ = alone(scene.Way("sync"), model, scenario)
    LangChainInstrumentor().switch_on()

    assert [call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS] for call in captured.calls] == [120, 120]
    assert read(HumanMessage(ASKED)) is None


# caches


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


# models that complete text


def test_completions(way: scene.Way) -> None:
    """Plain and streamed they are calls with an operation of their own."""

    async def scenario(way: scene.Way, model: Any) -> Any:
        return await way.invoke(model, ASKED), await way.chunks(model, ASKED)

    captured, (_, chunks) = alone(way, FakeStreamingListLLM(responses=["one", "two"]), scenario)

    assert chunks == ["t", "w", "o"]
    assert [(call.name, call.outcome) for call in captured.calls] == [("text_completion", "completed")] * 2
    assert captured.metric(m.STAGELIGHT_USAGE_UNPRICED)[0].value == 2


def test_completions_of_a_client(way: scene.Way, simulator: Simulator) -> None:
    """Several prompts that one model gives to a client, one after the other, are the client's calls and no others."""

    class Completing(LLM):
        """Completes with a chat."""

        chat: Any

        @property
        def _llm_type(self) -> str:
            return "completing"

        def _call(self, prompt: str, stop: Any = None, run_manager: Any = None, **more: Any) -> str:
            answer = self.chat.client.create(model="gpt-4o-mini", messages=[{"role": "user", "content": prompt}])
            return str(answer.choices[0].message.content)

    async def scenario(way: scene.Way, model: Any) -> Any:
        completing = Completing(chat=model)
        if way.kind == "async":
            return await completing.agenerate([ASKED, "And moons?"])
        return completing.generate([ASKED, "And moons?"])

    captured, result = with_client(way, simulator, scenario)

    assert len(result.generations) == 2
    assert [call.name for call in captured.calls] == ["chat gpt-4o-mini"] * 2


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


def test_a_streaming_model_of_asynchronous_chunks(simulator: Simulator) -> None:
    """A model with an asynchronous stream of its own keeps its laziness: nothing runs before the first chunk."""
    began: list[str] = []

    class Lazy(scene.LocalStream):
        """Says when it begins."""

        async def _astream(self, *args: Any, **more: Any) -> AsyncIterator[Any]:
            began.append("now")
            for chunk in self._stream(*args, **more):
                yield chunk

    async def scenario(way: scene.Way, model: Any) -> list[int]:
        chunks = model.astream(ASKED)
        seen = [len(began)]
        await anext(chunks)
        seen.append(len(began))
        await chunks.aclose()
        return seen

    captured, seen = alone(scene.Way("async"), Lazy(), scenario)

    assert seen == [0, 1]
    assert captured.call("llm").outcome == "client_abandoned"
