"""Answers of Bedrock's model families: each has its own names for text, tokens and the reason to stop.

Converse and Nova share one shape; the others are told apart by their fields, because a model's resource name need not
say its family.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from stagelight.facts import Response, Usage, merged
from stagelight.integrations._reading import amount, count, part, parts, text, texts

__all__ = ["Events", "answer", "conversed", "counted", "speaks"]

_INPUT: Final = ("inputTokens", "input_tokens", "prompt_tokens", "prompt_token_count", "inputTextTokenCount",
                 "inputTokenCount")  # fmt: skip
_OUTPUT: Final = ("outputTokens", "output_tokens", "completion_tokens", "generation_token_count",
                  "totalOutputTextTokenCount", "outputTokenCount")  # fmt: skip
_CACHE_READ: Final = ("cacheReadInputTokens", "cache_read_input_tokens", "cacheReadInputTokenCount")
_CACHE_WRITE: Final = ("cacheWriteInputTokens", "cache_creation_input_tokens", "cacheWriteInputTokenCount")
_DETAILS: Final = ("cacheDetails", "cache_creation", "prompt_tokens_details", "completion_tokens_details")
_TOKENS: Final = frozenset({*_INPUT, *_OUTPUT, *_CACHE_READ, *_CACHE_WRITE, *_DETAILS})
_TTLS: Final = ("5m", "1h")

_REASONS: Final = (("stopReason",), ("stop_reason",), ("finish_reason",), ("completionReason",),
                   ("finishReason", "reason"))  # fmt: skip
_CUT: Final = frozenset({"max_tokens", "length", "model_context_window_exceeded"})
_TEXTS: Final = ("text", "generation", "completion", "outputText")
_RECORDS: Final = (("output", "message"), ("message",), ("delta",), ("contentBlockDelta", "delta"), ("messageStop",))
_LISTS: Final = ("choices", "outputs", "generations", "results", "completions")


# tokens


def _first(told: Any, names: tuple[str, ...]) -> int | None:
    return next((found for name in names if (found := count(part(told, name))) is not None), None)


def _written(told: Any, total: int | None) -> int | Mapping[str, int] | None:
    """Tokens written to the cache, by time-to-live where the parts make the total."""
    found = {str(part(one, "ttl")): count(part(one, "inputTokens")) for one in parts(told, "cacheDetails")}
    found |= {ttl: count(part(told, "cache_creation", f"ephemeral_{ttl}_input_tokens")) for ttl in _TTLS if not found}
    known = {ttl: tokens for ttl, tokens in found.items() if tokens}
    return known if known and known.keys() <= set(_TTLS) and sum(known.values()) == total else total


def _usage(told: Any) -> Usage | None:
    """Token counts, inclusive: Bedrock and Anthropic leave cached tokens out of their input.

    https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html: total input = inputTokens +
    cacheReadInputTokens + cacheWriteInputTokens.
    """
    taken, made = _first(told, _INPUT), _first(told, _OUTPUT)
    if taken is None and made is None:
        return None
    read, written = _first(told, _CACHE_READ), _first(told, _CACHE_WRITE)
    if taken is not None:
        taken += (read or 0) + (written or 0)
    if read is None:  # families with OpenAI's shape, whose input has them
        read = count(part(told, "prompt_tokens_details", "cached_tokens"))
    return Usage(
        input_tokens=taken,
        output_tokens=made,
        cache_read_tokens=read,
        cache_write_tokens=_written(told, written),
        reasoning_tokens=count(part(told, "completion_tokens_details", "reasoning_tokens")),
    )


def _tokens_of(told: Any) -> Any:
    """Where an answer or a chunk keeps its token counts."""
    for path in (("usage",), ("metadata", "usage"), ("message", "usage")):
        found = part(told, *path)
        if isinstance(found, dict):
            return found
    results = [tokens for one in parts(told, "results") if (tokens := count(part(one, "tokenCount"))) is not None]
    if results:  # Titan counts each result's tokens for itself
        return {**told, "totalOutputTextTokenCount": sum(results)}
    return told


def _seconds(milliseconds: Any) -> float | None:
    known = amount(milliseconds)
    return None if known is None else known / 1000


def counted(metrics: Any) -> Response | None:
    """What Bedrock itself counted: ``amazon-bedrock-invocationMetrics`` of a stream's last chunk, or headers in its
    shape.
    """
    usage, seconds = _usage(metrics), _seconds(part(metrics, "invocationLatency"))
    return None if usage is None and seconds is None else Response(usage=usage, server_time_s=seconds)


# text and the reason to stop


def _records(told: Any) -> Iterator[Any]:
    """The records of an answer or a chunk that may have text or a reason."""
    yield told
    yield from (found for path in _RECORDS if isinstance(found := part(told, *path), dict))
    for name in _LISTS:
        for one in parts(told, name):
            yield one
            yield from (found for key in ("message", "delta", "data") if (found := part(one, key)) is not None)


def speaks(told: Any) -> bool:
    """Whether an answer or a chunk has text."""
    for record in _records(told):
        content = part(record, "content")
        blocks = content if isinstance(content, list) else []
        if text(content) or any(text(part(record, name)) for name in _TEXTS):
            return True
        if any(text(part(block, "text")) for block in blocks):
            return True
    return False


def _reasons(told: Any) -> tuple[str, ...] | None:
    return texts([found for record in _records(told) for path in _REASONS if (found := part(record, *path))])


def _ended(reasons: tuple[str, ...] | None) -> Response:
    cut = any(reason.lower() in _CUT for reason in reasons or ())
    stopped = "intervened" if reasons == ("guardrail_intervened",) else None
    return Response(finish_reasons=reasons, length_cut=cut, guardrail=stopped)


def _guarded(told: Any) -> str | None:
    action = part(told, "amazon-bedrock-guardrailAction")
    return None if action is None else "intervened" if action == "INTERVENED" else "passed"


def _identity(told: Any) -> str | None:
    return text(part(told, "id")) or text(part(told, "generation_id")) or text(part(told, "message", "id"))


# answers


def answer(told: Any) -> Response:
    """What a model's answer in one piece says.

    The model's own name in it is left out: Bedrock bills the id that was asked for, whose prefix decides the price.
    """
    said = Response(id=_identity(told), guardrail=_guarded(told), usage=_usage(_tokens_of(told)))
    return merged(said, _ended(_reasons(told))) or said


def conversed(told: Any) -> Response:
    """What Converse's answer, or the last event of its stream, says beyond the model's words."""
    trace = part(told, "trace")
    tier = text(part(told, "serviceTier", "type"))
    if tier in {None, "default"} and part(told, "performanceConfig", "latency") == "optimized":
        tier = "optimized"  # a price of its own
    return Response(
        model=text(part(trace, "promptRouter", "invokedModelId")),
        service_tier=tier,
        server_time_s=_seconds(part(told, "metrics", "latencyMs")),
        guardrail=None if part(trace, "guardrail") is None else "passed",
        usage=_usage(part(told, "usage")),
    )


class Events:
    """Takes the events of ConverseStream, or the chunks of any family's stream."""

    streamed: ClassVar[bool] = True

    def __init__(self) -> None:
        self.finished = False
        self.failure: str | None = None
        self._told: Response | None = None
        self._tokens: dict[str, Any] = {}
        self._metrics: Any = None

    def take(self, event: Any) -> bool:
        told = _decoded(event)
        if not isinstance(told, dict):
            return False
        self._keep(told)
        return speaks(told)

    def _keep(self, told: dict[str, Any]) -> None:
        reasons = _reasons(told)
        self.finished = self.finished or reasons is not None
        self._told = merged(self._told, Response(id=_identity(told), guardrail=_guarded(told)))
        self._told = merged(self._told, _ended(reasons))
        metadata = part(told, "metadata")
        if metadata is not None:
            self._told = merged(conversed(metadata), self._told)  # what the guardrail did is known before
        tokens = _tokens_of(told)
        self._tokens |= {name: tokens[name] for name in _TOKENS & tokens.keys() if tokens[name] is not None}
        self._metrics = part(told, "amazon-bedrock-invocationMetrics") or self._metrics

    def response(self) -> Response | None:
        told = merged(counted(self._metrics), self._told)
        usage = _usage(self._tokens)
        return told if usage is None else merged(told, Response(usage=usage))


def _decoded(event: Any) -> Any:
    """The chunk in an event: Converse's events are records, the others carry bytes of JSON."""
    data = part(event, "chunk", "bytes")
    if data is None:
        return event
    try:
        return json.loads(data)
    except ValueError:
        return None
