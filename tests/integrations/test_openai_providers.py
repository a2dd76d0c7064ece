"""Whose answer it is: providers by host and port, Azure's deployments, and servers of one's own."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from integrations.openai_answers import ask, completion
from openai_client import HAS_RESPONSES
from stagelight.conventions import attributes as a
from stagelight.integrations._hosts import PROVIDERS, REGIONAL, provider_of
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


def test_the_documented_hosts() -> None:
    """The table of hosts in the documentation is the one in use."""
    page = Path(__file__).parents[2] / "docs" / "integrations.md"
    rows = re.findall(r"^\| `([a-z0-9.*-]+)` \| `([a-z0-9_.]+)` \|$", page.read_text("utf-8"), re.MULTILINE)

    assert rows == [*PROVIDERS.items(), *REGIONAL.items()]
