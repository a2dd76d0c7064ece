"""What each stage is called upstream: operation name, span kind, and what its span is named after."""

from __future__ import annotations

from typing import NamedTuple

from opentelemetry.trace import SpanKind

from stagelight.facts import Request, Stage

__all__ = ["OPERATIONS", "PRICED_STAGES", "Operation", "operation_name", "span_name"]


class Operation(NamedTuple):
    """One stage's row."""

    name: str | None
    """``gen_ai.operation.name``; ``None`` where upstream has none: the stage attribute alone says it."""
    kind: SpanKind


_CLIENT, _INTERNAL = SpanKind.CLIENT, SpanKind.INTERNAL

OPERATIONS: dict[Stage, Operation] = {
    "embedding": Operation("embeddings", _CLIENT),
    "retrieval": Operation("retrieval", _CLIENT),
    "rerank": Operation(None, _CLIENT),
    "llm": Operation("chat", _CLIENT),
    "tts": Operation("text_to_speech", _CLIENT),  # declared exception: upstream's proposal #390 is open
    "stt": Operation(None, _CLIENT),
    "tool": Operation("execute_tool", _INTERNAL),
    "memory": Operation(None, _INTERNAL),
    "parse": Operation(None, _INTERNAL),
    "chunk": Operation(None, _INTERNAL),
    "enrich": Operation(None, _INTERNAL),
    "store": Operation(None, _INTERNAL),
}

PRICED_STAGES: frozenset[Stage] = frozenset({"embedding", "llm", "tts", "stt", "rerank"})
"""Stages that cost money by nature; others are priced only when usage or a cost is given."""


def operation_name(stage: Stage, request: Request) -> str | None:
    """The call's ``gen_ai.operation.name``."""
    return request.operation or OPERATIONS[stage].name


def span_name(stage: Stage, request: Request) -> str:
    """``{operation} {target}``: the model, the collection for a retrieval, the name for a tool."""
    first = operation_name(stage, request) or stage
    target = request.source if stage == "retrieval" else request.name or request.model
    if not target:
        return first
    # A lone surrogate in a span name makes the exporter drop the whole batch.
    return f"{first} {target}".encode("utf-8", "replace").decode()
