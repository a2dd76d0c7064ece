"""Makes answers that fit the question: sentences of the context, calls of tools, JSON by schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from stagelight.sim.language import closest_sentences, stems, tokens
from stagelight.sim.models import Model
from stagelight.sim.prompts import Prompt, Tool
from stagelight.sim.wire import Call

__all__ = ["Answer", "Finish", "ToolCall", "answer"]

Finish = Literal["stop", "length", "tool_calls", "content_filter"]

_SENTENCES = 3
_REASONING_TOKENS = {"none": 0, "minimal": 0, "low": 64, "medium": 192, "high": 512, "xhigh": 1024}
_DEEPEST = 8  # a schema may contain itself
_FILLER = "Here is one more sentence of the length that was asked for, so that the stream goes on."
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_QUOTED = re.compile(r"[\"'“](.+?)[\"'”]")
_OBJECT_OF = re.compile(r"\b(?:in|for|of|about|to|from|at|on)\s+(?:the\s+|my\s+)?([^?.!,]+)", re.IGNORECASE)


class ToolCall(NamedTuple):
    """One call of a function."""

    name: str
    arguments: tuple[str, ...]
    """JSON text in tokens."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says, in tokens."""

    text: tuple[str, ...]
    tools: tuple[ToolCall, ...]
    finish: Finish
    reasoning_tokens: int
    stopped_by: str | None = None
    """The stop sequence that ended it."""

    @property
    def output_tokens(self) -> int:
        """All tokens made, reasoning included."""
        return self.reasoning_tokens + len(self.text) + sum(1 + len(tool.arguments) for tool in self.tools)


def answer(prompt: Prompt, call: Call, model: Model, *, choice: int = 0) -> Answer:
    """Answer a prompt; the same prompt gets the same answer, another choice says it differently where it can."""
    reasoning = call.controls.get("reasoning", _REASONING_TOKENS.get(prompt.effort, 192) if model.reasoning else 0)
    budget = prompt.max_tokens
    if budget is not None and reasoning >= budget:
        return Answer((), (), "length", budget)
    left = None if budget is None else budget - reasoning
    tools = _tools_to_call(prompt)
    if tools and "tokens" not in call.controls:
        return _calling(prompt, tools, left, reasoning)
    whole = _text(prompt, call, choice)
    text, finish = _cut(whole, prompt, call, left)
    stopped_by = next((stop for stop in prompt.stop if stop in whole), None) if finish == "stop" else None
    return Answer(tuple(text), (), finish, reasoning, stopped_by)


def _cut(text: str, prompt: Prompt, call: Call, left: int | None) -> tuple[Sequence[str], Finish]:
    for stop in prompt.stop:
        text = text.partition(stop)[0]
    said = tokens(text)
    filtered, shortened = call.faults.get("content_filter"), call.faults.get("length_cut")
    if filtered is not None:
        return said[: int(filtered["after"])], "content_filter"
    if shortened is not None:
        left = int(shortened["tokens"])
    if left is not None and len(said) > left:
        return said[:left], "length"
    return said, "length" if shortened is not None else "stop"


def _text(prompt: Prompt, call: Call, choice: int) -> str:
    wanted = call.controls.get("tokens")
    if wanted is not None:
        filler = tokens(f" {_FILLER}")
        return "".join((filler * (1 + wanted // len(filler)))[:wanted]).removeprefix(" ") if wanted else ""
    said = _extract(prompt, choice)
    return said if prompt.schema is None else json.dumps(_instance(prompt.schema, prompt.schema, said))


def _extract(prompt: Prompt, choice: int) -> str:
    question, context = prompt.question, prompt.context()
    found = closest_sentences(question, context, _SENTENCES, skip=choice)
    if found:
        return " ".join(found)
    if context:
        return "The documents I was given do not answer that."
    return f"I was given no documents, so I can only repeat what was asked: {question}" if question else "Hello."


def _tools_to_call(prompt: Prompt) -> Sequence[Tool]:
    named = [tool for tool in prompt.tools if tool.name == prompt.tool_choice]
    if named or prompt.tool_choice == "none" or prompt.answers_tool:
        return named
    asked = set(stems(prompt.question))
    shared = [
        (len(asked & set(stems(f"{tool.name.replace('_', ' ')} {tool.description}"))), tool) for tool in prompt.tools
    ]
    fitting = [tool for count, tool in shared if count]
    if not fitting and prompt.tool_choice == "required":
        fitting = list(prompt.tools[:1])
    return fitting if prompt.parallel_tools else fitting[:1]


def _calling(prompt: Prompt, tools: Sequence[Tool], left: int | None, reasoning: int) -> Answer:
    question = prompt.question
    quoted, named = _QUOTED.search(question), _OBJECT_OF.search(question)
    subject = (quoted or named or [question, question])[1].strip()
    calls: list[ToolCall] = []
    for tool in tools:
        arguments = tokens(json.dumps(_instance(tool.parameters, tool.parameters, subject, question)))
        kept = arguments if left is None else arguments[: max(0, left - 1)]
        calls.append(ToolCall(tool.name, tuple(kept)))
        if left is not None:
            left -= 1 + len(arguments)
            if left < 0:
                return Answer((), tuple(calls), "length", reasoning)
    return Answer((), tuple(calls), "tool_calls", reasoning)


def _instance(schema: Mapping[str, Any], root: Mapping[str, Any], text: str, question: str = "", depth: int = 0) -> Any:
    """Make a value that a JSON schema accepts; strings become ``text``, numbers the first one of the question."""
    schema = _resolved(schema, root)
    choices = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if choices:
        return next((value for value in choices if str(value).lower() in question.lower()), choices[0])
    kind = schema.get("type") or ("object" if "properties" in schema or not schema else "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if kind in {"object", "array"} and depth < _DEEPEST:
        if kind == "array":
            return [_instance(schema.get("items", {"type": "string"}), root, text, question, depth + 1)]
        properties = schema.get("properties") or ({"answer": {"type": "string"}} if not question else {})
        return {name: _instance(value, root, text, question, depth + 1) for name, value in properties.items()}
    simple = {"boolean": True, "object": {}, "array": [], "null": None, "string": text}
    return simple[kind] if kind in simple else _number(schema, question, whole=kind == "integer")


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    seen = 0
    while seen < 8 and ("$ref" in schema or "anyOf" in schema):
        seen += 1
        if "$ref" in schema:
            target: Any = root
            for part in str(schema["$ref"]).removeprefix("#/").split("/"):
                target = target.get(part, {}) if isinstance(target, Mapping) else {}
            schema = target
        else:
            schema = next((one for one in schema["anyOf"] if one.get("type") != "null"), {"type": "null"})
    return schema


def _number(schema: Mapping[str, Any], question: str, *, whole: bool) -> float:
    found = _NUMBER.search(question)
    value = float(found[0]) if found else 1.0
    value = min(max(value, schema.get("minimum", value)), schema.get("maximum", value))
    return int(value) if whole else value
