"""What the library really emits, with every fact set, is what the registry says it may and must emit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import pytest
import stagelight
from opentelemetry import context as otel_context
from opentelemetry.trace import StatusCode
from stagelight._bounds import LabelBounds
from stagelight._calls import Call
from stagelight._inbound import REQUEST_KEY, Inbound
from stagelight._labels import BoundedLabels
from stagelight._lifecycle import Attachment
from stagelight.conventions import attributes, metrics, spans
from stagelight.conventions._registry import Attribute, Signal
from stagelight.conventions._rules import load_registry
from stagelight.facts import Identity, RateLimit, Request, Response, Retrieved, Stage, Usage
from stagelight.testing import Captured, capture

REGISTRY = load_registry()
ATTRIBUTES = {row.key: row for row in REGISTRY.attributes}
PYTHON_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "int": int,
    "double": (int, float),
    "boolean": bool,
    "string[]": tuple,
    "template[double]": float,
}

SERVER = Request(provider="openai", model="gpt-4o-mini", server_address="api.openai.com", server_port=8443)
USAGE = Usage(
    input_tokens=100,
    output_tokens=50,
    cache_read_tokens=10,
    cache_write_tokens={"5m": 5},
    reasoning_tokens=5,
    audio_input_tokens=10,
    audio_output_tokens=10,
    image_input_tokens=10,
    image_output_tokens=10,
    audio_cache_read_tokens=2,
    text_input_tokens=70,
    text_output_tokens=20,
    searches=1,
    tools=1,
    requests=1,
    compute_seconds=1.5,
    counted=True,
)
ANSWER = Response(
    model="gpt-4o-mini-2024-07-18",
    id="response-1",
    finish_reasons=("stop",),
    service_tier="default",
    usage=USAGE,
    rate_limit=RateLimit(remaining_requests=10, remaining_tokens=1000),
    http_status=500,
    server_time_s=1.5,
    guardrail="passed",
)
FOUND = Retrieved(count=2, scores=(0.9, 0.5), metric="cosine", higher_is_better=True)

CALLS: Mapping[Stage, tuple[Request, Response | None]] = {
    "embedding": (
        SERVER._replace(model="text-embedding-3-small", encoding_formats=("float",)),
        Response(model="text-embedding-3-small", usage=Usage(input_tokens=5), embedding_dimensions=3),
    ),
    "retrieval": (
        Request(provider="qdrant", source="docs", top_k=5, mode="hybrid", filtered=True),
        Response(retrieved=FOUND),
    ),
    "rerank": (SERVER, Response(retrieved=FOUND, usage=Usage(searches=1))),
    "llm": (
        SERVER._replace(
            stream=True,
            temperature=0.5,
            top_p=0.9,
            top_k=3,
            frequency_penalty=0.1,
            presence_penalty=0.1,
            max_tokens=10,
            stop_sequences=(".",),
            seed=7,
            choice_count=2,
            reasoning_level="low",
            output_type="json",
            conversation_id="conversation-1",
            previous_response_id="response-0",
            service_tier="flex",
        ),
        ANSWER,
    ),
    "tts": (
        SERVER._replace(
            model="tts-1", stream=True, output_type="speech", voice="coral", audio_format="wav", sample_rate=24_000
        ),
        Response(id="speech-1", usage=Usage(characters=12, audio_seconds=2.0), audio_bytes=96_000, credits=12),
    ),
    "stt": (SERVER._replace(model="whisper-1"), Response(usage=Usage(audio_seconds=3.0))),
    "tool": (Request(name="lookup", tool_type="function", tool_call_id="call-1"), None),
    "memory": (Request(name="profile", provider="mem0"), None),
    "parse": (Request(name="manual"), None),
    "chunk": (Request(name="manual"), None),
    "enrich": (Request(), None),
    "store": (Request(name="docs", provider="qdrant"), None),
}


class RefusedError(Exception):
    """What a provider's client raises."""


def call(stage: Stage, *, error: Exception | None = None) -> None:
    """Make one call with every fact that its stage can have."""
    request, response = CALLS[stage]
    made = Call(stage, request).start()
    if request.stream:
        list(made.stream(["first", "second"]))
    made.absorb(response)
    if attributes.STAGELIGHT_ATTEMPTS in spans.SPAN_OF_STAGE[stage].attributes:
        made.attempts = 2
    if error is None:
        made.end()
    else:
        made.fail(error)


@pytest.fixture(scope="module", params=["released", "latest"])
def captured(request: pytest.FixtureRequest) -> Iterator[Captured]:
    """Every stage once, ended and failed, in a turn with all its facts; and all facts that are no calls."""
    owner = {"feature": "help", "variant": "B", "tenant": "acme", "route": "/answers"}
    settings = {"semconv": request.param, "id_key": "0123456789abcdef" * 4, "cost_names": "upstream"}
    with capture(**settings) as everything:
        request = otel_context.set_value(REQUEST_KEY, Inbound("request-1", Identity()))
        with (
            Attachment(request),
            stagelight.turn("answer", conversation_id="conversation-1", user_id="u", session_id="s", **owner),
        ):
            for stage in CALLS:
                call(stage)
                call(stage, error=RefusedError("no"))
            stagelight.cache("embedding", hit=True)
            everything.runtime.instruments.uninstrumented("api.openai.com", "httpx")
            stagelight.evaluation("groundedness", score=0.9, label="pass")
            stagelight.feedback(score=1, comment_theme="too long", kind="thumbs")
        with (
            stagelight.job("ingest", feature="help", tenant="acme"),
            stagelight.llm(provider="x", model="y") as unknown,
        ):
            unknown.usage(input_tokens=1)
        with pytest.raises(RefusedError), stagelight.turn("failing"):
            raise RefusedError
        yield everything


def wrong_attributes(where: str, found: Mapping[str, Any], allowed: Iterable[str]) -> list[str]:
    """Return the attributes that ``allowed`` does not contain or that are not of the registered type."""
    problems = []
    for key, value in found.items():
        row = registered(key)
        if row is None or row.key not in allowed:
            problems.append(f"{where}: {key} is not in the registry's row")
        elif not isinstance(value, PYTHON_TYPES[row.type]) or (isinstance(value, bool) and row.type != "boolean"):
            problems.append(f"{where}: {key} is {value!r}, not a {row.type}")
    return problems


def registered(key: str) -> Attribute | None:
    """Return the row of a key, or of the template it is made from."""
    template = ATTRIBUTES.get(key.rpartition(".")[0])
    return template if template is not None and template.is_template else ATTRIBUTES.get(key)


def required(signal: Signal) -> set[str]:
    """Return the keys that must be there."""
    return {reference.key for reference in REGISTRY.resolve(signal) if reference.level == "required"}


def test_every_stage_was_recorded(captured: Captured) -> None:
    """The fixture leaves no type of span out."""
    stages = {str((span.attributes or {})[attributes.STAGELIGHT_STAGE]) for span in captured.spans}

    assert stages == set(spans.SPAN_OF_STAGE)


def test_spans_carry_what_the_registry_says(captured: Captured) -> None:
    """Only registered attributes of the right type, all required ones, kind, name and status as registered."""
    problems = []
    for span in captured.spans:
        found = dict(span.attributes or {})
        kind = spans.SPAN_OF_STAGE[str(found[attributes.STAGELIGHT_STAGE])]
        problems += wrong_attributes(span.name, found, kind.attributes)
        problems += [f"{span.name}: {key} is missing" for key in kind.required if key not in found]
        name = " ".join(str(found.get(word.strip("{}"), "")) if "{" in word else word for word in kind.name.split())
        if (name.strip(), kind.kind) != (span.name, span.kind.name.lower()):
            problems.append(f"{span.name}: is {span.kind.name.lower()}, expected {kind.kind} {name}")
        if span.status.status_code != (StatusCode.ERROR if attributes.ERROR_TYPE in found else StatusCode.UNSET):
            problems.append(f"{span.name}: status {span.status.status_code} with error.type {found.get('error.type')}")

    assert problems == []


def test_events_carry_what_the_registry_says(captured: Captured) -> None:
    """Only registered attributes of the right type and all required ones."""
    rows = {row.name: row for row in REGISTRY.events}
    problems = []
    for event in captured.events:
        row = rows[event.name]
        problems += wrong_attributes(event.name, event.attributes, {each.key for each in REGISTRY.resolve(row)})
        problems += [f"{event.name}: {key} is missing" for key in sorted(required(row)) if key not in event.attributes]

    assert {event.name for event in captured.events} == set(rows)
    assert sorted(set(problems)) == []


def test_metrics_carry_what_the_registry_says(captured: Captured) -> None:
    """Only registered labels of the right type and all required ones; bounds as registered."""
    rows = {row.name: row for row in REGISTRY.metrics}
    problems = set[str]()
    for name, points in captured.metrics().items():
        row = rows[name]
        labels = {each.key for each in REGISTRY.resolve(row)}
        for point in points:
            problems |= set(wrong_attributes(name, point.attributes, labels))
            problems |= {f"{name}: {key} is missing" for key in required(row) if key not in point.attributes}
            if point.bounds != row.buckets:
                problems.add(f"{name}: bounds {point.bounds}")

    assert sorted(problems) == []


NOT_HERE = {
    metrics.STAGELIGHT_TELEMETRY_MADE,
    metrics.STAGELIGHT_TELEMETRY_DELIVERED,
    metrics.STAGELIGHT_TELEMETRY_DROPPED,
    metrics.STAGELIGHT_TELEMETRY_QUEUED,
    metrics.STAGELIGHT_INTERNAL_ERRORS,
}
"""Recorded only where telemetry is exported, or when something of ours has failed."""


def test_every_metric_of_the_profile_is_recorded(captured: Captured) -> None:
    """No registered metric is a promise only."""
    profile = captured.runtime.settings.semconv
    expected = {name for name, row in metrics.METRICS.items() if profile in row.profiles}

    assert set(captured.metrics()) - NOT_HERE == expected - NOT_HERE


NOT_FROM_FACTS = {
    *(key for key in ATTRIBUTES if key.startswith(("service.", "db."))),  # resource; integrations of databases
    attributes.STAGELIGHT_SIGNAL,  # labels of the metrics in NOT_HERE
    attributes.STAGELIGHT_DROP_REASON,
    attributes.STAGELIGHT_ERROR_SITE,
    attributes.EXCEPTION_TYPE,  # the official packages set it; no fact of ours fills it
}


def test_every_attribute_of_the_profile_is_emitted(captured: Captured) -> None:
    """No registered attribute is a promise only."""
    profile = captured.runtime.settings.semconv
    sources = [span.attributes or {} for span in captured.spans] + [event.attributes for event in captured.events]
    sources += [point.attributes for points in captured.metrics().values() for point in points]
    found = {row.key for source in sources for key in source if (row := registered(key)) is not None}

    expected = {row.key for row in REGISTRY.attributes if row.emitted and profile in row.profiles}
    assert expected - found - NOT_FROM_FACTS == set()


def test_components_add_up(captured: Captured) -> None:
    """On the ledger the components of a call sum to its amount."""
    prefix = attributes.STAGELIGHT_COST_COMPONENTS + "."
    rows = [event.attributes for event in captured.ledger if attributes.STAGELIGHT_COST_AMOUNT in event.attributes]

    sums = [sum(Decimal(repr(row[key])) for key in row if key.startswith(prefix)) for row in rows]

    assert rows
    assert sums == [Decimal(repr(row[attributes.STAGELIGHT_COST_AMOUNT])) for row in rows]


@pytest.mark.parametrize("key", sorted(attributes.BOUNDED_LABELS))
def test_labels_from_outside_are_bounded(key: str) -> None:
    """However many values come, a metric has a bounded number of series by this label, the rest is ``other``."""
    name = next(row.name for row in metrics.METRICS.values() if key in row.labels)
    labels = BoundedLabels(LabelBounds())

    values = {labels.bound(name, {key: f"value-{number}"})[key] for number in range(3000)}

    assert len(values) <= 2000
    assert "other" in values
