"""The handler that joins LangChain's callbacks: beside others, bounded, one in its process, gone when it is off."""

from __future__ import annotations

import copy
import pickle
import uuid
from typing import Any

import langchain_scene as scene
import pytest
from integrations.langchain_chains import CHAIN, GIVEN, PROMPT, ran, shape
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool
from stagelight.integrations import _langchain_runs
from stagelight.integrations.langchain import LangChainInstrumentor, callback_handler
from stagelight.sim import Simulator
from stagelight.testing import capture

CLIENTS = ("openai",)
pytestmark = pytest.mark.usefixtures("langchain")


def test_the_users_own_callbacks(way: scene.Way, simulator: Simulator) -> None:
    """Callbacks of the application's are called as without us."""

    class Noting(BaseCallbackHandler):
        """Notes what it is told."""

        def __init__(self) -> None:
            self.noted: list[str] = []

        def on_chain_start(self, *_: Any, **more: Any) -> None:
            self.noted.append(f"start {more.get('name')}")

        def on_chat_model_start(self, *_: Any, **__: Any) -> None:
            self.noted.append("model")

        def on_llm_end(self, *_: Any, **__: Any) -> None:
            self.noted.append("answer")

        def on_chain_end(self, *_: Any, **__: Any) -> None:
            self.noted.append("end")

    async def scenario(way: scene.Way, model: Any) -> list[str]:
        noting = Noting()
        callbacks = [noting]
        await way.invoke(PROMPT | model, GIVEN, {"callbacks": callbacks})
        assert callbacks == [noting]
        return noting.noted

    captured, with_us = ran(way, simulator, scenario)
    LangChainInstrumentor().uninstrument()
    _, alone = ran(way, simulator, scenario)
    LangChainInstrumentor().switch_on()

    assert shape(captured) == CHAIN
    assert with_us == alone


def test_runs_that_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded number is known; the oldest is let go, and its turn ends as left."""
    monkeypatch.setattr(_langchain_runs, "_MOST_RUNS", 3)
    handler, runs = callback_handler(), [uuid.uuid4() for _ in range(5)]
    with capture() as captured:
        for run in runs:
            handler.on_chain_start(None, {}, run_id=run, name="endless")
            handler.on_chat_model_start(None, [], run_id=run, parent_run_id=run)
            handler.on_llm_new_token("word", run_id=run)
        kept = handler.unfinished
        for run in runs:
            handler.on_llm_end(None, run_id=run)
            handler.on_chain_end({}, run_id=run)

    assert kept == 6
    assert sorted(call.outcome for call in captured.calls) == ["client_abandoned"] * 2 + ["completed"] * 3
    assert len(captured.turns) == 5


def test_switched_off_everything_is_as_before() -> None:
    """LangChain has its very own functions again, and no handler joins."""
    instrumentor = LangChainInstrumentor()
    instrumentor.uninstrument()
    places = ((BaseChatModel, "stream"), (BaseChatModel, "_generate_with_cache"), (BaseTool, "run"))
    before = [vars(kind)[name] for kind, name in places]
    instrumentor.switch_on()
    assert all(vars(kind)[name] is not own for (kind, name), own in zip(places, before, strict=True))
    instrumentor.uninstrument()

    assert [vars(kind)[name] for kind, name in places] == before
    with capture() as captured:
        (PROMPT | scene.Local()).invoke(GIVEN)
    assert captured.spans == ()
    instrumentor.switch_on()


def test_the_handler_is_one() -> None:
    """Copied or pickled with a configuration, it stays the one handler."""
    handler = callback_handler()

    assert copy.deepcopy({"callbacks": [handler]})["callbacks"][0] is handler
    assert pickle.loads(pickle.dumps(handler)) is handler  # noqa: S301 - our own bytes
