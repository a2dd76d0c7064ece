"""The simulator against the official Anthropic client: every body holds exactly what the client's models know."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent
from exactness import assert_exact
from stagelight.sim import Simulator

QUESTION = [{"role": "user", "content": "What do tides do? Tides rise and fall twice a day."}]
WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
ASK = {"model": "claude-haiku-4-5", "max_tokens": 2000, "messages": QUESTION}
LONG = "Tides come and go with the moon, and the moon does not know. " * 150
REQUESTS = [
    {},
    {"stop_sequences": ["rise"]},
    {"tools": [WEATHER], "messages": [{"role": "user", "content": "What is the weather in Paris?"}]},
    {"thinking": {"type": "enabled", "budget_tokens": 1024}, "output_config": {"effort": "low"}},
    {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    {"system": [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
    {"max_tokens": 3},
    {"extra_headers": {"x-stagelight-fault": "content_filter;after=2"}},
]


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(seed=7, latency="instant") as simulator:
        yield simulator


@pytest.fixture(scope="module")
def client(sim: Simulator) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=sim.origin, api_key="any", max_retries=0, timeout=30) as made:
        yield made


def events(text: str) -> list[Any]:
    """Bodies of server-sent events but for pings, which the client leaves out."""
    lines = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    return [line for line in lines if line != {"type": "ping"}]


@pytest.mark.parametrize("extra", REQUESTS)
def test_messages_have_the_fields_of_the_client(client: anthropic.Anthropic, extra: dict[str, Any]) -> None:
    """A message and every event of a streamed one match the client's models; the events make the message."""
    plain = json.loads(client.messages.with_raw_response.create(**{**ASK, **extra}).http_response.content)
    streamed = client.messages.with_raw_response.create(**{**ASK, **extra}, stream=True)
    told = events(streamed.http_response.read().decode())

    assert_exact(plain, Message, complete=True)
    for one in told:
        assert_exact(one, RawMessageStreamEvent, complete=True)
    with client.messages.stream(**{**ASK, **extra}) as stream:
        final = stream.get_final_message().to_dict()
    for block in [*plain["content"], *final["content"]]:
        block.pop("parsed_output", None)
    usage = {"cache_creation_input_tokens", "cache_read_input_tokens", "input_tokens", "cache_creation"}
    if "system" in extra:  # the first of the requests has written the cache, the later ones read it
        assert plain["usage"]["cache_creation"]["ephemeral_1h_input_tokens"] > 1024
        assert final["usage"]["cache_read_input_tokens"] == plain["usage"]["cache_creation_input_tokens"]
        plain["usage"] = {**plain["usage"], **{name: final["usage"].get(name) for name in usage}}
    assert {**final, "usage": _told(final["usage"])} == {**plain, "usage": _told(plain["usage"])}


def _told(usage: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in usage.items() if value is not None}


@pytest.mark.parametrize("extra", REQUESTS)
def test_beta_messages_are_accepted(client: anthropic.Anthropic, extra: dict[str, Any]) -> None:
    """The beta endpoint answers what the client's beta models accept."""
    raw = client.beta.messages.with_raw_response.create(**{**ASK, **extra})
    streamed = client.beta.messages.with_raw_response.create(**{**ASK, **extra}, stream=True)

    assert_exact(json.loads(raw.http_response.content), BetaMessage)
    for one in events(streamed.http_response.read().decode()):
        assert_exact(one, BetaRawMessageStreamEvent)


def test_tokens_are_counted_as_they_are_billed(client: anthropic.Anthropic) -> None:
    """The count of a request's tokens is the input that its answer reports."""
    counted = client.messages.with_raw_response.count_tokens(model="claude-haiku-4-5", messages=QUESTION)
    body = json.loads(counted.http_response.content)

    assert_exact(body, MessageTokensCount, complete=True)
    assert body["input_tokens"] == client.messages.create(**ASK).usage.input_tokens


def test_a_prompt_is_written_to_the_cache_once(client: anthropic.Anthropic, sim: Simulator) -> None:
    """What a marked prompt costs: written at first, read afterwards, and never counted twice."""
    sim.forget()
    system = [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}]
    first, second = (client.messages.create(**ASK, system=system).usage for _ in range(2))  # type: ignore[arg-type]
    plain = client.messages.count_tokens(model="claude-haiku-4-5", messages=QUESTION, system=LONG).input_tokens  # type: ignore[arg-type]

    assert first.cache_creation_input_tokens
    assert (first.cache_read_input_tokens, second.cache_creation_input_tokens) == (0, 0)
    assert second.cache_read_input_tokens == first.cache_creation_input_tokens
    assert first.input_tokens + first.cache_creation_input_tokens == plain


def test_tools_are_called_and_answered(client: anthropic.Anthropic) -> None:
    """A tool call has JSON of its schema, and its result leads to a text."""
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    called = client.messages.create(**{**ASK, "messages": asked}, tools=[WEATHER])  # type: ignore[arg-type]
    use = called.content[0]
    assert isinstance(use, anthropic.types.ToolUseBlock)
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "The weather in Paris is sunny with 20 degrees."}
    answered = [*asked, called.to_param(), {"role": "user", "content": [result]}]
    told = client.messages.create(**{**ASK, "messages": answered}, tools=[WEATHER])  # type: ignore[arg-type]

    assert (called.stop_reason, use.name, use.input) == ("tool_use", "get_weather", {"city": "Paris"})
    assert told.content[0].to_dict()["text"] == "The weather in Paris is sunny with 20 degrees."


@pytest.mark.parametrize(
    ("fault", "kind", "told"),
    [
        ("rate_limit;retry_after=2", anthropic.RateLimitError, "rate_limit_error"),
        ("server_error;status=529", anthropic.InternalServerError, "overloaded_error"),
        ("server_error", anthropic.InternalServerError, "api_error"),
        ("unauthorized", anthropic.AuthenticationError, "authentication_error"),
        ("model_not_found", anthropic.NotFoundError, "not_found_error"),
    ],
)
def test_errors_are_the_providers(client: anthropic.Anthropic, fault: str, kind: Any, told: str) -> None:
    """Every error has the provider's shape and id; a rate limit says when to come back and what is left."""
    with pytest.raises(kind) as raised:
        client.messages.create(**ASK, extra_headers={"x-stagelight-fault": fault})
    body, headers = raised.value.body, raised.value.response.headers

    assert body == {"type": "error", "error": {**body["error"], "type": told}, "request_id": headers["request-id"]}
    if told == "rate_limit_error":
        assert (headers["retry-after"], headers["anthropic-ratelimit-requests-remaining"]) == ("2", "0")


def test_wrong_requests_are_refused(client: anthropic.Anthropic) -> None:
    """What the provider would not accept is an invalid request here too."""
    for wrong in (
        {"messages": []},
        {"extra_body": {"temperature": 2}},
        {"messages": [{"role": "system", "content": "a"}]},
    ):
        with pytest.raises(anthropic.BadRequestError) as raised:
            client.messages.create(**{**ASK, **wrong})
        assert raised.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]


def test_an_error_in_the_middle_of_a_stream(client: anthropic.Anthropic) -> None:
    """A stream that fails on the way ends with the provider's error event."""
    stream = client.messages.create(**ASK, stream=True, extra_headers={"x-stagelight-fault": "stream_error;after=4"})
    with pytest.raises(anthropic.APIStatusError) as raised:
        list(stream)

    assert raised.value.body["error"] == {"type": "overloaded_error", "message": "Overloaded"}  # type: ignore[index]
