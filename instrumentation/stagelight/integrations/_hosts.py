"""Which provider a client talks to, told by the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stagelight.cost.names import is_private_host

__all__ = ["COMPATIBLE", "OWN_SERVERS", "PROVIDERS", "REGIONAL", "Server", "provider_of", "server_of"]

_SAME_MACHINE: Final = frozenset({"localhost", "127.0.0.1", "::1", "[::1]", "host.docker.internal"})

COMPATIBLE: Final = "openai_compatible"
"""Provider of a host that nobody has named: some server that speaks OpenAI's protocol."""

PROVIDERS: Final[Mapping[str, str]] = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "cognitiveservices.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.deepseek.com": "deepseek",
    "api.x.ai": "x_ai",
    "api.perplexity.ai": "perplexity",
    "api.moonshot.ai": "moonshot_ai",
    "api.moonshot.cn": "moonshot_ai",
    "api.anthropic.com": "anthropic",
    "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "openrouter.ai": "openrouter",
    "api.together.xyz": "together",
    "api.together.ai": "together",
    "api.fireworks.ai": "fireworks",
    "api.cerebras.ai": "cerebras",
    "api.deepinfra.com": "deepinfra",
    "router.huggingface.co": "huggingface",
    "api.voyageai.com": "voyageai",
    "api.jina.ai": "jina",
    "api.elevenlabs.io": "elevenlabs",
    "api.deepgram.com": "deepgram",
    "api.assemblyai.com": "assemblyai",
    "api.cartesia.ai": "cartesia",
    "texttospeech.googleapis.com": "gcp.text_to_speech",
}
"""Host, or domain of hosts -> ``gen_ai.provider.name``: ``eu.api.openai.com`` is ``openai`` too."""

REGIONAL: Final[Mapping[str, str]] = {
    "bedrock-runtime.*.amazonaws.com": "aws.bedrock",
    "polly.*.amazonaws.com": "aws.polly",
    "*-aiplatform.googleapis.com": "gcp.vertex_ai",
}
"""Hosts with the region in the middle of the name."""

OWN_SERVERS: Final[Mapping[str, int]] = {"ollama": 11434, "vllm": 8000}
"""Software for one's own hardware and the port it listens on: known by that port of the same machine, or where its
host bears its name, as services of a compose file or a cluster do."""

Server = tuple[str | None, int | None]
"""Address, and the port unless it is HTTPS's own."""


def server_of(base_url: Any) -> Server:
    """Address and port of a client's base URL."""
    host, port = getattr(base_url, "host", None), getattr(base_url, "port", None)
    return (host or None, None if port == 443 else port)


def provider_of(server: Server, told: Mapping[str, str]) -> str:
    """The provider behind a server.

    Args:
        server: address and port.
        told: the user's own hosts (``STAGELIGHT_PROVIDER_HOSTS``): ``host:port`` or ``host`` -> provider; they win.
    """
    host, port = (server[0] or "").lower().rstrip("."), server[1]
    if told:
        known = told.get(f"{host}:{port or 443}") or told.get(host)
        if known is not None:
            return known
    return _hosted(host) or _own(host, port) or COMPATIBLE


def _hosted(host: str) -> str | None:
    domain = host
    while domain:
        if domain in PROVIDERS:
            return PROVIDERS[domain]
        domain = domain.partition(".")[2]
    for pattern, provider in REGIONAL.items():
        before, _, after = pattern.partition("*")
        region = host.removeprefix(before).removesuffix(after)
        if host == f"{before}{region}{after}" and region and "." not in region:
            return provider
    return None


def _own(host: str, port: int | None) -> str | None:
    if is_private_host(host):
        for software, usual in OWN_SERVERS.items():
            if host.partition(".")[0] == software or (port == usual and host in _SAME_MACHINE):
                return software
    return None
