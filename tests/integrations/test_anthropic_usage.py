"""Usage as Anthropic words it: read as the price library reads it, and as it was recorded from the provider."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import anthropic
import genai_prices
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stagelight import cost
from stagelight.conventions import attributes as a
from stagelight.facts import Partial, Request, Usage
from stagelight.integrations.anthropic import OPERATIONS
from stagelight.testing import capture

CLIENT = "anthropic"
MESSAGES = OPERATIONS["/v1/messages"]
NONE = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
NO_CACHE = {**NONE, "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}}


def message(usage: Any, **more: Any) -> dict[str, Any]:
    """An answer as the provider sends it."""
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5-20251001", "content": [],
        "stop_reason": "end_turn", "stop_sequence": None, "usage": usage, **more,
    }  # fmt: skip


def read(usage: Any) -> Usage | None:
    """The usage read from an answer's own."""
    return MESSAGES.response(message(usage), Request()).usage


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        # Recorded from the provider on 2026-02-26 and 2026-03-03: the cassettes
        # test_sync_messages_create_aggregates_cache_tokens and test_sync_messages_create_captures_thinking_content of
        # https://github.com/open-telemetry/opentelemetry-python-genai (Apache-2.0).
        (
            {"input_tokens": 13, **NO_CACHE, "output_tokens": 5, "service_tier": "standard"},
            Usage(input_tokens=13, output_tokens=5, cache_read_tokens=0, cache_write_tokens=0),
        ),
        (
            {"input_tokens": 46, **NO_CACHE, "output_tokens": 417, "output_tokens_details": {"thinking_tokens": 281}},
            Usage(input_tokens=46, output_tokens=417, cache_read_tokens=0, cache_write_tokens=0, reasoning_tokens=281),
        ),
        # Old answers, and those of servers that know no cache.
        ({"input_tokens": 20, "output_tokens": 15}, Usage(input_tokens=20, output_tokens=15)),
        (
            {"input_tokens": 13, "output_tokens": 10, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 4},
            Usage(input_tokens=22, output_tokens=10, cache_read_tokens=4, cache_write_tokens=5),
        ),
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "cache_creation_input_tokens": 300,
                "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
            },
            Usage(input_tokens=310, output_tokens=5, cache_write_tokens={"5m": 100, "1h": 200}),
        ),
        # A later event tells a larger total than the parts of the first one: all of them lived for an hour.
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "cache_creation_input_tokens": 300,
                "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 200},
            },
            Usage(input_tokens=310, output_tokens=5, cache_write_tokens={"5m": 0, "1h": 300}),
        ),
        # The totals leave out what a compaction took, which is billed.
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "iterations": [
                    {"type": "compaction", "input_tokens": 1000, "output_tokens": 90, **NONE},
                    {"type": "message", "input_tokens": 10, "output_tokens": 5, **NONE},
                ],
            },
            Usage(input_tokens=1010, output_tokens=95, cache_read_tokens=0, cache_write_tokens=0),
        ),
        # It has its own times-to-live.
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "cache_creation_input_tokens": 300,
                "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 300},
                "iterations": [
                    {
                        "type": "compaction",
                        "input_tokens": 40,
                        "output_tokens": 90,
                        "cache_creation_input_tokens": 2000,
                        "cache_creation": {"ephemeral_5m_input_tokens": 2000, "ephemeral_1h_input_tokens": 0},
                    },
                ],
            },
            Usage(input_tokens=2350, output_tokens=95, cache_write_tokens={"5m": 2000, "1h": 300}),
        ),
        # Nor do they have the tokens of an advisor, which is another model.
        (
            {
                "input_tokens": 30,
                "output_tokens": 7,
                "iterations": [
                    {"type": "message", "input_tokens": 10, "output_tokens": 5, **NONE},
                    {"type": "advisor_message", "model": "claude-opus-5-5", "input_tokens": 900, "output_tokens": 40},
                    {"type": "message", "input_tokens": 20, "output_tokens": 2, **NONE},
                ],
            },
            Usage(input_tokens=30, output_tokens=7, tools=1),
        ),
        (
            {"input_tokens": 1, "output_tokens": 2, "server_tool_use": {"web_search_requests": 3}},
            Usage(input_tokens=1, output_tokens=2, searches=3),
        ),
        # no counts
        ({"input_tokens": 10**30, "output_tokens": True}, Usage()),
        ({"input_tokens": "many", "output_tokens": -1, "iterations": {}}, Usage()),
        ({}, Usage()),
        (None, None),
    ],
)
def test_counts(told: Any, usage: Usage | None) -> None:
    """Cached tokens are part of the input, thinking of the output; what is no count is not known."""
    assert read(told) == usage


TOKENS = st.integers(0, 300_000)


@given(
    fresh=TOKENS,
    made=TOKENS,
    read_=TOKENS,
    short=TOKENS,
    long=TOKENS,
    searches=st.integers(0, 9),
    model=st.sampled_from(["claude-haiku-4-5", "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"]),
)
def test_costs_are_those_of_the_price_library(
    *, fresh: int, made: int, read_: int, short: int, long: int, searches: int, model: str
) -> None:
    """For any usage the library reads from the same answer, the cost is the same to the last digit."""
    told = {
        "input_tokens": fresh,
        "output_tokens": made,
        "cache_read_input_tokens": read_,
        "cache_creation_input_tokens": short + long,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        "server_tool_use": {"web_search_requests": searches, "web_fetch_requests": 0},
    }
    extracted = genai_prices.extract_usage(message(told, model=model), provider_id="anthropic")
    price = genai_prices.calc_price(
        extracted.usage, model_ref=model, provider_id="anthropic", genai_request_timestamp=datetime.now(UTC)
    )
    ours = cost.price(read(told), provider="anthropic", request_model=model)

    assert ours.amount == price.total_price  # type: ignore[union-attr]
    assert ours.status == "exact"  # type: ignore[union-attr]


def test_the_cost_with_an_advisor_is_a_lower_bound() -> None:
    """What another model took inside the call is in no total: the amount is not all."""
    advised = {"type": "advisor_message", "model": "claude-opus-5-5", "input_tokens": 900, "output_tokens": 40}
    usage = read({"input_tokens": 30, "output_tokens": 7, "iterations": [advised]})
    price = cost.price(usage, provider="anthropic", request_model="claude-haiku-4-5")

    assert isinstance(price, Partial)
    # 1 and 5 USD per million tokens: https://claude.com/pricing#api
    assert (price.missing, price.amount) == (("tools",), Decimal("0.000065"))


def test_fast_and_batch_have_their_own_prices() -> None:
    """The speed that served the request is its tier; the usual one is none."""
    tiers = [
        MESSAGES.response(message({"output_tokens": 1, **told}), Request()).service_tier
        for told in ({"speed": "fast"}, {"service_tier": "batch"}, {"service_tier": "standard", "speed": "standard"})
    ]
    usage = Usage(input_tokens=1_000_000, output_tokens=0)
    fast, plain = (
        cost.price(usage, provider="anthropic", request_model="claude-opus-5-5", service_tier=tier).amount  # type: ignore[union-attr]
        for tier in ("fast", None)
    )

    assert tiers == ["fast", "batch", None]
    assert fast > plain


def library() -> Any:
    """The HTTP library that the client uses: ``httpx`` or ``httpx2``."""
    return importlib.import_module(anthropic.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])


def ask(make: Any, **options: Any) -> Any:
    """The call that an answer leaves with some client."""
    http = library()
    paths: list[str] = []

    def reply(request: Any) -> Any:
        paths.append(request.url.path)
        return http.Response(200, json=message({"input_tokens": 9, "output_tokens": 3}))

    with capture() as captured:
        client = make(http_client=http.Client(transport=http.MockTransport(reply)), **options)
        client.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=[])
    return captured.call("llm"), paths[0]


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("base_url", "provider"),
    [
        ("https://api.anthropic.com", "anthropic"),
        ("https://api.deepseek.com/anthropic", "deepseek"),
        ("https://claude.gateway.example", "anthropic"),
        ("https://acme.services.ai.azure.com/anthropic", "azure.ai.inference"),
    ],
)
def test_providers_by_host(base_url: str, provider: str) -> None:
    """The host says whom the client speaks to; one that nobody knows is taken for Anthropic."""
    call, path = ask(anthropic.Anthropic, base_url=base_url, api_key="key")

    assert path.endswith("/v1/messages")
    assert call.attributes[a.GEN_AI_PROVIDER_NAME] == provider
    assert call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS] == 9


@pytest.mark.usefixtures("recorded")
def test_bedrock() -> None:
    """The client for Bedrock rewrites the path; its calls are recorded all the same, with Bedrock's price."""
    pytest.importorskip("boto3")
    keys = {"aws_access_key": "key", "aws_secret_key": "secret", "aws_region": "us-east-1"}
    call, path = ask(anthropic.AnthropicBedrock, **keys)

    assert path == "/model/claude-haiku-4-5/invoke"
    assert call.attributes[a.GEN_AI_PROVIDER_NAME] == "aws.bedrock"
    assert call.attributes[a.SERVER_ADDRESS] == "bedrock-runtime.us-east-1.amazonaws.com"
    assert call.attributes[a.GEN_AI_USAGE_OUTPUT_TOKENS] == 3


@pytest.mark.usefixtures("recorded")
def test_vertex() -> None:
    """The client for Vertex AI rewrites the path; its calls are recorded all the same, with Google's price."""
    pytest.importorskip("google.auth")
    call, path = ask(anthropic.AnthropicVertex, project_id="p", region="europe-west1", access_token="token")

    assert path.endswith("/publishers/anthropic/models/claude-haiku-4-5:rawPredict")
    assert call.attributes[a.GEN_AI_PROVIDER_NAME] == "gcp.vertex_ai"
    assert (call.cost_status, call.attributes[a.STAGELIGHT_COST_MODEL]) == ("exact", "google/claude-haiku-4-5")


@pytest.mark.usefixtures("recorded")
def test_a_told_host_wins() -> None:
    """What the user says of a host comes before the class of the client."""
    http = library()
    answer = http.Response(200, json=message({"input_tokens": 9, "output_tokens": 3}))
    transport = http.MockTransport(lambda _: answer)
    with capture(provider_hosts={"claude.gateway.example": "acme"}) as captured:
        client = anthropic.Anthropic(
            base_url="https://claude.gateway.example", api_key="key", http_client=http.Client(transport=transport)
        )
        client.messages.create(model="m", max_tokens=9, messages=[])

    assert captured.call("llm").attributes[a.GEN_AI_PROVIDER_NAME] == "acme"
