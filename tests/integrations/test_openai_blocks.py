"""The client inside blocks of the caller's own: spans, turns, and manual calls that it fills."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
import stagelight
from opentelemetry import trace
from stagelight.conventions import attributes as a
from stagelight.testing import capture

pytestmark = pytest.mark.usefixtures("recorded")

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What do tides do?"}]}
FAULT = {"x-stagelight-fault": "server_error"}


def test_inside_a_span(world: Any, script: Any) -> None:
    """A call inside a span of anybody's is its child, and the span is current again afterwards."""
    current: list[Any] = []

    async def scenario(client: Any) -> None:
        tracer = captured.tracer_provider.get_tracer("host")
        with tracer.start_as_current_span("outer") as outer:
            await script.now(client.chat.completions.create(**CHAT))
            current.append(trace.get_current_span() is outer)

    with capture() as captured:
        world.play(scenario)
    inner, outer = captured.spans

    assert (inner.name, outer.name, current) == ("chat gpt-4o-mini", "outer", [True])
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id


def test_a_manual_call_around_the_client_is_one_call(world: Any, script: Any) -> None:
    """The client fills the facts of the block it is called in: one span, one cost."""

    async def scenario(client: Any) -> None:
        with stagelight.llm(provider="openai", model="my-alias"):
            await script.now(client.chat.completions.create(**CHAT, temperature=0.5))

    captured = world.run(scenario)
    call = captured.call("llm")

    assert call.attributes[a.GEN_AI_REQUEST_MODEL] == "my-alias"
    assert call.attributes[a.GEN_AI_REQUEST_TEMPERATURE] == 0.5
    assert call.attributes[a.GEN_AI_RESPONSE_MODEL] == "gpt-4o-mini-2024-07-18"
    assert len(captured.ledger) == 1


def test_a_block_knows_the_provider_of_an_unknown_host(world: Any, script: Any) -> None:
    """A client at a host nobody has named is the call of the block it is in, whatever provider that says."""

    async def scenario(client: Any) -> None:
        with stagelight.llm(provider="acme", model="acme-large"):
            await script.now(client.chat.completions.create(**CHAT))
        await script.now(client.chat.completions.create(**CHAT))

    with capture() as captured:
        world.play(scenario)

    assert [call.attributes[a.GEN_AI_PROVIDER_NAME] for call in captured.calls] == ["acme", "openai_compatible"]


def test_a_failure_inside_a_manual_call_ends_it_once(world: Any, script: Any) -> None:
    """The block, not the client, decides how it ends: here with the exception that leaves it."""

    async def scenario(client: Any) -> None:
        with pytest.raises(openai.InternalServerError), stagelight.llm(provider="openai", model="gpt-4o-mini"):
            await script.now(client.chat.completions.create(**CHAT, extra_headers=FAULT))

    call = world.run(scenario).call("llm")

    assert (call.outcome, call.error_type) == ("error", "openai.InternalServerError")


def test_two_providers_in_one_block(world: Any, script: Any) -> None:
    """A client of another provider inside a block is a call of its own."""

    async def scenario(client: Any) -> None:
        with stagelight.llm(provider="groq", model="llama-3.3-70b-versatile"):
            await script.now(client.chat.completions.create(**CHAT))

    captured = world.run(scenario)
    inner, outer = captured.calls

    assert [one.attributes[a.GEN_AI_PROVIDER_NAME] for one in (inner, outer)] == ["openai", "groq"]
    assert inner.span.parent is not None
    assert inner.span.parent.span_id == outer.span.context.span_id
    assert (inner.cost_status, outer.cost_status) == ("exact", None)
    assert captured.cost == inner.cost


def test_calls_at_the_same_time(world: Any, script: Any) -> None:
    """Calls that run at the same time in two turns find each its own."""

    async def one(client: Any, name: str, model: str) -> None:
        with stagelight.turn(name):
            if world.kind == "async":
                await client.chat.completions.create(**{**CHAT, "model": model})
            else:
                context = asyncio.to_thread(client.chat.completions.create, **{**CHAT, "model": model})
                await context

    async def scenario(client: Any) -> None:
        await asyncio.gather(one(client, "first", "gpt-4o-mini"), one(client, "second", "gpt-4o"))

    captured = world.run(scenario)

    assert [call.name for call in captured.turn("first").calls] == ["chat gpt-4o-mini"]
    assert [call.name for call in captured.turn("second").calls] == ["chat gpt-4o"]
