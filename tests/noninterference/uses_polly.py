"""Every way of using Amazon Polly."""

from __future__ import annotations

from typing import Any

from noninterference.aws import kinds, opening
from noninterference.uses import FAULTS, Client, Use, now

__all__ = ["CLIENT"]

SPEECH: dict[str, Any] = {
    "Text": "The tide comes in.", "VoiceId": "Joanna", "OutputFormat": "pcm", "Engine": "neural",
}  # fmt: skip


async def _read(client: Any) -> Any:
    answer = await now(client.synthesize_speech(**SPEECH))
    return await now(answer["AudioStream"].read())


SPEAK = "synthesize_speech"

USES = (
    Use(SPEAK, _read, "read"),
    Use(
        SPEAK,
        lambda client: client.synthesize_speech(**SPEECH),
        "in pieces",
        lambda answer: answer["AudioStream"].iter_chunks(512),
        first=1,
    ),
    Use(SPEAK, lambda client: client.synthesize_speech(**SPEECH), "iterated", lambda answer: answer["AudioStream"]),
    Use(SPEAK, lambda client: client.synthesize_speech(**{**SPEECH, "Text": ""}), "refused", fails=True),
)

CLIENT = Client(
    "polly",
    "PollyInstrumentor",
    ("botocore",),
    opening("polly"),
    USES,
    provider="aws.polly",
    faults=FAULTS,
    kinds=kinds,
)
