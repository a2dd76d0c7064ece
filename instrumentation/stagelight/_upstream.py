"""OpenTelemetry's own GenAI instrumentations: who counts a call that they and we both see.

They keep a record of the running call in the context (``opentelemetry-util-genai``, one key for each kind of call).
A call of the same kind inside it adds what it knows to the record and makes neither span nor metrics. So it is here,
in both directions: a call of ours inside one of theirs leaves span and client metrics to them; one of theirs inside
ours finds our record, and what it tells becomes our call's facts.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from opentelemetry.context import Context
from opentelemetry.trace import Span

from stagelight.conventions import attributes as a
from stagelight.facts import CallFacts, Request, Response, Stage, Usage

__all__ = ["Told", "offered", "running", "tell", "told"]

_MODULE: Final = "opentelemetry.util.genai.invocation"
_NAMES: Final[Mapping[Stage, tuple[str, str]]] = {
    "llm": ("CLIENT_INFERENCE_CONTEXT_KEY", "InferenceData"),
    "embedding": ("CLIENT_EMBEDDING_CONTEXT_KEY", "EmbeddingData"),
    "retrieval": ("CLIENT_RETRIEVAL_CONTEXT_KEY", "RetrievalData"),
}
"""Key and class of the record of each kind of call, as their package names them."""

_REQUEST: Final = (
    ("provider_name", "provider"),
    ("request_model", "model"),
    ("server_address", "server_address"),
    ("server_port", "server_port"),
    ("request_stream", "stream"),
)
_RESPONSE: Final = (
    ("response_model", "model"),
    ("response_id", "id"),
    ("embeddings_dimension_count", "embedding_dimensions"),
)
_USAGE: Final = (
    ("usage_input_tokens", "input_tokens"),
    ("usage_output_tokens", "output_tokens"),
    ("usage_cache_read_input_tokens", "cache_read_tokens"),
    ("usage_cache_write_input_tokens", "cache_write_tokens"),
    ("usage_reasoning_output_tokens", "reasoning_tokens"),
    ("usage_text_input_tokens", "text_input_tokens"),
    ("usage_text_output_tokens", "text_output_tokens"),
    ("usage_audio_input_tokens", "audio_input_tokens"),
    ("usage_audio_output_tokens", "audio_output_tokens"),
    ("usage_audio_cache_read_input_tokens", "audio_cache_read_tokens"),
    ("usage_image_input_tokens", "image_input_tokens"),
    ("usage_image_output_tokens", "image_output_tokens"),
)
"""Fields of their record and of ours."""

_KEPT: Final = (
    a.GEN_AI_OPERATION_NAME,
    a.GEN_AI_PROVIDER_NAME,
    a.GEN_AI_REQUEST_MODEL,
    a.SERVER_ADDRESS,
    a.SERVER_PORT,
)


class _Kind(NamedTuple):
    key: str
    theirs: type
    ours: type
    """A subclass of theirs, so that they take it for a record of their own and we do not."""


class Told(NamedTuple):
    """What calls of theirs inside one of ours said."""

    request: Request
    response: Response


class _Withdrawn:
    """The class of a record whose call has ended: calls in contexts that outlive it are counted by themselves."""


_kinds: dict[Stage, _Kind] = {}


def _kind(stage: Stage) -> _Kind | None:
    module = sys.modules.get(_MODULE)
    if module is None or stage not in _NAMES:  # nobody of theirs is here
        return None
    known = _kinds.get(stage)
    if known is None:
        key, theirs = (getattr(module, name, None) for name in _NAMES[stage])
        if not isinstance(key, str) or not isinstance(theirs, type):
            return None
        known = _kinds[stage] = _Kind(key, theirs, type("StagelightRecord", (theirs,), {}))
    return known


def running(stage: Stage, context: Context) -> Any:
    """The record of a call of theirs, of the same kind, that runs in ``context``; ``None`` when there is none."""
    kind = _kind(stage)
    if kind is None:
        return None
    record = context.get(kind.key)
    return record if isinstance(record, kind.theirs) and not isinstance(record, kind.ours) else None


def offered(stage: Stage, context: Context) -> tuple[Context, Any]:
    """``context`` with a record of ours for calls of theirs inside, and the record; both as before without them."""
    kind = _kind(stage)
    if kind is None:
        return context, None
    record = kind.ours()
    return Context({**context, kind.key: record}), record


def told(record: Any) -> Told | None:
    """End a record of ours: what it was told; ``None`` when no call of theirs was made inside."""
    record.__class__ = _Withdrawn
    reasons = getattr(record, "response_finish_reasons", None)
    request, response, usage = (_known(record, rows) for rows in (_REQUEST, _RESPONSE, _USAGE))
    if not request and not response and not usage:
        return None
    return Told(
        Request(**request),
        Response(
            **response, finish_reasons=tuple(reasons) if reasons else None, usage=Usage(**usage) if usage else None
        ),
    )


def _known(record: Any, rows: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    found = {ours: getattr(record, theirs, None) for theirs, ours in rows}
    return {name: value for name, value in found.items() if value is not None}


def tell(record: Any, facts: CallFacts, span: Span, attributes: Mapping[str, Any]) -> None:
    """Leave a call of ours to the call of theirs it was made in, while that is still open.

    Args:
        record: of their call.
        facts: of our call; the record is told those it can hold.
        span: theirs.
        attributes: ours; the span gets those that it does not keep as it began with them.
    """
    _tell(record, _REQUEST, facts.request)
    response, usage = facts.response, facts.usage
    if response is not None:
        _tell(record, _RESPONSE, response)
        if response.finish_reasons is not None and hasattr(record, "response_finish_reasons"):
            record.response_finish_reasons = list(response.finish_reasons)
    if usage is not None:
        written = usage.cache_write_tokens
        total = sum(written.values()) if isinstance(written, Mapping) else written
        _tell(record, _USAGE, usage._replace(cache_write_tokens=total))
    begun = getattr(span, "attributes", None) or {}
    kept = {key for key in _KEPT if key in begun} | {a.ERROR_TYPE}  # goes with the status, which is theirs to set
    span.set_attributes({key: value for key, value in attributes.items() if key not in kept})


def _tell(record: Any, rows: tuple[tuple[str, str], ...], facts: Request | Response | Usage) -> None:
    for theirs, ours in rows:
        value = getattr(facts, ours)
        if value is not None and hasattr(record, theirs):
            setattr(record, theirs, value)
