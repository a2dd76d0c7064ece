"""``POST /v1/responses``, plain and as a sequence of typed events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stagelight.sim.answers import Answer, answer
from stagelight.sim.chat import TIERS, message_text
from stagelight.sim.models import LATENCIES, Model, model
from stagelight.sim.prompts import Message, Prompt, PromptCache, Tool
from stagelight.sim.wire import Call, Chunk, OpenAIError, Reply, compact, event

__all__ = ["responses"]

_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}


def responses(call: Call, cache: PromptCache) -> Reply:
    """Answer a request to the responses API."""
    row = model(call.model, kind="fast-chat")
    call.number("temperature", float, 0, 2)
    prompt = _prompt(call)
    said = answer(prompt, call, row)
    listed = prompt.tokens()
    cached = cache.cached_tokens(row.snapshot, listed)
    headers = call.headers(len(listed) + (prompt.max_tokens or 0))
    usage = None if call.faults.get("missing_usage") else _usage(said, len(listed), cached)
    items = _items(call, said)
    status = "incomplete" if said.finish in _REASONS else "completed"
    reason = {"reason": _REASONS[said.finish]} if said.finish in _REASONS else None
    begun = _head(call, row)
    done = {**begun, "status": status, "incomplete_details": reason, "output": items, "usage": usage}
    if status == "completed":
        done["completed_at"] = begun["created_at"]
    if not call.optional("stream", bool):
        return Reply(
            "application/json", [Chunk(compact(done), said.output_tokens)], LATENCIES[row.latency], headers=headers
        )
    chunks = _numbered(_events(said, items, begun, done))
    return Reply("text/event-stream; charset=utf-8", chunks, LATENCIES[row.latency], True, _error_event, headers)


def _error_event(number: int) -> bytes:
    told = {"code": "server_error", "message": "The server had an error.", "param": None}
    return event({"type": "error", "sequence_number": number - 1, **told}, "error")


def _prompt(call: Call) -> Prompt:
    given = call.body.get("input")
    if isinstance(given, str):
        messages = [Message("user", given)]
    elif isinstance(given, list) and given:
        messages = [_item_message(item, index) for index, item in enumerate(given)]
    else:
        raise OpenAIError.invalid(
            "Missing required parameter: 'input'.", param="input", code="missing_required_parameter"
        )
    instructions = call.optional("instructions", str)
    if instructions:
        messages.insert(0, Message("system", instructions))
    shape = (call.optional("text", dict) or {}).get("format") or {}
    schemas = {"json_object": {}, "json_schema": shape.get("schema") or {}}
    choice = call.body.get("tool_choice") or "auto"
    return Prompt(
        messages=messages,
        tools=[
            Tool(tool["name"], tool.get("description") or "", tool.get("parameters") or {})
            for tool in call.optional("tools", list) or []
            if isinstance(tool, dict) and tool.get("type") == "function" and tool.get("name")
        ],
        tool_choice=str(choice.get("name")) if isinstance(choice, dict) else str(choice),
        parallel_tools=call.optional("parallel_tool_calls", bool) is not False,
        schema=schemas.get(str(shape.get("type"))),
        max_tokens=call.number("max_output_tokens", int, 16, 1_000_000),
        effort=(call.optional("reasoning", dict) or {}).get("effort") or "medium",
    )


def _item_message(item: object, index: int) -> Message:
    if not isinstance(item, dict):
        place = f"input[{index}]"
        message = f"Invalid type for '{place}': expected an object, but got something else instead."
        raise OpenAIError.invalid(message, param=place, code="invalid_type")
    if item.get("type") == "function_call_output":
        return Message("tool", message_text(item.get("output"), f"input[{index}].output")[0])
    if item.get("type") == "function_call":
        return Message("assistant", f"{item.get('name')} {item.get('arguments')}")
    text, images = message_text(item.get("content"), f"input[{index}].content")
    return Message(str(item.get("role") or "assistant"), text, images)


def _head(call: Call, row: Model) -> dict[str, Any]:
    """Make the response as it stands at its beginning."""
    body = call.body
    return {
        "id": call.id("resp_", length=48),
        "object": "response",
        "created_at": call.created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": row.snapshot,
        "output": [],
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "previous_response_id": call.optional("previous_response_id", str),
        "reasoning": {"effort": (body.get("reasoning") or {}).get("effort"), "summary": None},
        "service_tier": TIERS[call.choice("service_tier", TIERS) or "auto"],
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": [
            {"strict": True, **tool} if tool.get("type") == "function" else tool for tool in body.get("tools") or []
        ],
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation") or "disabled",
        "usage": None,
        "user": body.get("user"),
        "metadata": body.get("metadata") or {},
    }


def _usage(said: Answer, prompt_tokens: int, cached: int) -> dict[str, Any]:
    return {
        "input_tokens": prompt_tokens,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": said.output_tokens,
        "output_tokens_details": {"reasoning_tokens": said.reasoning_tokens},
        "total_tokens": prompt_tokens + said.output_tokens,
    }


def _items(call: Call, said: Answer) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    status = "incomplete" if said.finish in _REASONS else "completed"
    if said.reasoning_tokens:
        items.append({"id": call.id("rs_", length=48), "type": "reasoning", "summary": []})
    for number, tool in enumerate(said.tools):
        identity = {"id": call.id("fc_", number, length=48), "call_id": call.id("call_", number, length=24)}
        called = {"name": tool.name, "arguments": "".join(tool.arguments)}
        items.append({**identity, "type": "function_call", "status": status, **called})
    if said.text or not items:
        part = _text_part("".join(said.text))
        message = {"id": call.id("msg_", length=48), "type": "message", "role": "assistant", "status": status}
        items.append({**message, "content": [part]})
    return items


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


_Event = tuple[str, dict[str, Any], float]
"""Type, fields and tokens made."""


def _events(said: Answer, items: Sequence[dict[str, Any]], begun: object, done: Mapping[str, Any]) -> Iterator[_Event]:
    yield "response.created", {"response": begun}, 0
    yield "response.in_progress", {"response": begun}, 0
    tools = iter(said.tools)
    for index, item in enumerate(items):
        place = {"output_index": index}
        if item["type"] == "reasoning":
            yield "response.output_item.added", {**place, "item": item}, 0
            yield "response.output_item.done", {**place, "item": item}, said.reasoning_tokens
            continue
        empty: dict[str, Any] = {"content": []} if item["type"] == "message" else {"arguments": ""}
        yield "response.output_item.added", {**place, "item": {**item, "status": "in_progress", **empty}}, 0
        where = {**place, "item_id": item["id"]}
        yield from (
            _text_events(where, said.text, item)
            if item["type"] == "message"
            else _call_events(where, next(tools).arguments, item)
        )
        yield "response.output_item.done", {**place, "item": item}, 0
    yield f"response.{done['status']}", {"response": done}, 0


def _text_events(where: Mapping[str, Any], text: Sequence[str], item: Mapping[str, Any]) -> Iterator[_Event]:
    where = {**where, "content_index": 0}
    yield "response.content_part.added", {**where, "part": _text_part("")}, 0
    for token in text:
        yield "response.output_text.delta", {**where, "delta": token, "logprobs": []}, 1
    yield "response.output_text.done", {**where, "text": item["content"][0]["text"], "logprobs": []}, 0
    yield "response.content_part.done", {**where, "part": item["content"][0]}, 0


def _call_events(where: Mapping[str, Any], arguments: Sequence[str], item: Mapping[str, Any]) -> Iterator[_Event]:
    for token in arguments:
        yield "response.function_call_arguments.delta", {**where, "delta": token}, 1
    yield "response.function_call_arguments.done", {**where, "arguments": item["arguments"]}, 1


def _numbered(events: Iterator[_Event]) -> Iterator[Chunk]:
    for number, (name, fields, work) in enumerate(events):
        # The provider accepts the request at once; only what the model makes has to wait for the model.
        yield Chunk(event({"type": name, "sequence_number": number, **fields}, name), work, early=number < 2)
