"""Tools of the Google Gen AI client: the provider's own, and functions that the client calls by itself."""

from __future__ import annotations

from typing import Any

import pytest
import stagelight
from stagelight.conventions import attributes as a

CLIENT = "google_genai"
pytestmark = pytest.mark.usefixtures("recorded")

ASK = {"model": "gemini-2.5-flash", "contents": "What do tides do?"}


def test_what_tools_gave_is_input(world: Any, script: Any) -> None:
    """Tokens that a tool of the provider gave to the model are part of the input."""
    usages: list[Any] = []

    async def scenario(client: Any) -> None:
        answer = await script.now(client.models.generate_content(**ASK, config={"tools": [{"google_search": {}}]}))
        usages.append(answer.usage_metadata)

    call = world.run(scenario).call("llm")

    assert usages[0].tool_use_prompt_token_count == 20
    assert call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS] == usages[0].prompt_token_count + 20


def weather_of(answer: Any) -> Any:
    """A function that the client may call: it returns ``answer``, or raises it."""

    def weather(city: str) -> str:
        """The weather in a city."""
        assert city == "Paris"
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    weather.__annotations__ = {"city": str, "return": str}  # older clients do not read them as text
    return weather


@pytest.mark.parametrize("streamed", [False, True])
def test_functions_that_the_client_calls(world: Any, script: Any, streamed: bool) -> None:
    """Two requests and one execution between them, inside the turn, each counted once."""
    config = {"tools": [weather_of("It is sunny in Paris today.")]}
    asked = {"model": "gemini-2.5-flash", "contents": "What is the weather in Paris?", "config": config}

    async def scenario(client: Any) -> None:
        with stagelight.turn("answer"):
            if streamed:
                stream = await script.now(client.models.generate_content_stream(**asked))
                said = "".join([chunk.text or "" async for chunk in script.each(stream)])
            else:
                said = (await script.now(client.models.generate_content(**asked))).text
            assert said == "It is sunny in Paris today."

    captured = world.run(scenario)
    turn = captured.turn("answer")
    names = [call.name for call in sorted(turn.calls, key=lambda call: call.span.start_time or 0)]

    assert sorted(names) == ["execute_tool weather", *["generate_content gemini-2.5-flash"] * 2]
    assert [call.outcome for call in turn.calls] == ["completed"] * 3
    assert len(captured.ledger) == 2


def test_a_function_that_fails(world: Any, script: Any) -> None:
    """The function's own error is the execution's; the client tells the model, and the turn goes on."""
    config = {"tools": [weather_of(ZeroDivisionError("secret"))]}

    async def scenario(client: Any) -> None:
        asked = {"model": "gemini-2.5-flash", "contents": "What is the weather in Paris?", "config": config}
        await script.now(client.models.generate_content(**asked))

    calls = world.run(scenario).calls
    (tool,) = [call for call in calls if call.stage == "tool"]

    assert (tool.outcome, tool.error_type) == ("error", "ZeroDivisionError")
    assert [call.outcome for call in calls if call.stage == "llm"] == ["completed", "completed"]
    assert "secret" not in repr([(call.name, dict(call.attributes)) for call in calls])
