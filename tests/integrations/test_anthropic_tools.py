"""The tool runner of the Anthropic client: one call per request, one execution per tool it runs."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
import stagelight
from stagelight.conventions import attributes as a

CLIENT = "anthropic"
pytestmark = [
    pytest.mark.usefixtures("recorded"),
    pytest.mark.skipif(not hasattr(anthropic, "beta_tool"), reason="this version of the client has no tool runner"),
]

ASK = {
    "model": "claude-haiku-4-5",
    "max_tokens": 500,
    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
}


def weather_tool(world: Any, answer: Any) -> Any:
    """A tool of the client's kind that returns ``answer``, or raises it."""

    def weather(city: str) -> str:
        """The weather in a city.

        Args:
            city: Name of the city.
        """
        assert city == "Paris"
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    async def weather_async(city: str) -> str:
        """The weather in a city.

        Args:
            city: Name of the city.
        """
        return weather(city)

    if world.kind == "async":
        return anthropic.beta_async_tool(weather_async, name="weather")
    return anthropic.beta_tool(weather)


def test_a_run_of_tools(world: Any, script: Any) -> None:
    """Two requests and one execution between them, inside the turn, each counted once."""
    answers: list[Any] = []

    async def scenario(client: Any) -> None:
        with stagelight.turn("answer"):
            runner = client.beta.messages.tool_runner(**ASK, tools=[weather_tool(world, "It is sunny in Paris.")])
            answers.append(await script.now(runner.until_done()))

    captured = world.run(scenario)
    turn = captured.turn("answer")
    first, tool, second = sorted(turn.calls, key=lambda call: call.span.start_time or 0)

    assert [first.name, tool.name, second.name] == [
        "chat claude-haiku-4-5", "execute_tool weather", "chat claude-haiku-4-5",
    ]  # fmt: skip
    assert (tool.outcome, tool.attributes[a.GEN_AI_TOOL_NAME]) == ("completed", "weather")
    assert first.attributes[a.GEN_AI_RESPONSE_FINISH_REASONS] == ("tool_calls",)
    assert second.attributes[a.GEN_AI_RESPONSE_ID] == answers[0].id
    assert len(captured.ledger) == 2
    assert turn.cost == first.cost + second.cost
    assert {call.span.parent.span_id for call in turn.calls} == {turn.span.context.span_id}


def test_a_streamed_run(world: Any, script: Any) -> None:
    """A runner that streams has the same calls."""

    async def scenario(client: Any) -> None:
        runner = client.beta.messages.tool_runner(**ASK, stream=True, tools=[weather_tool(world, "Sunny.")])
        async for stream in script.each(runner):
            async for _ in script.each(stream):
                pass

    calls = world.run(scenario).calls

    assert sorted(call.stage for call in calls) == ["llm", "llm", "tool"]
    assert [call.outcome for call in calls] == ["completed"] * 3


def test_a_tool_that_fails(world: Any, script: Any) -> None:
    """The tool's own error is the execution's; the runner tells the model, and the turn goes on."""

    async def scenario(client: Any) -> None:
        runner = client.beta.messages.tool_runner(**ASK, tools=[weather_tool(world, ZeroDivisionError("secret"))])
        await script.now(runner.until_done())

    calls = world.run(scenario).calls
    (tool,) = [call for call in calls if call.stage == "tool"]

    assert (tool.outcome, tool.error_type) == ("error", "ZeroDivisionError")
    assert [call.outcome for call in calls if call.stage == "llm"] == ["completed", "completed"]
    assert "secret" not in repr([(call.name, dict(call.attributes)) for call in calls])
