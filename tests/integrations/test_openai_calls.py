"""Calls in one piece: what they leave behind, however they are made and read."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import openai
import pydantic
import pytest
import stagelight
from openai_client import HAS_RESPONSES, helpers, needs_responses
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from stagelight.conventions import attributes as a
from stagelight.testing import Clock, capture

pytestmark = pytest.mark.usefixtures("recorded")

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What do tides do?"}]}


class Answer(pydantic.BaseModel):
    """What a structured answer holds."""

    text: str


def server(world: Any) -> dict[str, Any]:
    """The attributes that name the server."""
    return {a.SERVER_ADDRESS: "127.0.0.1", a.SERVER_PORT: world.port}


def cost(call: Any, amount: str, row: str) -> dict[str, Any]:
    """The attributes of an exact price."""
    return {
        a.STAGELIGHT_COST_AMOUNT: float(Decimal(amount)),
        a.STAGELIGHT_COST_CURRENCY: "USD",
        a.STAGELIGHT_COST_SOURCE: "local",
        a.STAGELIGHT_COST_STATUS: "exact",
        a.STAGELIGHT_COST_PRICE_SOURCE: call.attributes[a.STAGELIGHT_COST_PRICE_SOURCE],
        a.STAGELIGHT_COST_MODEL: row,
    }


def test_chat(world: Any, script: Any) -> None:
    """A chat completion leaves one span with what was asked, what came back, its tokens and its price."""

    async def scenario(client: Any) -> None:
        await script.now(
            client.chat.completions.create(
                **CHAT, temperature=0.2, top_p=0.9, max_completion_tokens=50, stop="END", seed=3, n=2,
                frequency_penalty=0.1, presence_penalty=0.3, service_tier="flex", response_format={"type": "text"},
            )
        )  # fmt: skip

    captured = world.run(scenario, clock=Clock())
    call = captured.call("llm")
    tokens = (call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS], call.attributes[a.GEN_AI_USAGE_OUTPUT_TOKENS])

    assert (call.name, call.span.kind, call.span.status.is_unset) == ("chat gpt-4o-mini", trace.SpanKind.CLIENT, True)
    assert min(tokens) > 0
    assert call.attributes == {
        a.STAGELIGHT_STAGE: "llm",
        a.GEN_AI_OPERATION_NAME: "chat",
        a.GEN_AI_PROVIDER_NAME: "openai",
        a.GEN_AI_REQUEST_MODEL: "gpt-4o-mini",
        **server(world),
        a.GEN_AI_REQUEST_TEMPERATURE: 0.2,
        a.GEN_AI_REQUEST_TOP_P: 0.9,
        a.GEN_AI_REQUEST_MAX_TOKENS: 50,
        a.GEN_AI_REQUEST_SEED: 3,
        a.GEN_AI_REQUEST_CHOICE_COUNT: 2,
        a.GEN_AI_REQUEST_FREQUENCY_PENALTY: 0.1,
        a.GEN_AI_REQUEST_PRESENCE_PENALTY: 0.3,
        a.GEN_AI_OUTPUT_TYPE: "text",
        a.OPENAI_REQUEST_SERVICE_TIER: "flex",
        a.GEN_AI_RESPONSE_MODEL: "gpt-4o-mini-2024-07-18",
        a.GEN_AI_RESPONSE_ID: call.attributes[a.GEN_AI_RESPONSE_ID],
        a.GEN_AI_RESPONSE_FINISH_REASONS: ("stop", "stop"),
        a.OPENAI_RESPONSE_SERVICE_TIER: "flex",
        a.GEN_AI_USAGE_INPUT_TOKENS: tokens[0],
        a.GEN_AI_USAGE_OUTPUT_TOKENS: tokens[1],
        a.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: 0,
        a.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: 0,
        **{key: value for key, value in call.attributes.items() if ".cost." in key},
        a.STAGELIGHT_OUTCOME: "completed",
    }


def test_plain_call_is_priced_exactly(world: Any, script: Any) -> None:
    """What the provider reports, times the listed price: 0.15 and 0.60 USD per million tokens."""

    async def scenario(client: Any) -> None:
        await script.now(client.chat.completions.create(**CHAT))

    call = world.run(scenario).call("llm")
    tokens = (call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS], call.attributes[a.GEN_AI_USAGE_OUTPUT_TOKENS])
    amount = (tokens[0] * Decimal("0.15") + tokens[1] * Decimal("0.60")) / 10**6

    assert {key: value for key, value in call.attributes.items() if ".cost." in key} == cost(
        call, str(amount), "openai/gpt-4o-mini"
    )


@needs_responses
def test_response(world: Any, script: Any) -> None:
    """The responses API leaves the same span, in its own words for what was asked."""

    async def scenario(client: Any) -> None:
        await script.now(
            client.responses.create(
                model="o4-mini", input="What do tides do?", max_output_tokens=200, reasoning={"effort": "low"},
                previous_response_id="resp_1", text={"format": {"type": "text"}},
            )
        )  # fmt: skip

    call = world.run(scenario, clock=Clock()).call("llm")
    volatile = {key: value for key, value in call.attributes.items() if ".usage." in key or ".cost." in key}

    assert volatile[a.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS] <= volatile[a.GEN_AI_USAGE_OUTPUT_TOKENS]
    assert call.attributes == {
        a.STAGELIGHT_STAGE: "llm",
        a.GEN_AI_OPERATION_NAME: "chat",
        a.GEN_AI_PROVIDER_NAME: "openai",
        a.GEN_AI_REQUEST_MODEL: "o4-mini",
        **server(world),
        a.GEN_AI_REQUEST_MAX_TOKENS: 200,
        a.GEN_AI_REQUEST_REASONING_LEVEL: "low",
        a.GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID: "resp_1",
        a.GEN_AI_OUTPUT_TYPE: "text",
        a.GEN_AI_RESPONSE_MODEL: call.attributes[a.GEN_AI_RESPONSE_MODEL],
        a.GEN_AI_RESPONSE_ID: call.attributes[a.GEN_AI_RESPONSE_ID],
        a.GEN_AI_RESPONSE_FINISH_REASONS: ("stop",),
        a.OPENAI_RESPONSE_SERVICE_TIER: "default",
        **volatile,
        a.STAGELIGHT_OUTCOME: "completed",
    }


@pytest.mark.parametrize("asked", [{}, {"encoding_format": "float", "dimensions": 256}])
def test_embeddings(world: Any, script: Any, asked: dict[str, Any]) -> None:
    """Embeddings carry the length of the vectors; the encoding only when the caller asked for one."""

    async def scenario(client: Any) -> None:
        await script.now(client.embeddings.create(model="text-embedding-3-small", input=["tides", "moon"], **asked))

    call = world.run(scenario, clock=Clock()).call("embedding")
    used = call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS]

    assert call.name == "embeddings text-embedding-3-small"
    assert call.attributes == {
        a.STAGELIGHT_STAGE: "embedding",
        a.GEN_AI_OPERATION_NAME: "embeddings",
        a.GEN_AI_PROVIDER_NAME: "openai",
        a.GEN_AI_REQUEST_MODEL: "text-embedding-3-small",
        **server(world),
        **({a.GEN_AI_REQUEST_ENCODING_FORMATS: ("float",)} if asked else {}),
        a.GEN_AI_EMBEDDINGS_DIMENSION_COUNT: asked.get("dimensions", 1536),
        a.GEN_AI_RESPONSE_MODEL: "text-embedding-3-small",
        a.GEN_AI_USAGE_INPUT_TOKENS: used,
        **cost(call, str(used * Decimal("0.02") / 10**6), "openai/text-embedding-3-small"),
        a.STAGELIGHT_OUTCOME: "completed",
    }


def test_rate_limits_come_from_the_headers(world: Any, script: Any) -> None:
    """What is left of the limits is read from every answer, also from one the client parses at once."""

    async def scenario(client: Any) -> None:
        await script.now(client.chat.completions.create(**CHAT))

    captured = world.run(scenario)

    (left,) = captured.metric("stagelight.ratelimit.remaining_requests")
    assert (left.value, left.attributes) == (
        9999,
        {a.GEN_AI_PROVIDER_NAME: "openai", a.GEN_AI_REQUEST_MODEL: "gpt-4o-mini"},
    )
    assert [point.value > 1_000_000 for point in captured.metric("stagelight.ratelimit.remaining_tokens")] == [True]


def test_first_text_of_a_plain_answer_is_its_end(world: Any, script: Any) -> None:
    """An answer in one piece has its first text, and so has its turn, when it is there."""

    async def scenario(client: Any) -> None:
        with stagelight.turn("answer"):
            await script.now(client.chat.completions.create(**CHAT))

    turn = world.run(scenario).turn("answer")

    assert turn.time_to_first_token_s == pytest.approx(turn.calls[0].duration_s, abs=0.05)
    assert turn.cost == turn.calls[0].cost


def test_parse_is_one_call(world: Any, script: Any) -> None:
    """The parsing helpers send one request and leave one call."""
    results: list[Any] = []

    async def scenario(client: Any) -> None:
        results.append(await script.now(helpers(client).parse(**CHAT, response_format=Answer)))
        if HAS_RESPONSES:
            asked = {"model": "gpt-4o-mini", "input": "Hi", "text_format": Answer}
            results.append(await script.now(client.responses.parse(**asked)))

    captured = world.run(scenario)

    told = [(call.attributes[a.GEN_AI_OUTPUT_TYPE], call.cost_status) for call in captured.calls]
    assert told == [("json", "exact")] * len(results)
    assert isinstance(results[0].choices[0].message.parsed, Answer)
    assert all(isinstance(answer.output_parsed, Answer) for answer in results[1:])


def test_an_answer_the_client_refuses_was_paid_for(world: Any, script: Any) -> None:
    """A parsing helper that raises because the answer is cut still leaves the tokens and their price."""

    async def scenario(client: Any) -> None:
        with pytest.raises(openai.LengthFinishReasonError):
            await script.now(helpers(client).parse(**CHAT, response_format=Answer, max_completion_tokens=2))

    call = world.run(scenario).call("llm")

    assert (call.outcome, call.error_type) == ("error", "openai.LengthFinishReasonError")
    assert call.attributes[a.GEN_AI_USAGE_OUTPUT_TOKENS] == 2
    assert call.cost_status == "exact"


@needs_responses
def test_a_cut_answer(world: Any, script: Any) -> None:
    """An answer that stops at the limit is told apart from a complete one."""

    async def scenario(client: Any) -> None:
        await script.now(client.chat.completions.create(**CHAT, max_completion_tokens=2))
        await script.now(client.responses.create(model="gpt-4o-mini", input="What do tides do?", max_output_tokens=16))

    captured = world.run(scenario)

    assert [call.outcome for call in captured.calls] == ["length_cut", "length_cut"]
    assert [call.attributes[a.GEN_AI_RESPONSE_FINISH_REASONS] for call in captured.calls] == [("length",)] * 2


def test_raw_responses(world: Any, script: Any) -> None:
    """Raw responses are read for their facts; the caller parses as before."""
    models: list[str] = []

    async def scenario(client: Any) -> None:
        chat = await script.now(client.chat.completions.with_raw_response.create(**CHAT))
        vectors = await script.now(
            client.embeddings.with_raw_response.create(model="text-embedding-3-small", input="tides")
        )
        models.extend([chat.parse().model, vectors.parse().model])

    captured = world.run(scenario)

    assert [call.stage for call in captured.calls] == ["llm", "embedding"]
    assert [call.attributes[a.GEN_AI_RESPONSE_MODEL] for call in captured.calls] == models
    assert [call.cost_status for call in captured.calls] == ["exact", "exact"]


def test_streaming_responses_of_answers_in_one_piece(world: Any, script: Any) -> None:
    """A streaming response ends its call when the caller has read it; its usage is read from the bytes that passed."""

    async def scenario(client: Any) -> None:
        async with script.inside(client.chat.completions.with_streaming_response.create(**CHAT)) as response:
            assert captured.calls == ()
            await script.now(response.json())

    with capture(provider_hosts={world.host: "openai"}) as captured:
        world.play(scenario)
    call = captured.call("llm")

    assert (call.outcome, call.cost_status) == ("completed", "exact")
    assert a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK not in call.attributes


def test_suppressed(world: Any, script: Any) -> None:
    """Under OpenTelemetry's switch for suppressing instrumentation nothing is recorded."""

    async def scenario(client: Any) -> None:
        with suppress_instrumentation():
            await script.now(client.chat.completions.create(**CHAT))

    assert world.run(scenario).spans == ()


def test_requests_that_are_no_calls(world: Any, script: Any) -> None:
    """Other endpoints of the client are left alone."""

    async def scenario(client: Any) -> None:
        await script.now(client.models.list())

    assert world.run(scenario).spans == ()


def test_missing_usage_is_unpriced(world: Any, script: Any) -> None:
    """Where the server reports no usage there is no price, and the reason says so."""

    async def scenario(client: Any) -> None:
        await script.now(client.chat.completions.create(**CHAT, extra_headers={"x-stagelight-fault": "missing_usage"}))

    call = world.run(scenario).call("llm")

    assert call.attributes[a.STAGELIGHT_COST_REASON] == "no_usage"
    assert a.GEN_AI_USAGE_INPUT_TOKENS not in call.attributes
