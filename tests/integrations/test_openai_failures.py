"""Calls in one piece that fail, are repeated or cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from integrations.cancelling import cancel_while_held
from opentelemetry import trace
from stagelight.testing import capture

pytestmark = pytest.mark.usefixtures("recorded")

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What do tides do?"}]}
FAULT = {"x-stagelight-fault": "server_error"}
FAILURES = [
    ({"extra_headers": FAULT}, openai.InternalServerError, "error"),
    ({"extra_headers": {"x-stagelight-fault": "rate_limit"}}, openai.RateLimitError, "error"),
    ({"extra_headers": {"x-stagelight-fault": "timeout"}, "timeout": 0.05}, openai.APITimeoutError, "timeout"),
    ({"temperature": 9}, openai.BadRequestError, "error"),
]


@pytest.mark.parametrize(("more", "kind", "outcome"), FAILURES)
def test_failures(world: Any, script: Any, more: Any, kind: type[Exception], outcome: str) -> None:
    """A failed call ends with the class of the client's own exception, without cost, and the caller gets that one."""
    seen: list[BaseException] = []

    async def scenario(client: Any) -> None:
        with pytest.raises(kind) as raised:
            await script.now(client.chat.completions.create(**CHAT, **more))
        seen.append(raised.value)

    captured = world.run(scenario)
    call = captured.call("llm")

    assert (call.outcome, call.error_type) == (outcome, f"openai.{kind.__name__}")
    assert call.span.status.status_code is trace.StatusCode.ERROR
    assert call.span.status.description is None
    assert call.cost is None
    assert call.span.events == ()
    assert type(seen[0]) is kind


def test_a_wrong_argument_is_no_call(world: Any, script: Any) -> None:
    """What the client refuses before it sends anything is not recorded."""

    async def scenario(client: Any) -> None:
        with pytest.raises(TypeError):
            await script.now(client.chat.completions.create())

    assert world.run(scenario).calls == ()


def test_retries_are_one_call(world: Any, script: Any) -> None:
    """A client that tries again inside one call makes one span, with the last answer."""

    async def scenario(client: Any) -> None:
        with pytest.raises(openai.RateLimitError):
            await script.now(
                client.chat.completions.create(**CHAT, extra_headers={"x-stagelight-fault": "rate_limit;retry_after=0"})
            )

    captured = world.run(scenario, max_retries=1)

    assert len(world.simulator.requests) == 2
    assert captured.call("llm").error_type == "openai.RateLimitError"


def test_cancellation_is_no_error(simulator: Any) -> None:
    """A cancelled task ends its call as cancelled, without error."""

    async def scenario() -> None:
        client = openai.AsyncOpenAI(base_url=simulator.url, api_key="key", max_retries=0)
        hold = simulator.hold("response", path="/v1/chat/completions")
        await cancel_while_held(client.chat.completions.create(**CHAT), hold)
        await client.close()

    with capture() as captured:
        asyncio.run(scenario())
    call = captured.call("llm")

    assert (call.outcome, call.error_type, call.span.status.is_unset) == ("cancelled", None, True)
