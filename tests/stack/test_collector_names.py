"""Spans of other SDKs come out of the Collector with the names of the conventions beside their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from stack.native import Stack
from stack.outputs import REQUESTS, Outputs, attributes, put, send, trace_request
from stack.waiting import eventually
from stagelight.conventions import attributes as a

FIXTURES = Path(__file__).parent / "fixtures"
CANARY = b"xylophone-canary"
USER = b"jane@example.com"

NAMES = (
    a.GEN_AI_OPERATION_NAME,
    a.GEN_AI_PROVIDER_NAME,
    a.GEN_AI_REQUEST_MODEL,
    a.GEN_AI_RESPONSE_MODEL,
    a.GEN_AI_REQUEST_STREAM,
    a.GEN_AI_REQUEST_MAX_TOKENS,
    a.GEN_AI_RESPONSE_FINISH_REASONS,
    a.GEN_AI_USAGE_INPUT_TOKENS,
    a.GEN_AI_USAGE_OUTPUT_TOKENS,
    a.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS,
    a.ERROR_TYPE,
)


def call(*values: Any) -> dict[str, Any]:
    """The normalised names of a call, in the order of ``NAMES``; None is absent."""
    return {key: value for key, value in zip(NAMES, values, strict=True) if value is not None}


CHAT, MINI, MINI_ANSWERED, REASONING = "chat", "gpt-4o-mini", "gpt-4o-mini-2024-07-18", "o4-mini"
REASONING_ANSWERED, EMBEDDING = "o4-mini-2025-04-16", "text-embedding-3-small"


def expected(sdk: str) -> list[dict[str, Any]]:
    """Six calls; what an SDK does not send, nobody makes up."""
    reasoning_known = sdk in ("openinference", "openllmetry")
    zero = 0 if reasoning_known else None
    stream_zero = 0 if sdk == "openinference" else None
    no_stream = False if sdk == "openlit" else None
    streamed = (None, None, None) if sdk == "openllmetry-0.40" else (["stop"], 33, 32)
    finish, *tokens = streamed
    failed = {"openinference": "openai.BadRequestError", "openllmetry-0.40": None}.get(sdk, "BadRequestError")
    return [
        call(CHAT, "openai", MINI, MINI_ANSWERED, no_stream, 64, ["stop"], 33, 32, zero, None),
        call(CHAT, "openai", MINI, MINI_ANSWERED, True, None, finish or ["stop"], *tokens, stream_zero, None),
        call(
            CHAT,
            "openai",
            MINI,
            MINI_ANSWERED,
            no_stream,
            None,
            ["tool_call" if sdk == "openllmetry" else "tool_calls"],
            82,
            10,
            zero,
            None,
        ),
        call(
            CHAT,
            "openai",
            REASONING,
            REASONING_ANSWERED,
            no_stream,
            None,
            ["stop"],
            33,
            224,
            192 if reasoning_known else None,
            None,
        ),
        call(
            "embeddings",
            "openai",
            EMBEDDING,
            None if sdk == "openinference" else EMBEDDING,
            no_stream,
            None,
            None,
            16,
            None,
            None,
            None,
        ),
        call(CHAT, "openai", None, None, no_stream, None, None, None, None, None, failed),
    ]


def sent(name: str, signal: str = "traces") -> Any:
    """A recorded request."""
    return REQUESTS[signal].FromString((FIXTURES / f"{name}.{signal}.pb").read_bytes())


@pytest.mark.parametrize("sdk", ["openinference", "openllmetry", "openllmetry-0.40", "openlit"])
def test_calls_have_the_names_of_the_conventions(sdk: str, collector: tuple[Stack, Outputs]) -> None:
    """Operation, provider, models, tokens, finish reasons and errors; the old names stay, content and users do not."""
    stack, outputs = collector
    request = sent(sdk)
    before = [span for of in request.resource_spans for scope in of.scope_spans for span in scope.spans]
    assert [word in request.SerializeToString() for word in (CANARY, USER)] == [True, True]

    send(stack, "traces", request)
    spans = eventually(outputs.spans, lambda spans: len(spans) == len(before))

    calls = [attributes(span) for span in spans if a.GEN_AI_OPERATION_NAME in attributes(span)]
    assert [{key: one[key] for key in NAMES if key in one} for one in calls] == expected(sdk)
    assert [word in outputs.everything() for word in (CANARY, USER)] == [False, False]
    for was, now in zip(before, spans, strict=True):
        kept = {key: value for key, value in attributes(was).items() if key in attributes(now)}
        changed = {key for key, value in kept.items() if attributes(now)[key] != value}
        assert changed <= {"user.id", "session.id", a.GEN_AI_PROVIDER_NAME}


OLD_NAMES: Mapping[str, tuple[str, ...]] = {
    "openinference": ("llm.model_name", "llm.token_count.prompt", "llm.finish_reason", "openinference.span.kind"),
    "openllmetry-0.40": ("gen_ai.system", "gen_ai.usage.prompt_tokens", "gen_ai.usage.completion_tokens"),
    "openllmetry": ("gen_ai.is_streaming", "gen_ai.usage.total_tokens"),
    "openlit": ("gen_ai.usage.cache_creation.input_tokens", "openlit.agent.version_hash"),
}


@pytest.mark.parametrize("sdk", OLD_NAMES)
def test_old_names_are_kept(sdk: str, collector: tuple[Stack, Outputs]) -> None:
    """Whoever has queries for the names of the other SDK keeps them; a cost that it computed is not taken over."""
    stack, outputs = collector
    send(stack, "traces", sent(sdk))
    spans = eventually(outputs.spans, bool)
    chat = next(found for span in spans if (found := attributes(span)).get(a.GEN_AI_OPERATION_NAME) == CHAT)

    assert {key for key in OLD_NAMES[sdk] if key in chat} == set(OLD_NAMES[sdk])
    assert {key for key in chat if "cost" in key} == set()


def test_events_of_openlit(collector: tuple[Stack, Outputs]) -> None:
    """Log events with messages come out with their numbers and without a word of what was said."""
    stack, outputs = collector
    send(stack, "logs", sent("openlit", "logs"))
    records = eventually(outputs.records, lambda records: len(records) == 5)

    assert CANARY not in outputs.everything()
    assert [attributes(record)[a.GEN_AI_USAGE_INPUT_TOKENS] for record in records] == [33, 33, 82, 33, 16]
    assert {record.event_name for record in records} == {"gen_ai.client.inference.operation.details"}


TRANSLATED: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "OpenInference conversation and cache": (
        {
            "openinference.span.kind": "LLM",
            "llm.provider": "azure",
            "llm.model_name": "gpt-4o",
            "session.id": "talk-7",
            "llm.token_count.prompt_details.cache_read": 512,
            "llm.token_count.prompt_details.cache_write": 64,
        },
        {
            a.GEN_AI_OPERATION_NAME: "chat",
            a.GEN_AI_PROVIDER_NAME: "azure.ai.openai",
            a.GEN_AI_REQUEST_MODEL: "gpt-4o",
            a.GEN_AI_CONVERSATION_ID: "talk-7",
            a.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: 512,
            a.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: 64,
        },
    ),
    "OpenInference tool": (
        {"openinference.span.kind": "TOOL", "tool.name": "lookup"},
        {a.GEN_AI_OPERATION_NAME: "execute_tool", a.GEN_AI_TOOL_NAME: "lookup"},
    ),
    "OpenInference retriever": ({"openinference.span.kind": "RETRIEVER"}, {a.GEN_AI_OPERATION_NAME: "retrieval"}),
    "OpenInference agent": (
        {"openinference.span.kind": "AGENT", "agent.name": "planner"},
        {a.GEN_AI_OPERATION_NAME: "invoke_agent", a.GEN_AI_AGENT_NAME: "planner"},
    ),
    "OpenLLMetry workflow": (
        {"traceloop.span.kind": "workflow", "traceloop.entity.name": "answer"},
        {a.GEN_AI_OPERATION_NAME: "invoke_workflow", a.GEN_AI_WORKFLOW_NAME: "answer"},
    ),
    "OpenLLMetry Bedrock": (
        {
            "gen_ai.system": "AWS",
            "llm.request.type": "completion",
            "llm.request.model": "titan",
            "gen_ai.usage.cache_creation_input_tokens": 8,
            "traceloop.association.properties.session_id": "talk-9",
        },
        {
            a.GEN_AI_OPERATION_NAME: "text_completion",
            a.GEN_AI_PROVIDER_NAME: "aws.bedrock",
            a.GEN_AI_REQUEST_MODEL: "titan",
            a.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: 8,
            a.GEN_AI_CONVERSATION_ID: "talk-9",
        },
    ),
}


def test_further_names(collector: tuple[Stack, Outputs]) -> None:
    """Names that the recorded calls do not have."""
    stack, outputs = collector
    for name, (given, _) in TRANSLATED.items():
        request, span = trace_request()
        span.name = name
        for key, value in given.items():
            put(span, key, value)
        send(stack, "traces", request)
    spans = eventually(outputs.spans, lambda spans: len(spans) == len(TRANSLATED))

    added = {
        span.name: {key: value for key, value in attributes(span).items() if key not in TRANSLATED[span.name][0]}
        for span in spans
    }
    assert added == {name: wanted for name, (_, wanted) in TRANSLATED.items()}
