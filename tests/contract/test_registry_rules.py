"""A registry that breaks a rule is refused, with a message that names file, row and field."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from stagelight.conventions import _rules, generate
from stagelight.conventions._reader import REGISTRY
from stagelight.conventions._registry import RegistryError

AMOUNT = "stagelight.yaml: attributes: stagelight.cost.amount"
STATUS = "stagelight.yaml: attributes: stagelight.cost.status"
SPEND = "stagelight_metrics.yaml: metrics: stagelight.usage.cost"
DURATION = "stagelight_metrics.yaml: metrics: stagelight.turn.duration"
JOB = "spans.yaml: spans: stagelight.job.internal"
CLIENT_NAME = "gen_ai.embeddings.client"

WRONG_FIELDS = [
    pytest.param(
        AMOUNT,
        "brief:",
        "breif:",
        [f"{AMOUNT}: brief: is missing", f"{AMOUNT}: breif: is not a known field"],
        id="misspelt field",
    ),
    pytest.param(
        AMOUNT,
        "source:",
        "sauce:",
        [
            f"{AMOUNT}: annotations: stagelight: source: is missing",
            f"{AMOUNT}: annotations: stagelight: sauce: is not a known field",
        ],
        id="no source",
    ),
    pytest.param(
        AMOUNT,
        "demo: true",
        "demo: maybe",
        [f"{AMOUNT}: annotations: stagelight: demo: expected true or false, got 'maybe'"],
        id="no boolean",
    ),
    pytest.param(
        AMOUNT,
        "profiles: [released, latest]",
        "profiles: all",
        [f"{AMOUNT}: annotations: stagelight: profiles: expected a list of texts, got 'all'"],
        id="no list",
    ),
    pytest.param(
        STATUS,
        "value:",
        "worth:",
        [f"{STATUS}: type: member 1: value: is missing", f"{STATUS}: type: member 1: worth: is not a known field"],
        id="member without value",
    ),
    pytest.param(DURATION, 'unit: "s"', "", [f"{DURATION}: unit: is missing"], id="metric without unit"),
    pytest.param(
        DURATION,
        "0.05, 0.1,",
        "0.05, many,",
        [
            f"{DURATION}: annotations: stagelight: buckets: expected a list of numbers, got "
            "[0.05, 'many', 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120]"
        ],
        id="bucket that is no number",
    ),
    pytest.param(
        SPEND,
        "requirement_level: required",
        "requirement_level: sometimes",
        [f"{SPEND}: attributes: 5: requirement_level: is missing or not a level: 'sometimes'"],
        id="unknown requirement level",
    ),
]

BROKEN_RULES = [
    pytest.param(AMOUNT, 'unit: "USD"', "", [f"{AMOUNT}: unit: is missing for a number"], id="number without unit"),
    pytest.param(
        AMOUNT,
        '"USD"',
        '"EUR"',
        [f"{AMOUNT}: unit: expected one of s, 1, USD or a word in braces; got 'EUR'"],
        id="unknown unit",
    ),
    pytest.param(
        AMOUNT,
        "type: double",
        "type: string",
        [f"{AMOUNT}: unit: 'USD' makes no sense for the type string"],
        id="text with unit",
    ),
    pytest.param(
        AMOUNT,
        "type: double",
        "type: decimal",
        [
            f"{AMOUNT}: type: expected one of any, boolean, double, int, string, string[], template[double], "
            "template[string]; got 'decimal'",
            f"{AMOUNT}: unit: 'USD' makes no sense for the type decimal",
        ],
        id="unknown type",
    ),
    pytest.param(
        AMOUNT,
        "sensitive: none",
        "sensitive: maybe",
        [f"{AMOUNT}: sensitive: expected one of content, identity, none; got 'maybe'"],
        id="unknown word",
    ),
    pytest.param(
        AMOUNT,
        "#stagelightcost",
        "#nowhere",
        [f"{AMOUNT}: source: expected https://... or docs/conventions.md#<section>, got 'docs/conventions.md#nowhere'"],
        id="source that does not exist",
    ),
    pytest.param(
        STATUS,
        "prometheus: stagelight_cost_status",
        "prometheus: cost_status",
        [f"{STATUS}: prometheus: expected 'stagelight_cost_status', got 'cost_status'"],
        id="wrong label name",
    ),
    pytest.param(
        STATUS,
        "sensitive: none",
        "sensitive: identity",
        [f"{STATUS}: label: is closed, but the attribute is identity: it must be never"],
        id="label that names somebody",
    ),
    pytest.param(
        STATUS,
        "label: closed\n        prometheus: stagelight_cost_status",
        "label: never",
        [f"{SPEND}: attributes: stagelight.cost.status is not allowed as a metric label"],
        id="label that is not allowed",
    ),
    pytest.param(
        STATUS,
        "profiles: [released, latest]",
        "profiles: [released]",
        [f"{SPEND}: attributes: stagelight.cost.status does not exist in all of released, latest"],
        id="label of another profile",
    ),
    pytest.param(
        STATUS,
        'value: "partial"',
        'value: "exact"',
        [f"{STATUS}: member 'exact' is already taken by {STATUS}"],
        id="member twice",
    ),
    pytest.param(
        SPEND,
        "stagelight.cost.status",
        "stagelight.cost.state",
        [f"{SPEND}: attributes: ref 'stagelight.cost.state' is not defined"],
        id="unknown attribute",
    ),
    pytest.param(
        SPEND,
        "stagelight.cost.status",
        "openai.api.type",
        [
            f"{SPEND}: attributes: openai.api.type is marked as not emitted",
            f"{SPEND}: attributes: openai.api.type is not allowed as a metric label",
        ],
        id="attribute that is not emitted",
    ),
    pytest.param(
        SPEND,
        "metric.business",
        "metric.busyness",
        [
            f"{SPEND}: attributes: ref_group 'metric.busyness' is not defined",
            "metrics.yaml: attribute_groups: metric.business: nothing refers to this group",
        ],
        id="unknown group",
    ),
    pytest.param(
        SPEND,
        "prometheus: stagelight_usage_cost_USD_total",
        "prometheus: stagelight_usage_cost_total",
        [f"{SPEND}: prometheus: expected 'stagelight_usage_cost_USD_total', got 'stagelight_usage_cost_total'"],
        id="wrong name in Prometheus",
    ),
    pytest.param(
        DURATION,
        "0.05, 0.1,",
        "0.1, 0.05,",
        [
            f"{DURATION}: buckets: expected ascending finite bounds, got "
            "[0.1, 0.05, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120]"
        ],
        id="bounds that do not ascend",
    ),
    pytest.param(
        DURATION,
        "instrument: histogram",
        "instrument: gauge",
        [f"{DURATION}: buckets: a histogram needs them, nothing else has them"],
        id="gauge with buckets",
    ),
    pytest.param(
        DURATION,
        "stage: [turn]",
        "stage: [round]",
        [
            f"{DURATION}: stage: expected one of any, chunk, embedding, enrich, job, llm, memory, other, parse, "
            "rerank, retrieval, store, stt, tool, tts, turn; got 'round'"
        ],
        id="unknown stage",
    ),
    pytest.param(
        JOB, "kind: internal", "kind: inner", [f"{JOB}: kind: expected one of client, internal; got 'inner'"], id="kind"
    ),
    pytest.param(
        JOB,
        "{stagelight.job.name}",
        "{stagelight.name}",
        [f"{JOB}: name: stagelight.name is not an attribute of this span"],
        id="span name of another span's attribute",
    ),
    pytest.param(
        JOB,
        "stage: [job]",
        "stage: [any]",
        [
            f"{JOB}: stage: expected exactly one stage, got ['any']",
            "stagelight.stage: the stage job has no span",
        ],
        id="stage without span",
    ),
    pytest.param(
        JOB,
        "- ref_group: span.identity",
        "- ref_group: span.identity\n      - ref_group: span.results\n      - ref_group: span.stream\n"
        "      - ref_group: span.provider\n      - ref_group: span.name",
        [
            f"{JOB}: attributes: {key} is in span.provider and span.name"
            for key in ("gen_ai.provider.name", "gen_ai.request.model", "server.address", "server.port")
        ],
        id="groups that collide",
    ),
]

ATTRIBUTE = """attributes:
  - key: {key}
    type: {type}
    brief: One more.
    stability: development
    annotations:
      stagelight:
        stage: [any]
        unit: "1"
        sensitive: none
        label: never
        profiles: [released, latest]
        emitted: {emitted}
        demo: false
        source: https://example.com
"""

MORE_ROWS = [
    pytest.param(
        ("stagelight.cost.amount", "double", False),
        [
            f"{AMOUNT}: key 'stagelight.cost.amount' is already taken by more.yaml: attributes: stagelight.cost.amount",
            f"{AMOUNT}: constant 'STAGELIGHT_COST_AMOUNT' is already taken by "
            "more.yaml: attributes: stagelight.cost.amount",
        ],
        id="the same key",
    ),
    pytest.param(
        ("stagelight.cost_amount", "double", False),
        [
            f"{AMOUNT}: constant 'STAGELIGHT_COST_AMOUNT' is already taken by "
            "more.yaml: attributes: stagelight.cost_amount"
        ],
        id="the same constant",
    ),
    pytest.param(
        ("stagelight.cost.amount.net", "double", False),
        [f"{AMOUNT}: key: is also the namespace of the attribute stagelight.cost.amount.net"],
        id="an attribute as namespace",
    ),
    pytest.param(
        ("stagelight.turn.duration.net", "double", False),
        [f"{DURATION}: name: is also the namespace of stagelight.turn.duration.net"],
        id="a metric as namespace",
    ),
    pytest.param(
        ("stagelight.turn.duration", "template[double]", False),
        [f"{DURATION}: name: is also the prefix of the template attribute stagelight.turn.duration"],
        id="a metric as prefix",
    ),
    pytest.param(
        ("Stagelight", "double", False),
        ["more.yaml: attributes: Stagelight: expected dotted lower-case words, got 'Stagelight'"],
        id="not a name",
    ),
    pytest.param(
        ("stagelight.unused", "double", True),
        [
            "more.yaml: attributes: stagelight.unused: is emitted, but no metric, span, event or entity refers to it",
        ],
        id="never used",
    ),
]


def copied(tmp_path: Path) -> Path:
    """Return a copy of the registry."""
    return Path(shutil.copytree(REGISTRY, tmp_path / "registry"))


def problems(folder: Path) -> list[str]:
    """Return what is wrong with the registry in ``folder``."""
    with pytest.raises(RegistryError) as caught:
        _rules.load_registry(folder)
    assert "\n".join(caught.value.problems) == str(caught.value)
    return caught.value.problems


@pytest.mark.parametrize(("row", "old", "new", "expected"), WRONG_FIELDS + BROKEN_RULES)
def test_a_wrong_row_is_refused(tmp_path: Path, row: str, old: str, new: str, expected: list[str]) -> None:
    """One change in one row gives exactly the problems that it makes."""
    folder = copied(tmp_path)
    file, _, name = row.split(": ")
    before, found, rest = (folder / file).read_text("utf-8").partition(f": {name}\n")
    assert found
    assert old in rest
    (folder / file).write_text(before + found + rest.replace(old, new, 1), encoding="utf-8")

    assert expected == problems(folder)


@pytest.mark.parametrize(("row", "expected"), MORE_ROWS)
def test_a_clashing_row_is_refused(tmp_path: Path, row: tuple[str, str, bool], expected: list[str]) -> None:
    """A new row that takes a name, a constant or a namespace from another one is named with it."""
    folder = copied(tmp_path)
    key, kind, emitted = row
    text = ATTRIBUTE.format(key=key, type=kind, emitted=str(emitted).lower())
    (folder / "more.yaml").write_text("file_format: definition/2\n" + text, encoding="utf-8")

    assert expected == problems(folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file_format: definition/1\n", ["more.yaml: file_format: expected definition/2, got 'definition/1'"]),
        ("[]", ["more.yaml: expected a mapping, got []", "more.yaml: file_format: is missing"]),
        (
            "file_format: definition/2\nattributes: [1]\nmetric: []\n",
            ["more.yaml: attributes: row 1: expected a mapping, got 1"],
        ),
    ],
    ids=["format", "no mapping", "row that is no mapping"],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, expected: list[str]) -> None:
    """The file is named when it is not of the format."""
    folder = copied(tmp_path)
    (folder / "more.yaml").write_text(text, encoding="utf-8")

    assert expected == problems(folder)[: len(expected)]


def test_a_file_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    """A syntax error names the file and the line."""
    folder = copied(tmp_path)
    (folder / "more.yaml").write_text("file_format: definition/2\nattributes: [\n", encoding="utf-8")

    (problem,) = problems(folder)

    assert problem.startswith("more.yaml: not YAML: ")
    assert "line 3" in problem


def test_generating_from_a_broken_registry_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints the problems, writes nothing and fails."""
    folder = copied(tmp_path)
    (folder / "events.yaml").write_text("file_format: definition/1\n", encoding="utf-8")
    monkeypatch.setattr(generate, "load_registry", lambda: _rules.load_registry(folder))

    status = generate.main([])

    captured = capsys.readouterr()
    assert [
        status,
        captured.out,
        captured.err,
    ] == [1, "", "events.yaml: file_format: expected definition/2, got 'definition/1'\n"]
