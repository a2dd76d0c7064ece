"""``configure``: once, clear about wrong settings, silent on the network, at home beside other providers."""

from __future__ import annotations

import json
import textwrap
import time
from importlib.metadata import distributions, entry_points
from pathlib import Path
from typing import Any

import pytest
import stagelight
from otlp_receiver import nobody, python, receiver
from stagelight.settings import SettingsError, read

OFF = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
KEY = "0123456789abcdef" * 2
LIMIT_S = 120
ONE_CALL = """
with stagelight.turn("answer", user_id="user-1"), stagelight.llm(provider="acme", model="m") as call:
    call.usage(input_tokens=1)
"""


def _run(body: str, endpoint: str = "http://127.0.0.1:9", **variables: str) -> tuple[list[Any], str, int]:
    """What the script prints as JSON, its errors, and its exit code."""
    process = python("import json, os, sys, stagelight\n" + textwrap.dedent(body), endpoint, **variables)
    try:
        output, errors = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    return [json.loads(line) for line in output.splitlines()], errors, process.returncode


def test_a_second_call_changes_nothing() -> None:
    """The first result comes back, whatever the second asks for, and one warning is given however often."""
    said, errors, _ = _run(
        """
        first = stagelight.configure(semconv="latest")
        again = [stagelight.configure(semconv="released"), stagelight.configure()]
        print(json.dumps([one is first for one in again] + [again[0].settings.semconv]))
        """,
        **OFF,
    )

    assert said == [[True, True, "latest"]]
    assert errors == "stagelight.configure() was called again; the first configuration stays\n"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"semconvs": "latest"}, "configure(): unknown setting 'semconvs'; accepted: "),
        ({"semconv": "newest"}, "configure(semconv=...): 'newest' is not accepted; accepted: released or latest"),
        ({"strict": "yes"}, "configure(strict=...): 'yes' is not accepted; accepted: 1, true, yes, on or 0, "),
        ({"id_key": "short"}, "configure(id_key=...): (hidden) is not accepted; accepted: at least 32 characters"),
        ({"prices": "/no/such/file"}, "configure(prices=...): '/no/such/file' is not accepted; accepted: path of a "),
        ({"provider_hosts": {"h": 1}}, "configure(provider_hosts=...): {'h': 1} is not accepted; accepted: host="),
        ({"instrument": 1}, "configure(instrument=...): 1 is not accepted; accepted: "),
    ],
)
def test_a_wrong_keyword_raises(wrong: dict[str, Any], message: str) -> None:
    """The error names the setting, the value unless it is secret, and what is accepted; nothing is set up."""
    with pytest.raises(SettingsError) as raised:
        stagelight.configure(**wrong)

    assert str(raised.value).startswith(message)


def _files(folder: Path) -> dict[str, str]:
    (folder / "prices.yaml").write_text("models: [")
    (folder / "key").write_text("short")
    return {"prices": str(folder / "prices.yaml"), "id_key_file": str(folder / "key")}


@pytest.mark.parametrize("name", ["prices", "id_key_file"])
def test_a_wrong_file_by_keyword_raises(name: str, tmp_path: Path) -> None:
    """A file that exists but cannot be used is refused before anything is set up."""
    with pytest.raises(SettingsError, match=rf"configure\({name}=...\): .*accepted: "):
        stagelight.configure(**{name: _files(tmp_path)[name]})


WRONG = {
    "STAGELIGHT_SEMCONV": "newest",
    "STAGELIGHT_STRICT": "perhaps",
    "STAGELIGHT_PRICES": "/no/such/file",
    "STAGELIGHT_ID_KEY": "short-and-secret",
    "STAGELIGHT_PROVIDER_HOSTS": "localhost",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
}


def test_a_wrong_variable_is_one_line() -> None:
    """Each wrong variable is one line with what is accepted; the part stays off and the rest works."""
    said, errors, code = _run(
        f"""
        done = stagelight.configure(id_key=None)
        {ONE_CALL.replace(chr(10), chr(10) + " " * 8)}
        print(json.dumps([problem.variable for problem in done.problems]))
        """,
        **WRONG,
        **OFF,
    )

    assert (code, said) == (0, [list(WRONG)])
    assert [line.partition(":")[0] for line in errors.splitlines()] == list(WRONG)
    assert all("; accepted: " in line for line in errors.splitlines())
    assert "short-and-secret" not in errors


def test_wrong_files_by_variable_are_one_line_each(tmp_path: Path) -> None:
    """A price file with a mistake and a key file with too short a key switch off prices and ids, nothing else."""
    files = _files(tmp_path)
    said, errors, code = _run(
        """
        done = stagelight.configure()
        print(json.dumps([done.settings.prices, done.settings.id_key_file]))
        """,
        STAGELIGHT_PRICES=files["prices"],
        STAGELIGHT_ID_KEY_FILE=files["id_key_file"],
        **OFF,
    )

    assert (code, said) == (0, [[None, None]])
    assert [line.partition(":")[0] for line in errors.splitlines()] == ["STAGELIGHT_PRICES", "STAGELIGHT_ID_KEY_FILE"]


@pytest.mark.parametrize("variable", ["STAGELIGHT_SEMCONV", "STAGELIGHT_PRICES", "OTEL_EXPORTER_OTLP_PROTOCOL"])
def test_a_wrong_variable_is_fatal_when_strict(variable: str) -> None:
    """In strict mode the same line is an error."""
    _, errors, code = _run("stagelight.configure()", **{variable: WRONG[variable], "STAGELIGHT_STRICT": "1"}, **OFF)

    assert code == 1
    assert f"SettingsError: {variable}: " in errors


def test_a_disabled_sdk_is_nothing() -> None:
    """``OTEL_SDK_DISABLED`` leaves every call working and nothing made, imported or sent."""
    with receiver() as (received, endpoint):
        said, errors, _ = _run(
            f"""
            done = stagelight.configure()
            {ONE_CALL.replace(chr(10), chr(10) + " " * 12)}
            sdk = [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
            print(json.dumps([done.joined, done.instrumented, sdk, stagelight.flush()]))
            """,
            endpoint,
            OTEL_SDK_DISABLED="true",
        )

    assert (said, errors, received.requests) == ([[False, [], [], True]], "", 0)


def test_unconfigured_use_is_nothing() -> None:
    """Without ``configure`` all of the API works, and neither SDK nor exporters nor prices are imported."""
    said, errors, _ = _run(
        f"""
        {ONE_CALL.replace(chr(10), chr(10) + " " * 8)}
        stagelight.identify(user_id="u") if stagelight.current().live else None
        stagelight.cache("x", hit=True)
        stagelight.evaluation("x", score=1)
        stagelight.feedback(score=1)
        heavy = ("opentelemetry.sdk", "opentelemetry.exporter", "genai_prices", "yaml", "grpc")
        print(json.dumps([name for name in sys.modules if name.startswith(heavy)]))
        """
    )

    assert (said, errors) == ([[]], "")


JOINED = """
from opentelemetry import metrics, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans, logs, reader = InMemorySpanExporter(), InMemoryLogRecordExporter(), InMemoryMetricReader()
tracers, loggers = TracerProvider(), LoggerProvider()
tracers.add_span_processor(SimpleSpanProcessor(spans))
loggers.add_log_record_processor(SimpleLogRecordProcessor(logs))
trace.set_tracer_provider(tracers)
set_logger_provider(loggers)
metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))

def tell():
    print(json.dumps([span.name for span in spans.get_finished_spans()]))
"""


def test_providers_of_the_application_are_joined() -> None:
    """Where the application has set up OpenTelemetry, its providers get everything at once, in its own threads."""
    script = f"""{JOINED}
import threading
done = stagelight.configure()
{ONE_CALL}
tell()
print(json.dumps([len(logs.get_finished_logs()), reader.get_metrics_data() is not None, done.joined, done.delivery()]))
print(json.dumps([thread.name for thread in threading.enumerate() if "stagelight" in thread.name]))
"""
    with receiver() as (received, endpoint):
        said, errors, _ = _run(script, endpoint)

    assert errors == ""
    assert said == [["chat m", "invoke_workflow answer"], [1, True, True, {}], []]
    assert received.requests == 0


def test_an_abandoned_stream_reaches_joined_providers() -> None:
    """A stream left by ``break`` ends at its block; one forgotten ends at the process's end at the latest."""
    script = f"""import atexit, json
{JOINED}
atexit.register(tell)
stagelight.configure()
with stagelight.llm(provider="acme", model="broken") as call:
    for _ in call.stream(iter("abc")):
        break
tell()
with stagelight.llm(provider="acme", model="forgotten") as call:
    stream = call.stream(iter("abc"))
del stream
"""
    said, errors, _ = _run(script)

    assert (said, errors) == ([["chat broken"], ["chat broken", "chat forgotten"]], "")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {"http": 3, "grpc": 0}),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, {"http": 0, "grpc": 3}),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, {"http": 2, "grpc": 1}),
        ({"OTEL_LOGS_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}, {"http": 1, "grpc": 0}),
    ],
    ids=["default", "grpc", "one signal", "switched off"],
)
def test_the_protocol_chooses_the_exporters(variables: dict[str, str], expected: dict[str, int]) -> None:
    """``http/protobuf`` is the default; the common variable and those of one signal choose, ``none`` makes none."""
    said, _, _ = _run(
        """
        stagelight.configure()
        otlp = "opentelemetry.exporter.otlp.proto."
        made = ("trace_exporter", "_log_exporter", "metric_exporter")
        kinds = [name.split(".")[4] for name in sys.modules if name.startswith(otlp) and name.endswith(made)]
        print(json.dumps({kind: kinds.count(kind) for kind in ("http", "grpc")}), flush=True)
        os._exit(0)
        """,
        **variables,
    )

    assert said == [expected]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_nothing_touches_the_network(protocol: str) -> None:
    """Neither import nor ``configure`` opens a socket, resolves a name or connects."""
    script = """
import json, sys, time
touched = []
network = ("socket.connect", "socket.getaddrinfo")
sys.addaudithook(lambda name, _: touched.append(name) if name in network else None)
import stagelight
stagelight.configure()
time.sleep(0.3)
print(json.dumps(touched))
sys.stdout.flush()
import os
os._exit(0)
"""
    with nobody(listening=True) as endpoint:
        process = python(script, endpoint, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
        output, errors = process.communicate(timeout=LIMIT_S)

    assert (json.loads(output), errors) == ([], "")


def test_clients_and_threads_are_instrumented() -> None:
    """``configure`` instruments threads and the installed clients, none of them with ``instrument=False``."""
    script = """
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
done = stagelight.configure({arguments})
print(json.dumps([sorted(done.instrumented), ThreadingInstrumentor().is_instrumented_by_opentelemetry]))
"""
    with_clients, _, _ = _run(script.format(arguments=""), **OFF)
    without, _, _ = _run(script.format(arguments="instrument=False"), **OFF)

    ours = [one for one in entry_points(group="opentelemetry_instrumentor") if one.name.startswith("stagelight-")]
    present = {one.name.lower() for one in distributions()}
    installed = [one.name.removeprefix("stagelight-") for one in ours if one.load().distribution in present]
    assert (with_clients, without) == ([[sorted(installed), True]], [[[], False]])
    assert {"openai", "qdrant"} <= set(installed)


def test_a_run_that_is_configured_delivers() -> None:
    """The shortest program: configure, one call, flush; spans, ledger and metrics have arrived before it ends."""
    with receiver() as (received, endpoint):
        started = time.monotonic()
        said, errors, _ = _run(f"stagelight.configure()\n{ONE_CALL}\nprint(json.dumps(stagelight.flush(60)))", endpoint)

    assert (said, errors) == ([True], "")
    assert received.spans == {"chat m": 1, "invoke_workflow answer": 1}
    assert len(received.ledger) == 1
    assert received.points > 0
    assert time.monotonic() - started < LIMIT_S


def test_a_key_of_few_characters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long key of one letter is guessed at once; the refusal does not repeat it."""
    with pytest.raises(SettingsError) as refused:
        read({}, id_key="a" * 40)

    assert "at least 32 characters, 8 of them different" in str(refused.value)
    assert "aaaa" not in str(refused.value)


def test_a_span_names_the_owner_of_its_end() -> None:
    """An owner who is named while a call waits to be recorded is not on its span."""
    said, errors, code = _run(
        """
        import threading
        from opentelemetry import trace
        from opentelemetry.sdk.trace import SpanProcessor

        class Busy(SpanProcessor):
            def on_end(self, span):
                named.wait(60)
                seen.append((span.name, span.attributes.get("stagelight.tenant")))

        named, seen = threading.Event(), []
        stagelight.configure()
        trace.get_tracer_provider().add_span_processor(Busy())
        with stagelight.turn("answer"):
            for name in ("first", "second"):
                with stagelight.llm(provider="acme", model=name) as call:
                    call.cost("0.25")
            stagelight.identify(tenant="acme")
            named.set()
        stagelight.flush()
        print(json.dumps(sorted(seen)))
        """,
        **OFF,
    )

    assert said == [[["chat first", None], ["chat second", None], ["invoke_workflow answer", "acme"]]]
    assert (errors, code) == ("", 0)
