"""Blocks of the application's own around and inside models of LangChain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import langchain_scene as scene
import pytest
import stagelight
from integrations.langchain_models import ASKED, alone, invoke, stream, with_client
from langchain_core.messages import HumanMessage
from langchain_core.outputs import ChatResult
from stagelight.conventions import attributes as a
from stagelight.integrations.langchain import LangChainInstrumentor, read
from stagelight.sim import Simulator

CLIENTS = ("openai", "anthropic")
pytestmark = pytest.mark.usefixtures("langchain")


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
