"""The simulator against AWS's own service descriptions, as botocore brings them: every member, and what is required."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import botocore.session
import httpx
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from aws_clients import FAMILIES, HAIKU, LONG, AwsWorld
from botocore.eventstream import EventStreamBuffer
from exactness import assert_exact
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from stagelight.sim import Simulator

RUNTIME = botocore.session.get_session().get_service_model("bedrock-runtime")
POLLY = botocore.session.get_session().get_service_model("polly")
QUESTION = [{"role": "user", "content": [{"text": "What do tides do? Tides rise and fall twice a day."}]}]
WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city",
    "inputSchema": {"json": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
}
TOOLS = {
    "toolConfig": {"tools": [{"toolSpec": WEATHER}]},
    "messages": [{"role": "user", "content": [{"text": "What is the weather in Paris?"}]}],
}
GUARDED = {"guardrailConfig": {"guardrailIdentifier": "abc", "guardrailVersion": "1", "trace": "enabled"}}
REQUESTS: list[tuple[str, dict[str, Any], str]] = [
    (HAIKU, {}, ""),
    (HAIKU, TOOLS, ""),
    (HAIKU, {"system": [{"text": LONG}, {"cachePoint": {"type": "default", "ttl": "1h"}}]}, ""),
    (HAIKU, {"inferenceConfig": {"maxTokens": 2, "stopSequences": ["rise"]}}, ""),
    (HAIKU, {"serviceTier": {"type": "flex"}, "performanceConfig": {"latency": "optimized"}}, ""),
    (HAIKU, GUARDED, "content_filter;after=2"),
    ("openai.gpt-oss-20b-1:0", {}, ""),
]


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(seed=7, latency="instant") as simulator:
        yield simulator


@pytest.fixture(scope="module")
def http(sim: Simulator) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sim.origin, headers={"authorization": "Bearer any"}, timeout=30) as client:
        yield client


def post(http: httpx.Client, model: str, action: str, body: dict[str, Any], fault: str = "") -> httpx.Response:
    """Ask for an action of a model."""
    headers = {"x-stagelight-fault": fault} if fault else {}
    return http.post(f"/model/{quote(model, safe='')}/{action}", json=body, headers=headers)


KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str, "integer": int, "long": int, "float": (int, float), "double": (int, float), "boolean": bool,
    "blob": str, "timestamp": (int, float, str),
}  # fmt: skip


def problems(value: Any, shape: Any, where: str = "$") -> list[str]:
    """What a body has or lacks against a shape of the service description."""
    kind = shape.type_name
    if kind == "structure":
        return _of_structure(value, shape, where)
    if kind in {"list", "map"}:
        items = value.items() if kind == "map" else enumerate(value)
        inside = shape.value if kind == "map" else shape.member
        return [one for at, item in items for one in problems(item, inside, f"{where}.{at}")]
    if not isinstance(value, KINDS[kind]):
        return [f"{where} is {value!r}, not a {kind}"]
    enum = getattr(shape, "enum", [])
    return [f"{where} is {value!r}, not one of {enum}"] if enum and value not in enum else []


def _of_structure(value: Any, shape: Any, where: str) -> list[str]:
    if getattr(shape, "is_document_type", False):
        return []
    if not isinstance(value, dict):
        return [f"{where} is no record"]
    found = [f"{where}.{name} is unknown" for name in value if name not in shape.members]
    found += [f"{where}.{name} is missing" for name in shape.required_members if name not in value]
    if getattr(shape, "is_tagged_union", False) and len(value) != 1:
        found.append(f"{where} has {len(value)} members of a union")
    known = [name for name in value if name in shape.members]
    return found + [one for name in known for one in problems(value[name], shape.members[name], f"{where}.{name}")]


def messages(data: bytes) -> list[Any]:
    """The messages of an event stream; the client's buffer checks both checksums of each."""
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return list(buffer)


def test_the_comparison_finds_what_is_wrong() -> None:
    """Unknown and missing members, wrong types and values, and unions with two members are found."""
    body = {"output": {"message": {"role": "nobody", "content": [{"text": 1}]}}, "stopReason": "end_turn", "more": 1}
    union = {"text": "a", "toolUse": {}}
    shapes = [RUNTIME.shape_for(name) for name in ("ConverseResponse", "ContentBlock")]

    assert [one.split(" is ")[-1].split(",")[0] for one in problems(body, shapes[0])] == [
        "unknown", "missing", "missing", "'nobody'", "1",
    ]  # fmt: skip
    assert problems(union, shapes[1])[0] == "$ has 2 members of a union"


@pytest.mark.parametrize(("model", "more", "fault"), REQUESTS)
def test_converse_is_what_the_description_says(
    http: httpx.Client, model: str, more: dict[str, Any], fault: str
) -> None:
    """Answers have only members of the description, and all that are required; so has every event of a stream."""
    body = {"messages": QUESTION, **more}
    plain = post(http, model, "converse", body, fault)
    streamed = post(http, model, "converse-stream", body, fault)
    events = RUNTIME.shape_for("ConverseStreamOutput").members

    assert problems(plain.json(), RUNTIME.shape_for("ConverseResponse")) == []
    assert streamed.headers["content-type"] == "application/vnd.amazon.eventstream"
    told = [(one.headers[":event-type"], json.loads(one.payload)) for one in messages(streamed.content)]
    assert [problems(fields, events[kind]) for kind, fields in told] == [[]] * len(told)
    assert [kind for kind, _ in told][:1] + [kind for kind, _ in told][-2:] == [
        "messageStart",
        "messageStop",
        "metadata",
    ]
    assert told[-2][1]["stopReason"] == plain.json()["stopReason"]


def test_a_stream_says_what_the_whole_answer_says(sim: Simulator) -> None:
    """The client puts the same answer together from events as it gets in one piece."""
    client = AwsWorld("sync", sim, "bedrock-runtime", "").sync_client()
    whole = client.converse(modelId=HAIKU, messages=QUESTION)
    events = list(client.converse_stream(modelId=HAIKU, messages=QUESTION)["stream"])
    texts = [event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event]

    assert "".join(texts) == whole["output"]["message"]["content"][0]["text"]
    assert events[-1]["metadata"]["usage"] == whole["usage"]


@pytest.mark.parametrize("model", FAMILIES)
def test_bodies_of_families(http: httpx.Client, model: str) -> None:
    """Bodies that have a model of some official client match it; chunks are framed as the description says."""
    body, _, _ = FAMILIES[model]
    plain = post(http, model, "invoke", body)
    told = messages(post(http, model, "invoke-with-response-stream", body).content)
    events = RUNTIME.shape_for("ResponseStream").members

    assert {one.headers[":event-type"] for one in told} == {"chunk"}
    assert [problems(json.loads(one.payload), events["chunk"]) for one in told] == [[]] * len(told)
    chunks = [json.loads(b64decode(json.loads(one.payload)["bytes"])) for one in told]
    metrics = chunks[-1].pop("amazon-bedrock-invocationMetrics")
    assert set(metrics) == {"inputTokenCount", "outputTokenCount", "invocationLatency", "firstByteLatency"}
    if "anthropic" in model:
        Message.model_validate(plain.json())
        for chunk in chunks:
            assert_exact(chunk, RawMessageStreamEvent)
    elif "openai" in model:
        ChatCompletion.model_validate(plain.json())
        for chunk in chunks:
            ChatCompletionChunk.model_validate(chunk)
    elif "nova" in model:
        usage = {"cacheReadInputTokenCount", "cacheWriteInputTokenCount"}
        assert usage <= plain.json()["usage"].keys()


@pytest.mark.parametrize("fault", ["rate_limit", "server_error;status=503", "model_not_found"])
def test_errors_are_those_of_the_description(http: httpx.Client, fault: str) -> None:
    """An error's type is one that the operation declares, with its status."""
    refused = post(http, HAIKU, "converse", {"messages": QUESTION}, fault)
    declared = {shape.name: shape for shape in RUNTIME.operation_model("Converse").error_shapes}
    shape = declared[refused.headers["x-amzn-errortype"]]

    assert shape.metadata["error"]["httpStatusCode"] == refused.status_code
    assert problems(refused.json(), shape) == []


def test_an_error_inside_a_stream_is_declared(http: httpx.Client) -> None:
    """The message that ends a failing stream is an exception that the description has."""
    told = messages(post(http, HAIKU, "converse-stream", {"messages": QUESTION}, "stream_error;after=2").content)
    last = told[-1]
    shape = RUNTIME.shape_for("ConverseStreamOutput").members[last.headers[":exception-type"]]

    assert last.headers[":message-type"] == "exception"
    assert problems(json.loads(last.payload), shape) == []


def test_the_same_request_gets_the_same_bytes() -> None:
    """Two simulators of one seed answer alike, ids and checksums included."""
    seen = []
    for _ in range(2):
        with (
            Simulator(seed=3, latency="instant") as simulator,
            httpx.Client(base_url=simulator.origin, headers={"authorization": "Bearer any"}) as client,
        ):
            answers = [
                post(client, HAIKU, action, {"messages": QUESTION}) for action in ("converse", "converse-stream")
            ]
            seen.append([(answer.headers["x-amzn-requestid"], answer.content) for answer in answers])

    assert seen[0] == seen[1]


@pytest.mark.parametrize("audio_format", ["pcm", "mp3", "json"])
def test_speech_is_what_the_description_says(http: httpx.Client, audio_format: str) -> None:
    """Speech has the headers of the description, and audio of the length of the text."""
    asked = {"Text": "Tides rise & fall.", "VoiceId": "Joanna", "OutputFormat": audio_format}
    answer = http.post("/v1/speech", json=asked)
    members = POLLY.shape_for("SynthesizeSpeechOutput").members

    assert answer.headers[members["RequestCharacters"].serialization["name"]] == str(len(asked["Text"]))
    assert answer.headers["content-type"] in {"audio/pcm", "audio/mpeg", "application/x-json-stream"}
    assert len(answer.content) > 100


@pytest.mark.parametrize(
    "asked", [{"Text": "x" * 3001}, {"SampleRate": "11025"}, {"TextType": "ssml"}, {"OutputFormat": "wav"}]
)
def test_errors_of_speech_are_declared(http: httpx.Client, asked: dict[str, str]) -> None:
    """A refused text has an error that the operation declares, or that the service has for wrong values."""
    refused = http.post("/v1/speech", json={"Text": "Hi", "VoiceId": "Joanna", "OutputFormat": "pcm", **asked})
    declared = {shape.name for shape in POLLY.operation_model("SynthesizeSpeech").error_shapes}

    assert refused.status_code == 400
    assert refused.headers["x-amzn-errortype"] in declared | {"ValidationException"}


def test_a_request_without_a_signature_is_refused(sim: Simulator) -> None:
    """Neither signature nor key: the request is refused, with AWS's own words."""
    with httpx.Client(base_url=sim.origin) as client:
        refused = post(client, HAIKU, "converse", {"messages": QUESTION})

    assert (refused.status_code, refused.headers["x-amzn-errortype"]) == (401, "UnrecognizedClientException")
