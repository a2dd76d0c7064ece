"""The released profile is what the official instrumentation 1.3b0 emits; every difference is listed with its reason.

Both run on the same calls of the real client, one after the other, each with its own providers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import openai
import pytest
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor as OfficialInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.integrations.openai import OpenAIInstrumentor
from stagelight.sim import Simulator
from stagelight.testing import capture

CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What do tides do?"}]}
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]

Use = Callable[[openai.OpenAI], Any]


def chat_with_everything(client: openai.OpenAI) -> None:
    """A chat completion with every parameter that is recorded."""
    client.chat.completions.create(
        **CHAT, temperature=0.2, top_p=0.5, max_tokens=20, stop=["END"], seed=1, n=2, frequency_penalty=0.1,
        presence_penalty=0.1, response_format={"type": "json_object"}, service_tier="flex",
    )  # fmt: skip


def chat_with_tools(client: openai.OpenAI) -> None:
    """A chat completion that ends with a tool call."""
    client.chat.completions.create(**CHAT, tools=TOOLS, tool_choice="required")  # type: ignore[call-overload]


def chat_raw(client: openai.OpenAI) -> None:
    """A raw response."""
    client.chat.completions.with_raw_response.create(**CHAT).parse()


def chat_refused(client: openai.OpenAI) -> None:
    """A request that the provider refuses."""
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="gpt-4o-mini", messages=[])


def stream_with_usage(client: openai.OpenAI) -> None:
    """A stream read to its end, with usage."""
    list(client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))


def stream_without_usage(client: openai.OpenAI) -> None:
    """A stream read to its end, without usage."""
    list(client.chat.completions.create(**CHAT, stream=True))


def stream_closed(client: openai.OpenAI) -> None:
    """A stream that the caller leaves."""
    with client.chat.completions.create(**CHAT, stream=True) as stream:
        next(stream)


def stream_that_fails(client: openai.OpenAI) -> None:
    """A stream that breaks after two chunks."""
    fault = {"x-stagelight-fault": "stream_error;after=2"}
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(**CHAT, stream=True, extra_headers=fault))


def response(client: openai.OpenAI) -> None:
    """The responses API."""
    client.responses.create(model="gpt-4o-mini", input="Hi", max_output_tokens=30, temperature=0.1)


def response_stream(client: openai.OpenAI) -> None:
    """The responses API, streamed."""
    list(client.responses.create(model="gpt-4o-mini", input="Hi", stream=True))


def embeddings(client: openai.OpenAI) -> None:
    """Embeddings as a caller asks for them who cares for nothing."""
    client.embeddings.create(model="text-embedding-3-small", input="tides")


def embeddings_with_everything(client: openai.OpenAI) -> None:
    """Embeddings with every parameter that is recorded."""
    client.embeddings.create(model="text-embedding-3-small", input="tides", dimensions=8, encoding_format="float")


USES: tuple[Use, ...] = (
    chat_with_everything,
    chat_with_tools,
    chat_raw,
    chat_refused,
    stream_with_usage,
    stream_without_usage,
    stream_closed,
    stream_that_fails,
    response,
    response_stream,
    embeddings,
    embeddings_with_everything,
)


class Difference(NamedTuple):
    """One thing that only one of the two emits."""

    where: Literal["span", "metric"]
    name: str
    emitted_by: Literal["official", "ours"]
    reason: str


_FINGERPRINT = "openai.response.system_fingerprint"

DIFFERENCES = (
    Difference("span", _FINGERPRINT, "official", "Nothing reads it, and as a label it has no bound."),
    Difference("metric", _FINGERPRINT, "official", "A label without bound: the provider changes it at will."),
    Difference("span", "openai.api.type", "official", "The two APIs are the same operation for cost and latency."),
    Difference("span", a.GEN_AI_REQUEST_STOP_SEQUENCES, "official", "May carry content; off until redaction exists."),
    Difference("span", a.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, "ours", "A count of 0 that was reported is known."),
    Difference("span", a.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS, "ours", "A count of 0 that was reported is known."),
    Difference("span", a.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, "ours", "A count of 0 that was reported is known."),
    Difference("span", a.HTTP_RESPONSE_STATUS_CODE, "ours", "Many clients raise one class for every status."),
    Difference("metric", a.OPENAI_RESPONSE_SERVICE_TIER, "ours", "Theirs has it for plain chats only, ours always."),
)
"""All differences in names; values, kinds, units, instruments and buckets do not differ at all."""

DESCRIPTION = "Status descriptions are the exceptions' messages, which carry prompts and keys: ours stay empty."

VOLATILE = frozenset({a.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK})


class Emitted(NamedTuple):
    """What one instrumentation made of one use."""

    spans: tuple[ReadableSpan, ...]
    metrics: dict[str, Metric]


def read(reader: InMemoryMetricReader) -> dict[str, Metric]:
    """The metrics with upstream names, by name."""
    data = reader.get_metrics_data()
    found = [
        metric
        for resource in (data.resource_metrics if data is not None else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]
    return {metric.name: metric for metric in found if not metric.name.startswith("stagelight.")}


def official(use: Use, client: openai.OpenAI) -> Emitted:
    """What the official package emits."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(shutdown_on_exit=False), MeterProvider([reader], shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = OfficialInstrumentor()
    instrumentor.instrument(tracer_provider=tracers, meter_provider=meters)
    try:
        use(client)
        return Emitted(tuple(exporter.get_finished_spans()), read(reader))
    finally:
        instrumentor.uninstrument()


def ours(use: Use, client: openai.OpenAI, host: str) -> Emitted:
    """What we emit."""
    instrumentor = OpenAIInstrumentor()
    instrumentor.switch_on()
    try:
        with capture(provider_hosts={host: "openai"}) as captured:
            use(client)
        return Emitted(captured.spans, read(captured._reader))
    finally:
        instrumentor.uninstrument()


@pytest.fixture(scope="module")
def pairs() -> dict[str, tuple[Emitted, Emitted]]:
    """What both make of every use: official, ours."""
    made: dict[str, tuple[Emitted, Emitted]] = {}
    with Simulator(seed=7, latency="instant") as simulator:
        host = simulator.url.split("/")[2]
        with openai.OpenAI(base_url=simulator.url, api_key="key", max_retries=0) as client:
            for use in USES:
                simulator.forget()
                theirs = official(use, client)
                simulator.forget()
                made[use.__name__] = (theirs, ours(use, client, host))
    return made


@pytest.fixture(params=[use.__name__ for use in USES])
def pair(request: pytest.FixtureRequest, pairs: dict[str, tuple[Emitted, Emitted]]) -> tuple[Emitted, Emitted]:
    """What both make of one use."""
    return pairs[request.param]


def listed(where: str, emitted_by: str) -> set[str]:
    """Names that only one of the two may emit."""
    return {row.name for row in DIFFERENCES if (row.where, row.emitted_by) == (where, emitted_by)}


def upstream(attributes: Any) -> dict[str, Any]:
    """The attributes with upstream names."""
    return {key: value for key, value in (attributes or {}).items() if not key.startswith("stagelight.")}


def test_spans(pair: tuple[Emitted, Emitted]) -> None:
    """Names, kinds, statuses and upstream attributes are the same but for the listed differences."""
    theirs, mine = pair
    assert len(theirs.spans) == len(mine.spans) == 1
    (their_span,), (my_span,) = theirs.spans, mine.spans
    their_attributes, my_attributes = upstream(their_span.attributes), upstream(my_span.attributes)
    same = (their_attributes.keys() & my_attributes.keys()) - VOLATILE

    assert (my_span.name, my_span.kind) == (their_span.name, their_span.kind)
    assert my_span.status.status_code == their_span.status.status_code
    assert my_span.status.description is None, DESCRIPTION
    assert {key: my_attributes[key] for key in same} == {key: their_attributes[key] for key in same}
    assert their_attributes.keys() - my_attributes.keys() <= listed("span", "official")
    assert my_attributes.keys() - their_attributes.keys() <= listed("span", "ours")


def series(metric: Metric, left_out: set[str]) -> list[tuple[Any, ...]]:
    """Attributes, number of values and bounds of a metric's points."""
    return sorted(
        (
            tuple(sorted((key, value) for key, value in (point.attributes or {}).items() if key not in left_out)),
            getattr(point, "count", None),
            tuple(getattr(point, "explicit_bounds", ())),
        )
        for point in metric.data.data_points
    )


def test_metrics(pair: tuple[Emitted, Emitted]) -> None:
    """Names, units, instruments, labels, counts and buckets are the same but for the listed differences."""
    theirs, mine = pair
    left_out = listed("metric", "official") | listed("metric", "ours")

    assert mine.metrics.keys() == theirs.metrics.keys()
    for name, their_metric in theirs.metrics.items():
        my_metric = mine.metrics[name]
        assert (my_metric.unit, type(my_metric.data)) == (their_metric.unit, type(their_metric.data))
        assert series(my_metric, left_out) == series(their_metric, left_out)


def test_every_listed_difference_exists(pairs: dict[str, tuple[Emitted, Emitted]]) -> None:
    """A difference that is gone leaves the list."""

    def names(emitted: Emitted, where: str) -> set[str]:
        if where == "span":
            return {key for span in emitted.spans for key in upstream(span.attributes)}
        return {
            key for metric in emitted.metrics.values() for point in metric.data.data_points for key in point.attributes
        }

    seen = {
        (where, name, side)
        for theirs, mine in pairs.values()
        for where in ("span", "metric")
        for side, own, other in (("official", theirs, mine), ("ours", mine, theirs))
        for name in names(own, where) - names(other, where)
    }

    assert seen == {(row.where, row.name, row.emitted_by) for row in DIFFERENCES}


def test_the_comparison_sees_all_client_metrics(pairs: dict[str, tuple[Emitted, Emitted]]) -> None:
    """The uses make every metric of the client's that the released profile has."""
    seen = {name for _, mine in pairs.values() for name in mine.metrics}

    assert seen == {
        m.GEN_AI_CLIENT_OPERATION_DURATION,
        m.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK,
        m.GEN_AI_CLIENT_OPERATION_TIME_PER_OUTPUT_CHUNK,
        m.GEN_AI_CLIENT_TOKEN_USAGE,
    }
