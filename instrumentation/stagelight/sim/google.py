"""Google's protocol: ``MODEL:generateContent`` and its kin, as the Gemini API and as Vertex AI speak them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from stagelight.sim.answers import Answer, answer
from stagelight.sim.language import tokens
from stagelight.sim.models import LATENCIES, Model
from stagelight.sim.prompts import Message, Prompt, PromptCache, Tool
from stagelight.sim.vectors import embed
from stagelight.sim.wire import Call, Chunk, Dialect, OpenAIError, Reply, compact

__all__ = ["GOOGLE", "batch_embed", "count", "embed_one", "generate", "predict", "stream"]

_MODELS: Final = {
    row.id: row
    for row in (
        Model("gemini-2.5-pro", "gemini-2.5-pro", 0, "large-chat", reasoning=True),
        Model("gemini-2.5-flash", "gemini-2.5-flash", 0, "fast-chat", reasoning=True),
        Model("gemini-2.5-flash-lite", "gemini-2.5-flash-lite", 0, "fast-chat"),
        Model("gemini-embedding-001", "gemini-embedding-001", 0, "embedding", dimensions=3072),
        Model("gemini-embedding-2", "gemini-embedding-2", 0, "embedding", dimensions=3072),
    )
}
_STATUS: Final = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
_REASONS: Final = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "content_filter": "SAFETY"}
_CHOICES: Final = {"AUTO": "auto", "ANY": "required", "NONE": "none", "VALIDATED": "auto"}
_AUDIO_TOKENS_PER_KB: Final = 1
_TOOL_RESULT_TOKENS: Final = 20
"""What a search of the web gives to the model."""


def _refusal(error: OpenAIError, _id: str) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    return {"error": _error(error.status, str(error), error.headers.get("retry-after"))}, {}


def _error(status: int, message: str, retry_after: str | None = None) -> dict[str, Any]:
    told: dict[str, Any] = {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN")}
    if retry_after is not None:
        delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{retry_after}s"}
        told["details"] = [delay]
    return told


GOOGLE: Final = Dialect(
    is_authorised=lambda headers: bool(headers.get("x-goog-api-key") or headers.get("authorization")), refusal=_refusal
)


def _row(call: Call, kind: str) -> Model:
    return _MODELS.get(call.model) or Model(call.model, call.model, 0, kind)


def _is_vertex(call: Call) -> bool:
    return "project" in call.body


def _headers(call: Call) -> dict[str, str]:
    headers = {"server-timing": f"gfet4t7; dur={100 + call.random('server').randrange(900)}"}
    return headers if _is_vertex(call) else {**headers, "x-gemini-service-tier": _tier(call)}


def _tier(call: Call) -> str:
    return call.choice("serviceTier", ("unspecified", "standard", "flex", "priority")) or "standard"


# what is asked


class _Asked(NamedTuple):
    prompt: Prompt
    audio: int
    """Tokens of sound in the prompt."""
    images: int
    choices: int
    searches: bool
    thoughts: bool
    """Whether the caller wants to see them."""


def _asked(call: Call) -> _Asked:
    given = call.required("contents", list)
    if not given:
        raise OpenAIError.invalid("* GenerateContentRequest.contents: contents is not specified")
    config = call.optional("generationConfig", dict) or {}
    tools = call.optional("tools", list) or []
    calling = (call.optional("toolConfig", dict) or {}).get("functionCallingConfig") or {}
    named = calling.get("allowedFunctionNames") or []
    system = call.optional("systemInstruction", dict)
    listed = [*([_message(system, "system")] if system else []), *(_message(one, None) for one in given)]
    thinking = config.get("thinkingConfig") or {}
    schema = _camel_or_snake(config, "responseJsonSchema") or _plain(config.get("responseSchema") or {})
    prompt = Prompt(
        messages=[message for message, _ in listed],
        tools=[_tool(one) for tool in tools for one in tool.get("functionDeclarations") or []],
        tool_choice=named[0] if len(named) == 1 else _CHOICES.get(str(calling.get("mode", "AUTO")), "auto"),
        schema=schema if config.get("responseMimeType") == "application/json" else None,
        max_tokens=_whole(config, "maxOutputTokens"),
        stop=tuple(config.get("stopSequences") or ()),
        effort="none"
        if _camel_or_snake(thinking, "thinkingBudget") == 0
        else str(_camel_or_snake(thinking, "thinkingLevel") or "low").lower(),
    )
    if not 0 <= float(config.get("temperature", 1)) <= 2:
        raise OpenAIError.invalid("* GenerateContentRequest.generation_config.temperature: must be in [0.0, 2.0]")
    return _Asked(
        prompt=prompt,
        audio=sum(sound for _, sound in listed),
        images=sum(message.images for message in prompt.messages),
        choices=_whole(config, "candidateCount") or 1,
        searches=any("googleSearch" in tool for tool in tools),
        thoughts=_camel_or_snake(thinking, "includeThoughts") is True,
    )


def _camel_or_snake(record: Mapping[str, Any], name: str) -> Any:
    """Some versions of the client send parts of the configuration in their own spelling, which the API accepts."""
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return record.get(name, record.get(snake))


def _whole(record: Mapping[str, Any], name: str) -> int | None:
    value = _camel_or_snake(record, name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 1:
        raise OpenAIError.invalid(f"* GenerateContentRequest.generation_config.{name}: must be a positive number")
    return int(value)


def _message(value: object, role: str | None) -> tuple[Message, int]:
    """A message, and the tokens of the sound in it."""
    parts = value.get("parts") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(parts, list):
        raise OpenAIError.invalid("* GenerateContentRequest.contents.parts: contents.parts must not be empty.")
    texts, images, sound = [], 0, 0
    role = role or {"model": "assistant"}.get(str(value.get("role")), "user")
    for part in parts:
        if "functionResponse" in part:
            role = "tool"
            texts.append(str((part["functionResponse"].get("response") or {}).get("result", "")))
        elif "functionCall" in part:
            texts.append(compact(part["functionCall"]).decode())
        elif "inlineData" in part:
            is_sound = str(part["inlineData"].get("mimeType", "")).startswith("audio/")
            kilobytes = len(str(part["inlineData"].get("data", ""))) // 1024 + 1
            sound, images = sound + (kilobytes * _AUDIO_TOKENS_PER_KB if is_sound else 0), images + (not is_sound)
        else:
            texts.append(str(part.get("text", "")))
    return Message(role, "\n".join(texts), images), sound


def _tool(value: Mapping[str, Any]) -> Tool:
    if not value.get("name"):
        raise OpenAIError.invalid("* GenerateContentRequest.tools.function_declarations.name: is required")
    parameters = _camel_or_snake(value, "parametersJsonSchema") or _plain(value.get("parameters") or {})
    return Tool(str(value["name"]), str(value.get("description") or ""), parameters)


def _plain(schema: Any) -> Any:
    """A schema in Google's words as JSON schema: the types are in capitals there."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: value.lower() if name == "type" and isinstance(value, str) else _plain(value)
            for name, value in schema.items()}  # fmt: skip


# what comes back


def generate(call: Call, cache: PromptCache) -> Reply:
    """Answer in one piece."""
    row, asked, said, usage = _answered(call, cache)
    missing = call.faults.get("missing_usage") is not None
    body: dict[str, Any] = {**_contents(asked, said), **({} if missing else {"usageMetadata": usage})}
    work = sum(one.output_tokens for one in said)
    body |= _identity(call, row)
    chunks = [Chunk(compact(body), work)]
    return Reply("application/json; charset=UTF-8", chunks, LATENCIES[row.latency], headers=_headers(call))


def stream(call: Call, cache: PromptCache) -> Reply:
    """Answer as server-sent events."""
    row, asked, said, usage = _answered(call, cache)
    failure = _sent({"error": _error(503, "The model is overloaded. Please try again later.")})
    chunks = _chunks(call, row, asked, said, usage)
    return Reply("text/event-stream", chunks, LATENCIES[row.latency], True, lambda _: failure, _headers(call))


def count(call: Call) -> Reply:
    """Count the tokens of a request without answering it."""
    asked = _asked(call)
    body = {"totalTokens": len(asked.prompt.tokens()) + asked.audio, "promptTokensDetails": _modalities(asked)}
    return Reply(
        "application/json; charset=UTF-8", [Chunk(compact(body))], LATENCIES["fast-chat"], headers=_headers(call)
    )


def _answered(call: Call, cache: PromptCache) -> tuple[Model, _Asked, list[Answer], dict[str, Any]]:
    row = _row(call, "fast-chat")
    asked = _asked(call)
    blocked = call.faults.get("content_filter")
    is_blocked = blocked is not None and blocked["after"] == 0
    said = [] if is_blocked else [answer(asked.prompt, call, row, choice=index) for index in range(asked.choices)]
    listed = asked.prompt.tokens()
    return row, asked, said, _usage(call, asked, said, cache.cached_tokens(row.snapshot, listed))


def _usage(call: Call, asked: _Asked, said: Sequence[Answer], cached: int) -> dict[str, Any]:
    taken = len(asked.prompt.tokens()) + asked.audio
    thoughts = sum(one.reasoning_tokens for one in said)
    made = sum(one.output_tokens for one in said) - thoughts
    from_tools = _TOOL_RESULT_TOKENS if asked.searches and said else 0
    usage: dict[str, Any] = {"promptTokenCount": taken, "promptTokensDetails": _modalities(asked)}
    if made:
        usage["candidatesTokenCount"] = made
        usage["candidatesTokensDetails"] = [{"modality": "TEXT", "tokenCount": made}]
    if cached:
        usage["cachedContentTokenCount"] = cached
        usage["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": cached}]
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    if from_tools:
        usage["toolUsePromptTokenCount"] = from_tools
        usage["toolUsePromptTokensDetails"] = [{"modality": "TEXT", "tokenCount": from_tools}]
    if _is_vertex(call):
        usage["trafficType"] = {"flex": "ON_DEMAND_FLEX", "priority": "ON_DEMAND_PRIORITY"}.get(
            _tier(call), "ON_DEMAND"
        )
    return {**usage, "totalTokenCount": taken + made + thoughts + from_tools}


def _modalities(asked: _Asked) -> list[dict[str, Any]]:
    images = 85 * asked.images
    counts = {"TEXT": len(asked.prompt.tokens()) - images, "IMAGE": images, "AUDIO": asked.audio}
    return [{"modality": name, "tokenCount": number} for name, number in counts.items() if number]


def _identity(call: Call, row: Model) -> dict[str, Any]:
    return {"modelVersion": row.snapshot, "responseId": call.id("", "response", length=22)}


def _contents(asked: _Asked, said: Sequence[Answer]) -> dict[str, Any]:
    if not said:
        return {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
    return {"candidates": [_candidate(asked, index, one) for index, one in enumerate(said)]}


def _candidate(asked: _Asked, index: int, said: Answer) -> dict[str, Any]:
    parts = [part for part, _ in _parts(asked, said)]
    content = {"parts": parts, "role": "model"} if parts else {"role": "model"}
    told: dict[str, Any] = {"content": content, "finishReason": _REASONS[said.finish], "index": index}
    if said.finish == "content_filter":
        told["safetyRatings"] = [
            {"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}
        ]
    return told


def _parts(asked: _Asked, said: Answer) -> Iterator[tuple[dict[str, Any], float]]:
    """Parts of a candidate, and the tokens made for each."""
    if said.reasoning_tokens and asked.thoughts:
        yield {"text": "I look for the sentences that answer the question.", "thought": True}, said.reasoning_tokens
    if said.text:
        yield {"text": "".join(said.text)}, len(said.text)
    for tool in said.tools:
        yield {"functionCall": {"name": tool.name, "args": _arguments(tool.arguments)}}, 1 + len(tool.arguments)


def _arguments(given: Sequence[str]) -> dict[str, Any]:
    try:
        found = json.loads("".join(given))
    except ValueError:  # cut at the token limit
        return {}
    return found if isinstance(found, dict) else {}


def _sent(body: Mapping[str, Any]) -> bytes:
    return b"data: " + compact(body) + b"\r\n\r\n"


def _chunks(call: Call, row: Model, asked: _Asked, said: Sequence[Answer], usage: Mapping[str, Any]) -> Iterator[Chunk]:
    identity = _identity(call, row)
    counted = {} if call.faults.get("missing_usage") is not None else {"usageMetadata": usage}
    if not said:
        yield Chunk(_sent({**_contents(asked, said), **counted, **identity}))
        return
    # Until the last chunk only the prompt is counted.
    begun = {name: usage[name] for name in ("promptTokenCount", "promptTokensDetails", "trafficType") if name in usage}
    begun["totalTokenCount"] = usage["promptTokenCount"]
    so_far = {"usageMetadata": begun} if counted else {}
    ends, left = [], 0.0
    for index, one in enumerate(said):
        *parts, (last, final) = _streamed_parts(asked, one)
        work = float(one.reasoning_tokens)
        for part, made in parts:
            content = {"parts": [part], "role": "model"}
            body = {"candidates": [{"content": content, "index": index}], **so_far, **identity}
            yield Chunk(_sent(body), work + made)
            work = 0.0
        # The last part of each candidate comes with its finish reason.
        ends.append({**_candidate(asked, index, one), "content": {"parts": [last], "role": "model"}})
        left += work + final
    yield Chunk(_sent({"candidates": ends, **counted, **identity}), left)


def _streamed_parts(asked: _Asked, said: Answer) -> list[tuple[dict[str, Any], float]]:
    """At least one part, and the tokens made for each."""
    listed: list[tuple[dict[str, Any], float]] = []
    for part, made in _parts(asked, said):
        is_said = "text" in part and not part.get("thought")
        listed += [({"text": token}, 1.0) for token in said.text] if is_said else [(part, made)]
    return listed or [({"text": ""}, 0.0)]


# embeddings


def _vector(text: str, row: Model, asked: object) -> list[float]:
    if asked is not None and (not isinstance(asked, int) or not 1 <= asked <= row.dimensions):
        raise OpenAIError.invalid(f"output_dimensionality must be from 1 to {row.dimensions}")
    return list(embed(text, size=row.dimensions, dimensions=asked if isinstance(asked, int) else row.dimensions))


def _text(content: object) -> str:
    if not isinstance(content, dict):
        raise OpenAIError.invalid("* EmbedContentRequest.content: content is not specified")
    return _message(content, "user")[0].text


def _counted(texts: Sequence[str]) -> dict[str, Any]:
    used = sum(len(tokens(text)) for text in texts)
    return {"promptTokenCount": used, "promptTokenDetails": [{"modality": "TEXT", "tokenCount": used}]}


def _embedded(call: Call, body: dict[str, Any], texts: Sequence[str], row: Model, *, counts: bool = True) -> Reply:
    if counts and call.faults.get("missing_usage") is None:
        body["usageMetadata"] = _counted(texts)
    work = sum(len(tokens(text)) for text in texts)
    chunks = [Chunk(compact(body), work)]
    return Reply("application/json; charset=UTF-8", chunks, LATENCIES[row.latency], headers=_headers(call))


def _size(request: Mapping[str, Any]) -> object:
    """The length asked for: Vertex AI has it in a configuration of its own."""
    return (request.get("embedContentConfig") or request).get("outputDimensionality")


def embed_one(call: Call) -> Reply:
    """Embed one content."""
    row, text = _row(call, "embedding"), _text(call.body.get("content"))
    return _embedded(call, {"embedding": {"values": _vector(text, row, _size(call.body))}}, [text], row)


def batch_embed(call: Call) -> Reply:
    """Embed several contents."""
    row, requests = _row(call, "embedding"), call.required("requests", list)
    texts = [_text(one.get("content")) for one in requests]
    vectors = [_vector(text, row, _size(one)) for text, one in zip(texts, requests, strict=True)]
    return _embedded(call, {"embeddings": [{"values": vector} for vector in vectors]}, texts, row)


def predict(call: Call) -> Reply:
    """Embed texts as Vertex AI does it for its older models."""
    row, instances = _row(call, "embedding"), call.required("instances", list)
    texts = [str(one.get("content", "")) for one in instances]
    size = (call.optional("parameters", dict) or {}).get("outputDimensionality")
    told = [
        {
            "embeddings": {
                "values": _vector(text, row, size),
                "statistics": {"truncated": False, "token_count": len(tokens(text))},
            }
        }
        for text in texts
    ]
    body = {"predictions": told, "metadata": {"billableCharacterCount": sum(map(len, texts))}}
    return _embedded(call, body, texts, row, counts=False)
