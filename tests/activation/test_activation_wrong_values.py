"""Every standard variable with a wrong value: one line of ours, none of OpenTelemetry's, and the program runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import stagelight
from activated import finished, ours, spans, variables, with_autopath
from opentelemetry import environment_variables as of_the_api
from opentelemetry.instrumentation import environment_variables as of_instrumentations
from opentelemetry.sdk import environment_variables as of_the_sdk
from sinks import Sink, receiving
from stagelight import standard
from stagelight.settings import SettingsError, read

OTLP = "OTEL_EXPORTER_OTLP"
CHAT = "chat gpt-4o-mini"
SECRET = "secret-1"
SIGNALS = ("TRACES", "METRICS", "LOGS")

CALL = """
from openai import OpenAI
OpenAI().chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Question"}])
print("done", flush=True)
"""
PROGRAM = """
import os
from fastapi import FastAPI
from fastapi.testclient import TestClient
from openai import OpenAI

app = FastAPI()

@app.get("/answer")
def answer():
    OpenAI().chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Question"}])

assert TestClient(app).get("/answer", headers={"x-one": "1"}).status_code == 200
child = os.fork()
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("done", flush=True)
"""
"""Meets what OpenTelemetry reads at its import, in exporters, at the first request and after a fork."""

EXPORT: Mapping[str, str] = {
    "ENDPOINT": "localhost:4318",
    "HEADERS": f"authorization: {SECRET}",
    "TIMEOUT": "ten",
    "COMPRESSION": "brotli",
    "CERTIFICATE": "/no/such.pem",
    "CLIENT_CERTIFICATE": "/no/such.pem",
    "CLIENT_KEY": "/no/such.key",
}
"""By the end of the name; with any of them, nothing is exported."""

STOPPING = {
    **{f"{OTLP}_{name}": value for name, value in EXPORT.items()},
    **{f"{OTLP}_{signal}_{name}": value for signal in SIGNALS for name, value in EXPORT.items()},
    **{f"OTEL_{signal}_EXPORTER": "zipkin" for signal in SIGNALS},
    **{
        f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{signal}CREDENTIAL_PROVIDER": "nobody"
        for signal in ("", *(f"{signal}_" for signal in SIGNALS))
    },
}
GRPC_ONLY = {
    f"OTEL_PYTHON_EXPORTER_OTLP_GRPC_{signal}CREDENTIAL_PROVIDER": "nobody"
    for signal in ("", *(f"{signal}_" for signal in SIGNALS))
}
PROTOCOLS = {f"{OTLP}_{signal}PROTOCOL": "http/json" for signal in ("", *(f"{signal}_" for signal in SIGNALS))}
SHARE = {"OTEL_TRACES_SAMPLER_ARG": "half"}
CHOSEN = dict.fromkeys(standard.CHOICE, "nobody")
GOING_ON = {
    "OTEL_RESOURCE_ATTRIBUTES": "team=search,region",
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "moon,process",
    **{f"{OTLP}_{signal}INSECURE": "perhaps" for signal in ("", *(f"{signal}_" for signal in SIGNALS))},
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES": "UNAVAILABLE,SOME",
    "OTEL_TRACES_SAMPLER": "some",
    "OTEL_PYTHON_ID_GENERATOR": "xr",
    "OTEL_PROPAGATORS": "b33",
    "OTEL_PYTHON_CONTEXT": "greenlets",
    "OTEL_SDK_DISABLED": "maybe",
    "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "perhaps",
    **{
        f"OTEL_{queue}_{name}": value
        for queue in ("BSP", "BLRP")
        for name, value in {
            "MAX_QUEUE_SIZE": "0.5", "MAX_EXPORT_BATCH_SIZE": "0", "SCHEDULE_DELAY": "soon", "EXPORT_TIMEOUT": "nan",
        }.items()
    },
    "OTEL_METRIC_EXPORT_INTERVAL": "-1",
    "OTEL_METRIC_EXPORT_TIMEOUT": "inf",
    "OTEL_METRICS_EXEMPLAR_FILTER": "some",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "sometimes",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "columns",
    **dict.fromkeys(
        (f"OTEL_{name}_LIMIT" for name in (
            "ATTRIBUTE_COUNT", "ATTRIBUTE_VALUE_LENGTH", "SPAN_ATTRIBUTE_COUNT", "SPAN_ATTRIBUTE_VALUE_LENGTH",
            "SPAN_EVENT_COUNT", "SPAN_LINK_COUNT", "LINK_ATTRIBUTE_COUNT", "LOGRECORD_ATTRIBUTE_COUNT",
            "LOGRECORD_ATTRIBUTE_VALUE_LENGTH",
        )),
        "many",
    ),
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "-3",
    "OTEL_SEMCONV_STABILITY_OPT_IN": "maybe",
    **{f"OTEL_PYTHON_{whose}EXCLUDED_URLS": "(" for whose in ("", "FASTAPI_", "STARLETTE_", "HTTPX_")},
    **{
        f"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_{which}": "x-one,("
        for which in ("SERVER_REQUEST", "SERVER_RESPONSE", "CLIENT_REQUEST", "CLIENT_RESPONSE", "SANITIZE_FIELDS")
    },
    "OTEL_PYTHON_AUTO_INSTRUMENTATION_EXPERIMENTAL_GEVENT_PATCH": "all",
    **{f"OTEL_PYTHON_{kind}_PROVIDER": "nobody" for kind in ("TRACER", "METER", "LOGGER")},
    **{f"OTEL_PYTHON_{kind}_CONFIGURATOR": "any" for kind in ("TRACER", "METER", "LOGGER")},
    "OTEL_CONFIG_FILE": "/etc/otel.yaml",
    "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true",
}  # fmt: skip
WRONG = {**GOING_ON, **STOPPING, **GRPC_ONLY, **PROTOCOLS, **SHARE, **CHOSEN}

NEVER_WRONG = {"OTEL_SERVICE_NAME", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"}
"""Any name is one."""
OF_OTHERS = {
    "OTEL_LOG_LEVEL",
    "OTEL_EXPORTER_ZIPKIN_ENDPOINT",
    "OTEL_EXPORTER_ZIPKIN_TIMEOUT",
    "OTEL_EXPORTER_PROMETHEUS_HOST",
    "OTEL_EXPORTER_PROMETHEUS_PORT",
}
"""Nobody reads the first; the rest is of exporters that are not installed."""
MOST_WRONG = 20
"""Variables whose lines would be lost among each other if they were not counted."""


def beside(name: str) -> dict[str, str]:
    """What makes a variable one that is read."""
    if name in SHARE:
        return {"OTEL_TRACES_SAMPLER": "traceidratio"}
    return {f"{OTLP}_PROTOCOL": "grpc"} if name in GRPC_ONLY else {}


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A receiver of telemetry, by both protocols."""
    with receiving(with_grpc=True) as open_sink:
        yield open_sink


def test_the_table_is_whole() -> None:
    """Every variable that the installed API, SDK and instrumentations define, and every one we know, is in it."""
    known = {name for row in (*standard.ROWS, *standard.NUMBERS, *standard.OFFICIAL) for name, _ in row.variables()}
    defined = {
        value
        for module in (of_the_api, of_the_sdk, of_instrumentations)
        for value in vars(module).values()
        if isinstance(value, str) and value.startswith("OTEL_")
    }

    assert len(defined) > MOST_WRONG
    assert defined - known == OF_OTHERS
    assert set(WRONG) == known - NEVER_WRONG


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_said_once_and_fatal_when_strict(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names the variable, its value unless that may be a secret, and what is accepted; strict raises it."""
    environment = {name: WRONG[name], **beside(name)}
    [problem] = standard.problems(environment)
    start, _, accepted = problem.message.partition(" is not accepted; accepted: ")

    assert problem.variable == name
    assert start in {f"{name}: {WRONG[name]!r}", f"{name}: (hidden)"}
    assert (SECRET in problem.message, start.endswith("(hidden)")) == (False, name.endswith(("_HEADERS", "_ENDPOINT")))
    assert accepted
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as raised:
        stagelight.configure(strict=True)
    assert str(raised.value) == problem.message
    assert standard.given()[name] == WRONG[name]  # nothing was taken out


def expected(environment: Mapping[str, str]) -> list[str]:
    """The lines of an environment."""
    wrong = (*read(environment)[1], *standard.problems(environment))
    return sorted(f"{one.message}; continuing without it" for one in wrong)


@pytest.mark.parametrize(
    ("wrong", "protocol"),
    [
        ({**GOING_ON, **PROTOCOLS, **CHOSEN, "STAGELIGHT_SEMCONV": "newest"}, ""),
        ({**{name: value for name, value in GOING_ON.items() if name != "OTEL_TRACES_SAMPLER"}, **SHARE}, "grpc"),
    ],
    ids=["http", "grpc"],
)
def test_all_wrong_values_together_are_one_line_each(
    wrong: dict[str, str], protocol: str, simulator: str, sink: Sink, tmp_path: Path
) -> None:
    """The program runs, everything is delivered, and what was good of a list has its effect."""
    more = {**wrong, **({f"{OTLP}_PROTOCOL": protocol, "OTEL_TRACES_SAMPLER": "traceidratio"} if protocol else {})}
    environment = variables(sink.grpc if protocol else sink.http, simulator, **more)
    (tmp_path / "program.py").write_text(PROGRAM)

    code, output, errors = finished(["python", "program.py"], with_autopath(environment), tmp_path)

    assert sorted(errors.splitlines()) == expected(environment)
    assert len(errors.splitlines()) == len(wrong) > MOST_WRONG
    assert (code, output) == (0, "done\n")
    assert (ours(sink)[CHAT], len(sink.logs), bool(sink.pushes)) == (1, 1, True)
    [server] = [span for span in spans(sink) if span.name == "GET /answer"]
    assert (server.resource["team"], "process.pid" in server.resource) == ("search", True)
    assert "http.request.header.x_one" in server.attributes


@pytest.mark.parametrize("signal", ["", *SIGNALS])
def test_wrong_values_that_stop_an_export_are_one_line_each(
    signal: str, simulator: str, sink: Sink, tmp_path: Path
) -> None:
    """The program runs, and of the signal nothing is sent; of the others everything."""
    wrong = {
        name: value
        for name, value in STOPPING.items()
        if (signal in name if signal else not any(one in name for one in SIGNALS))
    }
    environment = variables(sink.http, simulator, **wrong)
    (tmp_path / "program.py").write_text(CALL)

    code, output, errors = finished(["python", "program.py"], with_autopath(environment), tmp_path)

    assert sorted(errors.splitlines()) == expected(environment)
    assert len(errors.splitlines()) == len(wrong)
    assert (code, output) == (0, "done\n")
    sent = {"TRACES": bool(spans(sink)), "METRICS": bool(sink.pushes), "LOGS": bool(sink.logs)}
    assert sent == {one: bool(signal) and one != signal for one in SIGNALS}


def test_variables_without_a_value_are_not_set(simulator: str, sink: Sink, tmp_path: Path) -> None:
    """As the standard says; OpenTelemetry complains of some."""
    empty = dict.fromkeys((name for name in WRONG if not name.endswith("_ENDPOINT")), "")
    (tmp_path / "program.py").write_text(CALL)

    done = finished(["python", "program.py"], with_autopath(variables(sink.http, simulator, **empty)), tmp_path)

    assert done == (0, "done\n", "")
    assert (ours(sink)[CHAT], len(sink.logs), bool(sink.pushes)) == (1, 1, True)
