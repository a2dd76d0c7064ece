"""The simulator against the official Google client: every body is what the client's models know."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from exactness import assert_exact
from google import genai
from google.genai import errors, types
from google.genai.types import CountTokensResponse, EmbedContentResponse, GenerateContentResponse
from stagelight.sim import Simulator

QUESTION = "What do tides do? Tides rise and fall twice a day."
WEATHER = types.FunctionDeclaration(
    name="get_weather",
    description="The weather in a city",
    parameters=types.Schema(type=types.Type.OBJECT, properties={"city": types.Schema(type=types.Type.STRING)}),
)
LONG = "Tides come and go with the moon, and the moon does not know. " * 150
SOUND = types.Part.from_bytes(data=b"\0" * 4000, mime_type="audio/wav")
PICTURE = types.Part.from_bytes(data=b"\0" * 100, mime_type="image/png")
REQUESTS: list[tuple[str, Any, dict[str, Any]]] = [
    ("gemini-2.5-flash", QUESTION, {}),
    ("gemini-2.5-flash", QUESTION, {"thinking_config": {"include_thoughts": True}}),
    ("gemini-2.5-flash", QUESTION, {"thinking_config": {"thinking_budget": 0}, "stop_sequences": ["rise"]}),
    ("gemini-2.5-flash-lite", QUESTION, {"candidate_count": 2, "temperature": 0.2, "seed": 3}),
    ("gemini-2.5-flash-lite", QUESTION, {"max_output_tokens": 3}),
    ("gemini-2.5-flash-lite", [QUESTION, SOUND, PICTURE], {}),
    ("gemini-2.5-flash-lite", "What is the weather in Paris?", {"tools": [{"function_declarations": [WEATHER]}]}),
    ("gemini-2.5-flash-lite", QUESTION, {"tools": [{"google_search": {}}]}),
    ("gemini-2.5-flash-lite", LONG + QUESTION, {"system_instruction": "Be brief."}),
    (
        "gemini-2.5-flash-lite",
        QUESTION,
        {"http_options": {"headers": {"x-stagelight-fault": "content_filter;after=2"}}},
    ),
    (
        "gemini-2.5-flash-lite",
        QUESTION,
        {"http_options": {"headers": {"x-stagelight-fault": "content_filter;after=0"}}},
    ),
]


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(seed=7, latency="instant") as simulator:
        yield simulator


@pytest.fixture(params=["gemini", "vertex"])
def client(request: pytest.FixtureRequest, sim: Simulator) -> genai.Client:
    """A client of the Gemini API, and one of Vertex AI."""
    http = types.HttpOptions(base_url=sim.origin, client_args={"verify": False}, async_client_args={"verify": False})
    if request.param == "gemini":
        return genai.Client(api_key="any", http_options=http)
    from google.auth.credentials import AnonymousCredentials

    credentials = AnonymousCredentials()
    credentials.token = "any"
    return genai.Client(vertexai=True, project="p", location="europe-west1", credentials=credentials, http_options=http)


@pytest.mark.parametrize(("model", "contents", "config"), REQUESTS)
def test_contents_are_what_the_client_knows(
    client: genai.Client, sim: Simulator, model: str, contents: Any, config: dict[str, Any]
) -> None:
    """An answer and every chunk of a streamed one match the client's model strictly; the chunks make the answer."""
    sim.forget()
    plain = client.models.generate_content(model=model, contents=contents, config=config)
    sent = sim.requests[-1]
    sim.forget()
    chunks = list(client.models.generate_content_stream(model=model, contents=contents, config=config))
    faults = dict(config.get("http_options", {}).get("headers", {}))
    raw = [
        one
        for verb in ("generateContent", "streamGenerateContent")
        for one in _sent_again(client, sim, model, verb, sent, faults)
    ]

    for body in raw:
        assert_exact(body, GenerateContentResponse)
    assert plain.usage_metadata is not None
    assert chunks[-1].usage_metadata == plain.usage_metadata
    assert _texts(chunks) == _texts([plain])
    assert plain.usage_metadata.total_token_count == sum(
        getattr(plain.usage_metadata, f"{name}_token_count") or 0
        for name in ("prompt", "candidates", "thoughts", "tool_use_prompt")
    )


def _texts(answers: list[GenerateContentResponse]) -> dict[int, str]:
    texts: dict[int, str] = {}
    for answer in answers:
        for candidate in answer.candidates or []:
            parts = (candidate.content.parts if candidate.content else None) or []
            index = candidate.index or 0
            said = "".join(str(part.text or part.function_call or "") for part in parts)
            texts[index] = texts.get(index, "") + said
    return texts


def _sent_again(
    client: genai.Client, sim: Simulator, model: str, verb: str, sent: Any, faults: dict[str, str]
) -> list[Any]:
    import httpx

    sim.forget()
    place = "v1beta1/projects/p/locations/l/publishers/google/models" if client.vertexai else "v1beta/models"
    url = f"{sim.origin}/{place}/{model}:{verb}?alt=sse"
    answer = httpx.post(url, content=sent.body, headers={"x-goog-api-key": "any", **faults})
    if verb == "generateContent":
        return [answer.json()]
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]


def test_prompts_are_cached(client: genai.Client, sim: Simulator) -> None:
    """The common beginning of two prompts is reported as cached, within the prompt."""
    sim.forget()
    first, second = (
        client.models.generate_content(model="gemini-2.5-flash-lite", contents=LONG + str(index)).usage_metadata
        for index in range(2)
    )

    assert first is not None
    assert second is not None
    assert first.cached_content_token_count is None
    assert second.prompt_token_count > (second.cached_content_token_count or 0) > 1024


@pytest.mark.parametrize(
    ("model", "vectors"), [("gemini-embedding-001", 2), ("gemini-embedding-2", 1), ("text-embedding-005", 2)]
)
def test_embeddings(client: genai.Client, model: str, vectors: int) -> None:
    """Vectors have the length that was asked for, and say what they cost, in the words of each of Google's services."""
    answer = client.models.embed_content(model=model, contents=["tides", "moon"], config={"output_dimensionality": 64})

    assert isinstance(answer, EmbedContentResponse)
    # The client makes one content with two parts for a model that embeds several media at once.
    assert [len(one.values or []) for one in answer.embeddings or []] == [64] * vectors
    if model == "text-embedding-005" and client.vertexai:
        counts = [one.statistics.token_count for one in answer.embeddings or [] if one.statistics]
        assert counts == [1, 1]
    else:
        assert answer.usage_metadata is not None
        assert answer.usage_metadata.prompt_token_count == 4 - vectors


def test_tokens_are_counted_as_they_are_billed(client: genai.Client) -> None:
    """The count of a request's tokens is the prompt that its answer reports."""
    counted = client.models.count_tokens(model="gemini-2.5-flash", contents=QUESTION)
    usage = client.models.generate_content(model="gemini-2.5-flash", contents=QUESTION).usage_metadata

    assert isinstance(counted, CountTokensResponse)
    assert usage is not None
    assert counted.total_tokens == usage.prompt_token_count


def test_functions_are_called_and_answered(client: genai.Client) -> None:
    """A function call has arguments of its schema, and its result leads to a text."""

    def get_weather(city: str) -> str:
        """The weather in a city."""
        return f"The weather in {city} is sunny with 20 degrees."

    chat = client.chats.create(model="gemini-2.5-flash", config={"tools": [get_weather]})
    answer = chat.send_message("What is the weather in Paris?")

    assert answer.text == "The weather in Paris is sunny with 20 degrees."


@pytest.mark.parametrize(
    ("fault", "kind", "code", "status"),
    [
        ("rate_limit;retry_after=2", errors.ClientError, 429, "RESOURCE_EXHAUSTED"),
        ("server_error;status=503", errors.ServerError, 503, "UNAVAILABLE"),
        ("server_error", errors.ServerError, 500, "INTERNAL"),
        ("unauthorized", errors.ClientError, 401, "UNAUTHENTICATED"),
        ("model_not_found", errors.ClientError, 404, "NOT_FOUND"),
    ],
)
def test_errors_are_the_providers(client: genai.Client, fault: str, kind: Any, code: int, status: str) -> None:
    """Every error has the provider's shape; a rate limit says when to come back."""
    config = {"http_options": {"headers": {"x-stagelight-fault": fault}}}
    with pytest.raises(kind) as raised:
        client.models.generate_content(model="gemini-2.5-flash", contents=QUESTION, config=config)

    assert (raised.value.code, raised.value.status) == (code, status)
    if code == 429:
        assert raised.value.details["error"]["details"][0]["retryDelay"] == "2s"


def test_an_error_in_the_middle_of_a_stream(client: genai.Client) -> None:
    """A stream that fails on the way ends with the provider's error."""
    config = {"http_options": {"headers": {"x-stagelight-fault": "stream_error;after=4"}}}
    stream = client.models.generate_content_stream(model="gemini-2.5-flash", contents=QUESTION, config=config)
    with pytest.raises(errors.APIError) as raised:
        list(stream)

    assert (raised.value.code, raised.value.status) == (503, "UNAVAILABLE")


def test_wrong_requests_are_refused(client: genai.Client) -> None:
    """What the provider would not accept is an invalid argument here too."""
    for config in ({"temperature": 9}, {"max_output_tokens": -1}):
        with pytest.raises(errors.ClientError) as raised:
            client.models.generate_content(model="gemini-2.5-flash", contents=QUESTION, config=config)
        assert raised.value.status == "INVALID_ARGUMENT"
