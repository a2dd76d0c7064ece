"""What is left of a provider's rate limits, as its answers tell it: a gauge for each provider and model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from retrying import refusing
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.integrations.anthropic import AnthropicInstrumentor
from stagelight.integrations.openai import OpenAIInstrumentor
from stagelight.testing import Captured, capture

ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "What do tides do?"}]}
ASKED: dict[str, tuple[dict[str, Any], Callable[[Any], Any], str, str]] = {
    "openai": (
        {**ASK, "model": "gpt-4o-mini"},
        lambda client: client.chat.completions,
        "x-ratelimit-remaining-requests",
        "x-ratelimit-remaining-tokens",
    ),
    "anthropic": (
        {**ASK, "model": "claude-haiku-4-5", "max_tokens": 50},
        lambda client: client.messages,
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-tokens-remaining",
    ),
}
"""Per client: what is asked, where, and the headers that tell what is left."""


@pytest.fixture(params=ASKED)
def limited(request: pytest.FixtureRequest, world: Any) -> Any:
    """The simulator, by a client whose provider tells its limits."""
    world.library = request.param
    return world


@pytest.fixture(autouse=True)
def recorded() -> Iterator[None]:
    """Both clients are instrumented."""
    instrumentors = (OpenAIInstrumentor(), AnthropicInstrumentor())
    for one in instrumentors:
        assert one.switch_on()
    yield
    for one in instrumentors:
        one.uninstrument()


def left(captured: Captured, provider: str, model: str) -> tuple[float | None, float | None]:
    """What the gauges say of a model: requests and tokens."""
    labels = {a.GEN_AI_PROVIDER_NAME: provider, a.GEN_AI_REQUEST_MODEL: model}
    found: list[float | None] = []
    for name in (m.STAGELIGHT_RATELIMIT_REMAINING_REQUESTS, m.STAGELIGHT_RATELIMIT_REMAINING_TOKENS):
        points = captured.metric(name)
        assert all(point.attributes == labels for point in points)
        assert len(points) <= 1
        found.append(points[0].value if points else None)
    return found[0], found[1]


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_limits_of_an_answer(limited: Any, script: Any, streamed: bool) -> None:
    """The gauges say what the headers of the last answer said."""
    asked, resource, requests, tokens = ASKED[limited.library]
    told: list[tuple[int, int]] = []

    async def scenario(client: Any) -> None:
        for content in ("What do tides do?", "What do tides do, in some more words than before?"):
            more = {"stream": True} if streamed else {}
            raw = await script.now(
                resource(client).with_raw_response.create(
                    **{**asked, "messages": [{"role": "user", "content": content}]}, **more
                )
            )
            told.append((int(raw.headers[requests]), int(raw.headers[tokens])))
            answer = await script.now(raw.parse())
            if streamed:
                async for _ in script.each(answer):
                    pass

    captured = limited.run(scenario)

    assert len(told) == 2
    assert left(captured, limited.library, asked["model"]) == told[-1]


def test_limits_of_a_refusal(limited: Any, script: Any) -> None:
    """The answer that there are no requests left is believed."""
    asked, resource, _, _ = ASKED[limited.library]

    async def scenario(client: Any) -> None:
        with pytest.raises((openai.RateLimitError, anthropic.RateLimitError)):
            await script.now(resource(client).create(**asked))

    with refusing(429) as simulator:
        captured = type(limited)(limited.kind, simulator, limited.library).run(scenario)

    assert left(captured, limited.library, asked["model"])[0] == 0


@pytest.mark.parametrize("told", ["", "many", "-1", "1.5", "9" * 40])
def test_limits_that_are_no_numbers(told: str) -> None:
    """A header that cannot be read says nothing, and no earlier answer's figure is overwritten."""
    body = {"id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini", "choices": []}
    headers = [{"x-ratelimit-remaining-requests": "7"}, {"x-ratelimit-remaining-requests": told}]
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=body, headers=headers.pop(0)))
    with capture() as captured, openai.OpenAI(api_key="key", http_client=httpx2.Client(transport=transport)) as client:
        for _ in range(2):
            client.chat.completions.create(model="gpt-4o-mini", messages=ASK["messages"])

    assert left(captured, "openai", "gpt-4o-mini") == (7, None)
