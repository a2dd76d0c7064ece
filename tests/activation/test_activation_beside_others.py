"""Where somebody else sets up telemetry, before us or after: joined, exported once, counted once, left working."""

from __future__ import annotations

import sysconfig
import textwrap
import venv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from activated import AUTOPATH, BIN, finished, ours, parents, spans, variables, with_autopath
from sinks import Sink

CHAT = "chat gpt-4o-mini"
CALL = """
from openai import OpenAI
OpenAI().chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Question"}])
"""
OWN_TRACES = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
own = TracerProvider(resource=Resource.create({"service.name": "own"}))
own.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(own)
"""
OWN_METRICS = """
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
reader = PeriodicExportingMetricReader(OTLPMetricExporter())
metrics.set_meter_provider(MeterProvider([reader], Resource.create({"service.name": "own"})))
"""
CONFIGURED = "import stagelight\nstagelight.configure()"
DURATION = "gen_ai.client.operation.duration"


def _run(text: str, environment: dict[str, str], folder: Path) -> tuple[int, str, str]:
    (folder / "program.py").write_text(textwrap.dedent(text))
    return finished(["python", "program.py"], environment, folder)


def _counted(sink: Sink) -> int:
    """Calls in the histogram of durations, over all processes and providers."""
    last = [push[DURATION] for push in sink.pushes if DURATION in push][-1:]
    return sum(point.count for metric in last for point in metric.histogram.data_points)


@pytest.mark.parametrize("made", ["before the call", "after a tracer was taken", "explicitly, before configure"])
def test_the_applications_own_providers_are_joined(made: str, simulator: str, sink: Sink, tmp_path: Path) -> None:
    """Its spans and ours go out together, through its exporter only, under its name, in one trace."""
    within = f"with trace.get_tracer('app').start_as_current_span('mine'):\n{textwrap.indent(CALL, '    ')}"
    programs = {
        "before the call": f"{OWN_TRACES}{OWN_METRICS}\n{within}",
        "after a tracer was taken": f"""
from opentelemetry import trace
tracer = trace.get_tracer("app")
{OWN_TRACES}{OWN_METRICS}
{within.replace("trace.get_tracer('app')", "tracer")}""",
        "explicitly, before configure": f"{OWN_TRACES}{OWN_METRICS}\n{CONFIGURED}\n{within}",
    }
    environment = variables(sink.http, simulator)
    if not made.startswith("explicitly"):
        environment = with_autopath(environment)

    done = _run(programs[made], environment, tmp_path)

    assert done == (0, "", "")
    found = spans(sink)
    expected = Counter({"stagelight": 1, "app": 1})
    if not made.startswith("explicitly"):
        expected["opentelemetry.instrumentation.httpx"] = 1
    assert Counter(span.scope for span in found) == expected
    assert {span.resource["service.name"] for span in found} == {"own"}
    assert len({span.trace for span in found}) == 1
    [chat] = [span for span in found if span.name == CHAT]
    assert parents(sink)[chat.parent].name == "mine"
    assert _counted(sink) == 1
    assert {
        _service(one)
        for request in sink.requests
        for one in getattr(request, "resource_metrics", ())
        if any(metric.name == DURATION for scope in one.scope_metrics for metric in scope.metrics)
    } == {"own"}


def _service(resource_metrics: Any) -> str:
    attributes = resource_metrics.resource.attributes
    return next(one.value.string_value for one in attributes if one.key == "service.name")


def test_only_the_signals_the_application_has_are_its_own(simulator: str, sink: Sink, tmp_path: Path) -> None:
    """An application with spans of its own and nothing else still gets costs and durations, from us, once."""
    done = _run(OWN_TRACES + CALL, with_autopath(variables(sink.http, simulator)), tmp_path)

    assert done == (0, "", "")
    assert ours(sink) == {CHAT: 1}
    assert {span.resource["service.name"] for span in spans(sink)} == {"own"}
    assert (_counted(sink), len(sink.logs)) == (1, 1)


METRICS_ALONE = f"""
from opentelemetry import metrics
from opentelemetry.sdk.resources import Resource
{OWN_METRICS}"""
LOGS_ALONE = """
from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
own = LoggerProvider()
own.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
set_logger_provider(own)
"""


@pytest.mark.parametrize("own", [METRICS_ALONE, LOGS_ALONE], ids=["metrics", "logs"])
def test_the_last_call_is_counted_by_the_applications_own(own: str, simulator: str, sink: Sink, tmp_path: Path) -> None:
    """A provider that the application makes is closed before ours: what its last call left to record is in it."""
    done = _run(own + CALL, with_autopath(variables(sink.http, simulator)), tmp_path)

    assert done == (0, "", "")
    assert (ours(sink), _counted(sink), len(sink.logs)) == ({CHAT: 1}, 1, 1)


def test_a_second_provider_of_the_application_is_refused(simulator: str, sink: Sink, tmp_path: Path) -> None:
    """OpenTelemetry's own rule stays: the application may set a provider once."""
    code, _, errors = _run(OWN_TRACES + OWN_TRACES + CALL, with_autopath(variables(sink.http, simulator)), tmp_path)

    assert (code, errors) == (0, "Overriding of current TracerProvider is not allowed\n")
    assert ours(sink) == {CHAT: 1}


def test_processors_that_are_added_get_everything_too(simulator: str, sink: Sink, tmp_path: Path) -> None:
    """What an SDK adds to our provider sees every span, and is flushed at exit though we do not know it."""
    program = f"""
from opentelemetry import trace
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
trace.get_tracer_provider().add_span_processor(
    BatchSpanProcessor(ConsoleSpanExporter(formatter=lambda span: span.name + "\\n")))
{CALL}"""
    code, output, errors = _run(program, with_autopath(variables(sink.http, simulator)), tmp_path)

    assert (code, sorted(output.split("\n")), errors) == (0, ["", "POST", CHAT], "")
    assert ours(sink) == {CHAT: 1}


@pytest.mark.parametrize("order", ["sentry first", "client first"])
def test_sentry_traces_beside_us(order: str, simulator: str, sink: Sink, tmp_path: Path) -> None:
    """With ``sentry_sdk.init`` and its own tracing of the same client, our span is one and Sentry's stays Sentry's."""
    sentry = """
import sentry_sdk
from sentry_sdk.transport import Transport
class Kept(Transport):
    def capture_envelope(self, envelope):
        print(*(item.type for item in envelope.items))
sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", traces_sample_rate=1.0, transport=Kept)
"""
    call = f"with sentry_sdk.start_transaction(name='t'):\n{textwrap.indent(CALL, '    ')}"
    program = f"{sentry}{call}" if order == "sentry first" else f"import openai\n{sentry}{call}"
    code, output, errors = _run(program, with_autopath(variables(sink.http, simulator)), tmp_path)

    assert (code, errors) == (0, "")
    assert "transaction" in output.split()
    assert ours(sink) == {CHAT: 1}
    assert Counter(span.scope for span in spans(sink)) == {"stagelight": 1, "opentelemetry.instrumentation.httpx": 1}


def test_the_official_instrumentation_of_a_client_stays_off(simulator: str, sink: Sink, tmp_path: Path) -> None:
    """It is installed, and would be switched on by ``opentelemetry-instrument``: the call is one span and one count."""
    (tmp_path / "program.py").write_text(CALL)
    chosen = {"OTEL_PYTHON_DISTRO": "stagelight", "OTEL_PYTHON_CONFIGURATOR": "stagelight"}
    command = [str(BIN / "opentelemetry-instrument"), "python", "program.py"]

    ours_alone = finished(command, variables(sink.http, simulator, **chosen), tmp_path)
    first, count = Counter(span.scope for span in spans(sink)), _counted(sink)
    sink.requests.clear()
    instead = variables(sink.http, simulator, **chosen, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="stagelight-openai")
    theirs_alone = finished(command, instead, tmp_path)
    second, count_of_theirs = Counter(span.scope for span in spans(sink)), _counted(sink)

    assert (ours_alone, theirs_alone) == ((0, "", ""), (0, "", ""))
    assert (first, count) == ({"stagelight": 1, "opentelemetry.instrumentation.httpx": 1}, 1)
    official = "opentelemetry.instrumentation.genai.openai"
    assert (second, count_of_theirs) == ({official: 1, "opentelemetry.instrumentation.httpx": 1}, 1)


@pytest.mark.parametrize("first", ["", "import openai"], ids=["before the client", "after the client"])
def test_an_application_that_switches_it_on_itself(first: str, simulator: str, sink: Sink, tmp_path: Path) -> None:
    """The call is still one span and one count; OpenTelemetry says that it was instrumented already."""
    program = f"""
{first}
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
OpenAIInstrumentor().instrument()
{CALL}"""
    code, _, errors = _run(program, with_autopath(variables(sink.http, simulator)), tmp_path)

    assert (code, errors) == (0, "Attempting to instrument while already instrumented\n")
    assert Counter(span.scope for span in spans(sink)) == {"stagelight": 1, "opentelemetry.instrumentation.httpx": 1}
    assert _counted(sink) == 1


def test_an_application_that_instruments_httpx_itself(simulator: str, sink: Sink, tmp_path: Path) -> None:
    """The request is one span; OpenTelemetry says that it was instrumented already."""
    program = f"""
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
HTTPXClientInstrumentor().instrument()
{CALL}"""
    code, _, errors = _run(program, with_autopath(variables(sink.http, simulator)), tmp_path)

    assert (code, errors) == (0, "Attempting to instrument while already instrumented\n")
    assert Counter(span.scope for span in spans(sink)) == {"stagelight": 1, "opentelemetry.instrumentation.httpx": 1}


@pytest.mark.parametrize(("installed", "missing"), [("httpx", "httpx2"), ("httpx2", "httpx")])
def test_one_of_two_http_clients_is_installed(installed: str, missing: str, sink: Sink, tmp_path: Path) -> None:
    """The official package is for both; where one is missing, nothing fails and the other's requests are recorded."""
    venv.create(tmp_path / "other", symlinks=True)
    [packages] = (tmp_path / "other").glob("lib/python*/site-packages")
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if package.name != missing and not package.name.startswith(f"{missing}-"):
            (packages / package.name).symlink_to(package)
    program = f"import {installed} as client\nprint(client.post({sink.http!r} + '/v1/traces').status_code)"
    python = str(tmp_path / "other" / "bin" / "python")

    done = finished([python, "-c", program], with_autopath(variables(sink.http, sink.http)), tmp_path)

    assert done == (0, "200\n", "")
    assert Counter(span.scope for span in spans(sink)) == {"opentelemetry.instrumentation.httpx": 1}


OTHER_DISTRO = """
from opentelemetry.instrumentation.distro import BaseDistro
class Distro(BaseDistro):
    def _configure(self, **kwargs):
        print("other distro")
class Configurator:
    def configure(self, **kwargs):
        print("other configurator")
        exec(open("telemetry.py").read(), {})
"""
ENTRY_POINTS = """\
[opentelemetry_distro]
aaa = other_distro:Distro
[opentelemetry_configurator]
aaa = other_distro:Configurator
"""


@pytest.mark.parametrize("way", ["opentelemetry-instrument", "autopath"])
def test_another_distribution_stays_working(way: str, simulator: str, sink: Sink, tmp_path: Path) -> None:
    """With another distribution chosen, its set-up is in force, and our spans go through its provider, once."""
    (tmp_path / "other_distro.py").write_text(OTHER_DISTRO)
    (tmp_path / "telemetry.py").write_text(OWN_TRACES)
    information = tmp_path / "other_distro-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: other-distro\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "program.py").write_text(CALL)
    environment = variables(
        sink.http,
        simulator,
        OTEL_PYTHON_DISTRO="aaa",
        OTEL_PYTHON_CONFIGURATOR="aaa",
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="openai,httpx,httpx2,fastapi,starlette",
        PYTHONPATH=str(tmp_path),
    )
    command = ["python", "program.py"]
    if way == "autopath":
        environment = with_autopath(environment)
    else:
        command = [str(BIN / "opentelemetry-instrument"), *command]

    code, output, errors = finished(command, environment, tmp_path)

    assert (code, output) == (0, "other distro\nother configurator\n")
    assert "Traceback" not in errors
    assert ours(sink) == {CHAT: 1}
    assert {span.resource["service.name"] for span in spans(sink)} == {"own"}


def test_the_next_sitecustomize_runs(simulator: str, sink: Sink, tmp_path: Path) -> None:
    """One that stands further along the path is run after ours and is what ``import sitecustomize`` finds."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("print('theirs'); mark = 1")
    environment = with_autopath(variables(sink.http, simulator, PYTHONPATH=str(folder)))

    done = _run(f"import sitecustomize\nprint(sitecustomize.mark)\n{CALL}", environment, tmp_path)

    assert done == (0, "theirs\n1\n", "")
    assert ours(sink) == {CHAT: 1}


def test_the_folder_may_have_another_name(simulator: str, sink: Sink, tmp_path: Path) -> None:
    """A link to it, as an image or a service would use."""
    (tmp_path / "link").symlink_to(AUTOPATH)

    done = _run(CALL, variables(sink.http, simulator, PYTHONPATH=str(tmp_path / "link")), tmp_path)

    assert done == (0, "", "")
    assert ours(sink) == {CHAT: 1}


def test_a_sitecustomize_that_fails_is_reported_as_ever(simulator: str, sink: Sink, tmp_path: Path) -> None:
    """Its error is said as Python says it, and neither the program nor our part is affected."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("raise RuntimeError('theirs')")

    code, _, errors = _run(CALL, with_autopath(variables(sink.http, simulator, PYTHONPATH=str(folder))), tmp_path)

    assert (code, errors) == (
        0,
        "Error in sitecustomize; set PYTHONVERBOSE for traceback:\nRuntimeError: theirs\n",
    )
    assert ours(sink) == {CHAT: 1}


def test_an_interpreter_without_us_is_not_touched(tmp_path: Path) -> None:
    """One of another environment that inherits the path starts as if the folder did not exist."""
    venv.create(tmp_path / "other", symlinks=True)
    program = "import sys; print([name for name in sys.modules if name.startswith(('stagelight', 'opentelemetry'))])"
    python = str(tmp_path / "other" / "bin" / "python")

    assert finished([python, "-W", "error", "-c", program], {"PYTHONPATH": AUTOPATH}, tmp_path) == (0, "[]\n", "")
