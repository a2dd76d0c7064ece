"""The Collector's files: the program takes them, they use only what is built, and they know what the registry knows."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from stack.native import Stack
from stack.outputs import receiving, send, trace_request
from stack.programs import ROOT, program
from stack.waiting import eventually
from stagelight.conventions import _collector
from stagelight.conventions import attributes as a
from stagelight.conventions._registry import RegistryError
from stagelight.conventions._rules import load_registry

FOLDER = ROOT / "collector"
EXAMPLES = sorted(path.name for path in (FOLDER / "examples").glob("*.yaml"))
MAIN: Mapping[str, Any] = yaml.safe_load((FOLDER / "collector.yaml").read_text())
PROCESSORS: Mapping[str, Any] = MAIN["processors"]
LARGEST: int = MAIN["receivers"]["otlp"]["protocols"]["http"]["max_request_body_size"]

# Older or other words for a type that the Collector prints under one name.
BUILDER_NAMES = {
    "otlp_grpc": "otlpexporter",
    "otlp_http": "otlphttpexporter",
    "file_storage": "filestorage",
    "health_check": "healthcheckextension",
    "bearertokenauth": "bearertokenauthextension",
}


def validated(tmp_path: Path, *names: str, variables: Mapping[str, str] | None = None) -> str:
    """What ``otelcol validate`` says about these files, as compose would start them; nothing is good."""
    stack = Stack(tmp_path, ["collector"])
    folder = stack.path("collector", "/etc/otelcol")
    done = subprocess.run(
        [program("otelcol-contrib"), "validate", *(f"--config={folder / name}" for name in names)],
        capture_output=True,
        text=True,
        timeout=120,
        env=dict(variables or {}),
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("sampling", ["off", "on"])
def test_valid(sampling: str, tmp_path: Path) -> None:
    """Both ways of sampling pass the Collector's own check."""
    assert validated(tmp_path, "collector.yaml", f"sampling-{sampling}.yaml") == ""


def test_there_are_examples() -> None:
    """One file for each other back end."""
    assert EXAMPLES == [
        "datadog.yaml",
        "grafana-cloud.yaml",
        "honeycomb.yaml",
        "langfuse.yaml",
        "langsmith.yaml",
        "otlp.yaml",
    ]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_valid(name: str, tmp_path: Path) -> None:
    """Each example is a third file, and the variables that it names are all it needs."""
    text = (FOLDER / "examples" / name).read_text()
    variables = dict.fromkeys(re.findall(r"\$\{env:(\w+)", text), "https://example.com:4317")

    assert variables != {}
    assert validated(tmp_path, "collector.yaml", "sampling-off.yaml", f"examples/{name}", variables=variables) == ""


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_only_adds(name: str) -> None:
    """Our back ends get what they got: an example adds exporters with queues like ours, behind a batch processor that a
    full one does not refuse, and pipelines of its own."""
    added = yaml.safe_load((FOLDER / "examples" / name).read_text())

    assert set(added) == {"exporters", "processors", "service"}
    assert [processor.partition("/")[0] for processor in added["processors"]] == ["batch"]
    assert {tuple(one["processors"]) for one in added["service"]["pipelines"].values()} == {tuple(added["processors"])}
    assert {one["sending_queue"]["storage"] for one in added["exporters"].values()} == {"file_storage"}
    assert set(added["service"]["pipelines"]).isdisjoint(MAIN["service"]["pipelines"])


def test_only_what_is_built() -> None:
    """Every component is in the manifest that the tests' program is built from: what is shipped is what is proven."""
    manifest = (ROOT / "tools" / "collector" / "builder.yaml").read_text()
    for path in (FOLDER / "collector.yaml", *FOLDER.glob("sampling-*.yaml"), *FOLDER.glob("examples/*.yaml")):
        configuration = yaml.safe_load(path.read_text())
        for section in ("extensions", "receivers", "processors", "connectors", "exporters"):
            for name in configuration.get(section, {}):
                kind = name.partition("/")[0]
                module = BUILDER_NAMES.get(kind, kind.replace("_", "") + section.removesuffix("s"))

                assert re.search(rf"/{module} v0\.159\.0", manifest), f"{path.name}: {name}"


def test_order_of_processors() -> None:
    """Memory is limited first; ids are hashed before values are masked; nothing batches before the queue on disk."""
    incoming = {name: one["processors"] for name, one in MAIN["service"]["pipelines"].items() if name.endswith("/in")}

    assert {processors[0] for processors in incoming.values()} == {"memory_limiter"}
    assert [name for name in PROCESSORS if name.startswith("batch")] == []
    for name in ("traces/in", "logs/in"):
        scrubbing = [one for one in incoming[name] if one.startswith("redaction/")]
        assert scrubbing == ["redaction/names", "redaction/ids", "redaction/secret_names", "redaction/values"]


@pytest.mark.parametrize("exporter", MAIN["exporters"])
def test_queues(exporter: str) -> None:
    """Every queue is on disk, bounded by bytes, and is tried for ever; metrics go one by one, in order."""
    fields = MAIN["exporters"][exporter]
    queue = fields["sending_queue"]

    assert (queue["storage"], queue["sizer"]) == ("file_storage", "bytes")
    if exporter == "otlp_http/prometheus":
        assert ("batch" in queue, queue["num_consumers"]) == (False, 1)
    else:
        assert queue["batch"]["sizer"] == "bytes"
        assert queue["batch"]["max_size"] > queue["batch"]["min_size"] + LARGEST, "one item, with others, is not split"
    assert fields["retry_on_failure"]["max_elapsed_time"] == "0s"


def test_the_allow_list_is_the_registrys() -> None:
    """What is between the marks was generated, and prefixes that take a part of their own are allowed by a pattern."""
    registry = load_registry()
    patterns = [re.compile(pattern) for pattern in PROCESSORS["redaction/names"]["ignored_key_patterns"]]
    passing = set(PROCESSORS["redaction/names"]["allowed_keys"])
    for row in registry.attributes:
        key = f"{row.key}.part" if row.is_template else row.key

        assert key in passing or any(pattern.search(key) for pattern in patterns), row.key
    assert _collector.render_collector(registry) == (FOLDER / "collector.yaml").read_text()


def test_generating_needs_the_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without the two marks is left alone, and the message says what is missing."""
    (tmp_path / "collector.yaml").write_text("processors: {}\n")
    monkeypatch.setattr(_collector, "CONFIGURATION", tmp_path / "collector.yaml")
    with pytest.raises(RegistryError, match=r"collector\.yaml: the marks .* are missing"):
        _collector.render_collector(load_registry())


def test_old_names_that_pass_are_translated() -> None:
    """A name of another SDK is on the allow list only because a statement reads it; a total needs none."""
    registry = {row.key for row in load_registry().attributes}
    text = "\n".join(
        statement for group in PROCESSORS["transform/spans"]["trace_statements"] for statement in group["statements"]
    )
    others = set(PROCESSORS["redaction/names"]["allowed_keys"]) - registry

    assert {name for name in others if f'["{name}"]' not in text} == {"gen_ai.usage.total_tokens"}


def test_every_pattern_of_content_knows_the_registrys_names() -> None:
    """Attributes, labels of metrics, and names inside of other values: three patterns, one list."""
    (statement,) = {
        statement
        for name in ("transform/spans", "transform/logs")
        for group in (*PROCESSORS[name].get("trace_statements", ()), *PROCESSORS[name].get("log_statements", ()))
        for statement in group["statements"]
        if "gen_ai[.](?:input" in statement
    }
    in_attributes = statement.partition('"')[2].rpartition('"')[0]
    in_labels = PROCESSORS["redaction/metrics"]["blocked_key_patterns"][-1]
    inside = PROCESSORS["redaction/values"]["blocked_values"][-1].replace("(?s:.*)", "")
    keys = a.CONTENT_KEYS | {f"{prefix}.part" for prefix in a.CONTENT_PREFIXES}

    assert in_attributes == in_labels.replace("(?i:", "(?:", 1)  # other spellings of attributes fail the allow list
    assert {key for key in keys if not re.search(in_attributes, key)} == set()
    assert {key for key in keys if not re.search(inside, f'{{"{key}":')} == set()


def test_a_torn_commit_is_no_obstacle(tmp_path: Path) -> None:
    """A queue whose newest root was half written, as a loss of power leaves it, is read from the one before."""
    stack = Stack(tmp_path, ["collector"])
    with stack:
        for _ in range(20):
            send(stack, "traces", trace_request()[0])
        stack.kill("collector")
        (queue,) = stack.path("collector", "/var/lib/otelcol").rglob("exporter_otlp_grpc_tempo*")
        content = bytearray(queue.read_bytes())
        roots = [int.from_bytes(content[page + 64 : page + 72], "little") for page in (0, 4096)]  # their numbers
        newest = 4096 * roots.index(max(roots))
        content[newest + 16 : newest + 4096] = bytes(4080)
        queue.write_bytes(content)
        with receiving(stack) as outputs:
            stack.start("collector")
            found = eventually(outputs.spans, lambda spans: len(spans) >= 19)

    assert 19 <= len({span.span_id for span in found}) <= 20
