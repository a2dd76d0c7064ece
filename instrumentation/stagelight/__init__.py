"""Stagelight: OpenTelemetry-native observability for AI applications."""

# ruff: noqa: E402 - the first import has to come before all others
from stagelight.standard import load_api as _load_api

_load_api()  # before any module of this package imports it

from stagelight._version import __version__
from stagelight.configure import configure, flush, shutdown
from stagelight.stages import (
    cache,
    chunk,
    current,
    embedding,
    enrich,
    evaluation,
    feedback,
    identify,
    job,
    llm,
    memory,
    parse,
    rerank,
    retrieval,
    store,
    stt,
    tool,
    tts,
    turn,
)

__all__ = [
    "__version__",
    "cache",
    "chunk",
    "configure",
    "current",
    "embedding",
    "enrich",
    "evaluation",
    "feedback",
    "flush",
    "identify",
    "job",
    "llm",
    "memory",
    "parse",
    "rerank",
    "retrieval",
    "shutdown",
    "store",
    "stt",
    "tool",
    "tts",
    "turn",
]
