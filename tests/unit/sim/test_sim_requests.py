"""What the simulator answers: the same bytes for the same request, sense, counted tokens, clear errors."""

import base64
import io
import json
import struct
import wave
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from stagelight.sim import Simulator

CONTEXT = """You are helpful. Answer from the context.

Context:
# Shipping
Orders are shipped within two days. Shipping to islands takes a week longer.

# Returns
An unused product may be returned within thirty days. The refund is paid to the original card.
"""


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(seed=7, latency="instant") as simulator:
        yield simulator


@pytest.fixture(scope="module")
def client(sim: Simulator) -> Iterator[OpenAI]:
    with OpenAI(base_url=sim.url, api_key="any", max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture(scope="module")
def three() -> Iterator[list[Simulator]]:
    """Two simulators with the same seed and one with another."""
    with ExitStack() as stack:
        yield [stack.enter_context(Simulator(seed=seed, latency="instant")) for seed in (7, 7, 8)]


def post(sim: Simulator, path: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"{sim.url}{path}", content=content, headers={"authorization": "Bearer any", **headers})


def chat_body(question: str, **extra: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}], **extra}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat/completions", chat_body("What is new?", n=2)),
        ("/chat/completions", chat_body("What is new?", stream=True, stream_options={"include_usage": True})),
        ("/responses", {"model": "o4-mini", "input": "What is new?", "stream": True}),
        ("/embeddings", {"model": "text-embedding-3-small", "input": ["a", "b"]}),
        ("/audio/speech", {"model": "tts-1", "voice": "coral", "input": "Hello.", "response_format": "wav"}),
    ],
)
def test_the_same_request_gets_the_same_bytes(three: list[Simulator], path: str, body: dict[str, Any]) -> None:
    """Two simulators with the same seed answer with the same bytes and headers; another seed gives other ids."""
    responses = [post(simulator, path, body) for simulator in three]
    answers = [(response.status_code, dict(response.headers), response.content) for response in responses]

    assert answers[0] == answers[1]
    assert answers[0][1]["x-request-id"] != answers[2][1]["x-request-id"]


def test_answers_are_the_sentences_that_fit_the_question(client: OpenAI) -> None:
    """The answer consists of sentences of the context; without one that fits it says so."""

    def ask(question: str) -> str | None:
        messages = [{"role": "system", "content": CONTEXT}, {"role": "user", "content": question}]
        return client.chat.completions.create(model="gpt-4o-mini", messages=messages).choices[0].message.content

    assert ask("When are orders shipped?") == "Orders are shipped within two days."
    assert ask("May I return an unused product?") == "An unused product may be returned within thirty days."
    assert ask("Who won the match?") == "The documents I was given do not answer that."


def test_tokens_are_counted_by_the_documented_rule(client: OpenAI) -> None:
    """3 tokens per message and 3 for the answer, 8 letters, 3 digits or one mark each; an image counts 85."""
    messages = [
        {"role": "system", "content": "Be kind."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Internationalisation in 2026?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}},
            ],
        },
    ]
    usage = client.chat.completions.create(model="gpt-4o", messages=messages).usage

    # "Be", " kind", "." / "Internat", "ionalisa", "tion", " in", " 202", "6", "?"
    assert usage is not None
    assert usage.prompt_tokens == 3 + 3 + 3 + 7 + 85 + 3
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_repeated_prefix_is_reported_as_cached() -> None:
    """From 1,024 tokens on, a beginning that the model saw before is cached, in steps of 128."""
    with Simulator(latency="instant") as simulator, OpenAI(base_url=simulator.url, api_key="any") as client:

        def cached(text: str, model: str = "gpt-4o-mini") -> int | None:
            usage = client.chat.completions.create(**{**chat_body(text), "model": model}).usage
            return usage.prompt_tokens_details.cached_tokens if usage and usage.prompt_tokens_details else None

        long = "word " * 1200
        assert [cached(long), cached(long), cached(long + "and more"), cached(long, "gpt-4o")] == [0, 1152, 1152, 0]
        assert [cached("word " * 900), cached("word " * 900)] == [0, 0]
        used = client.responses.create(model="gpt-4o-mini", input=long).usage
        assert used is not None
        assert used.input_tokens_details.cached_tokens == 1152
        simulator.forget()
        assert cached(long) == 0


def test_limits_cut_answers(client: OpenAI) -> None:
    """``max_tokens`` and ``stop`` end an answer where they say; a header asks for an exact length."""
    body = chat_body("Tell me something?")
    whole = client.chat.completions.create(**body).choices[0].message.content or ""
    cut = client.chat.completions.create(**body, max_tokens=4)
    stopped = client.chat.completions.create(**body, stop=["documents"]).choices[0]
    sized = client.chat.completions.create(**body, extra_headers={"x-stagelight-tokens": "50"})

    assert (cut.choices[0].finish_reason, cut.choices[0].message.content) == ("length", "I was given no")
    assert whole.startswith(cut.choices[0].message.content or "-")
    assert (stopped.finish_reason, stopped.message.content) == ("stop", whole.partition("documents")[0])
    assert [one.usage.completion_tokens for one in (cut, sized) if one.usage] == [4, 50]


def test_embeddings_of_similar_texts_are_near(client: OpenAI) -> None:
    """A paraphrase is nearer than another subject; all vectors have length 1; both encodings hold the same floats."""
    texts = ["How do I return a product?", "Returning products is free.", "The weather in Oslo is cold."]
    data = client.embeddings.create(model="text-embedding-3-small", input=texts, encoding_format="float").data
    plain = [item.embedding for item in data]
    packed = client.embeddings.with_raw_response.create(
        model="text-embedding-3-small", input=texts, encoding_format="base64"
    )

    def near(left: list[float], right: list[float]) -> float:
        return sum(a * b for a, b in zip(left, right, strict=True))

    assert near(plain[0], plain[1]) > 0.4
    assert near(plain[0], plain[2]) < 0.2
    assert [near(vector, vector) for vector in plain] == pytest.approx([1.0] * 3, abs=1e-5)
    encoded = [array("f", base64.b64decode(item["embedding"])).tolist() for item in json.loads(packed.text)["data"]]
    assert encoded == plain


def test_shorter_embeddings_are_the_beginning_of_long_ones(client: OpenAI) -> None:
    """``dimensions`` cuts the vector and makes its length 1 again, as the provider does."""

    def embed(**extra: Any) -> list[float]:
        return client.embeddings.create(input="A turn has stages.", **extra).data[0].embedding

    full = embed(model="text-embedding-3-large")
    short = embed(model="text-embedding-3-large", dimensions=256)
    length = sum(value * value for value in full[:256]) ** 0.5

    assert (len(full), len(short)) == (3072, 256)
    assert short == pytest.approx([value / length for value in full[:256]], abs=1e-6)


def test_embeddings_take_tokens(client: OpenAI) -> None:
    """Inputs may be token lists; the usage counts them."""
    one = client.embeddings.create(model="text-embedding-3-small", input=[1, 2, 3])
    two = client.embeddings.create(model="text-embedding-3-small", input=[[1, 2, 3], [4]])

    assert (len(one.data), one.usage.prompt_tokens) == (1, 3)
    assert (len(two.data), two.usage.prompt_tokens) == (2, 4)
    assert two.data[0].embedding == one.data[0].embedding


def test_speech_is_a_wav_that_plays(client: OpenAI) -> None:
    """A WAV has the header of a stream, 24 kHz mono, and one second of sound per 15 characters at speed 1."""
    spoken = client.audio.speech.create(model="tts-1", voice="coral", input="a" * 30, response_format="wav").content
    quick = client.audio.speech.create(
        model="tts-1", voice="coral", input="a" * 30, response_format="pcm", speed=2
    ).content
    other = client.audio.speech.create(model="tts-1", voice="onyx", input="a" * 30, response_format="pcm").content

    with wave.open(io.BytesIO(spoken)) as played:
        assert played.getparams()[:3] == (1, 2, 24_000)
        frames = played.readframes(10_000_000)
    assert spoken[4:8] == spoken[40:44] == b"\xff\xff\xff\xff"
    assert len(frames) == 2 * 24_000 * 2
    assert max(struct.unpack(f"<{len(frames) // 2}h", frames)) > 1000
    assert len(quick) == len(frames) // 2
    assert frames != other


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/chat/completions", b"{", ("invalid_request_error", None, None)),
        ("/chat/completions", {"model": "m"}, ("invalid_request_error", "messages", "missing_required_parameter")),
        ("/chat/completions", {"messages": []}, ("invalid_request_error", "model", "missing_required_parameter")),
        ("/chat/completions", {"model": "m", "messages": []}, ("invalid_request_error", "messages", "empty_array")),
        ("/chat/completions", {"model": "m", "messages": "a"}, ("invalid_request_error", "messages", "invalid_type")),
        (
            "/chat/completions",
            {"model": "m", "messages": [{"role": "boss"}]},
            ("invalid_request_error", "messages[0].role", "invalid_value"),
        ),
        ("/chat/completions", chat_body("a", temperature=3), (
            "invalid_request_error", "temperature", "decimal_above_max_value")),
        ("/chat/completions", chat_body("a", service_tier="vip"), (
            "invalid_request_error", "service_tier", "invalid_value")),
        ("/chat/completions", chat_body("a", tools=[{"type": "function"}]), (
            "invalid_request_error", "tools[0].function", "missing_required_parameter")),
        ("/chat/completions", chat_body("a", logprobs=True), (
            "invalid_request_error", "logprobs", "unsupported_parameter")),
        ("/responses", {"model": "m"}, ("invalid_request_error", "input", "missing_required_parameter")),
        ("/responses", {"model": "m", "input": "a", "max_output_tokens": 1}, (
            "invalid_request_error", "max_output_tokens", "integer_below_min_value")),
        ("/embeddings", {"model": "m"}, ("invalid_request_error", "input", "missing_required_parameter")),
        ("/embeddings", {"model": "m", "input": ""}, ("invalid_request_error", None, None)),
        ("/embeddings", {"model": "m", "input": "a", "encoding_format": "hex"}, (
            "invalid_request_error", "encoding_format", "invalid_value")),
        ("/audio/speech", {"model": "tts-1", "voice": "coral", "input": "a"}, (
            "invalid_request_error", "response_format", "unsupported_value")),
        ("/audio/speech", {"model": "tts-1", "voice": "coral", "input": "a" * 4097}, (
            "invalid_request_error", "input", "string_above_max_length")),
        ("/audio/speech", {"model": "tts-1", "input": "a"}, (
            "invalid_request_error", "voice", "missing_required_parameter")),
    ],
)  # fmt: skip
def test_wrong_requests_get_the_providers_error(
    sim: Simulator, path: str, body: Any, error: tuple[str | None, ...]
) -> None:
    """A wrong request gets status 400 and an error with message, type, param and code."""
    response = post(sim, path, body)
    told = response.json()["error"]

    assert response.status_code == 400
    assert set(told) == {"message", "type", "param", "code"}
    assert (told["type"], told["param"], told["code"]) == error
    assert response.headers["x-request-id"].startswith("req_")


def test_other_paths_and_missing_keys_are_refused(sim: Simulator) -> None:
    """A request without a key gets 401, an unknown path 404, a wrong method 405, all in the provider's shape."""
    no_key = httpx.post(f"{sim.url}/embeddings", json={"model": "m", "input": "a"})
    unknown = post(sim, "/images", {})
    wrong_method = httpx.get(f"{sim.url}/embeddings")

    assert [one.status_code for one in (no_key, unknown, wrong_method)] == [401, 404, 405]
    assert {one.json()["error"]["type"] for one in (no_key, unknown, wrong_method)} == {"invalid_request_error"}


def test_a_request_it_cannot_read_is_an_error_that_says_so(sim: Simulator) -> None:
    """Nonsense deep in a request is answered in the provider's shape, and the next request works."""
    odd = post(sim, "/chat/completions", chat_body("a", stop=5))
    good = post(sim, "/chat/completions", chat_body("a"))

    assert (odd.status_code, good.status_code) == (500, 200)
    assert odd.json()["error"]["message"].startswith("The simulator cannot read this request to /v1/chat/completions")


def test_requests_are_recorded_as_they_came_in(sim: Simulator) -> None:
    """Method, path, headers and body bytes of every request are kept, in their order."""
    sim.forget()
    body = json.dumps(chat_body("Hi?"), indent=3).encode()
    post(sim, "/chat/completions", body, **{"X-Own": "1"})
    with OpenAI(base_url=sim.url, api_key="secret") as client:
        client.embeddings.create(model="text-embedding-3-small", input="a")

    first, second = sim.requests
    assert (first.method, first.path, first.body) == ("POST", "/v1/chat/completions", body)
    assert (first.header("x-own"), first.header("absent")) == ("1", None)
    assert (second.path, second.json()["input"]) == ("/v1/embeddings", "a")
    assert second.header("Authorization") == "Bearer secret"


def test_an_unknown_model_answers_under_its_own_name(client: OpenAI) -> None:
    """Models that are not listed are answered, without an invented snapshot."""
    body = {**chat_body("Hi?"), "model": "acme-large"}

    assert client.chat.completions.create(**body).model == "acme-large"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**body, extra_headers={"x-stagelight-fault": "model_not_found"})
