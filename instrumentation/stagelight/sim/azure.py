"""Azure OpenAI: the same endpoints below a deployment, and another header for the key."""

from __future__ import annotations

from stagelight.sim.models import MODELS
from stagelight.sim.wire import OPENAI, Dialect

__all__ = ["AZURE", "model_of"]


def model_of(deployment: str) -> str:
    """The model behind a deployment: the longest listed one that its name contains, else the name itself."""
    return max((name for name in MODELS if name in deployment), key=len, default=deployment)


AZURE = Dialect(
    is_authorised=lambda headers: bool(headers.get("api-key", "").strip()) or OPENAI.is_authorised(headers),
    refusal=OPENAI.refusal,
    model=lambda fields: model_of(str(fields.get("deployment", fields.get("model", "")))),
)
