"""Usage as Google words it: read as the price library reads it, and as it was recorded from the provider."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import genai_prices
import pytest
from google import genai
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st
from stagelight import cost
from stagelight.conventions import attributes as a
from stagelight.facts import Priced, Usage
from stagelight.integrations._google_answers import embedded, generated, usage_of_body
from stagelight.testing import capture

CLIENT = "google_genai"


def answer(usage: Any, **more: Any) -> dict[str, Any]:
    """An answer as the provider sends it."""
    content = {"parts": [{"text": "Hi"}], "role": "model"}
    told = {
        "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
        "modelVersion": "gemini-2.5-flash",
    }
    return {**told, "usageMetadata": usage, "responseId": "r1", **more}


def details(**counts: int) -> list[dict[str, Any]]:
    """Counts by modality."""
    return [{"modality": name, "tokenCount": number} for name, number in counts.items()]


USAGES: list[tuple[Any, Usage | None]] = [
    # Recorded from the provider on 2026-07-20: the cassette test_reasoning_and_token_counts of
    # https://github.com/open-telemetry/opentelemetry-python-genai (Apache-2.0).
    (
        {
            "promptTokenCount": 8,
            "candidatesTokenCount": 29,
            "totalTokenCount": 1147,
            "promptTokensDetails": details(TEXT=8),
            "thoughtsTokenCount": 1110,
        },
        Usage(input_tokens=8, output_tokens=1139, reasoning_tokens=1110),
    ),
    (
        {"promptTokenCount": 8, "candidatesTokenCount": 10, "totalTokenCount": 18},
        Usage(input_tokens=8, output_tokens=10),
    ),
    (
        {
            "promptTokenCount": 100,
            "toolUsePromptTokenCount": 20,
            "candidatesTokenCount": 5,
            "cachedContentTokenCount": 60,
            "totalTokenCount": 125,
        },
        Usage(input_tokens=120, output_tokens=5, cache_read_tokens=60),
    ),
    (
        {
            "promptTokenCount": 400,
            "promptTokensDetails": details(TEXT=100, AUDIO=200, IMAGE=60, DOCUMENT=40),
            "cachedContentTokenCount": 150,
            "cacheTokensDetails": details(TEXT=50, AUDIO=100),
            "candidatesTokenCount": 70,
            "candidatesTokensDetails": details(TEXT=20, AUDIO=50),
            "totalTokenCount": 470,
        },
        Usage(
            input_tokens=400,
            output_tokens=70,
            cache_read_tokens=150,
            audio_input_tokens=200,
            image_input_tokens=100,
            audio_output_tokens=50,
            audio_cache_read_tokens=100,
        ),
    ),
    # A blocked prompt: nothing was made, which is told by silence.
    ({"promptTokenCount": 8, "totalTokenCount": 8}, Usage(input_tokens=8, output_tokens=0)),
    ({"promptTokenCount": 8}, Usage(input_tokens=8)),
    # no counts
    ({"promptTokenCount": 10**30, "candidatesTokenCount": -1}, Usage()),
    ({}, Usage()),
    (None, None),
]


@pytest.mark.parametrize(("told", "usage"), USAGES)
def test_counts(told: Any, usage: Usage | None) -> None:
    """Thoughts are part of the output, what tools gave of the input."""
    assert generated(answer(told)).usage == usage


@pytest.mark.parametrize(("told", "usage"), [row for row in USAGES if row[1] != Usage()])
def test_counts_of_the_clients_objects(told: Any, usage: Usage | None) -> None:
    """The client's objects read as the JSON they are made of."""
    assert generated(types.GenerateContentResponse.model_validate(answer(told))).usage == usage


def test_embeddings_are_counted_as_recorded() -> None:
    """The usage at the end of the body is found without reading the vectors again."""
    # Recorded from the provider on 2026-06-26: the cassette embedding_conformance of
    # https://github.com/open-telemetry/opentelemetry-python-genai (Apache-2.0).
    told = {"promptTokenCount": 9, "promptTokenDetails": details(TEXT=9)}
    body = json.dumps({"embeddings": [{"values": [0.1] * 3072}], "usageMetadata": told}, indent=2)

    assert usage_of_body(body) == usage_of_body(json.loads(body)) == Usage(input_tokens=9)
    assert [usage_of_body(broken) for broken in ('{"usageMetadata": ', '"usageMetadata"', "", 3)] == [None] * 4


def test_embeddings_of_vertex() -> None:
    """Vertex AI counts the tokens of every text, as a number with a fraction."""
    vectors = [{"values": [0.1, 0.2], "statistics": {"truncated": False, "token_count": count}} for count in (3.0, 4.0)]
    told = embedded({"embeddings": vectors})

    assert (told.usage, told.embedding_dimensions) == (Usage(input_tokens=7), 2)
    assert embedded({"embeddings": [{"values": [0.1]}]}).usage is None


TOKENS = st.integers(0, 300_000)


@given(
    texts=TOKENS,
    audio=TOKENS,
    images=TOKENS,
    made=TOKENS,
    thoughts=TOKENS,
    tools=TOKENS,
    cached=st.floats(0, 1),
    model=st.sampled_from(["gemini-2.5-flash", "gemini-2.5-pro", "gemini-2.5-flash-lite", "gemini-3.1-flash-lite"]),
)
def test_costs_are_those_of_the_price_library(
    *, texts: int, audio: int, images: int, made: int, thoughts: int, tools: int, cached: float, model: str
) -> None:
    """For any usage the library reads from the same answer, the cost is the same to the last digit."""
    read_text, read_audio = int(texts * cached), int(audio * cached)
    told = {
        "promptTokenCount": texts + audio + images,
        "promptTokensDetails": details(TEXT=texts, AUDIO=audio, IMAGE=images),
        "cachedContentTokenCount": read_text + read_audio,
        "cacheTokensDetails": details(TEXT=read_text, AUDIO=read_audio),
        "candidatesTokenCount": made,
        "candidatesTokensDetails": details(TEXT=made),
        "thoughtsTokenCount": thoughts,
        "toolUsePromptTokenCount": tools,
        "toolUsePromptTokensDetails": details(TEXT=tools),
        "totalTokenCount": texts + audio + images + made + thoughts + tools,
    }
    body = answer(told, modelVersion=model)
    extracted = genai_prices.extract_usage(body, provider_id="google")
    price = genai_prices.calc_price(
        extracted.usage, model_ref=model, provider_id="google", genai_request_timestamp=datetime.now(UTC)
    )
    ours = cost.price(generated(body).usage, provider="gcp.gemini", request_model=model)

    if any((texts, audio, images, made, thoughts, tools)):
        assert ours.amount == price.total_price  # type: ignore[union-attr]
        assert ours.status == ("estimated" if read_text + read_audio and images else "exact")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("told", "headers", "tier"),
    [
        ({"trafficType": "ON_DEMAND"}, {}, "standard"),
        ({"trafficType": "ON_DEMAND_FLEX"}, {}, "flex"),
        ({"trafficType": "PROVISIONED_THROUGHPUT"}, {}, "provisioned_throughput"),
        ({}, {"x-gemini-service-tier": "priority"}, "priority"),
        ({"serviceTier": "flex"}, {}, "flex"),
        ({}, {}, None),
    ],
)
def test_tiers(told: Any, headers: Mapping[str, str], tier: str | None) -> None:
    """The tier is in the usage of Vertex AI and in a header of the Gemini API."""
    assert generated(answer(told, sdkHttpResponse={"headers": headers})).service_tier == tier


def test_resource_names_of_models() -> None:
    """Some answers give the model's resource name: recorded as it is told, its price is the model's."""
    told = generated(
        answer({"promptTokenCount": 100, "candidatesTokenCount": 10}, modelVersion="models/gemini-2.5-pro")
    )
    asked = {"provider": "gcp.gemini", "request_model": "gemini-2.5-pro"}
    price = cost.price(told.usage, **asked, response_model=told.model)

    assert told.model == "models/gemini-2.5-pro"
    assert isinstance(price, Priced)
    assert (price, price.status) == (cost.price(told.usage, **asked), "exact")


def test_reasons() -> None:
    """Unspecified reasons are none; those of several candidates stand in their order."""
    candidates = [{"index": 1, "finishReason": "MAX_TOKENS"}, {"index": 0, "finishReason": "FINISH_REASON_UNSPECIFIED"}]
    told = generated({"candidates": [*candidates, {"index": 2, "finishReason": "RECITATION"}]})

    assert (told.finish_reasons, told.length_cut) == (("length", "recitation"), True)
    assert generated({"promptFeedback": {"blockReason": "SAFETY"}}).finish_reasons == ("safety",)


def _mocked(**options: Any) -> Any:
    """A client whose server answers the same to everything."""
    name = "httpx2" if hasattr(genai._api_client, "httpx2") and genai._api_client.httpx2 else "httpx"
    http = importlib.import_module(name)
    told = answer({"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12})
    transport = http.MockTransport(lambda _: http.Response(200, json=told))
    return genai.Client(http_options={"client_args": {"transport": transport}}, **options)


def _vertex() -> Any:
    from google.auth.credentials import AnonymousCredentials

    credentials = AnonymousCredentials()
    credentials.token = "token"
    return _mocked(vertexai=True, project="p", location="europe-west1", credentials=credentials)


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("make", "provider", "host"),
    [
        (lambda: _mocked(api_key="key"), "gcp.gemini", "generativelanguage.googleapis.com"),
        (_vertex, "gcp.vertex_ai", "europe-west1-aiplatform.googleapis.com"),
    ],
)
def test_providers(make: Any, provider: str, host: str) -> None:
    """The Gemini API and Vertex AI are two providers with one price list."""
    with capture() as captured:
        client = make()  # a client that nobody holds closes itself
        client.models.generate_content(model="models/gemini-2.5-flash", contents="Hi")
    call = captured.call("llm")

    assert call.attributes[a.GEN_AI_PROVIDER_NAME] == provider
    assert call.attributes[a.SERVER_ADDRESS] == host
    assert a.SERVER_PORT not in call.attributes
    assert call.attributes[a.GEN_AI_REQUEST_MODEL] == "gemini-2.5-flash"
    assert (call.cost_status, call.attributes[a.STAGELIGHT_COST_MODEL]) == ("exact", "google/gemini-2.5-flash")


@pytest.mark.usefixtures("recorded")
def test_a_told_host_wins() -> None:
    """What the user says of a host comes before what the client was made for."""
    with capture(provider_hosts={"generativelanguage.googleapis.com": "acme"}) as captured:
        client = _mocked(api_key="key")
        client.models.generate_content(model="m", contents="Hi")

    assert captured.call("llm").attributes[a.GEN_AI_PROVIDER_NAME] == "acme"
