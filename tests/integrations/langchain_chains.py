"""Chains of LangChain under test: a question to a model over the OpenAI client, and what is recorded of it."""

from __future__ import annotations

from typing import Any

import langchain_scene as scene
from langchain_core.prompts import ChatPromptTemplate
from stagelight.sim import Simulator
from stagelight.testing import Captured

__all__ = ["CHAIN", "GIVEN", "PROMPT", "ran", "shape"]

PROMPT = ChatPromptTemplate.from_template("What do {things} do?")
GIVEN = {"things": "tides"}
CHAIN = [
    ("invoke_workflow RunnableSequence", "completed", None),
    ("chat gpt-4o-mini", "completed", "invoke_workflow RunnableSequence"),
]
"""The shape of a prompt and a model."""


def shape(captured: Captured) -> list[tuple[str, str, str | None]]:
    """Name, outcome and name of the parent of every span, in the order of their starts."""
    names = {span.context.span_id: span.name for span in captured.spans}
    spans = sorted((*captured.calls, *captured.turns), key=lambda call: call.span.start_time or 0)
    return [(c.name, c.outcome, names.get(c.span.parent.span_id) if c.span.parent else None) for c in spans]


def ran(way: scene.Way, simulator: Simulator, scenario: scene.Scenario, **settings: Any) -> tuple[Captured, Any]:
    """A scenario with an OpenAI model."""
    hosts = {scene.host_of(simulator): "openai"}
    return scene.played(way, scenario, lambda: scene.openai_model(simulator), provider_hosts=hosts, **settings)
