"""The models the simulator lists, and how fast each kind of model is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["LATENCIES", "MODELS", "Latency", "Model", "model"]


@dataclass(frozen=True, slots=True)
class Latency:
    """How fast a model answers at speed 1. The figures are plausible, chosen for simulation and not measured.

    Args:
        first_s: Time to the first token or audio byte, seconds.
        rate: What is made per second after that: tokens, or seconds of audio for speech; infinite for no wait.
        jitter: Relative spread of both, 0 to 1: each wait is multiplied by a factor from 1 - jitter to 1 + jitter.
    """

    first_s: float
    rate: float
    jitter: float


LATENCIES: Final[dict[str, Latency]] = {
    "instant": Latency(0.0, float("inf"), 0.0),
    "fast-chat": Latency(0.38, 110.0, 0.25),
    "large-chat": Latency(0.62, 65.0, 0.25),
    "reasoning-chat": Latency(0.85, 130.0, 0.30),
    "slow-chat": Latency(2.50, 18.0, 0.40),
    "embedding": Latency(0.09, 40_000.0, 0.35),
    "speech": Latency(0.42, 5.0, 0.20),
    "large-speech": Latency(0.75, 2.5, 0.20),
    "transcription": Latency(0.55, 200.0, 0.25),
}


@dataclass(frozen=True, slots=True)
class Model:
    """One row of the model list; a model that is not listed is answered too, as itself."""

    id: str
    snapshot: str
    """Name in responses: providers answer an alias with the dated model behind it."""
    created: int
    latency: str
    dimensions: int = 1536
    """Length of an embedding; of no meaning for other models."""
    reasoning: bool = False


_ROWS = (
    Model("gpt-4o", "gpt-4o-2024-08-06", 1715367049, "large-chat"),
    Model("gpt-4o-mini", "gpt-4o-mini-2024-07-18", 1721172741, "fast-chat"),
    Model("gpt-4.1", "gpt-4.1-2025-04-14", 1744316542, "large-chat"),
    Model("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14", 1744318173, "fast-chat"),
    Model("gpt-4.1-nano", "gpt-4.1-nano-2025-04-14", 1744321025, "fast-chat"),
    Model("o3-mini", "o3-mini-2025-01-31", 1737146383, "reasoning-chat", reasoning=True),
    Model("o4-mini", "o4-mini-2025-04-16", 1744225351, "reasoning-chat", reasoning=True),
    Model("gpt-5", "gpt-5-2025-08-07", 1754425777, "reasoning-chat", reasoning=True),
    Model("gpt-5-mini", "gpt-5-mini-2025-08-07", 1754425928, "reasoning-chat", reasoning=True),
    Model("text-embedding-3-small", "text-embedding-3-small", 1705948997, "embedding"),
    Model("text-embedding-3-large", "text-embedding-3-large", 1705953180, "embedding", dimensions=3072),
    Model("text-embedding-ada-002", "text-embedding-ada-002-v2", 1671217299, "embedding"),
    Model("tts-1", "tts-1", 1681940951, "speech"),
    Model("tts-1-hd", "tts-1-hd", 1699046015, "large-speech"),
    Model("gpt-4o-mini-tts", "gpt-4o-mini-tts", 1742403959, "speech"),
    Model("whisper-1", "whisper-1", 1677532384, "transcription"),
    Model("gpt-4o-transcribe", "gpt-4o-transcribe", 1742068463, "transcription"),
    Model("gpt-4o-mini-transcribe", "gpt-4o-mini-transcribe", 1742068596, "transcription"),
)
MODELS: Final[dict[str, Model]] = {row.id: row for row in _ROWS}
_BY_SNAPSHOT = {row.snapshot: row for row in _ROWS}


def model(name: str, *, kind: str) -> Model:
    """Return the row of a model; one that is not listed answers under its own name with the latency of its kind."""
    row = MODELS.get(name) or _BY_SNAPSHOT.get(name)
    return row or Model(name, name, 0, kind)
