"""The simulator against the official client: every body holds exactly what the client's models know."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pydantic
import pytest
from exactness import assert_exact, differences
from openai import AsyncOpenAI, OpenAI
from openai.types import CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from stagelight.sim import Simulator

QUESTION = [{"role": "user", "content": "What is a turn?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(seed=7, latency="instant") as simulator:
        yield simulator


@pytest.fixture(scope="module")
def client(sim: Simulator) -> Iterator[OpenAI]:
    with OpenAI(base_url=sim.url, api_key="any", max_retries=0, timeout=60) as made:
        yield made


def events(text: str) -> list[Any]:
    """Bodies of server-sent events."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_the_check_finds_a_field_that_is_not_in_the_model() -> None:
    """A field that the client does not know is found, also deep in a list."""
    body = {"id": "1", "choices": [{"index": 0, "delta": {"content": "a", "odd": 1}}], "created": 1, "model": "m"}

    assert differences(body, ChatCompletionChunk) == ["$.choices[0].delta.odd is unknown"]


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"n": 3},
        {"tools": [WEATHER], "messages": [{"role": "user", "content": "What is the weather in Paris?"}]},
        {"model": "o4-mini", "reasoning_effort": "low"},
        {"service_tier": "flex", "max_tokens": 3},
    ],
)
def test_chat_completions_have_the_fields_of_the_client(client: OpenAI, extra: dict[str, Any]) -> None:
    """A chat completion and every chunk of a streamed one match the client's models."""
    request = {"model": "gpt-4o-mini", "messages": QUESTION, **extra}

    plain = client.chat.completions.with_raw_response.create(**request)
    streamed = client.chat.completions.with_raw_response.create(
        **request, stream=True, stream_options={"include_usage": True}
    )

    assert_exact(json.loads(plain.text), ChatCompletion)
    chunks = events(streamed.http_response.read().decode())
    for chunk in chunks:
        assert_exact(chunk, ChatCompletionChunk)
    assert chunks[-1]["usage"] == json.loads(plain.text)["usage"]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"model": "gpt-5-mini", "reasoning": {"effort": "low"}},
        {
            "tools": [{"type": "function", **WEATHER["function"], "strict": True}],
            "input": "What is the weather in Oslo?",
        },
        {"max_output_tokens": 16},
        {"instructions": "Be brief.", "metadata": {"a": "b"}, "temperature": 0.2, "service_tier": "priority"},
    ],
)
def test_responses_have_the_fields_of_the_client(client: OpenAI, extra: dict[str, Any]) -> None:
    """A response and every event of a streamed one match the client's models and are numbered from 0."""
    request = {"model": "gpt-4o-mini", "input": "What is the meaning of this question, in other words?", **extra}

    plain = json.loads(client.responses.with_raw_response.create(**request).text)
    streamed = client.responses.with_raw_response.create(**request, stream=True)

    assert_exact(plain, Response)
    told = events(streamed.http_response.read().decode())
    for one in told:
        assert_exact(one, ResponseStreamEvent)
    assert [one["sequence_number"] for one in told] == list(range(len(told)))
    assert told[-1]["response"] == plain


def test_models_and_embeddings_have_the_fields_of_the_client(client: OpenAI) -> None:
    """The model list and embeddings match the client's models."""
    raw = client.embeddings.with_raw_response.create(model="text-embedding-3-small", input="a", encoding_format="float")

    assert_exact(json.loads(raw.text), CreateEmbeddingResponse)
    for row in client.models.with_raw_response.list().parse().data:
        assert_exact(row.model_dump(exclude_unset=True), Model)
    assert client.models.list().data[1].id == "gpt-4o-mini"


def test_a_streamed_answer_is_the_plain_answer(client: OpenAI) -> None:
    """The deltas of a stream join to the plain answer, with the same id, model and finish reason."""
    plain = client.chat.completions.create(model="gpt-4o", messages=QUESTION, n=2)
    chunks = list(client.chat.completions.create(model="gpt-4o", messages=QUESTION, n=2, stream=True))

    texts = ["", ""]
    finished: list[str | None] = [None, None]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            finished[choice.index] = choice.finish_reason or finished[choice.index]
    assert texts == [choice.message.content for choice in plain.choices]
    assert finished == ["stop", "stop"]
    assert {(chunk.id, chunk.model) for chunk in chunks} == {(plain.id, "gpt-4o-2024-08-06")}
    assert all(chunk.usage is None for chunk in chunks)


def test_tool_calls_stream_as_they_are(client: OpenAI) -> None:
    """A tool call has the same id, name and JSON arguments plain and streamed; its result leads to a text."""
    asked = [{"role": "user", "content": "What is the weather in Paris, in fahrenheit?"}]
    plain = client.chat.completions.create(model="gpt-4o-mini", messages=asked, tools=[WEATHER])
    with client.chat.completions.stream(model="gpt-4o-mini", messages=asked, tools=[WEATHER]) as stream:
        final = stream.get_final_completion()

    [call] = plain.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments) == {"city": "Paris", "unit": "fahrenheit"}
    [streamed] = final.choices[0].message.tool_calls or []
    assert (streamed.id, streamed.function.arguments) == (call.id, call.function.arguments)
    assert (plain.choices[0].finish_reason, plain.choices[0].message.content) == ("tool_calls", None)

    answered = [
        *asked,
        plain.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "The weather in Paris is sunny with 20 degrees."},
    ]
    told = client.chat.completions.create(model="gpt-4o-mini", messages=answered, tools=[WEATHER])
    assert told.choices[0].message.content == "The weather in Paris is sunny with 20 degrees."


def test_the_parse_helpers_get_json_of_their_schema(client: OpenAI) -> None:
    """Structured outputs of both APIs are instances of the schema, nested models included."""

    class Step(pydantic.BaseModel):
        text: str
        minutes: int

    class Plan(pydantic.BaseModel):
        steps: list[Step]
        note: str | None

    chat = client.chat.completions.parse(model="gpt-4o-mini", messages=QUESTION, response_format=Plan)
    response = client.responses.parse(model="gpt-4o-mini", input="Make a plan?", text_format=Plan)

    assert isinstance(chat.choices[0].message.parsed, Plan)
    assert isinstance(response.output_parsed, Plan)
    assert response.output_parsed.steps[0].minutes == 1


def test_reasoning_and_tiers_are_reported(client: OpenAI) -> None:
    """A reasoning model reports reasoning tokens, within the output; the response names the tier that served it."""
    chat = client.chat.completions.create(
        model="o4-mini", messages=QUESTION, reasoning_effort="low", service_tier="priority"
    )
    cut = client.responses.create(model="gpt-5", input="Why?", max_output_tokens=64)

    assert chat.usage is not None
    assert chat.usage.completion_tokens_details is not None
    assert chat.usage.completion_tokens_details.reasoning_tokens == 64
    assert chat.usage.completion_tokens > 64
    assert chat.service_tier == "priority"
    assert (cut.status, cut.output_text) == ("incomplete", "")
    assert cut.usage is not None
    assert (cut.usage.output_tokens, cut.usage.output_tokens_details.reasoning_tokens) == (64, 64)


def test_response_headers_are_the_providers(client: OpenAI) -> None:
    """Every answer has a request id and says what is left of the rate limits."""
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=QUESTION)

    assert raw.request_id is not None
    assert raw.request_id.startswith("req_")
    assert raw.headers["x-ratelimit-remaining-requests"] == "9999"
    assert raw.headers["x-ratelimit-remaining-tokens"] == str(2_000_000 - raw.parse().usage.prompt_tokens)
    assert "date" not in raw.headers


def test_the_asynchronous_client_gets_the_same(sim: Simulator, client: OpenAI) -> None:
    """The asynchronous client gets the same objects as the synchronous one."""

    async def ask() -> tuple[Any, ...]:
        async with AsyncOpenAI(base_url=sim.url, api_key="any", max_retries=0) as asynchronous:
            chat = await asynchronous.chat.completions.create(model="gpt-4o-mini", messages=QUESTION)
            stream = await asynchronous.responses.create(model="gpt-4o-mini", input="Why?", stream=True)
            kinds = [event.type async for event in stream]
            vectors = await asynchronous.embeddings.create(model="text-embedding-3-small", input="a")
            async with asynchronous.audio.speech.with_streaming_response.create(
                model="tts-1", voice="coral", input="Hello", response_format="pcm"
            ) as speech:
                audio = b"".join([block async for block in speech.iter_bytes()])
            return chat, kinds, vectors, audio

    chat, kinds, vectors, audio = asyncio.run(ask())

    assert chat == client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION)
    assert kinds == [one.type for one in client.responses.create(model="gpt-4o-mini", input="Why?", stream=True)]
    assert vectors == client.embeddings.create(model="text-embedding-3-small", input="a")
    spoken = client.audio.speech.create(model="tts-1", voice="coral", input="Hello", response_format="pcm")
    assert audio == spoken.content
