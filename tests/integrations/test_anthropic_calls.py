"""Calls of the Anthropic client in one piece: what they leave behind, however they are made and end."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import anthropic
import pytest
import stagelight
from integrations.cancelling import cancel_while_held
from opentelemetry import trace
from stagelight.conventions import attributes as a
from stagelight.testing import Clock, capture

CLIENT = "anthropic"
pytestmark = pytest.mark.usefixtures("recorded")

ASK = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "What do tides do?"}]}
LONG = "Tides come and go with the moon, and the moon does not know. " * 150


def fault(text: str) -> dict[str, Any]:
    """The keyword that makes the simulator fail."""
    return {"extra_headers": {"x-stagelight-fault": text}}


def priced(call: Any) -> dict[str, Any]:
    """What the call says of its price."""
    return {key: value for key, value in call.attributes.items() if ".cost." in key}


def test_a_message(world: Any, script: Any) -> None:
    """A message leaves one span with what was asked, what came back, its tokens and its exact price."""
    answers: list[Any] = []

    async def scenario(client: Any) -> None:
        sampling = {"extra_body": {"temperature": 0.2, "top_p": 0.9, "top_k": 40}}
        answers.append(await script.now(client.messages.create(**ASK, **sampling, stop_sequences=["END"])))

    call = world.run(scenario, clock=Clock()).call("llm")
    usage = answers[0].usage
    # 1 and 5 USD per million tokens: https://www.anthropic.com/pricing#api
    amount = (usage.input_tokens * Decimal(1) + usage.output_tokens * Decimal(5)) / 10**6

    assert (call.name, call.span.kind, call.span.status.is_unset) == (
        "chat claude-haiku-4-5", trace.SpanKind.CLIENT, True,
    )  # fmt: skip
    assert call.attributes == {
        a.STAGELIGHT_STAGE: "llm",
        a.GEN_AI_OPERATION_NAME: "chat",
        a.GEN_AI_PROVIDER_NAME: "anthropic",
        a.GEN_AI_REQUEST_MODEL: "claude-haiku-4-5",
        a.SERVER_ADDRESS: "127.0.0.1",
        a.SERVER_PORT: world.port,
        a.GEN_AI_REQUEST_TEMPERATURE: 0.2,
        a.GEN_AI_REQUEST_TOP_P: 0.9,
        a.GEN_AI_REQUEST_TOP_K: 40,
        a.GEN_AI_REQUEST_MAX_TOKENS: 100,
        a.GEN_AI_RESPONSE_MODEL: "claude-haiku-4-5-20251001",
        a.GEN_AI_RESPONSE_ID: answers[0].id,
        a.GEN_AI_RESPONSE_FINISH_REASONS: ("stop",),
        a.GEN_AI_USAGE_INPUT_TOKENS: usage.input_tokens,
        a.GEN_AI_USAGE_OUTPUT_TOKENS: usage.output_tokens,
        a.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: 0,
        a.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: 0,
        a.STAGELIGHT_COST_AMOUNT: float(amount),
        a.STAGELIGHT_COST_CURRENCY: "USD",
        a.STAGELIGHT_COST_SOURCE: "local",
        a.STAGELIGHT_COST_STATUS: "exact",
        a.STAGELIGHT_COST_PRICE_SOURCE: call.attributes[a.STAGELIGHT_COST_PRICE_SOURCE],
        a.STAGELIGHT_COST_MODEL: "anthropic/claude-haiku-4-5",
        a.STAGELIGHT_OUTCOME: "completed",
    }


@pytest.mark.parametrize(("ttl", "written"), [("5m", Decimal("1.25")), ("1h", Decimal(2))])
def test_cached_prompts(world: Any, script: Any, ttl: str, written: Decimal) -> None:
    """Cached tokens are part of the input; writing and reading them has the price of their time-to-live."""
    usages: list[Any] = []
    system = [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": ttl}}]

    async def scenario(client: Any) -> None:
        usages.extend([(await script.now(client.messages.create(**ASK, system=system))).usage for _ in range(2)])

    calls = world.run(scenario).calls
    first, second = usages
    prices = [
        first.cache_creation_input_tokens * written + first.input_tokens + 5 * first.output_tokens,
        second.cache_read_input_tokens * Decimal("0.1") + second.input_tokens + 5 * second.output_tokens,
    ]

    assert first.cache_creation_input_tokens == second.cache_read_input_tokens > 1024
    whole = first.input_tokens + first.cache_creation_input_tokens
    assert [call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS] for call in calls] == [whole, whole]
    assert [call.attributes[a.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS] for call in calls] == [
        first.cache_creation_input_tokens, 0,
    ]  # fmt: skip
    assert [call.attributes[a.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS] for call in calls] == [
        0, second.cache_read_input_tokens,
    ]  # fmt: skip
    assert [(call.cost, call.cost_status) for call in calls] == [(price / 10**6, "exact") for price in prices]


def test_thinking_and_searches(world: Any, script: Any) -> None:
    """Thinking is reasoning, within the output; a search of the web is a charge of its own."""
    asked = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "output_config": {"effort": "low"}}

    async def scenario(client: Any) -> None:
        tools = [{"type": "web_search_20250305", "name": "web_search"}]
        await script.now(client.messages.create(**{**ASK, "max_tokens": 2000}, extra_body=asked, tools=tools))

    call = world.run(scenario).call("llm")
    tokens = (call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS], call.attributes[a.GEN_AI_USAGE_OUTPUT_TOKENS])

    assert call.attributes[a.GEN_AI_REQUEST_REASONING_LEVEL] == "low"
    assert 64 == call.attributes[a.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS] < tokens[1]
    assert call.attributes[a.STAGELIGHT_USAGE_SEARCHES] == 1
    assert call.cost == (tokens[0] + 5 * tokens[1]) / Decimal(10**6) + Decimal("0.01")


@pytest.mark.parametrize(
    ("asked", "reasons", "outcome"),
    [
        ({"max_tokens": 2}, ("length",), "length_cut"),
        (fault("content_filter;after=2"), ("refusal",), "completed"),
        ({"stop_sequences": ["tides"]}, ("stop",), "completed"),
        ({"messages": [{"role": "user", "content": "What is the weather in Paris?"}]}, ("tool_calls",), "completed"),
    ],
)
def test_reasons_to_stop(world: Any, script: Any, asked: Any, reasons: Any, outcome: str) -> None:
    """Every reason has the word of chat completions for it where there is one; a refusal is no error."""
    weather = {"name": "weather", "description": "The weather in a city", "input_schema": {"type": "object"}}

    async def scenario(client: Any) -> None:
        await script.now(client.messages.create(**{**ASK, "tools": [weather], **asked}))

    call = world.run(scenario).call("llm")

    assert (call.attributes[a.GEN_AI_RESPONSE_FINISH_REASONS], call.outcome) == (reasons, outcome)


def test_structured_answers(world: Any, script: Any) -> None:
    """A schema for the answer makes its type JSON."""
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}

    async def scenario(client: Any) -> None:
        body = {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
        await script.now(client.messages.create(**ASK, extra_body=body))

    assert world.run(scenario).call("llm").attributes[a.GEN_AI_OUTPUT_TYPE] == "json"


def test_rate_limits_come_from_the_headers(world: Any, script: Any) -> None:
    """What is left of the limits is read from every answer."""

    async def scenario(client: Any) -> None:
        await script.now(client.messages.create(**ASK))

    captured = world.run(scenario)

    (requests,) = captured.metric("stagelight.ratelimit.remaining_requests")
    (tokens,) = captured.metric("stagelight.ratelimit.remaining_tokens")
    assert (requests.value, requests.attributes[a.GEN_AI_PROVIDER_NAME]) == (3999, "anthropic")
    assert tokens.value > 2_000_000


FAILURES = [
    ({**fault("rate_limit")}, anthropic.RateLimitError, 429, "error"),
    ({**fault("server_error;status=529")}, anthropic.APIStatusError, 529, "error"),
    ({"max_tokens": -1}, anthropic.BadRequestError, 400, "error"),
    ({**fault("timeout"), "timeout": 0.05}, anthropic.APITimeoutError, None, "timeout"),
]


@pytest.mark.parametrize(("more", "kind", "status", "outcome"), FAILURES)
def test_failures(world: Any, script: Any, more: Any, kind: Any, status: int | None, outcome: str) -> None:
    """A failed call ends with the class of the client's own exception and the status, without cost or message."""
    seen: list[BaseException] = []

    async def scenario(client: Any) -> None:
        with pytest.raises(kind) as raised:
            await script.now(client.messages.create(**{**ASK, **more}))
        seen.append(raised.value)

    call = world.run(scenario).call("llm")
    error = type(seen[0])

    assert (call.outcome, call.error_type) == (outcome, f"{error.__module__}.{error.__qualname__}")
    assert call.attributes.get(a.HTTP_RESPONSE_STATUS_CODE) == status
    assert (call.span.status.status_code, call.span.status.description) == (trace.StatusCode.ERROR, None)
    assert (call.cost, call.span.events) == (None, ())


def test_retries_are_one_call(world: Any, script: Any) -> None:
    """A client that tries again inside one call makes one span, with the last answer."""

    async def scenario(client: Any) -> None:
        with pytest.raises(anthropic.RateLimitError):
            await script.now(client.messages.create(**ASK, **fault("rate_limit;retry_after=0")))

    captured = world.run(scenario, max_retries=1)

    assert len(world.simulator.requests) == 2
    assert captured.call("llm").error_type == "anthropic.RateLimitError"


def test_cancellation_is_no_error(simulator: Any) -> None:
    """A cancelled task ends its call as cancelled, without error."""

    async def scenario() -> None:
        client = anthropic.AsyncAnthropic(base_url=simulator.origin, api_key="key", max_retries=0)
        hold = simulator.hold("response", path="/v1/messages")
        await cancel_while_held(client.messages.create(**ASK), hold)
        await client.close()

    with capture() as captured:
        asyncio.run(scenario())
    call = captured.call("llm")

    assert (call.outcome, call.error_type, call.span.status.is_unset) == ("cancelled", None, True)


def test_what_is_no_call_of_a_model(world: Any, script: Any) -> None:
    """Counting tokens is not recorded, nor what the client refuses before it sends anything."""

    async def scenario(client: Any) -> None:
        await script.now(client.messages.count_tokens(model=ASK["model"], messages=ASK["messages"]))
        with pytest.raises(TypeError):
            await script.now(client.messages.create())

    assert world.run(scenario).calls == ()


def test_inside_a_block_it_is_the_blocks_call(world: Any, script: Any) -> None:
    """The client fills the facts of the manual block it is called in; a second call in it is one of its own."""

    async def scenario(client: Any) -> None:
        with stagelight.turn("answer"), stagelight.llm(provider="anthropic", model="my-alias"):
            await script.now(client.messages.create(**ASK))
            await script.now(client.messages.create(**ASK))

    captured = world.run(scenario)

    assert [call.attributes[a.GEN_AI_REQUEST_MODEL] for call in captured.calls] == ["claude-haiku-4-5", "my-alias"]
    assert [call.cost_status for call in captured.calls] == ["exact", "exact"]
    assert captured.turn("answer").cost == sum(call.cost for call in captured.calls)


def test_calls_at_the_same_time(world: Any, script: Any) -> None:
    """Calls that run at the same time in two turns find each its own."""

    async def one(client: Any, name: str, model: str) -> None:
        with stagelight.turn(name):
            if world.kind == "async":
                await client.messages.create(**{**ASK, "model": model})
            else:
                await asyncio.to_thread(client.messages.create, **{**ASK, "model": model})

    async def scenario(client: Any) -> None:
        await asyncio.gather(one(client, "first", "claude-haiku-4-5"), one(client, "second", "claude-sonnet-5-5"))

    captured = world.run(scenario)

    assert [call.name for call in captured.turn("first").calls] == ["chat claude-haiku-4-5"]
    assert [call.name for call in captured.turn("second").calls] == ["chat claude-sonnet-5-5"]


def test_raw_and_streaming_responses(world: Any, script: Any) -> None:
    """Raw responses are one call; a streaming one ends its call when the caller has read it."""
    models: list[str] = []

    async def scenario(client: Any) -> None:
        raw = await script.now(client.messages.with_raw_response.create(**ASK))
        parsed = raw.parse()
        models.append((await script.now(parsed)).model)
        async with script.inside(client.messages.with_streaming_response.create(**ASK)) as response:
            assert len(captured.calls) == 1
            await script.now(response.json())

    with capture(provider_hosts={world.host: "anthropic"}) as captured:
        world.play(scenario)

    assert [call.attributes[a.GEN_AI_RESPONSE_MODEL] for call in captured.calls] == models * 2
    assert [(call.outcome, call.cost_status) for call in captured.calls] == [("completed", "exact")] * 2


def test_the_beta_endpoint_and_parsed_answers(world: Any, script: Any) -> None:
    """Beta messages are calls like any other."""

    async def scenario(client: Any) -> None:
        await script.now(client.beta.messages.create(**ASK))

    call = world.run(scenario).call("llm")

    assert (call.name, call.cost_status) == ("chat claude-haiku-4-5", "exact")


def test_nothing_is_said_of_what_was_said(world: Any, script: Any) -> None:
    """Neither question nor answer is in any attribute, name, event or log record."""
    secret = "Wolfgang"

    async def scenario(client: Any) -> None:
        asked = {**ASK, "messages": [{"role": "user", "content": f"Who is {secret}?"}], "system": f"{secret} is a cat."}
        await script.now(client.messages.create(**asked, stop_sequences=[f"{secret}!"], metadata={"user_id": secret}))

    captured = world.run(scenario)

    assert secret not in repr([(span.name, dict(span.attributes or {}), span.events) for span in captured.spans])
    assert secret not in repr(list(captured.ledger))


def test_missing_usage_is_unpriced(world: Any, script: Any) -> None:
    """Where the server reports no usage there is no price, and the reason says so."""

    async def scenario(client: Any) -> None:
        await script.now(client.messages.create(**ASK, **fault("missing_usage")))

    call = world.run(scenario).call("llm")

    assert call.attributes[a.STAGELIGHT_COST_REASON] == "no_usage"
    assert a.GEN_AI_USAGE_INPUT_TOKENS not in call.attributes


def test_an_answer_read_by_hand(world: Any, script: Any) -> None:
    """``record`` reads the client's answers with the same eyes."""

    async def scenario(client: Any) -> None:
        answer = await script.now(client.messages.create(**ASK))
        with stagelight.llm(provider="anthropic", model="claude-haiku-4-5") as call:
            call.record(answer)

    own, by_hand = world.run(scenario).calls

    assert by_hand.cost == own.cost
    assert by_hand.attributes[a.GEN_AI_RESPONSE_ID] == own.attributes[a.GEN_AI_RESPONSE_ID]
