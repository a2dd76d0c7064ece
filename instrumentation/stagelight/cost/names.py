"""Names of providers, models and hosts: which ones mean the same thing, and which only look alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

__all__ = ["canonical_provider", "is_private_host", "is_same_model", "is_self_hosted", "states_cost"]

_PROVIDERS: Final[Mapping[str, str]] = {
    alias: name
    for name, aliases in {
        "aws": "aws.bedrock aws_bedrock amazon_bedrock bedrock",
        "aws.polly": "polly aws_polly amazon_polly amazon.polly",
        "azure": "azure.ai.inference azure.ai.openai azure.openai azure_openai azure_ai az.ai.inference az.ai.openai",
        "azure.speech": "azure.ai.speech azure_speech azure_tts",
        "google": "gcp.gemini gcp.vertex_ai gcp.gen_ai vertex_ai gemini google_genai google_vertexai",
        "gcp.text_to_speech": "gcp.tts google_tts google.text_to_speech google_cloud_tts",
        "mistral": "mistral_ai mistralai",
        "x-ai": "x_ai xai",
        "moonshotai": "moonshot_ai moonshot",
        "together": "together_ai together-ai togetherai",
        "fireworks": "fireworks_ai fireworks-ai fireworksai",
        "voyageai": "voyage voyage_ai voyage-ai",
        "elevenlabs": "eleven_labs eleven-labs",
        "zai": "z_ai z.ai",
        "jina": "jina_ai jinaai",
    }.items()
    for alias in aliases.split()
}
"""Names of the OpenTelemetry conventions and of SDKs, to the names price lists use."""

_SELF_HOSTED: Final = frozenset({
    "ollama", "vllm", "llama.cpp", "llama_cpp", "llamacpp", "lm_studio", "lmstudio", "localai", "local",
    "self_hosted", "self-hosted", "sglang", "tgi", "text-generation-inference", "tei", "text-embeddings-inference",
    "triton", "xinference", "mlx", "gpt4all", "koboldcpp", "sentence_transformers", "fastembed", "piper", "coqui",
    "kokoro", "whisper.cpp", "whisper_cpp", "faster_whisper",
})  # fmt: skip
_STATING_COST: Final = frozenset({"openrouter", "perplexity", "x_ai"})
"""Providers whose answers say what they charged, in USD. https://openrouter.ai/docs/use-cases/usage-accounting,
https://docs.perplexity.ai/api-reference/chat-completions-post, https://docs.x.ai/developers/cost-tracking"""
_PRIVATE_SUFFIXES: Final = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".svc", ".cluster.local")

_PREFIX: Final = re.compile(
    r"""(?:arn:aws[a-z-]*:bedrock:[a-z0-9-]*:\d*:[a-z-]+/    # Bedrock resource names
        |(?:projects/[^/]+/locations/[^/]+/)?publishers/[^/]+/models/  # Vertex AI resource names
        |anthropic/|models/)?
        (?:(?:us|eu|apac|au|jp|in|ca|sa|me|af|us-gov|global)\.)?     # Bedrock inference profile's region
        (?:(?:anthropic|amazon|meta|mistral|cohere|deepseek|openai|ai21|qwen|writer|google|moonshotai)\.)?
    """,
    re.VERBOSE,
)
_MONTH, _DAY = "(?:0[1-9]|1[0-2])", "(?:0[1-9]|[12][0-9]|3[01])"
_DATE: Final = f"20[0-9][0-9]-?{_MONTH}-?{_DAY}|{_MONTH}-20[0-9][0-9]|{_MONTH}-{_DAY}|2[0-9]{_MONTH}|{_MONTH}{_DAY}"
_SUFFIX: Final = re.compile(
    rf"""(?:-preview)?
        (?:[-@](?:{_DATE})              # -20250929, @20250929, -2025-09-29, -09-2025, -05-20, -2509, -0324
        |-latest|@latest|@default
        |-[0-9]{{3}}                    # -001
        |-v[0-9]+(?:\.[0-9]+)?(?::[0-9]+k?)*  # -v1:0, -v3
        |(?:-[0-9])?:[0-9]+k?           # -1:0, :0
    )*""",
    re.VERBOSE,
)
_OPEN_END: Final = re.compile(r"(?:[-@]20\d\d-?|[-@]\d?)$")
"""The beginning of a date or version with which some price lists end a pattern."""
_FINE_TUNED: Final = re.compile(r"[\d-]*(?::[^:]*){1,3}")
_AZURE_FINE_TUNED: Final = re.compile(r"[0-9a-f]+")


def canonical_provider(name: str) -> str:
    """The name under which price lists know a provider."""
    folded = name.strip().lower()
    return _PROVIDERS.get(folded, folded)


def is_self_hosted(provider: str) -> bool:
    """True for software one runs on one's own hardware: its models have no list price."""
    return provider in _SELF_HOSTED


def states_cost(provider: str | None) -> bool:
    """True for a provider whose answers say in USD what they charged."""
    return provider in _STATING_COST


def is_private_host(address: str) -> bool:
    """True for a host that cannot be a provider's own: loopback, private network, a name without a public domain."""
    host = address.strip().lower().rstrip(".").strip("[]")
    if not host:
        return False
    try:
        ip = ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_PRIVATE_SUFFIXES)
    return ip.is_private or ip.is_loopback or ip.is_link_local


def is_same_model(name: str, listed: str) -> bool:
    """True when ``name`` is ``listed`` but for date, version, region or ``-latest``: never for another variant.

    A fine-tuned model is the same as the listed name it starts with when that name is one of fine-tuned models.
    """
    name, listed = name.lower(), listed.lower()
    if name == listed:
        return True
    at = name.find(listed)
    if at < 0 or _PREFIX.fullmatch(name[:at]) is None:
        return False
    if listed.startswith("ft:"):
        return _FINE_TUNED.fullmatch(name[at + len(listed) :]) is not None
    if listed.endswith(".ft-"):
        return _AZURE_FINE_TUNED.fullmatch(name[at + len(listed) :]) is not None
    stems = (listed, _OPEN_END.sub("", listed))
    return any(_SUFFIX.fullmatch(name[at + len(stem) :]) is not None for stem in stems)
