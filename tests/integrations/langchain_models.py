"""Models of LangChain under test: asked once, in one piece or in chunks, over a recorded client or without any."""

from __future__ import annotations

from typing import Any

import langchain_scene as scene
from stagelight.sim import Simulator
from stagelight.testing import Captured

__all__ = ["ASKED", "alone", "invoke", "stream", "with_client"]

ASKED = "What do tides do?"


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
