"""Text that a provider chooses: protocol fields may repeat what was sent to it, or be as long as it likes."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai_client import HTTP, needs_responses
from stagelight.conventions import attributes as a
from stagelight.testing import Captured, capture

SECRET = "my name is Bob"
STREAM, JSON = "text/event-stream", "application/json"
MESSAGES: Any = [{"role": "user", "content": SECRET}]

pytestmark = pytest.mark.usefixtures("recorded")


def use(answer: str, kind: str, **chat: Any) -> Captured:
    """What is recorded of a chat completion, or of a response without ``chat``, that is answered so."""

    def reply(_: Any) -> Any:
        return HTTP.Response(200, content=iter([answer.encode()]), headers={"content-type": kind})

    http = HTTP.Client(transport=HTTP.MockTransport(reply))
    with capture() as captured, openai.OpenAI(api_key="key", http_client=http, max_retries=0) as client:
        if chat:
            made = client.chat.completions.create(model="m", messages=MESSAGES, **chat)
            if chat.get("stream"):
                list(made)
        elif kind == STREAM:
            list(client.responses.create(model="m", input=SECRET, stream=True))
        else:
            client.responses.create(model="m", input=SECRET)
    return captured


def event(document: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(document)}\n\n"


def error_types(code: Any) -> tuple[str | None, str | None]:
    """``error.type`` of a response that failed, and of a stream that broke, with the provider's error code."""
    failed = {"id": "r", "object": "response", "created_at": 1, "model": "m", "output": [], "status": "failed"}
    plain = use(json.dumps({**failed, "error": {"code": code, "message": "x"}}), JSON)
    told = {"type": "response.failed", "sequence_number": 0, "response": {**failed, "error": {"code": code}}}
    streamed = use(event(told), STREAM)
    return plain.call("llm").error_type, streamed.call("llm").error_type


@needs_responses
@pytest.mark.parametrize("code", ["server_error", "invalid-prompt.v2", "x" * 64])
def test_a_code_is_an_error_type(code: str) -> None:
    """What the provider calls its failure is what is counted."""
    assert error_types(code) == (code, code)


@needs_responses
@pytest.mark.parametrize("code", [f"policy: {SECRET}", "x" * 65, "", None, 7, "server_error\n"])
def test_a_sentence_is_no_error_type(code: Any) -> None:
    """An error code that may repeat the prompt is replaced by a fixed word."""
    assert error_types(code) == ("failed", "failed")


@needs_responses
def test_a_sentence_in_an_error_event_is_no_error_type() -> None:
    """An error inside a stream is no place for the prompt either."""
    told = {"type": "error", "code": f"policy: {SECRET}", "message": "m", "param": None, "sequence_number": 0}

    call = use(event(told), STREAM).call("llm")

    assert call.outcome == "provider_aborted"
    assert SECRET not in str(call.error_type)
    assert SECRET not in repr(call.attributes)


def answer(choices: list[dict[str, Any]]) -> dict[str, Any]:
    """A chat completion with fields of a million characters."""
    huge = {"id": "i" * 10**6, "model": "m" * 10**6, "service_tier": "t" * 10**6}
    return {"object": "chat.completion", "created": 1, "choices": choices, **huge}


@needs_responses
@pytest.mark.parametrize("streamed", [False, True])
def test_texts_are_cut(streamed: bool) -> None:
    """No field of an answer takes more than 256 characters, and no more than 16 finish reasons are kept."""
    message = {"delta": {}} if streamed else {"message": {"role": "assistant", "content": "Hi"}}
    last = [*("f" * 1000 for _ in range(99)), "length"]
    told = answer([{"index": index, "finish_reason": reason, **message} for index, reason in enumerate(last)])
    if streamed:
        captured = use(event(told) + "data: [DONE]\n\n", STREAM, stream=True)
    else:
        captured = use(json.dumps(told), JSON, n=100)
    call = captured.call("llm")

    assert call.attributes[a.GEN_AI_RESPONSE_ID] == "i" * 256
    assert call.attributes[a.GEN_AI_RESPONSE_MODEL] == "m" * 256
    assert call.attributes[a.OPENAI_RESPONSE_SERVICE_TIER] == "t" * 256
    assert call.attributes[a.GEN_AI_RESPONSE_FINISH_REASONS] == ("f" * 256,) * 16
    assert call.outcome == "length_cut"


def test_stop_sequences_are_not_recorded() -> None:
    """They are the caller's own words."""
    call = use(json.dumps(answer([])), JSON, stop=[SECRET]).call("llm")

    assert a.GEN_AI_REQUEST_STOP_SEQUENCES not in call.attributes
    assert SECRET not in repr(call.attributes)
