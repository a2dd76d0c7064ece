"""AWS: Bedrock's runtime (Converse and ConverseStream here, InvokeModel beside) and Polly's speech."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from stagelight.sim.answers import Answer, answer
from stagelight.sim.event_stream import CONTENT_TYPE, event_message, exception_message
from stagelight.sim.models import LATENCIES, Model
from stagelight.sim.prompts import Message, Prompt, PromptCache, Tool
from stagelight.sim.wire import Call, Chunk, Dialect, OpenAIError, Reply, compact

__all__ = [
    "AWS",
    "converse",
    "converse_body",
    "converse_events",
    "converse_stream",
    "failed_stream",
    "latency_ms",
    "model_row",
    "request_headers",
]

_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "content_filtered",
}
_ERRORS: Final = {
    401: "UnrecognizedClientException", 403: "AccessDeniedException", 404: "ResourceNotFoundException",
    408: "ModelTimeoutException", 429: "ThrottlingException", 503: "ServiceUnavailableException",
}  # fmt: skip
_CACHE_MINIMUM: Final = 1024


# errors, headers, models


def _refusal(error: OpenAIError, id_: str) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    usual = _ERRORS.get(error.status, "InternalServerException" if error.status >= 500 else "ValidationException")
    code = error.error["code"] or ""
    kind = code if code.endswith("Exception") else usual
    return {"message": str(error)}, {
        "x-amzn-requestid": str(uuid.uuid5(uuid.NAMESPACE_OID, id_)),
        "x-amzn-errortype": kind,
    }


def _has_signature(headers: Mapping[str, str]) -> bool:
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    return scheme.lower() in {"aws4-hmac-sha256", "bearer"} and bool(rest.strip())


AWS: Final = Dialect(is_authorised=_has_signature, refusal=_refusal)


def request_headers(call: Call) -> dict[str, str]:
    """Make the header with the id of a request."""
    return {"x-amzn-requestid": str(uuid.UUID(call.id("", "request", length=32)))}


def latency_ms(call: Call) -> int:
    """Make the time that the service says it took, from the request and not from the clock."""
    return 100 + int(call.id("", "latency", length=4), 16) % 900


def model_row(call: Call) -> Model:
    """Return the model of the path; Bedrock lists none, so that every id answers."""
    name = call.model
    reasons = any(kind in name for kind in ("gpt-oss", "deepseek.r1"))
    return Model(name, name, 0, "large-chat" if "sonnet" in name or "opus" in name else "fast-chat", reasoning=reasons)


def failed_stream(_: int) -> bytes:
    """Make the error that comes in the middle of a stream."""
    told = {"message": "The model stream failed.", "originalStatusCode": 500, "originalMessage": "Internal error"}
    return exception_message("modelStreamErrorException", told)


# what is asked


class _Said(NamedTuple):
    """An answer with its counted tokens; new, read and written input tokens do not overlap."""

    answer: Answer
    new: int
    read: int
    written: int
    ttl: str = "5m"

    @property
    def made(self) -> int:
        return self.answer.output_tokens


def _asked(call: Call) -> tuple[Prompt, Sequence[str], str]:
    """The prompt, the tokens up to the last point where it is to be cached, and for how long."""
    given = call.required("messages", list)
    config = call.optional("inferenceConfig", dict) or {}
    tools = call.optional("toolConfig", dict) or {}
    chosen = tools.get("toolChoice") or {}
    listed, before, ttl = list[Message](), list[str](), "5m"
    for role, blocks in (("system", call.optional("system", list) or []), *_turns(given)):
        texts, images = list[str](), 0
        for block in blocks:
            if "cachePoint" in block:
                listed.append(Message(role, "\n".join(texts), images))
                before, ttl = Prompt(messages=listed).tokens(), block["cachePoint"].get("ttl") or "5m"
                texts, images = [], 0
            images += "image" in block
            texts.append(_text(block))
        if any(texts) or images:
            listed.append(
                Message("tool" if any("toolResult" in block for block in blocks) else role, "\n".join(texts), images)
            )
    prompt = Prompt(
        messages=listed,
        tools=[_tool(one["toolSpec"]) for one in tools.get("tools") or [] if "toolSpec" in one],
        tool_choice="required" if "any" in chosen else chosen["tool"]["name"] if "tool" in chosen else "auto",
        schema=_schema(call.optional("outputConfig", dict) or {}),
        max_tokens=config.get("maxTokens"),
        stop=tuple(config.get("stopSequences") or ()),
        effort="low",
    )
    return prompt, before, ttl


def _turns(given: list[Any]) -> list[tuple[str, list[Any]]]:
    for at, one in enumerate(given):
        if not isinstance(one, dict) or one.get("role") not in {"user", "assistant"}:
            raise OpenAIError.invalid(f"1 validation error detected: messages.{at + 1}.member.role is not valid")
    if not given:
        raise OpenAIError.invalid("A conversation must start with a user message. Try again with a conversation.")
    return [(one["role"], one.get("content") or []) for one in given]


def _text(block: Mapping[str, Any]) -> str:
    if "toolUse" in block:
        return f"{block['toolUse'].get('name')} {json.dumps(block['toolUse'].get('input'))}"
    if "toolResult" in block:
        return "\n".join(_text(one) for one in block["toolResult"].get("content") or [])
    return str(block.get("text") or (json.dumps(block["json"]) if "json" in block else ""))


def _tool(spec: Mapping[str, Any]) -> Tool:
    return Tool(spec["name"], spec.get("description") or "", (spec.get("inputSchema") or {}).get("json") or {})


def _schema(output: Mapping[str, Any]) -> Mapping[str, Any] | None:
    shape = (output.get("textFormat") or {}).get("structure") or {}
    told = (shape.get("jsonSchema") or {}).get("schema")
    return json.loads(told) if told else None


def _said(call: Call, cache: PromptCache) -> _Said:
    row = model_row(call)
    prompt, before, ttl = _asked(call)
    total = len(prompt.tokens())
    # The last marks the beginning of an answer, which is not cached.
    prefix = before[:-3] if len(before) > _CACHE_MINIMUM else []
    known = cache.cached_tokens(row.id, prefix) if prefix else 0
    whole = _CACHE_MINIMUM + (len(prefix) - _CACHE_MINIMUM) // 128 * 128
    read = len(prefix) if known and known == whole else known
    written = len(prefix) - read
    return _Said(answer(prompt, call, row), total - read - written, read, written, ttl)


# what is answered


def _usage(said: _Said) -> dict[str, Any]:
    usage = {
        "inputTokens": said.new,
        "outputTokens": said.made,
        "totalTokens": said.new + said.read + said.written + said.made,
        "cacheReadInputTokens": said.read,
        "cacheWriteInputTokens": said.written,
    }
    details = [{"ttl": said.ttl, "inputTokens": said.written}] if said.written else []
    return {**usage, "cacheDetails": details} if details else usage


def _reason(call: Call, said: Answer) -> str:
    if said.stopped_by:
        return "stop_sequence"
    if said.finish == "content_filter" and call.body.get("guardrailConfig"):
        return "guardrail_intervened"
    return _REASONS[said.finish]


def _measured(call: Call, said: _Said) -> dict[str, Any]:
    told: dict[str, Any] = {"metrics": {"latencyMs": latency_ms(call)}}
    if call.faults.get("missing_usage") is None:
        told["usage"] = _usage(said)
    guardrail = call.optional("guardrailConfig", dict) or {}
    if guardrail.get("trace") in {"enabled", "enabled_full"}:
        blocked = "Guardrail blocked." if said.answer.finish == "content_filter" else "No action."
        told["trace"] = {"guardrail": {"actionReason": blocked}}
    tier = (call.optional("serviceTier", dict) or {}).get("type")
    latency = call.optional("performanceConfig", dict)
    return {
        **told,
        **({"serviceTier": {"type": tier}} if tier else {}),
        **({"performanceConfig": latency} if latency else {}),
    }


def _blocks(call: Call, said: Answer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if said.reasoning_tokens:
        found.append({"reasoningContent": {"reasoningText": {"text": "I look for the sentences that answer."}}})
    if said.text or not said.tools:
        found.append({"text": "".join(said.text)})
    for number, tool in enumerate(said.tools):
        identity = call.id("tooluse_", number, length=22)
        found.append({"toolUse": {"toolUseId": identity, "name": tool.name, "input": _input(tool.arguments)}})
    return found


def _input(arguments: Sequence[str]) -> Any:
    try:
        return json.loads("".join(arguments))
    except ValueError:  # cut at the token limit
        return {}


def converse_body(call: Call, cache: PromptCache) -> tuple[dict[str, Any], int, int]:
    """Make the body of an answer in one piece; with it all input tokens and the output tokens."""
    said = _said(call, cache)
    body = {
        "output": {"message": {"role": "assistant", "content": _blocks(call, said.answer)}},
        "stopReason": _reason(call, said.answer),
        **_measured(call, said),
    }
    return body, said.new, said.made


def converse(call: Call, cache: PromptCache) -> Reply:
    """Answer ``POST /model/{model}/converse``."""
    body, _, made = converse_body(call, cache)
    latency = LATENCIES[model_row(call).latency]
    return Reply("application/json", [Chunk(compact(body), made)], latency, headers=request_headers(call))


def converse_stream(call: Call, cache: PromptCache) -> Reply:
    """Answer ``POST /model/{model}/converse-stream``."""
    events = converse_events(call, cache)
    chunks = (Chunk(event_message(kind, fields), work, early=kind == "messageStart") for kind, fields, work in events)
    latency = LATENCIES[model_row(call).latency]
    return Reply(CONTENT_TYPE, chunks, latency, True, failed_stream, request_headers(call))


def converse_events(call: Call, cache: PromptCache) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Make the events of a streamed answer: name, members, tokens made."""
    said = _said(call, cache)
    yield "messageStart", {"role": "assistant"}, 0
    tools = iter(said.answer.tools)
    for index, block in enumerate(_blocks(call, said.answer)):
        place = {"contentBlockIndex": index}
        deltas: list[tuple[dict[str, Any], float]]
        if "toolUse" in block:
            begun = {name: block["toolUse"][name] for name in ("toolUseId", "name")}
            yield "contentBlockStart", {"start": {"toolUse": begun}, **place}, 0
            deltas = [({"toolUse": {"input": token}}, 1.0) for token in next(tools).arguments]
        elif "reasoningContent" in block:
            thought = {"text": block["reasoningContent"]["reasoningText"]["text"]}
            deltas = [({"reasoningContent": thought}, float(said.answer.reasoning_tokens))]
        else:
            deltas = [({"text": token}, 1.0) for token in said.answer.text]
        for delta, work in deltas:
            yield "contentBlockDelta", {"delta": delta, **place}, work
        yield "contentBlockStop", place, 0
    yield "messageStop", {"stopReason": _reason(call, said.answer)}, 0
    yield "metadata", _measured(call, said), 0
