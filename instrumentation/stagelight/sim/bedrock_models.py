"""``POST /model/{model}/invoke`` and ``.../invoke-with-response-stream``: each family of models in its own JSON.

Anthropic's bodies are those of its own protocol, Nova's those of Converse.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from stagelight.sim.answers import Answer, answer
from stagelight.sim.aws import converse_body, converse_events, failed_stream, latency_ms, model_row, request_headers
from stagelight.sim.event_stream import CONTENT_TYPE, event_message
from stagelight.sim.language import tokens
from stagelight.sim.models import LATENCIES
from stagelight.sim.prompts import Message, Prompt, PromptCache
from stagelight.sim.vectors import embed
from stagelight.sim.wire import Call, Chunk, OpenAIError, Reply, compact

__all__ = ["invoke", "invoke_stream"]

Fields = dict[str, Any]
_METRICS: Final = "amazon-bedrock-invocationMetrics"


class _Words(NamedTuple):
    """What the families call things."""

    reasons: Mapping[str, str]
    whole: Callable[[Call, Answer, int, str], Fields]
    """Call, answer, input tokens and reason -> the body."""
    pieces: Callable[[Call, Answer, int, str], Iterator[tuple[Fields, float]]]
    """The same -> chunks with the work in each."""
    has_usage: bool = True
    """Whether bodies have token counts; headers always do."""


# what is asked


def _prompt(call: Call) -> Prompt:
    body = call.body
    config = body.get("textGenerationConfig") or {}
    limits = [body.get(name) for name in ("max_tokens", "max_completion_tokens", "max_gen_len")]
    asked = body.get("prompt") or body.get("inputText") or body.get("message")
    messages = [Message("user", str(asked))] if asked else [_message(one) for one in call.required("messages", list)]
    if isinstance(body.get("system"), str):
        messages.insert(0, Message("system", body["system"]))
    stop = body.get("stop_sequences") or body.get("stop") or config.get("stopSequences") or ()
    return Prompt(
        messages=messages,
        max_tokens=next((limit for limit in (*limits, config.get("maxTokenCount")) if limit), None),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        effort="low",
    )


def _message(value: Any) -> Message:
    if not isinstance(value, dict) or value.get("role") not in {"system", "user", "assistant"}:
        raise OpenAIError.invalid("Malformed input request, please reformat your input and try again.")
    content = value.get("content")
    blocks = content if isinstance(content, list) else [{"text": content}]
    return Message(value["role"], "\n".join(str(block.get("text") or "") for block in blocks))


# families


def _anthropic_usage(taken: int, made: int) -> Fields:
    return {
        "input_tokens": taken,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": made,
    }


def _anthropic(call: Call, said: Answer, taken: int, reason: str) -> Fields:
    return {
        "model": call.model.rpartition("anthropic.")[2].partition("-v")[0],
        "id": call.id("msg_bdrk_", length=24),
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "".join(said.text)}],
        "stop_reason": reason,
        "stop_sequence": said.stopped_by,
        "usage": _anthropic_usage(taken, said.output_tokens),
    }


def _anthropic_pieces(call: Call, said: Answer, taken: int, reason: str) -> Iterator[tuple[Fields, float]]:
    begun = {**_anthropic(call, said, taken, reason), "content": [], "stop_reason": None, "stop_sequence": None}
    yield {"type": "message_start", "message": {**begun, "usage": _anthropic_usage(taken, 1)}}, 0
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}, 0
    for token in said.text:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": token}}, 1
    yield {"type": "content_block_stop", "index": 0}, 0
    ended = {"stop_reason": reason, "stop_sequence": said.stopped_by}
    yield {"type": "message_delta", "delta": ended, "usage": {"output_tokens": said.output_tokens}}, 0
    yield {"type": "message_stop"}, 0


def _titan(_: Call, said: Answer, taken: int, reason: str) -> Fields:
    result = {"tokenCount": said.output_tokens, "outputText": "".join(said.text), "completionReason": reason}
    return {"inputTextTokenCount": taken, "results": [result]}


def _titan_pieces(_: Call, said: Answer, taken: int, reason: str) -> Iterator[tuple[Fields, float]]:
    last = len(said.text)
    for number, token in enumerate(said.text, start=1):
        yield (
            {
                "outputText": token,
                "index": 0,
                "totalOutputTextTokenCount": said.output_tokens if number == last else None,
                "completionReason": reason if number == last else None,
                "inputTextTokenCount": taken if number == 1 else None,
            },
            1,
        )


def _llama(_: Call, said: Answer, taken: int, reason: str) -> Fields:
    return {
        "generation": "".join(said.text),
        "prompt_token_count": taken,
        "generation_token_count": said.output_tokens,
        "stop_reason": reason,
    }


def _llama_pieces(_: Call, said: Answer, taken: int, reason: str) -> Iterator[tuple[Fields, float]]:
    for number, token in enumerate((*said.text, ""), start=1):
        is_last = number > len(said.text)
        yield (
            {
                "generation": token,
                "prompt_token_count": taken if number == 1 else None,
                "generation_token_count": min(number, said.output_tokens),
                "stop_reason": reason if is_last else None,
            },
            1,
        )


def _mistral(_: Call, said: Answer, _taken: int, reason: str) -> Fields:
    return {"outputs": [{"text": "".join(said.text), "stop_reason": reason}]}


def _mistral_pieces(_: Call, said: Answer, _taken: int, reason: str) -> Iterator[tuple[Fields, float]]:
    for token in said.text:
        yield {"outputs": [{"text": token, "stop_reason": None}]}, 1
    yield {"outputs": [{"text": "", "stop_reason": reason}]}, 0


def _cohere(call: Call, said: Answer, _taken: int, reason: str) -> Fields:
    identity = {"response_id": call.id("", "response"), "generation_id": call.id("", "generation")}
    return {"text": "".join(said.text), **identity, "finish_reason": reason, "chat_history": []}


def _cohere_pieces(call: Call, said: Answer, taken: int, reason: str) -> Iterator[tuple[Fields, float]]:
    whole = _cohere(call, said, taken, reason)
    for token in said.text:
        yield {"is_finished": False, "event_type": "text-generation", "text": token}, 1
    yield {"is_finished": True, "event_type": "stream-end", "finish_reason": reason, "response": whole}, 0


def _openai_usage(taken: int, made: int) -> Fields:
    return {"prompt_tokens": taken, "completion_tokens": made, "total_tokens": taken + made}


def _openai(call: Call, said: Answer, taken: int, reason: str) -> Fields:
    message = {"role": "assistant", "content": "".join(said.text)}
    return {
        "id": call.id("chatcmpl-", length=32),
        "object": "chat.completion",
        "created": call.created,
        "model": call.model,
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": _openai_usage(taken, said.output_tokens),
    }


def _openai_pieces(call: Call, said: Answer, taken: int, reason: str) -> Iterator[tuple[Fields, float]]:
    head = {**_openai(call, said, taken, reason), "object": "chat.completion.chunk"}
    del head["usage"]
    for token in said.text:
        yield {**head, "choices": [{"index": 0, "delta": {"content": token}, "finish_reason": None}]}, 1
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}, 0


_PLAIN: Final = {"stop": "stop", "length": "length", "content_filter": "content_filter", "tool_calls": "tool_calls"}
_ANTHROPIC: Final = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal", "tool_calls": "tool_use"}
_FAMILIES: Final[Mapping[str, _Words]] = {
    "anthropic.": _Words(_ANTHROPIC, _anthropic, _anthropic_pieces),
    "titan": _Words({"stop": "FINISH", "length": "LENGTH", "content_filter": "CONTENT_FILTERED"}, _titan,
                    _titan_pieces),
    "meta.": _Words(_PLAIN, _llama, _llama_pieces),
    "mistral.": _Words(_PLAIN, _mistral, _mistral_pieces, has_usage=False),
    "cohere.": _Words({"stop": "COMPLETE", "length": "MAX_TOKENS", "content_filter": "ERROR"}, _cohere, _cohere_pieces,
                      has_usage=False),
    "": _Words(_PLAIN, _openai, _openai_pieces),
}  # fmt: skip
"""By a part of the model's id; models with OpenAI's shape are the rest."""


def _family(model: str) -> _Words:
    return next(words for name, words in _FAMILIES.items() if name in model)


# endpoints


def _measured(call: Call, taken: int, made: int | None) -> dict[str, str]:
    if call.faults.get("missing_usage") is not None:
        return {}
    told = {"invocation-latency": latency_ms(call), "input-token-count": taken, "output-token-count": made}
    return {f"x-amzn-bedrock-{name}": str(value) for name, value in told.items() if value is not None}


def _counted(call: Call, body: Fields, words: _Words) -> Fields:
    if call.faults.get("missing_usage") is None or not words.has_usage:
        return body
    lost = ("usage", "prompt_token_count", "generation_token_count", "inputTextTokenCount", "totalOutputTextTokenCount")
    return {name: value for name, value in body.items() if name not in lost}


def invoke(call: Call, cache: PromptCache) -> Reply:
    """Answer a model's body in one piece."""
    row, headers = model_row(call), request_headers(call)
    latency = LATENCIES[row.latency]
    if "embed" in row.id:
        body, used = _embeddings(call)
        headers |= _measured(call, used, None)
        return Reply("application/json", [Chunk(compact(body), used)], LATENCIES["embedding"], headers=headers)
    if "nova" in row.id:
        body, taken, made = converse_body(call, cache)
        body = _nova(body)
        body.pop("metrics")
        return Reply(
            "application/json", [Chunk(compact(body), made)], latency, headers=headers | _measured(call, taken, made)
        )
    words, prompt = _family(row.id), _prompt(call)
    said, taken = answer(prompt, call, row), len(prompt.tokens())
    body = _counted(call, words.whole(call, said, taken, words.reasons[said.finish]), words)
    headers |= _measured(call, taken, said.output_tokens)
    return Reply("application/json", [Chunk(compact(body), said.output_tokens)], latency, headers=headers)


def invoke_stream(call: Call, cache: PromptCache) -> Reply:
    """Answer a model's body as events that carry chunks of JSON."""
    row = model_row(call)
    headers = request_headers(call) | {"x-amzn-bedrock-content-type": "application/json"}
    return Reply(CONTENT_TYPE, _chunks(call, cache), LATENCIES[row.latency], True, failed_stream, headers)


def _chunks(call: Call, cache: PromptCache) -> Iterator[Chunk]:
    if "nova" in call.model:
        _, taken, made = converse_body(call, cache)
        pieces = iter([({kind: _nova(fields)}, work) for kind, fields, work in converse_events(call, cache)])
    else:
        row, words, prompt = model_row(call), _family(call.model), _prompt(call)
        said, taken = answer(prompt, call, row), len(prompt.tokens())
        made, reason = said.output_tokens, words.reasons[said.finish]
        pieces = ((_counted(call, one, words), work) for one, work in words.pieces(call, said, taken, reason))
    held = next(pieces)
    for piece in pieces:
        yield _chunk(*held)
        held = piece
    fields, work = held
    if call.faults.get("missing_usage") is None:
        counts = {"inputTokenCount": taken, "outputTokenCount": made}
        fields = {**fields, _METRICS: {**counts, "invocationLatency": latency_ms(call), "firstByteLatency": 90}}
    yield _chunk(fields, work)


def _chunk(fields: Fields, work: float) -> Chunk:
    return Chunk(event_message("chunk", {"bytes": b64encode(compact(fields)).decode()}), work)


def _nova(told: Fields) -> Fields:
    """A record of Converse with Nova's own names of cached tokens."""
    names = {"cacheReadInputTokens": "cacheReadInputTokenCount", "cacheWriteInputTokens": "cacheWriteInputTokenCount"}
    usage = told.get("usage") or {}
    own = {names.get(name, name): value for name, value in usage.items() if name != "cacheDetails"}
    return {**told, "usage": own} if usage else told


def _embeddings(call: Call) -> tuple[Fields, int]:
    listed = call.body.get("texts") or [call.required("inputText", str)]
    size = call.body.get("dimensions") or call.body.get("output_dimension") or 1024
    vectors = [embed(text, size=1024, dimensions=size).tolist() for text in listed]
    used = sum(len(tokens(text)) for text in listed)
    if "texts" not in call.body:
        by_type = {"embeddingsByType": {"float": vectors[0]}}
        return {"embedding": vectors[0], "inputTextTokenCount": used, **by_type}, used
    kinds = call.body.get("embedding_types")
    shape: Fields = {"embeddings": {"float": vectors}} if kinds else {"embeddings": vectors}
    told = {
        "id": call.id("", "embedding"),
        "texts": listed,
        "response_type": "embeddings_by_type" if kinds else "embeddings_floats",
    }
    return {**told, **shape}, used
