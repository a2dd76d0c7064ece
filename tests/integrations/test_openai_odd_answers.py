"""What odd servers answer: values of wrong types, streams without an end, failures told in an answer."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
import stagelight
from integrations.openai_answers import ask
from openai_client import HAS_RESPONSES, HTTP, needs_responses
from stagelight.conventions import attributes as a
from stagelight.facts import Response, Usage
from stagelight.integrations.openai import OPERATIONS, read
from stagelight.testing import capture


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": None, "usage": 3, "model": 7, "id": []},
        {"choices": [None, 1, {"finish_reason": 4}], "usage": {"prompt_tokens_details": "x"}},
        {"error": {"message": "no"}},
    ],
)
def test_answers_of_no_sense(answer: dict[str, Any]) -> None:
    """An answer that makes no sense gives no facts, and no failure."""
    call = ask(answer, base_url="https://llm.example/v1")

    assert (call.outcome, call.attributes[a.GEN_AI_PROVIDER_NAME]) == ("completed", "openai_compatible")
    assert a.GEN_AI_RESPONSE_MODEL not in call.attributes


def test_the_first_chunk_of_azure() -> None:
    """Azure's first chunk tells what its filter made of the prompt; model and id come after it."""
    items = OPERATIONS["/chat/completions"].items()
    checked = {"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}
    said = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}
    for chunk in (
        {"id": "", "model": "", "object": "", "choices": [], "prompt_filter_results": [checked]},
        {"id": "c1", "model": "gpt-4o-mini-2024-07-18", "choices": [said]},
        {"id": "c1", "model": "gpt-4o-mini-2024-07-18", "choices": [], "usage": {"prompt_tokens": 3}},
    ):
        items.take(chunk)

    assert items.response() == Response(
        model="gpt-4o-mini-2024-07-18", id="c1", finish_reasons=("stop",), usage=Usage(input_tokens=3)
    )


@pytest.mark.parametrize(
    ("vector", "size"),
    [([0.5, 0.25], 2), ("AAAAPwAAgD4=", 2), ("AAAAPwAAgD4AAAA/", 3), ("AAAAPw==", 1), ("", None), (None, None)],
)
def test_embeddings_of_any_form(vector: Any, size: int | None) -> None:
    """Vectors are lists, or base64 of 4 bytes a number; a server that tells the total only has told the input."""
    answer = {"model": "voyage-3-lite", "data": [{"embedding": vector}], "usage": {"total_tokens": 18}}

    assert OPERATIONS["/embeddings"].response(answer, stagelight.facts.Request()) == Response(
        model="voyage-3-lite", usage=Usage(input_tokens=18), embedding_dimensions=size
    )


@pytest.mark.usefixtures("recorded")
@needs_responses
@pytest.mark.parametrize(
    ("last", "outcome", "kind"),
    [
        ([], "provider_aborted", "incomplete_stream"),
        (["response.in_progress"], "provider_aborted", "incomplete_stream"),
        (["response.completed"], "completed", None),
        (["response.done"], "completed", None),
    ],
)
def test_the_end_of_a_stream_of_responses(last: list[str], outcome: str, kind: str | None) -> None:
    """A stream that ends before its answer does was aborted, although the client raises nothing."""
    answer = {"id": "r1", "object": "response", "model": "m-1", "output": [], "status": "completed"}

    def reply(_: Any) -> Any:
        events = [
            {"type": name, "sequence_number": number, "response": answer}
            for number, name in enumerate(["response.created", *last])
        ]
        body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
        return HTTP.Response(200, text=body, headers={"content-type": "text/event-stream"})

    http = HTTP.Client(transport=HTTP.MockTransport(reply))
    with capture() as captured, openai.OpenAI(api_key="key", http_client=http) as client:
        read = [event.type for event in client.responses.create(model="m-1", input="Hi", stream=True)]
    call = captured.call("llm")

    assert read == ["response.created", *last]
    assert (call.outcome, call.error_type) == (outcome, kind)


@needs_responses
@pytest.mark.usefixtures("recorded")
def test_a_failure_told_in_an_answer() -> None:
    """A response that says it failed ends its call with the provider's code."""

    def reply(_: Any) -> Any:
        failed = {"id": "r1", "object": "response", "status": "failed", "error": {"code": "server_error"}, "output": []}
        return HTTP.Response(200, json=failed)

    http = HTTP.Client(transport=HTTP.MockTransport(reply))
    with capture() as captured, openai.OpenAI(api_key="key", http_client=http) as client:
        assert client.responses.create(model="m-1", input="Hi").status == "failed"
    call = captured.call("llm")

    assert (call.outcome, call.error_type) == ("error", "server_error")


def test_record_reads_what_the_client_returns(simulator: Any) -> None:
    """A call recorded by hand takes its facts from the client's own objects."""
    with capture() as captured, openai.OpenAI(base_url=simulator.url, api_key="key") as client:
        with stagelight.llm(provider="openai", model="gpt-4o-mini") as call:
            call.record(
                client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}])
            )
        with stagelight.embedding(provider="openai", model="text-embedding-3-small") as call:
            call.record(client.embeddings.create(model="text-embedding-3-small", input="tides"))
        if HAS_RESPONSES:
            with stagelight.llm(provider="openai", model="gpt-4o-mini") as call:
                call.record(client.responses.create(model="gpt-4o-mini", input="Hi"))

    assert [call.cost_status for call in captured.calls] == ["exact"] * (2 + HAS_RESPONSES)
    assert read(object()) is None
