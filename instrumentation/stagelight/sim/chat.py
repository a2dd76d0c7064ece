"""``POST /v1/chat/completions``, plain and streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stagelight.sim.answers import Answer, answer
from stagelight.sim.models import LATENCIES, Model, model
from stagelight.sim.prompts import Message, Prompt, PromptCache, Tool
from stagelight.sim.wire import Call, Chunk, OpenAIError, Reply, compact, event, failed

__all__ = ["TIERS", "chat", "message_text"]

TIERS = {
    "auto": "default",
    "default": "default",
    "flex": "flex",
    "scale": "scale",
    "priority": "priority",
    "fast": "priority",
}
"""The tier that serves a request, by the tier it names."""
_ROLES = ("developer", "system", "user", "assistant", "tool", "function")
_NOT_SIMULATED = ("logprobs", "audio", "functions", "web_search_options", "moderation")


def chat(call: Call, cache: PromptCache) -> Reply:
    """Answer a chat completion."""
    row = model(call.model, kind="fast-chat")
    for name in _NOT_SIMULATED:
        if call.body.get(name):
            raise OpenAIError.invalid(
                f"The simulator does not support '{name}'.", param=name, code="unsupported_parameter"
            )
    call.number("temperature", float, 0, 2)
    prompt = _prompt(call)
    choices = [answer(prompt, call, row, choice=index) for index in range(call.number("n", int, 1, 128) or 1)]
    listed = prompt.tokens()
    usage = _usage(choices, len(listed), cache.cached_tokens(row.snapshot, listed))
    head = _head(call, row)
    headers = call.headers(len(listed) + (prompt.max_tokens or 0))
    work = usage["completion_tokens"]
    missing = call.faults.get("missing_usage") is not None
    if not call.optional("stream", bool):
        counted = {} if missing else {"usage": usage}
        body = {
            **head,
            "object": "chat.completion",
            "choices": [_choice(call, index, one) for index, one in enumerate(choices)],
            **counted,
        }
        return Reply("application/json", [Chunk(compact(body), work)], LATENCIES[row.latency], headers=headers)
    options = call.optional("stream_options", dict) or {}
    wanted = usage if options.get("include_usage") and not missing else None
    chunks = _stream(call, {**head, "object": "chat.completion.chunk"}, choices, wanted)
    return Reply(
        "text/event-stream; charset=utf-8", chunks, LATENCIES[row.latency], True, lambda _: event(failed()), headers
    )


def message_text(content: object, param: str) -> tuple[str, int]:
    """Return the text and the number of images of a message's content, a string or a list of parts."""
    if content is None or isinstance(content, str):
        return content or "", 0
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        message = f"Invalid type for '{param}': expected one of a string or array of objects."
        raise OpenAIError.invalid(message, param=param, code="invalid_type")
    texts = [str(part["text"]) for part in content if isinstance(part.get("text"), str)]
    return "\n".join(texts), sum("image" in str(part.get("type")) for part in content)


def _prompt(call: Call) -> Prompt:
    messages = call.required("messages", list)
    if not messages:
        message = (
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead."
        )
        raise OpenAIError.invalid(message, param="messages", code="empty_array")
    stop = call.body.get("stop") or ()
    shape = call.optional("response_format", dict) or {}
    schemas = {"json_object": {}, "json_schema": (shape.get("json_schema") or {}).get("schema") or {}}
    limit = call.number("max_completion_tokens", int, 1, 1_000_000) or call.number("max_tokens", int, 1, 1_000_000)
    return Prompt(
        messages=[_message(value, index) for index, value in enumerate(messages)],
        tools=[_tool(value, index) for index, value in enumerate(call.optional("tools", list) or [])],
        tool_choice=_tool_choice(call.body.get("tool_choice")),
        parallel_tools=call.optional("parallel_tool_calls", bool) is not False,
        schema=schemas.get(str(shape.get("type"))),
        max_tokens=limit,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        effort=call.optional("reasoning_effort", str) or "medium",
    )


def _message(value: object, index: int) -> Message:
    place = f"messages[{index}]"
    if not isinstance(value, dict):
        message = f"Invalid type for '{place}': expected an object, but got something else instead."
        raise OpenAIError.invalid(message, param=place, code="invalid_type")
    if value.get("role") not in _ROLES:
        listed = ", ".join(f"'{role}'" for role in _ROLES)
        message = f"Invalid value: '{value.get('role')}'. Supported values are: {listed}."
        raise OpenAIError.invalid(message, param=f"{place}.role", code="invalid_value")
    text, images = message_text(value.get("content"), f"{place}.content")
    called = [compact(tool.get("function", {})).decode() for tool in value.get("tool_calls") or []]
    return Message(value["role"], "\n".join([text, *called]) if called else text, images)


def _tool(value: Mapping[str, Any], index: int) -> Tool:
    function = value.get("function")
    if not isinstance(function, dict) or not function.get("name"):
        place = f"tools[{index}].function"
        raise OpenAIError.invalid(
            f"Missing required parameter: '{place}'.", param=place, code="missing_required_parameter"
        )
    return Tool(function["name"], function.get("description") or "", function.get("parameters") or {})


def _tool_choice(value: object) -> str:
    if isinstance(value, dict):
        return str((value.get("function") or {}).get("name"))
    return str(value or "auto")


def _head(call: Call, row: Model) -> dict[str, Any]:
    tier = TIERS[call.choice("service_tier", TIERS) or "auto"]
    fingerprint = call.id("fp_", length=10)
    return {
        "id": call.id("chatcmpl-"), "object": "", "created": call.created, "model": row.snapshot,
        "service_tier": tier, "system_fingerprint": fingerprint,
    }  # fmt: skip


def _usage(choices: list[Answer], prompt_tokens: int, cached: int) -> dict[str, Any]:
    made = sum(one.output_tokens for one in choices)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": made,
        "total_tokens": prompt_tokens + made,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": sum(one.reasoning_tokens for one in choices),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _choice(call: Call, index: int, one: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(one.text), "refusal": None, "annotations": []}
    if one.tools:
        message["content"] = None
        message["tool_calls"] = [
            {
                "id": call.id("call_", index, number, length=24),
                "type": "function",
                "function": {"name": tool.name, "arguments": "".join(tool.arguments)},
            }
            for number, tool in enumerate(one.tools)
        ]
    return {"index": index, "message": message, "logprobs": None, "finish_reason": one.finish}


def _stream(
    call: Call, head: Mapping[str, Any], choices: list[Answer], usage: Mapping[str, Any] | None
) -> Iterator[Chunk]:
    # With include_usage every chunk carries the field, null until the last one.
    counting = {} if usage is None else {"usage": None}
    pending = [(index, _deltas(call, index, one)) for index, one in enumerate(choices)]
    while pending:
        still = []
        for index, deltas in pending:
            step = next(deltas, None)
            if step is None:
                continue
            delta, finish, work = step
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
            yield Chunk(event({**head, "choices": [choice], **counting}), work)
            still.append((index, deltas))
        pending = still
    if usage is not None:
        yield Chunk(event({**head, "choices": [], "usage": usage}))
    yield Chunk(b"data: [DONE]\n\n")


def _deltas(call: Call, index: int, one: Answer) -> Iterator[tuple[dict[str, Any], str | None, float]]:
    """Yield delta, finish reason and tokens made, chunk by chunk."""
    content = None if one.tools else ""
    yield {"role": "assistant", "content": content, "refusal": None}, None, one.reasoning_tokens
    for token in one.text:
        yield {"content": token}, None, 1
    for number, tool in enumerate(one.tools):
        opened = {"name": tool.name, "arguments": ""}
        identity = {"index": number, "id": call.id("call_", index, number, length=24), "type": "function"}
        yield {"tool_calls": [{**identity, "function": opened}]}, None, 1
        for token in tool.arguments:
            yield {"tool_calls": [{"index": number, "function": {"arguments": token}}]}, None, 1
    yield {}, one.finish, 0
