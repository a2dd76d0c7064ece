"""Anthropic's protocol: ``POST /v1/messages``, plain and as server-sent events, and ``/v1/messages/count_tokens``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from stagelight.sim.answers import Answer, answer
from stagelight.sim.models import LATENCIES, Model
from stagelight.sim.prompts import Message, Prompt, PromptCache, Tool
from stagelight.sim.wire import Call, Chunk, Dialect, OpenAIError, Reply, compact, event

__all__ = ["ANTHROPIC", "count_tokens", "messages"]

_MODELS: Final = {
    row.id: row
    for row in (
        Model("claude-opus-5-5", "claude-opus-5-5", 0, "large-chat", reasoning=True),
        Model("claude-sonnet-5-5", "claude-sonnet-5-5", 0, "large-chat", reasoning=True),
        Model("claude-haiku-5-5", "claude-haiku-5-5", 0, "fast-chat", reasoning=True),
        Model("claude-haiku-4-5", "claude-haiku-4-5-20251001", 0, "fast-chat", reasoning=True),
    )
}
_CACHE_MINIMUM: Final = 1024
_REQUESTS, _INPUT, _OUTPUT = 4_000, 2_000_000, 400_000
"""Limits per minute."""

_KINDS: Final = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
_REASONS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
_SEARCH: Final = "web_search"


# errors and headers


def _refusal(error: OpenAIError, id_: str) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    headers = {"request-id": id_}
    if error.status == 429 and "retry-after" in error.headers:
        headers |= {"retry-after": error.headers["retry-after"], **_limits(0, 0, requests=0)}
    return _error(_KINDS.get(error.status, "api_error"), str(error), id_), headers


def _error(kind: str, message: str, id_: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": id_}


def _limits(used: int, most: int, *, requests: int = _REQUESTS - 1, at: int = 0) -> dict[str, str]:
    """What is left; the limits are those of a client that sends one request at a time."""
    left = {
        "requests": (_REQUESTS, requests),
        "input-tokens": (_INPUT, max(0, _INPUT - used)),
        "output-tokens": (_OUTPUT, max(0, _OUTPUT - most)),
        "tokens": (_INPUT + _OUTPUT, max(0, _INPUT + _OUTPUT - used - most)),
    }
    reset = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    headers: dict[str, str] = {}
    for name, (limit, remaining) in left.items():
        prefix = f"anthropic-ratelimit-{name}"
        headers |= {f"{prefix}-limit": str(limit), f"{prefix}-remaining": str(remaining), f"{prefix}-reset": reset}
    return headers


ANTHROPIC: Final = Dialect(
    is_authorised=lambda headers: bool(headers.get("x-api-key") or headers.get("authorization")), refusal=_refusal
)


# what is asked


class _Asked(NamedTuple):
    prompt: Prompt
    cacheable: Sequence[str]
    """Tokens up to the last place where the caller wants the prompt cached."""
    lasting: bool
    """Whether the cache is to keep them for an hour."""
    searches: bool


def _asked(call: Call) -> _Asked:
    given = call.required("messages", list)
    if not given:
        raise OpenAIError.invalid("messages: at least one message is required")
    tools = call.optional("tools", list) or []
    choice = call.optional("tool_choice", dict) or {}
    output = call.optional("output_config", dict) or {}
    form = output.get("format") or call.optional("output_format", dict) or {}
    thinking = (call.optional("thinking", dict) or {}).get("type")
    listed = [*_system(call.body.get("system")), *(_message(one, at) for at, one in enumerate(given))]
    prompt = Prompt(
        messages=[message for block in listed for message in block.messages],
        tools=[_tool(tool, at) for at, tool in enumerate(tools) if not str(tool.get("type", "")).startswith(_SEARCH)],
        tool_choice=_CHOICES.get(str(choice.get("type", "auto")), str(choice.get("name"))),
        parallel_tools=choice.get("disable_parallel_tool_use") is not True,
        schema=form.get("schema") if form.get("type") == "json_schema" else None,
        max_tokens=call.number("max_tokens", int, 1, 1_000_000),
        stop=tuple(call.optional("stop_sequences", list) or ()),
        effort=str(output.get("effort") or "medium") if thinking in {"enabled", "adaptive"} else "none",
    )
    marks = [(at, mark) for at, block in enumerate(listed) if (mark := block.cache)]
    marks += [(-1, tool["cache_control"]) for tool in tools if tool.get("cache_control")]
    end, mark = max(marks, key=lambda one: one[0]) if marks else (-2, {})
    before = Prompt([message for block in listed[: end + 1] for message in block.messages], prompt.tools)
    return _Asked(
        prompt=prompt,
        cacheable=before.tokens()[:-3] if end > -2 else (),
        lasting=mark.get("ttl") == "1h",
        searches=any(str(tool.get("type", "")).startswith(_SEARCH) for tool in tools) and not prompt.answers_tool,
    )


class _Block(NamedTuple):
    messages: list[Message]
    cache: Mapping[str, Any] | None


def _system(value: object) -> list[_Block]:
    if value is None:
        return []
    return [_content("system", value, "system")]


def _message(value: object, index: int) -> _Block:
    if not isinstance(value, dict):
        raise OpenAIError.invalid(f"messages.{index}: Input should be an object")
    if value.get("role") not in {"user", "assistant"}:
        raise OpenAIError.invalid(f"messages.{index}.role: Input should be 'user' or 'assistant'")
    return _content(str(value["role"]), value.get("content"), f"messages.{index}.content")


def _content(role: str, value: object, where: str) -> _Block:
    if isinstance(value, str):
        return _Block([Message(role, value)], None)
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        raise OpenAIError.invalid(f"{where}: Input should be a valid string or list")
    results = [_text(part.get("content")) for part in value if part.get("type") == "tool_result"]
    texts = [_text(part) for part in value if part.get("type") != "tool_result"]
    images = sum(part.get("type") in {"image", "document"} for part in value)
    found = [Message("tool", text) for text in results]
    if texts or images or not found:
        found.append(Message(role, "\n".join(filter(None, texts)), images))
    return _Block(found, next((part["cache_control"] for part in value[::-1] if part.get("cache_control")), None))


def _text(value: object) -> str:
    if isinstance(value, list):
        return "\n".join(_text(one) for one in value)
    if isinstance(value, dict):
        return str(value["text"]) if "text" in value else json.dumps(value.get("input", ""))
    return str(value or "")


def _tool(value: Mapping[str, Any], index: int) -> Tool:
    if not value.get("name"):
        raise OpenAIError.invalid(f"tools.{index}.name: Field required")
    return Tool(str(value["name"]), str(value.get("description") or ""), value.get("input_schema") or {})


# what comes back


def count_tokens(call: Call) -> Reply:
    """Count the tokens of a request without answering it."""
    listed = _asked(call).prompt.tokens()
    latency = LATENCIES[_row(call).latency]
    return Reply("application/json", [Chunk(compact({"input_tokens": len(listed)}))], latency, headers=_headers(call))


def messages(call: Call, cache: PromptCache) -> Reply:
    """Answer a request to the messages API."""
    row = _row(call)
    call.number("temperature", float, 0, 1)
    call.required("max_tokens", int)
    asked = _asked(call)
    said = answer(asked.prompt, call, row)
    told = _usage(asked, said, call, cache, row)
    message = _told(call, row, said, asked, told)
    headers = {**_headers(call), **_limits(len(asked.prompt.tokens()), asked.prompt.max_tokens or 0, at=call.created)}
    missing = call.faults.get("missing_usage") is not None
    if not call.optional("stream", bool):
        body = {name: value for name, value in message.items() if name != "usage" or not missing}
        chunks = [Chunk(compact(body), said.output_tokens)]
        return Reply("application/json", chunks, LATENCIES[row.latency], headers=headers)
    failure = event(_error("overloaded_error", "Overloaded", call.id("req_", length=24)), "error")
    kind = "text/event-stream; charset=utf-8"
    return Reply(kind, _stream(message, said), LATENCIES[row.latency], True, lambda _: failure, headers)


def _row(call: Call) -> Model:
    name = call.model
    rows = (row for row in _MODELS.values() if name in {row.id, row.snapshot})
    return next(rows, None) or Model(name, name, 0, "fast-chat", reasoning=True)


def _headers(call: Call) -> dict[str, str]:
    return {
        "request-id": call.id("req_", length=24),
        "anthropic-organization-id": call.id("", "organization", length=36),
    }


def _usage(asked: _Asked, said: Answer, call: Call, cache: PromptCache, row: Model) -> dict[str, Any]:
    total, prefix = len(asked.prompt.tokens()), len(asked.cacheable)
    read = _cached_before(cache, row.snapshot, asked.cacheable)
    written = prefix - read if prefix >= _CACHE_MINIMUM else 0
    call.choice("service_tier", ("auto", "standard_only"))  # both are served at the standard tier
    return {
        "input_tokens": total - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": 0 if asked.lasting else written,
            "ephemeral_1h_input_tokens": written if asked.lasting else 0,
        },
        "output_tokens": said.output_tokens,
        "output_tokens_details": {"thinking_tokens": said.reasoning_tokens} if said.reasoning_tokens else None,
        "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0} if asked.searches else None,
        "service_tier": "standard",
        "inference_geo": "not_available",
        "speed": call.choice("speed", ("standard", "fast")) or "standard",
    }


def _cached_before(cache: PromptCache, model: str, prefix: Sequence[str]) -> int:
    """Tokens of a prefix that an earlier request has written; the whole of it when it was the same."""
    if len(prefix) < _CACHE_MINIMUM:
        return 0
    known = cache.cached_tokens(model, prefix)
    whole = _CACHE_MINIMUM + (len(prefix) - _CACHE_MINIMUM) // 128 * 128
    return len(prefix) if known == whole else known


def _told(call: Call, row: Model, said: Answer, asked: _Asked, usage: Mapping[str, Any]) -> dict[str, Any]:
    reason = "stop_sequence" if said.stopped_by else _REASONS[said.finish]
    details = {"type": "refusal", "category": None, "explanation": None} if reason == "refusal" else None
    return {
        "id": call.id("msg_", length=24),
        "type": "message",
        "role": "assistant",
        "model": row.snapshot,
        "content": list(_blocks(call, said, asked)),
        "container": None,
        "diagnostics": None,
        "stop_reason": reason,
        "stop_sequence": said.stopped_by,
        "stop_details": details,
        "usage": usage,
    }


def _blocks(call: Call, said: Answer, asked: _Asked) -> Iterator[dict[str, Any]]:
    if said.reasoning_tokens:
        thought = "I look for the sentences that answer the question."
        yield {"type": "thinking", "thinking": thought, "signature": call.id("", "signature", length=64)}
    if asked.searches:
        id_ = call.id("srvtoolu_", length=24)
        query = {"query": asked.prompt.question}
        yield {"type": "server_tool_use", "id": id_, "name": _SEARCH, "input": query, "caller": {"type": "direct"}}
        found = {
            "type": "web_search_result",
            "url": "https://example.com/",
            "title": "Example",
            "encrypted_content": call.id("", "found", length=64),
            "page_age": None,
        }
        result = {"type": "web_search_tool_result", "tool_use_id": id_, "content": [found]}
        yield {**result, "caller": {"type": "direct"}}
    if said.text or not said.tools:
        yield {"type": "text", "text": "".join(said.text), "citations": None}
    for number, tool in enumerate(said.tools):
        yield {
            "type": "tool_use",
            "id": call.id("toolu_", number, length=24),
            "name": tool.name,
            "input": _parsed("".join(tool.arguments)),
            "caller": {"type": "direct"},
            "toolset_name": None,
        }


def _parsed(arguments: str) -> dict[str, Any]:
    try:
        found = json.loads(arguments)
    except ValueError:  # cut at the token limit
        return {}
    return found if isinstance(found, dict) else {}


# streamed


def _stream(message: Mapping[str, Any], said: Answer) -> Iterator[Chunk]:
    ends = ("stop_reason", "stop_sequence", "stop_details", "container")
    begun = {**message, "content": [], **dict.fromkeys(ends[:3])}
    # The output of the first event is only what has been made so far.
    begun["usage"] = {**message["usage"], "output_tokens": 1, "output_tokens_details": None, "server_tool_use": None}
    yield Chunk(event({"type": "message_start", "message": begun}, "message_start"), early=True)
    yield Chunk(event({"type": "ping"}, "ping"), early=True)
    tools = iter(said.tools)
    for index, block in enumerate(message["content"]):
        arguments = next(tools).arguments if block["type"] == "tool_use" else ()
        yield from _streamed_block(index, block, said, arguments)
    delta = {name: message[name] for name in ends}
    counted = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens",
               "output_tokens_details", "server_tool_use")  # fmt: skip
    usage = {name: message["usage"][name] for name in counted}
    yield Chunk(event({"type": "message_delta", "delta": delta, "usage": usage}, "message_delta"))
    yield Chunk(event({"type": "message_stop"}, "message_stop"))


def _streamed_block(index: int, block: Mapping[str, Any], said: Answer, arguments: Sequence[str]) -> Iterator[Chunk]:
    deltas: list[tuple[dict[str, Any], float]] = []
    empty: dict[str, Any] = {}
    if block["type"] == "text":
        empty = {"text": ""}
        deltas = [({"type": "text_delta", "text": token}, 1.0) for token in said.text]
    elif block["type"] == "thinking":
        empty = {"thinking": "", "signature": ""}
        deltas = [
            ({"type": "thinking_delta", "thinking": block["thinking"]}, float(said.reasoning_tokens)),
            ({"type": "signature_delta", "signature": block["signature"]}, 0.0),
        ]
    elif block["type"] == "tool_use":
        empty = {"input": {}}
        deltas = [({"type": "input_json_delta", "partial_json": ""}, 1.0)]
        deltas += [({"type": "input_json_delta", "partial_json": token}, 1.0) for token in arguments]
    elif block["type"] == "server_tool_use":
        empty = {"input": {}}
        deltas = [({"type": "input_json_delta", "partial_json": json.dumps(block["input"])}, 0.0)]
    begun = {**block, **empty}
    yield Chunk(event({"type": "content_block_start", "index": index, "content_block": begun}, "content_block_start"))
    for delta, work in deltas:
        yield Chunk(event({"type": "content_block_delta", "index": index, "delta": delta}, "content_block_delta"), work)
    yield Chunk(event({"type": "content_block_stop", "index": index}, "content_block_stop"))
