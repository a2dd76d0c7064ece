"""Models of LangChain that no client serves: their calls are what LangChain tells of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import langchain_scene as scene
import pytest
import stagelight
from integrations.langchain_models import ASKED, alone, invoke, stream, with_client
from langchain_core.language_models.fake import FakeStreamingListLLM
from langchain_core.language_models.llms import LLM
from langchain_core.outputs import ChatResult
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.sim import Simulator

CLIENTS = ("openai", "anthropic")
pytestmark = pytest.mark.usefixtures("langchain")


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


def test_facts_given_by_the_model_itself() -> None:
    """A model of the application's own can add facts to its call."""

    class Telling(scene.Local):
        """Knows its usage."""

        def _generate(self, *args: Any, **more: Any) -> ChatResult:
            stagelight.current().usage(input_tokens=11, output_tokens=3)
            return super()._generate(*args, **more)

    captured, _ = alone(scene.Way("sync"), Telling(usage=None), invoke)

    assert captured.call("llm").attributes[a.GEN_AI_USAGE_INPUT_TOKENS] == 11


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
