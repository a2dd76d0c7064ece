"""Standard variables rule from the first line of the program; a wrong one is one line, and fatal only when strict."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from activated import AUTOPATH, BIN, finished, ours, spans, variables, with_autopath
from sinks import Sink, receiving

CHAT = "chat gpt-4o-mini"
CALL = """
from openai import OpenAI
OpenAI().chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Question"}])
"""


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A receiver of telemetry, by both protocols."""
    with receiving(with_grpc=True) as open_sink:
        yield open_sink


def _run(text: str, environment: dict[str, str], folder: Path) -> tuple[int, str, str]:
    (folder / "program.py").write_text(text)
    return finished(["python", "program.py"], environment, folder)


WRONG = {
    "STAGELIGHT_SEMCONV": ("newest", "released or latest"),
    "OTEL_BSP_SCHEDULE_DELAY": ("soon", "a number of milliseconds above 0"),
}


@pytest.mark.parametrize(
    ("way", "variable"), [("autopath", "OTEL_BSP_SCHEDULE_DELAY"), ("opentelemetry-instrument", "STAGELIGHT_SEMCONV")]
)
def test_a_wrong_value_is_fatal_when_strict(way: str, variable: str, tmp_path: Path) -> None:
    """The same line, and the program does not begin."""
    value, accepted = WRONG[variable]
    environment = variables("http://127.0.0.1:9", "http://127.0.0.1:9", STAGELIGHT_STRICT="1", **{variable: value})
    (tmp_path / "program.py").write_text("print('began')")
    if way == "autopath":
        done = finished(["python", "program.py"], with_autopath(environment), tmp_path)
    else:
        environment |= {"OTEL_PYTHON_DISTRO": "stagelight", "OTEL_PYTHON_CONFIGURATOR": "stagelight"}
        done = finished([str(BIN / "opentelemetry-instrument"), "python", "program.py"], environment, tmp_path)

    code, output, errors = done
    assert (code, output) == (1, "")
    assert errors.startswith(f"stagelight: {variable}: {value!r} is not accepted; accepted: {accepted}")
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_COMPRESSION": "none"},
        {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "{grpc}"},
        {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_EXPORTER_OTLP_TIMEOUT": "5"},
        {"OTEL_TRACES_EXPORTER": "otlp_proto_grpc", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "{grpc}"},
    ],
    ids=["http", "grpc", "spans by grpc", "compressed", "grpc by the exporter's name"],
)
def test_protocols_and_endpoints(given: dict[str, str], simulator: str, sink: Sink, tmp_path: Path) -> None:
    """Each signal goes where and how its variables say."""
    given = {name: value.format(grpc=sink.grpc) for name, value in given.items()}
    everything = given.get("OTEL_EXPORTER_OTLP_PROTOCOL") == "grpc"
    environment = variables(sink.grpc if everything else sink.http, simulator, **given)

    done = _run(CALL, with_autopath(environment), tmp_path)

    assert done == (0, "", "")
    assert (ours(sink), len(sink.logs), bool(sink.pushes)) == ({CHAT: 1}, 1, True)


def test_resource_and_sampler(simulator: str, sink: Sink, tmp_path: Path) -> None:
    """The resource is the variables'; what is not sampled is still counted and billed."""
    environment = variables(
        sink.http,
        simulator,
        OTEL_RESOURCE_ATTRIBUTES="service.version=1.2,deployment.environment.name=test",
        OTEL_TRACES_SAMPLER="traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0",
    )

    done = _run(CALL, with_autopath(environment), tmp_path)

    assert done == (0, "", "")
    assert (len(spans(sink)), len(sink.logs)) == (0, 1)
    assert any("stagelight.usage.cost" in push for push in sink.pushes)
    [pushed, *_] = [request for request in sink.requests if hasattr(request, "resource_metrics")]
    resource = {one.key: one.value.string_value for one in pushed.resource_metrics[0].resource.attributes}
    assert (resource["service.name"], resource["service.version"]) == ("shop", "1.2")
    assert resource["deployment.environment.name"] == "test"


def test_the_console_beside_and_instead(simulator: str, sink: Sink, tmp_path: Path) -> None:
    """``console`` prints what ``otlp`` sends; each alone or both, per signal."""
    (tmp_path / "program.py").write_text(CALL)
    both = with_autopath(variables(sink.http, simulator, OTEL_TRACES_EXPORTER="otlp,console"))
    code, output, errors = finished(["python", "program.py"], both, tmp_path)
    printed = json.loads(f"[{output.replace('}' + chr(10) + '{', '},{')}]")
    names = Counter(span["name"] for span in printed)

    assert (code, errors) == (0, "")
    assert names == Counter(span.name for span in spans(sink)) == {CHAT: 1, "POST": 1}

    sink.requests.clear()
    alone = dict.fromkeys(("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"), "console")
    code, output, errors = finished(["python", "program.py"], with_autopath({**both, **alone}), tmp_path)

    assert (code, errors, sink.requests) == (0, "", [])
    assert all(word in output for word in (CHAT, "stagelight.usage.cost", "stagelight.usage.recorded"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, {}),
        ({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*"}, {}),
        ({"STAGELIGHT_INSTRUMENT": "0"}, {}),
        ({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "httpx,httpx2"}, {CHAT: 1}),
        ({"OTEL_TRACES_EXPORTER": "none"}, {}),
    ],
    ids=["sdk", "all instrumentations", "instrument=0", "httpx", "spans"],
)
def test_what_is_switched_off_is_off(
    given: dict[str, str], expected: dict[str, int], simulator: str, sink: Sink, tmp_path: Path
) -> None:
    """The program runs, and no span comes from what is off."""
    done = _run(CALL, with_autopath(variables(sink.http, simulator, **given)), tmp_path)

    assert done == (0, "", "")
    assert Counter(span.name for span in spans(sink)) == expected


def test_configure_by_the_program_changes_nothing(simulator: str, sink: Sink, tmp_path: Path) -> None:
    """An application that calls ``configure()`` as well is set up once; a keyword that differs has no effect."""
    quiet = f"import stagelight\nstagelight.configure()\nstagelight.configure(semconv='released')\n{CALL}"
    said = f"import stagelight\nstagelight.configure(semconv='latest')\n{CALL}"
    environment = with_autopath(variables(sink.http, simulator))

    assert _run(quiet, environment, tmp_path) == (0, "", "")
    code, _, errors = _run(said, environment, tmp_path)

    assert (code, errors) == (
        0,
        "stagelight was set up by the environment before configure(); without effect: semconv\n",
    )
    assert ours(sink) == {CHAT: 2}


def test_nothing_touches_the_network_before_a_call(sink: Sink, tmp_path: Path) -> None:
    """Starting opens no connection and resolves no name."""
    program = """
import sys
touched = []
sys.addaudithook(lambda name, _: touched.append(name) if name in ("socket.connect", "socket.getaddrinfo") else None)
sys.path.insert(0, AUTOPATH)
import sitecustomize, os, openai, time
assert "stagelight.distro" in sys.modules
time.sleep(0.3)
print(touched, flush=True)
os._exit(0)
""".replace("AUTOPATH", repr(AUTOPATH))

    assert _run(program, variables(sink.http, sink.http), tmp_path) == (0, "[]\n", "")


SECRETS = """
import sys
import httpx
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

url, planted = sys.argv[1], "-".join(["planted", "{}"])
app = FastAPI()

@app.get("/fails")
def fails():
    user = url.replace("//", f"//user:{planted.format(2)}@")
    raise ValueError(f"for url '{url}/x?key={planted.format(1)}' and {user}")

star = Starlette(routes=[Route("/plain", lambda request: PlainTextResponse("ok"))])
for one, path in ((app, "/fails"), (star, "/plain")):
    TestClient(one, raise_server_exceptions=False).get(f"{path}?q={planted.format(3)}&api_key={planted.format(4)}")
signed = f"/x?X-Amz-Signature={planted.format(6)}&token={planted.format(7)}#{planted.format(8)}"
httpx.get(url.replace("//", f"//user:{planted.format(5)}@") + signed)
"""


@pytest.mark.parametrize("names", ["", "http", "http/dup"])
@pytest.mark.parametrize("exporter", ["otlp", "console"])
def test_secrets_of_urls_are_never_recorded(names: str, exporter: str, sink: Sink, tmp_path: Path) -> None:
    """Neither credentials nor any value of a query leaves, by client or server, in either generation of the names."""
    (tmp_path / "program.py").write_text(SECRETS)
    environment = variables(sink.http, sink.http, OTEL_SEMCONV_STABILITY_OPT_IN=names, OTEL_TRACES_EXPORTER=exporter)

    code, output, errors = finished(["python", "program.py", sink.http], with_autopath(environment), tmp_path)

    assert (code, errors) == (0, "")
    sent = output.encode() + b"".join(request.SerializeToString() for request in sink.requests)
    assert sent.count(b"GET /fails") == sent.count(b"GET /plain") >= 1
    assert b"api_key=REDACTED" in sent
    # What the SDK's own exporters print of an exception is not ours to change.
    kept_by_others = set() if exporter == "otlp" else {b"planted-1", b"planted-2"}
    assert set(re.findall(rb"planted-\d", sent)) <= kept_by_others
