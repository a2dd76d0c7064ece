"""Which provider a client talks to, told by the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["COMPATIBLE", "PROVIDERS", "Server", "provider_of", "server_of"]

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
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "openrouter.ai": "openrouter",
    "api.together.xyz": "together",
    "api.together.ai": "together",
    "api.fireworks.ai": "fireworks",
    "api.cerebras.ai": "cerebras",
    "api.deepinfra.com": "deepinfra",
    "router.huggingface.co": "huggingface",
}
"""Host, or domain of hosts -> ``gen_ai.provider.name``. OpenAI's regional hosts are in ``provider_of``."""

_OPENAI_DOMAIN: Final = ".api.openai.com"  # us.api.openai.com, eu.api.openai.com

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
    if host.endswith(_OPENAI_DOMAIN):
        return PROVIDERS["api.openai.com"]
    domain = host
    while domain:
        if domain in PROVIDERS:
            return PROVIDERS[domain]
        domain = domain.partition(".")[2]
    return COMPATIBLE
