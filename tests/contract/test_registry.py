"""The registry, what is generated from it, and the facts it names agree."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from stagelight import facts
from stagelight.conventions import attributes, events, generate, metrics, model, spans, values
from stagelight.conventions._document import render_document
from stagelight.conventions._prometheus import label_name, metric_name
from stagelight.conventions._render import render_events
from stagelight.conventions._rules import load_registry

REGISTRY = load_registry()
METRICS = sorted(metrics.METRICS.values())
NAMES_SOMEBODY = {
    attributes.USER_HASH,
    attributes.SESSION_ID,
    attributes.GEN_AI_CONVERSATION_ID,
    attributes.GEN_AI_RESPONSE_ID,
    attributes.STAGELIGHT_TTS_VOICE,
}


def test_generated_files_are_fresh() -> None:
    """Every generated file is what the registry says now."""
    assert generate.stale(REGISTRY) == {}


def test_generating_writes_what_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stale file is named and fails the check; generating writes it; then nothing is left to do."""
    path = tmp_path / "docs" / "events.py"
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "OUTPUTS", {path: render_events})

    assert [generate.main(["--check"]), path.exists()] == [1, False]
    assert generate.main([]) == 0
    assert render_events(REGISTRY) == path.read_text("utf-8")
    assert generate.main(["--check"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "docs/events.py is stale: run make generate",
        "docs/events.py written",
    ]


def test_the_constants_need_nothing() -> None:
    """Importing the constants imports neither the YAML parser nor the generator: it is on everybody's path."""
    needed = set[str]()
    for name in ("attributes", "events", "metrics", "model", "spans", "values"):
        for node in ast.walk(ast.parse((generate.HERE / f"{name}.py").read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                needed.add("." * node.level + (node.module or node.names[0].name))
            elif isinstance(node, ast.Import):
                needed.update(alias.name for alias in node.names)

    assert needed == {"__future__", "collections.abc", "types", "typing", ".attributes", ".model"}


def test_constants_are_the_names() -> None:
    """Each constant is its own name in upper case with underscores."""
    keys = {row.key for row in REGISTRY.attributes}
    found = {
        name: value
        for module in (attributes, metrics, events)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }

    assert {name: value.upper().replace(".", "_") for name, value in found.items()} == {name: name for name in found}
    assert keys | metrics.METRICS.keys() | events.EVENTS.keys() == set(found.values())


@pytest.mark.parametrize(
    ("enumeration", "values_of_facts"),
    [
        (values.Stage, (*facts.STAGES, "job", "other", "turn")),
        (values.Outcome, get_args(facts.Outcome)),
        (values.CostComponent, facts.COMPONENTS),
        (values.UnpricedReason, get_args(facts.UnpricedReason)),
        (values.CostSource, ("local", "provider")),
        (values.CostStatus, ("estimated", "exact", "partial", "unpriced")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_values_are_those_of_the_facts(enumeration: type[values.Stage], values_of_facts: tuple[str, ...]) -> None:
    """What a fact can be is what the registry documents."""
    assert sorted(values_of_facts) == sorted(enumeration.ALL)


def test_every_stage_has_one_span() -> None:
    """The span of a stage is found by its name; only ``other``, which is no work, has none."""
    assert {*values.Stage.ALL} - {values.Stage.OTHER} == spans.SPAN_OF_STAGE.keys()
    assert sorted(spans.SPANS) == sorted(span.type for span in spans.SPAN_OF_STAGE.values())


def test_only_upstream_operations_are_named() -> None:
    """A stage sets upstream's operation or none; speech is the declared exception."""
    found = {stage: span.operation for stage, span in spans.SPAN_OF_STAGE.items() if span.operation}

    expected = {
        values.Stage.TURN: values.Operation.INVOKE_WORKFLOW,
        values.Stage.EMBEDDING: values.Operation.EMBEDDINGS,
        values.Stage.RETRIEVAL: values.Operation.RETRIEVAL,
        values.Stage.LLM: values.Operation.CHAT,
        values.Stage.TTS: values.Operation.TEXT_TO_SPEECH,
        values.Stage.TOOL: values.Operation.EXECUTE_TOOL,
    }
    assert expected == found


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_metric_is_sound(metric: model.Metric) -> None:
    """Labels are allowed ones and name nobody, bounds ascend, the name in Prometheus follows its rules."""
    assert set(metric.labels) <= attributes.METRIC_LABELS
    assert not set(metric.labels) & (NAMES_SOMEBODY | attributes.SENSITIVE_KEYS)
    assert all(low < high for low, high in pairwise(metric.buckets))
    assert (metric.instrument == "histogram") == bool(metric.buckets)
    assert metric_name(metric.name, metric.unit, metric.instrument) == metric.prometheus


def test_who_and_voice_are_never_labels() -> None:
    """Ids of people, conversations and responses and the voice are not allowed as labels, nor is content."""
    assert not attributes.METRIC_LABELS & NAMES_SOMEBODY
    assert not attributes.METRIC_LABELS & attributes.SENSITIVE_KEYS
    assert attributes.CONTENT_KEYS <= attributes.SENSITIVE_KEYS
    assert {attributes.GEN_AI_INPUT_MESSAGES, attributes.EXCEPTION_MESSAGE} <= attributes.CONTENT_KEYS


def test_labels_from_outside_are_bounded() -> None:
    """The labels that decision and users can fill at will pass the bounding table."""
    expected = {
        attributes.GEN_AI_REQUEST_MODEL,
        attributes.GEN_AI_RESPONSE_MODEL,
        attributes.STAGELIGHT_FEATURE,
        attributes.STAGELIGHT_TENANT,
        attributes.STAGELIGHT_ROUTE,
    }

    assert expected <= attributes.BOUNDED_LABELS <= attributes.METRIC_LABELS


@pytest.mark.parametrize(
    ("name", "unit", "instrument", "expected"),
    [
        ("stagelight.usage.cost", "USD", "counter", "stagelight_usage_cost_USD_total"),
        ("stagelight.turn.duration", "s", "histogram", "stagelight_turn_duration_seconds"),
        ("stagelight.tts.audio_seconds", "s", "counter", "stagelight_tts_audio_seconds_total"),
        ("a.audio.seconds", "s", "counter", "a_audio_seconds_total"),
        ("a.total.things", "{thing}", "counter", "a_things_total"),
        ("a.share", "1", "gauge", "a_share_ratio"),
        ("a.share", "1", "histogram", "a_share"),
        ("a.in_flight", "{call}", "updowncounter", "a_in_flight"),
        ("a.__b", "{call}", "gauge", "a_b"),
    ],
)
def test_prometheus_names(name: str, unit: str, instrument: str, expected: str) -> None:
    """Names are translated as Prometheus' OTLP receiver does with suffixes on."""
    assert expected == metric_name(name, unit, instrument)


def test_prometheus_labels() -> None:
    """Dots and runs of them become one underscore."""
    assert label_name("gen_ai.request.model") == "gen_ai_request_model"
    assert label_name("a..b") == "a_b"


def test_the_document_names_every_row() -> None:
    """A reader finds every attribute, metric, span and event in the document."""
    text = render_document(REGISTRY)
    names = [row.key for row in REGISTRY.attributes] + [row.name for row in REGISTRY.signals()]

    assert [name for name in names if f"`{name}`" not in text and f"`{name}.*`" not in text] == []


def test_generated_modules_say_so() -> None:
    """Nobody edits a generated file by mistake: it says in its first lines where it comes from."""
    modules = [path for path in generate.OUTPUTS if path.suffix == ".py"]
    texts = [ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "" for path in modules]

    assert ["do not edit" in text for text in texts] == [True] * 5
