"""Standard variables that OpenTelemetry reads where nobody sees it: at an import, by a name, in an exporter."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from activated import BIN, finished, ours, spans, variables, with_autopath
from sinks import Sink

CHAT = "chat gpt-4o-mini"
CALL = """
from openai import OpenAI
OpenAI().chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Question"}])
"""


def _run(text: str, environment: dict[str, str], folder: Path, way: str = "autopath") -> tuple[int, str, str]:
    (folder / "program.py").write_text(text)
    if way == "autopath":
        return finished(["python", "program.py"], with_autopath(environment), folder)
    if way == "stagelight run":
        return finished([str(BIN / "stagelight"), "run", "--", "python", "program.py"], environment, folder)
    chosen = {"OTEL_PYTHON_DISTRO": "stagelight", "OTEL_PYTHON_CONFIGURATOR": "stagelight"}
    return finished([str(BIN / "opentelemetry-instrument"), "python", "program.py"], environment | chosen, folder)


@pytest.mark.parametrize("way", ["autopath", "stagelight run", "opentelemetry-instrument"])
def test_a_limit_that_breaks_an_import_is_one_line(way: str, simulator: str, sink: Sink, tmp_path: Path) -> None:
    """OpenTelemetry's SDK cannot be imported with it; the program runs and its calls are recorded."""
    variable = "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"

    code, _, errors = _run(CALL, variables(sink.http, simulator, **{variable: "-3"}), tmp_path, way)

    said = f"{variable}: '-3' is not accepted; accepted: a whole number from 0 on; continuing without it\n"
    assert (code, errors) == (0, said)
    assert ours(sink) == {CHAT: 1}


SECRETS = {
    "a character that is not sent": "x-token=secret-1;2",
    "a name with a space": "x token=secret-1",
    "a name with a space in hexadecimal": "x%20token=secret-1",
    "no Latin character": "x-token=secret-1%E2%82%AC",
    "a quote": 'x-token="secret-1"',
    "no name": "=secret-1",
}


@pytest.mark.parametrize("value", SECRETS.values(), ids=SECRETS)
def test_a_header_that_cannot_be_sent_is_not_shown(value: str, simulator: str, sink: Sink, tmp_path: Path) -> None:
    """One line without the secret; spans are not sent without what their receiver asks for."""
    variable = "OTEL_EXPORTER_OTLP_TRACES_HEADERS"

    code, _, errors = _run(CALL, variables(sink.http, simulator, **{variable: value}), tmp_path)

    assert (code, len(errors.splitlines())) == (0, 1)
    assert errors.startswith(f"{variable}: (hidden) is not accepted; accepted: key=value pairs separated by commas")
    assert "secret-1" not in errors
    assert (len(spans(sink)), len(sink.logs)) == (0, 1)


def test_a_header_as_it_is_copied_from_a_page(simulator: str, sink: Sink, tmp_path: Path) -> None:
    """Encoded or not, with spaces and padding, it is accepted."""
    headers = "Authorization=Bearer x/y+z==, x-scope = a%20b,x-empty="

    done = _run(CALL, variables(sink.http, simulator, OTEL_EXPORTER_OTLP_HEADERS=headers), tmp_path)

    assert done == (0, "", "")
    assert ours(sink) == {CHAT: 1}


def test_providers_by_name_are_ours(simulator: str, sink: Sink, tmp_path: Path) -> None:
    """The variables that name the SDK's providers are old advice; they lead to no provider that exports nothing."""
    named = {
        f"OTEL_PYTHON_{signal}_PROVIDER": f"sdk_{signal.lower()}_provider" for signal in ("TRACER", "METER", "LOGGER")
    }
    program = f"""{CALL}
from opentelemetry import metrics, trace
assert type(trace.get_tracer_provider()).__module__ == type(metrics.get_meter_provider()).__module__
metrics.get_meter("app").create_counter("orders").add(3)
"""

    done = _run(program, variables(sink.http, simulator, **named), tmp_path)

    assert done == (0, "", "")
    assert ours(sink) == {CHAT: 1}
    assert [push["orders"].sum.data_points[0].as_int for push in sink.pushes if "orders" in push][-1] == 3


GENERATOR = {
    "ids.py": """
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
class Counted(RandomIdGenerator):
    def generate_trace_id(self):
        return 0xABCD << 96 | super().generate_trace_id() >> 32
""",
    "ids-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: ids\nVersion: 1\n",
    "ids-1.dist-info/entry_points.txt": "[opentelemetry_id_generator]\ncounted = ids:Counted\n",
}


def test_a_generator_of_ids(simulator: str, sink: Sink, tmp_path: Path) -> None:
    """Ids are drawn by the installed generator that is named; another name is one line, and ids are random."""
    for path, text in GENERATOR.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    environment = variables(sink.http, simulator, PYTHONPATH=str(tmp_path))

    assert _run(CALL, environment | {"OTEL_PYTHON_ID_GENERATOR": "counted"}, tmp_path) == (0, "", "")
    assert {span.trace[:8] for span in spans(sink)} == {"0000abcd"}

    code, _, errors = _run(CALL, environment | {"OTEL_PYTHON_ID_GENERATOR": "xr"}, tmp_path)
    assert (code, len(errors.splitlines())) == (0, 1)
    assert errors.startswith("OTEL_PYTHON_ID_GENERATOR: 'xr' is not accepted; accepted: random, or the name of ")
    assert ours(sink) == {CHAT: 2}


ANTHROPIC = """
import os
from anthropic import Anthropic
client = Anthropic(base_url=os.environ["OPENAI_BASE_URL"].removesuffix("/v1"), api_key="any")
client.messages.create(model="claude-haiku-4-5", max_tokens=50, messages=[{"role": "user", "content": "Question"}])
"""
THEIRS, OURS, HTTP = "com.anthropic.sdk.python", "stagelight", "opentelemetry.instrumentation.httpx"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {OURS: 1, HTTP: 1}),
        ({"ANTHROPIC_OPEN_TELEMETRY": "true"}, {OURS: 1, HTTP: 1, THEIRS: 1}),
        ({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "stagelight-anthropic"}, {HTTP: 1, THEIRS: 1}),
    ],
    ids=["ours", "both, as is asked for", "theirs"],
)
def test_a_client_that_records_itself_is_recorded_once(
    given: dict[str, str], expected: dict[str, int], simulator: str, sink: Sink, tmp_path: Path
) -> None:
    """The newest client of Anthropic makes spans of its calls; ours stand for them unless its variables ask."""
    code, _, errors = _run(ANTHROPIC, variables(sink.http, simulator, **given), tmp_path)

    said = "stagelight: a call of anthropic was recorded twice, by com.anthropic.sdk.python + stagelight"
    assert (code, errors.startswith(said), bool(errors)) == (
        0,
        THEIRS in expected and OURS in expected,
        "true" in given.values(),
    )
    assert Counter(span.scope for span in spans(sink)) == expected
    assert any("stagelight.double_counted" in push for push in sink.pushes) == (len(expected) == 3)
