"""Whose answer it is, and what odd servers say: hosts, usage in other shapes, values of wrong types."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
import stagelight
from openai_client import HAS_RESPONSES, HTTP, needs_responses
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.facts import Response, Usage
from stagelight.integrations._hosts import PROVIDERS, REGIONAL, provider_of
from stagelight.integrations.openai import OPERATIONS, read
from stagelight.testing import capture


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        *PROVIDERS.items(),
        ("ollama", "ollama"),
        ("vllm.ai.svc.cluster.local", "vllm"),
        ("ollama.example.com", "openai_compatible"),
        ("eu.api.openai.com", "openai"),
        ("acme.openai.azure.com", "azure.ai.openai"),
        ("acme.services.ai.azure.com", "azure.ai.inference"),
        ("us-central1-aiplatform.googleapis.com", "gcp.vertex_ai"),
        ("a.b-aiplatform.googleapis.com", "openai_compatible"),
        ("bedrock-runtime.eu-west-1.amazonaws.com", "aws.bedrock"),
        ("polly.eu-west-1.amazonaws.com", "aws.polly"),
        ("s3.eu-west-1.amazonaws.com", "openai_compatible"),
        ("API.OpenAI.com.", "openai"),
        ("api.openai.com.evil.example", "openai_compatible"),
        ("notapi.openai.com", "openai_compatible"),
        ("localhost", "openai_compatible"),
        ("", "openai_compatible"),
    ],
)
def test_providers_by_host(host: str, provider: str) -> None:
    """A host belongs to a provider when it, or a domain it is in, is known; nothing is guessed from parts of names."""
    assert provider_of((host, None), {}) == provider


@pytest.mark.parametrize(
    ("server", "provider"),
    [
        (("localhost", 11434), "ollama"),
        (("127.0.0.1", 8000), "vllm"),
        (("host.docker.internal", 11434), "ollama"),
        (("10.0.0.5", 8000), "openai_compatible"),
        (("example.com", 11434), "openai_compatible"),
        (("localhost", 8080), "openai_compatible"),
    ],
)
def test_own_servers_by_port(server: tuple[str, int], provider: str) -> None:
    """Ollama and vLLM are known by their usual ports, on the same machine only."""
    assert provider_of(server, {}) == provider


@pytest.mark.parametrize(
    ("told", "provider"),
    [
        ({"proxy.example": "openai"}, "openai"),
        ({"proxy.example:8443": "groq", "proxy.example": "openai"}, "groq"),
        ({"proxy.example:443": "groq"}, "openai_compatible"),
    ],
)
def test_told_hosts_win(told: dict[str, str], provider: str) -> None:
    """The user's own table comes first, and in it a host with its port."""
    assert provider_of(("proxy.example", 8443), told) == provider
    assert provider_of(("api.openai.com", None), {"api.openai.com:443": "acme"}) == "acme"


def completion(**more: Any) -> dict[str, Any]:
    """An answer as a server sends it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": "m-1", "choices": [choice], **more}


def ask(
    answer: dict[str, Any],
    *,
    base_url: str = "https://api.openai.com/v1",
    client: Any = openai.OpenAI,
    prices: Path | None = None,
) -> Any:
    """The call that an answer leaves."""

    def reply(_: Any) -> Any:
        return HTTP.Response(200, json=answer)

    where = {"azure_endpoint": base_url, "api_version": "1"} if client is openai.AzureOpenAI else {"base_url": base_url}
    http = HTTP.Client(transport=HTTP.MockTransport(reply))
    with capture(prices=prices) as captured, client(api_key="key", http_client=http, **where) as made:
        made.chat.completions.create(model="m-1", messages=[])
    return captured.call("llm")


@pytest.mark.usefixtures("recorded")
def test_azure() -> None:
    """The Azure client puts the deployment into the path; its calls are recorded all the same."""
    call = ask(completion(usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}),
               base_url="https://acme.openai.azure.com", client=openai.AzureOpenAI)  # fmt: skip

    assert call.attributes[a.GEN_AI_PROVIDER_NAME] == "azure.ai.openai"
    assert call.attributes[a.SERVER_ADDRESS] == "acme.openai.azure.com"
    assert a.SERVER_PORT not in call.attributes
    assert call.attributes[a.GEN_AI_USAGE_INPUT_TOKENS] == 3


AZURE = {"api_version": "2025-04-01-preview", "api_key": "key"}


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("fixed", [False, True], ids=["deployment by model", "fixed deployment"])
def test_azure_deployments(world: Any, script: Any, fixed: bool) -> None:
    """The deployment is what was asked for; the model that answered, and that has the price, is in the answer."""
    is_async = world.kind == "async"
    make = openai.AsyncAzureOpenAI if is_async else openai.AzureOpenAI
    http = (openai.DefaultAsyncHttpxClient if is_async else openai.DefaultHttpxClient)(verify=False)
    where = {"azure_endpoint": world.simulator.origin, **({"azure_deployment": "our-gpt-4o-mini"} if fixed else {})}

    async def scenario(_: Any) -> None:
        client = make(**AZURE, **where, http_client=http)
        asked = {"model": "our-gpt-4o-mini", "messages": [{"role": "user", "content": "What do tides do?"}]}
        await script.now(client.chat.completions.create(**asked))
        usage = {"stream": True, "stream_options": {"include_usage": True}}
        assert [
            chunk async for chunk in script.each(await script.now(client.chat.completions.create(**asked, **usage)))
        ]
        if HAS_RESPONSES:
            await script.now(client.responses.create(model="gpt-4o-mini", input="Hi"))
        await script.now(client.close())

    with capture(provider_hosts={world.host: "azure.ai.openai"}) as captured:
        world.play(scenario)
    told = [
        (call.attributes[a.GEN_AI_REQUEST_MODEL], call.attributes[a.GEN_AI_RESPONSE_MODEL]) for call in captured.calls
    ]

    assert (
        told
        == [("our-gpt-4o-mini", "gpt-4o-mini-2024-07-18")] * 2
        + [("gpt-4o-mini", "gpt-4o-mini-2024-07-18")] * HAS_RESPONSES
    )
    assert [call.attributes[a.GEN_AI_PROVIDER_NAME] for call in captured.calls] == ["azure.ai.openai"] * len(told)
    assert [call.cost_status for call in captured.calls] == ["exact"] * len(told)
    assert [call.attributes[a.STAGELIGHT_COST_MODEL] for call in captured.calls] == ["azure/gpt-4o-mini"] * len(told)


OPENROUTER = {"prompt_tokens": 14, "completion_tokens": 163, "total_tokens": 177, "cost": 0.00014}


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("usage", "amount"),
    [
        (OPENROUTER, "0.00014"),
        ({**OPENROUTER, "cost": 0}, "0"),
        (
            {**OPENROUTER, "cost": 0.00001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.00019}},
            "0.0002",
        ),
        ({**OPENROUTER, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}, None),
        ({**OPENROUTER, "cost": -1}, None),
        ({**OPENROUTER, "cost": "free"}, None),
    ],
)
def test_openrouter_states_its_cost(usage: dict[str, Any], amount: str | None) -> None:
    """What OpenRouter says it charged is the cost; with the caller's own key the provider's share is added."""
    call = ask(completion(usage=usage, provider="OpenAI"), base_url="https://openrouter.ai/api/v1")

    assert call.attributes[a.GEN_AI_PROVIDER_NAME] == "openrouter"
    if amount is None:
        assert call.attributes.get(a.STAGELIGHT_COST_SOURCE) != "provider"
    else:
        assert (call.cost, call.cost_status) == (Decimal(amount), "exact")
        assert call.attributes[a.STAGELIGHT_COST_SOURCE] == "provider"


@pytest.mark.usefixtures("recorded")
def test_perplexity_states_its_cost() -> None:
    """Perplexity's fee per request depends on how much it searched, which only its own total knows."""
    cost = {"input_tokens_cost": 0.00001, "output_tokens_cost": 0.00002, "request_cost": 0.005, "total_cost": 0.00503}
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30, "search_context_size": "low"}
    call = ask(completion(usage={**usage, "cost": cost}), base_url="https://api.perplexity.ai")

    assert (call.cost, call.cost_status) == (Decimal("0.00503"), "exact")
    assert call.attributes[a.STAGELIGHT_COST_SOURCE] == "provider"


@pytest.mark.usefixtures("recorded")
def test_x_ai_states_its_cost() -> None:
    """xAI counts in ticks of a ten-billionth of a dollar, searches of its own tools included."""
    usage = {"prompt_tokens": 900, "completion_tokens": 300, "total_tokens": 1200, "cost_in_usd_ticks": 318_319_000}
    call = ask(completion(usage=usage), base_url="https://api.x.ai/v1")
    other = ask(completion(usage=usage), base_url="https://llm.example/v1")

    assert (call.cost, call.cost_status) == (Decimal("0.0318319"), "exact")
    assert call.attributes[a.STAGELIGHT_COST_SOURCE] == "provider"
    assert other.cost is None


def test_a_cost_is_stated_when_the_stream_has_ended() -> None:
    """Perplexity's chunks all have usage; the cost in them is 0 until the last one."""
    items = OPERATIONS["/chat/completions"].items()
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12, "cost": {"total_cost": 0}}
    said = {"index": 0, "delta": {"content": "Hi"}}
    items.take({"id": "c1", "model": "sonar", "choices": [said], "usage": usage})
    before = items.response()
    ended = {**usage, "cost": {"total_cost": 0.005}}
    items.take({"id": "c1", "model": "sonar", "choices": [{**said, "finish_reason": "stop"}], "usage": ended})
    after = items.response()

    assert (before.stated_cost, after.stated_cost) == (None, Decimal("0.005"))


@pytest.mark.usefixtures("recorded")
def test_a_cost_stated_by_others_is_no_dollars() -> None:
    """A figure of that name in another server's answer may be anything."""
    call = ask(completion(usage=OPENROUTER), base_url="https://llm.example/v1")

    assert (call.cost, call.cost_status) == (None, "unpriced")


def test_openrouter_states_it_at_the_end_of_a_stream() -> None:
    """The last chunk of a stream has the cost beside the usage."""
    items = OPERATIONS["/chat/completions"].items()
    for chunk in (
        {"id": "gen-1", "model": "m-1", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]},
        {"id": "gen-1", "model": "m-1", "choices": [], "usage": OPENROUTER},
    ):
        items.take(chunk)
    told = items.response()

    assert told is not None
    assert told.stated_cost == Decimal("0.00014")


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("base_url", "provider"), [("http://localhost:11434/v1", "ollama"), ("http://vllm/v1", "vllm")]
)
def test_own_hardware_has_no_list_price(base_url: str, provider: str, tmp_path: Path) -> None:
    """A self-hosted model is unpriced until its user gives a rate."""
    answer = completion(usage={"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500})
    prices = tmp_path / "prices.yaml"
    prices.write_text(f"prices:\n  - provider: {provider}\n    model: m-1\n"
                      "    prices: { input_per_1m_tokens: 1, output_per_1m_tokens: 2 }\n")  # fmt: skip

    alone, rated = ask(answer, base_url=base_url), ask(answer, base_url=base_url, prices=prices)

    assert (alone.attributes[a.GEN_AI_PROVIDER_NAME], alone.cost_status) == (provider, "unpriced")
    assert alone.attributes[a.STAGELIGHT_COST_REASON] == "no_rate"
    assert rated.cost == Decimal("0.002")


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("base_url", "provider"),
    [
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.mistral.ai/v1", "mistral_ai"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.x.ai/v1", "x_ai"),
        ("https://api.together.xyz/v1", "together"),
        ("https://api.fireworks.ai/inference/v1", "fireworks"),
    ],
)
def test_compatible_servers(base_url: str, provider: str) -> None:
    """Base URLs as the providers document them are known."""
    assert ask(completion(), base_url=base_url).attributes[a.GEN_AI_PROVIDER_NAME] == provider


def usage_of(told: Any) -> Usage | None:
    """The usage read from an answer's own."""
    return OPERATIONS["/chat/completions"].response(completion(usage=told), stagelight.facts.Request()).usage


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}, Usage(input_tokens=10, output_tokens=5)),
        # xAI: reasoning beside the output
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 35,
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            Usage(input_tokens=10, output_tokens=25, reasoning_tokens=20),
        ),
        # Gemini: thoughts in the total only
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 35},
            Usage(input_tokens=10, output_tokens=25, reasoning_tokens=20),
        ),
        # DeepSeek
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "prompt_cache_hit_tokens": 4},
            Usage(input_tokens=10, output_tokens=5, cache_read_tokens=4),
        ),
        # Moonshot, and what DeepSeek tells in both places
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cached_tokens": 6},
            Usage(input_tokens=10, output_tokens=5, cache_read_tokens=6),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "prompt_tokens_details": {"cached_tokens": 0},
                "prompt_cache_hit_tokens": 0,
            },
            Usage(input_tokens=10, output_tokens=5, cache_read_tokens=0),
        ),
        # Mistral
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "num_cached_tokens": 9},
            Usage(input_tokens=10, output_tokens=5, cache_read_tokens=9),
        ),
        # whole numbers with a fraction of zero, and others
        ({"prompt_tokens": 10.0, "completion_tokens": 5.5}, Usage(input_tokens=10)),
        ({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, Usage()),
        # text told beside audio
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "prompt_tokens_details": {"audio_tokens": 6, "text_tokens": 4},
                "completion_tokens_details": {"audio_tokens": 3, "text_tokens": 2},
            },
            Usage(
                input_tokens=10,
                output_tokens=5,
                audio_input_tokens=6,
                audio_output_tokens=3,
                text_input_tokens=4,
                text_output_tokens=2,
            ),
        ),
        # audio in and out
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "prompt_tokens_details": {"audio_tokens": 6, "cached_tokens": 0},
                "completion_tokens_details": {"audio_tokens": 5, "reasoning_tokens": 0},
            },
            Usage(
                input_tokens=10,
                output_tokens=5,
                cache_read_tokens=0,
                reasoning_tokens=0,
                audio_input_tokens=6,
                audio_output_tokens=5,
            ),
        ),
        # the names of the responses API
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "total_tokens": 15,
                "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 2},
                "output_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(input_tokens=10, output_tokens=5, cache_read_tokens=8, cache_write_tokens=2, reasoning_tokens=3),
        ),
        # as recorded by opentelemetry-python-genai's tests of its openai instrumentation:
        # test_chat_completion_reasoning_tokens.yaml, commit af5b97a, with what Azure's gateway adds
        (
            {
                "completion_tokens": 85,
                "completion_tokens_details": {
                    "accepted_prediction_tokens": 0,
                    "audio_tokens": 0,
                    "reasoning_tokens": 19,
                    "rejected_prediction_tokens": 0,
                },
                "latency_checkpoint": {"engine_ttft_ms": 310, "user_visible_ttft_ms": 926},
                "prompt_tokens": 29,
                "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 0},
                "total_tokens": 114,
            },
            Usage(input_tokens=29, output_tokens=85, cache_read_tokens=0, reasoning_tokens=19),
        ),
        # as recorded by opentelemetry-python-contrib's tests of its openai-v2 instrumentation:
        # test_responses_create_reports_reasoning_tokens[content_mode0].yaml, commit 7ef25fd
        (
            {
                "input_tokens": 44,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 288,
                "output_tokens_details": {"reasoning_tokens": 9},
                "total_tokens": 332,
            },
            Usage(input_tokens=44, output_tokens=288, cache_read_tokens=0, reasoning_tokens=9),
        ),
        # no counts
        ({"prompt_tokens": 10**30, "completion_tokens": 5}, Usage(output_tokens=5)),
        ({"prompt_tokens": 2**53, "completion_tokens": 2**53 + 1}, Usage(input_tokens=2**53)),
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 10**30},
            Usage(input_tokens=10, output_tokens=5),
        ),
        ({"prompt_tokens": 10**30, "completion_tokens": -1}, Usage()),
        ({"prompt_tokens": "10", "completion_tokens": -1, "total_tokens": True}, Usage()),
        (None, None),
    ],
)
def test_usage_is_read_inclusively(told: Any, usage: Usage | None) -> None:
    """Counts are inclusive whoever reports them; what is no count is not known."""
    assert usage_of(told) == usage


@pytest.mark.usefixtures("recorded")
def test_numbers_beyond_every_format() -> None:
    """Numbers that no telemetry format holds are not recorded: neither the caller's nor the provider's."""
    huge = 10**400

    def reply(_: Any) -> Any:
        left = {"x-ratelimit-remaining-requests": "9" * 5000, "x-ratelimit-remaining-tokens": "9" * 16}
        return HTTP.Response(200, json=completion(usage={"prompt_tokens": huge}), headers=left)

    http = HTTP.Client(transport=HTTP.MockTransport(reply))
    with capture() as captured, openai.OpenAI(api_key="key", http_client=http) as client:
        client.chat.completions.create(model="m-1", messages=[], temperature=huge, max_tokens=huge, seed=2**63, n=-huge)
    call = captured.call("llm")

    assert (call.outcome, call.attributes[a.STAGELIGHT_COST_REASON]) == ("completed", "no_usage")
    assert [value for value in call.attributes.values() if type(value) in {int, float}] == []
    assert captured.metric(m.STAGELIGHT_RATELIMIT_REMAINING_TOKENS) == ()


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": None, "usage": 3, "model": 7, "id": []},
        {"choices": [None, 1, {"finish_reason": 4}], "usage": {"prompt_tokens_details": "x"}},
        {"error": {"message": "no"}},
    ],
)
def test_answers_of_no_sense(answer: dict[str, Any]) -> None:
    """An answer that makes no sense gives no facts, and no failure."""
    call = ask(answer, base_url="https://llm.example/v1")

    assert (call.outcome, call.attributes[a.GEN_AI_PROVIDER_NAME]) == ("completed", "openai_compatible")
    assert a.GEN_AI_RESPONSE_MODEL not in call.attributes


def test_billed_calls_of_the_responses_api() -> None:
    """Searches and tools that cost money beside the tokens are counted."""
    answer = {
        "id": "r1",
        "model": "m-1",
        "status": "completed",
        "output": [
            {"type": "web_search_call"}, {"type": "web_search_call"}, {"type": "file_search_call"},
            {"type": "message"},
        ],
        "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    }  # fmt: skip

    assert OPERATIONS["/responses"].response(answer, stagelight.facts.Request()) == Response(
        model="m-1",
        id="r1",
        finish_reasons=("stop",),
        usage=Usage(input_tokens=1, output_tokens=2, searches=2, tools=1),
    )


def test_pages_that_are_opened_are_no_searches() -> None:
    """Of the web tool's actions only searches are billed."""
    actions = ["search", "open_page", "find_in_page", "search"]
    answer = {
        "status": "completed",
        "output": [{"type": "web_search_call", "action": {"type": action}} for action in actions],
        "usage": {"input_tokens": 1, "output_tokens": 2},
    }
    told = OPERATIONS["/responses"].response(answer, stagelight.facts.Request())

    assert told.usage == Usage(input_tokens=1, output_tokens=2, searches=2)


def test_the_first_chunk_of_azure() -> None:
    """Azure's first chunk tells what its filter made of the prompt; model and id come after it."""
    items = OPERATIONS["/chat/completions"].items()
    checked = {"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}
    said = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}
    for chunk in (
        {"id": "", "model": "", "object": "", "choices": [], "prompt_filter_results": [checked]},
        {"id": "c1", "model": "gpt-4o-mini-2024-07-18", "choices": [said]},
        {"id": "c1", "model": "gpt-4o-mini-2024-07-18", "choices": [], "usage": {"prompt_tokens": 3}},
    ):
        items.take(chunk)

    assert items.response() == Response(
        model="gpt-4o-mini-2024-07-18", id="c1", finish_reasons=("stop",), usage=Usage(input_tokens=3)
    )


def test_usage_in_the_last_choice() -> None:
    """Moonshot's streams tell the usage inside the choice that ends them."""
    items = OPERATIONS["/chat/completions"].items()
    used = {"prompt_tokens": 19, "completion_tokens": 13, "total_tokens": 32}
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": used}
    items.take({"id": "c1", "model": "kimi-k2.5", "choices": [choice]})
    told = items.response()

    assert told is not None
    assert told.usage == Usage(input_tokens=19, output_tokens=13)


@pytest.mark.parametrize(
    ("vector", "size"),
    [([0.5, 0.25], 2), ("AAAAPwAAgD4=", 2), ("AAAAPwAAgD4AAAA/", 3), ("AAAAPw==", 1), ("", None), (None, None)],
)
def test_embeddings_of_any_form(vector: Any, size: int | None) -> None:
    """Vectors are lists, or base64 of 4 bytes a number; a server that tells the total only has told the input."""
    answer = {"model": "voyage-3-lite", "data": [{"embedding": vector}], "usage": {"total_tokens": 18}}

    assert OPERATIONS["/embeddings"].response(answer, stagelight.facts.Request()) == Response(
        model="voyage-3-lite", usage=Usage(input_tokens=18), embedding_dimensions=size
    )


@pytest.mark.usefixtures("recorded")
@needs_responses
@pytest.mark.parametrize(
    ("last", "outcome", "kind"),
    [
        ([], "provider_aborted", "incomplete_stream"),
        (["response.in_progress"], "provider_aborted", "incomplete_stream"),
        (["response.completed"], "completed", None),
        (["response.done"], "completed", None),
    ],
)
def test_the_end_of_a_stream_of_responses(last: list[str], outcome: str, kind: str | None) -> None:
    """A stream that ends before its answer does was aborted, although the client raises nothing."""
    answer = {"id": "r1", "object": "response", "model": "m-1", "output": [], "status": "completed"}

    def reply(_: Any) -> Any:
        events = [
            {"type": name, "sequence_number": number, "response": answer}
            for number, name in enumerate(["response.created", *last])
        ]
        body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
        return HTTP.Response(200, text=body, headers={"content-type": "text/event-stream"})

    http = HTTP.Client(transport=HTTP.MockTransport(reply))
    with capture() as captured, openai.OpenAI(api_key="key", http_client=http) as client:
        read = [event.type for event in client.responses.create(model="m-1", input="Hi", stream=True)]
    call = captured.call("llm")

    assert read == ["response.created", *last]
    assert (call.outcome, call.error_type) == (outcome, kind)


@needs_responses
@pytest.mark.usefixtures("recorded")
def test_a_failure_told_in_an_answer() -> None:
    """A response that says it failed ends its call with the provider's code."""

    def reply(_: Any) -> Any:
        failed = {"id": "r1", "object": "response", "status": "failed", "error": {"code": "server_error"}, "output": []}
        return HTTP.Response(200, json=failed)

    http = HTTP.Client(transport=HTTP.MockTransport(reply))
    with capture() as captured, openai.OpenAI(api_key="key", http_client=http) as client:
        assert client.responses.create(model="m-1", input="Hi").status == "failed"
    call = captured.call("llm")

    assert (call.outcome, call.error_type) == ("error", "server_error")


def test_record_reads_what_the_client_returns(simulator: Any) -> None:
    """A call recorded by hand takes its facts from the client's own objects."""
    with capture() as captured, openai.OpenAI(base_url=simulator.url, api_key="key") as client:
        with stagelight.llm(provider="openai", model="gpt-4o-mini") as call:
            call.record(
                client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}])
            )
        with stagelight.embedding(provider="openai", model="text-embedding-3-small") as call:
            call.record(client.embeddings.create(model="text-embedding-3-small", input="tides"))
        if HAS_RESPONSES:
            with stagelight.llm(provider="openai", model="gpt-4o-mini") as call:
                call.record(client.responses.create(model="gpt-4o-mini", input="Hi"))

    assert [call.cost_status for call in captured.calls] == ["exact"] * (2 + HAS_RESPONSES)
    assert read(object()) is None


def test_the_documented_hosts() -> None:
    """The table of hosts in the documentation is the one in use."""
    page = Path(__file__).parents[2] / "docs" / "integrations.md"
    rows = re.findall(r"^\| `([a-z0-9.*-]+)` \| `([a-z0-9_.]+)` \|$", page.read_text("utf-8"), re.MULTILINE)

    assert rows == [*PROVIDERS.items(), *REGIONAL.items()]
