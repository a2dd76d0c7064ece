"""Environment variables alone: every usual way to run Python delivers every call, once, also those of the end."""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest
from activated import (
    AUTOPATH,
    BIN,
    answers,
    finished,
    ours,
    output_of,
    parents,
    spans,
    started,
    terminate,
    until,
    variables,
    with_autopath,
)
from sinks import Sink
from stack.substitution import free_port

CHAT = "chat gpt-4o-mini"

PROGRAM = """
from openai import OpenAI
client = OpenAI()
for number in range(3):
    client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": f"Question {number}"}])
print("done")
"""

SERVED = """
from fastapi import FastAPI
from openai import AsyncOpenAI
app = FastAPI()
client = AsyncOpenAI()

@app.get("/ask")
async def ask(number: int):
    said = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": f"Question {number}"}])
    return said.choices[0].message.content

@app.get("/healthz")
async def healthz():
    return "ok"
"""


def _program(folder: Path, text: str, name: str = "program.py") -> str:
    (folder / name).write_text(textwrap.dedent(text))
    return name


@pytest.mark.parametrize("way", ["autopath", "run", "opentelemetry-instrument"])
def test_a_program_is_recorded(way: str, simulator: str, sink: Sink, tmp_path: Path) -> None:
    """By ``PYTHONPATH``, by our command and by OpenTelemetry's: each call is one span, its request a child of it."""
    command = ["python", _program(tmp_path, PROGRAM)]
    environment = variables(sink.http, simulator)
    if way == "autopath":
        environment = with_autopath(environment)
    elif way == "run":
        command = [str(BIN / "stagelight"), "run", "--", *command]
    else:
        environment |= {"OTEL_PYTHON_DISTRO": "stagelight", "OTEL_PYTHON_CONFIGURATOR": "stagelight"}
        command = [str(BIN / "opentelemetry-instrument"), *command]

    code, output, errors = finished(command, environment, tmp_path)

    assert (code, output, errors) == (0, "done\n", "")
    assert ours(sink) == {CHAT: 3}
    assert len(parents(sink)) == len(spans(sink))
    requests = [span for span in spans(sink) if span.scope == "opentelemetry.instrumentation.httpx"]
    assert Counter(parents(sink)[span.parent].name for span in requests) == {CHAT: 3}
    assert {span.resource["service.name"] for span in spans(sink)} == {"shop"}
    assert len(sink.logs) == 3


SERVERS = {
    "uvicorn": ["uvicorn", "served:app", "--port", "{port}"],
    "uvicorn with 4 workers": ["uvicorn", "served:app", "--port", "{port}", "--workers", "4"],
    "uvicorn with reload": ["uvicorn", "served:app", "--port", "{port}", "--reload"],
    "gunicorn with uvicorn workers": [
        "gunicorn", "served:app", "-b", "127.0.0.1:{port}", "-k", "uvicorn.workers.UvicornWorker", "-w", "2",
    ],
    "gunicorn with its own asgi workers": [
        "gunicorn", "served:app", "-b", "127.0.0.1:{port}", "-k", "asgi", "-w", "2",
    ],
}  # fmt: skip


REQUESTS = 12


def _served(command: list[str], application: str, simulator: str, sink: Sink, folder: Path) -> None:
    """Start a server, ask it some times, and end it right after its last answer."""
    _program(folder, application, "served.py")
    port = free_port()
    environment = with_autopath(variables(sink.http, simulator, OTEL_PYTHON_FASTAPI_EXCLUDED_URLS="healthz"))
    with started([word.format(port=port) for word in command], environment, folder) as process:
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{url}/healthz"), "the server's answer", folder)
        said = [answers(f"{url}/ask?number={number}") for number in range(REQUESTS)]
        terminate(process)
        until(lambda: ours(sink)[CHAT] >= REQUESTS, "the delivery of all calls", folder)

    assert all(said)
    assert ours(sink)[CHAT] == REQUESTS
    by_id = parents(sink)
    assert len(by_id) == len(spans(sink))
    sent = [span for span in spans(sink) if span.scope == "opentelemetry.instrumentation.httpx"]
    assert Counter(by_id[span.parent].name for span in sent) == {CHAT: REQUESTS}
    assert "stagelight" not in output_of(folder)


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_is_recorded(server: str, simulator: str, sink: Sink, tmp_path: Path) -> None:
    """Each answered request is one trace: the server's span, the call and its HTTP request; SIGTERM loses none."""
    _served(SERVERS[server], SERVED, simulator, sink, tmp_path)

    servers = [span for span in spans(sink) if span.name == "GET /ask"]
    assert len({span.trace for span in servers}) == len(servers) == REQUESTS
    chats = [span for span in spans(sink) if span.name == CHAT]
    assert {span.trace for span in chats} == {span.trace for span in servers}


SERVED_BY_WSGI = """
from openai import OpenAI
client = OpenAI()

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/healthz":
        return [b"ok"]
    said = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": environ["QUERY_STRING"]}])
    return [said.choices[0].message.content.encode()]
"""


@pytest.mark.parametrize("worker", ["sync", "gthread"])
def test_a_wsgi_server_is_recorded(worker: str, simulator: str, sink: Sink, tmp_path: Path) -> None:
    """As above, without a span of the server: no instrumentation of plain WSGI is switched on by itself."""
    command = ["gunicorn", "served:app", "-b", "127.0.0.1:{port}", "-k", worker, "-w", "2"]
    _served(command, SERVED_BY_WSGI, simulator, sink, tmp_path)

    assert len({span.trace for span in spans(sink)}) == REQUESTS
    assert len(spans(sink)) == 2 * REQUESTS


TASKS = """
from celery import Celery
from openai import OpenAI
app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"}
app.conf.task_ignore_result = True

@app.task
def ask(number):
    OpenAI().chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": f"Question {number}"}])
"""


@pytest.mark.parametrize(
    "pool",
    [["--pool", "prefork", "-c", "2"], ["--pool", "prefork", "-c", "2", "--max-tasks-per-child", "1"],
     ["--pool", "threads", "-c", "2"]],
    ids=["prefork", "one task per child", "threads"],
)  # fmt: skip
def test_a_celery_worker_is_recorded(pool: list[str], simulator: str, sink: Sink, tmp_path: Path) -> None:
    """Each task's call arrives once, whatever process it ran in and however soon that ended."""
    _program(tmp_path, TASKS, "tasks.py")
    (tmp_path / "queue").mkdir()
    (tmp_path / "control").mkdir()
    environment = with_autopath(variables(sink.http, simulator))
    send = "import tasks\nfor number in range(6): tasks.ask.delay(number)"
    assert finished([sys.executable, "-c", send], variables(sink.http, simulator), tmp_path)[0] == 0

    command = ["celery", "-A", "tasks", "worker", "-l", "INFO", *pool]
    with started(command, environment, tmp_path) as process:
        until(lambda: output_of(tmp_path).count("succeeded in") == 6, "the end of all tasks", tmp_path)
        code = terminate(process)

    assert code == 0
    assert ours(sink) == {CHAT: 6}
    assert len(parents(sink)) == len(spans(sink))


TESTED = """
from openai import OpenAI

def test_answers(capsys):
    said = OpenAI().chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Question"}])
    print("said")
    assert said.choices and capsys.readouterr().out == "said\\n"
"""


def test_pytest_is_recorded(simulator: str, sink: Sink, tmp_path: Path) -> None:
    """A test run of the application is recorded as any program, and warnings as errors disturb it not."""
    _program(tmp_path, TESTED, "test_shop.py")
    environment = with_autopath(variables(sink.http, simulator))
    command = ["pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]

    code, output, errors = finished([*command, f"--basetemp={tmp_path / 'base'}"], environment, tmp_path)

    assert (code, errors) == (0, ""), output
    assert ours(sink) == {CHAT: 1}


@pytest.mark.parametrize(
    ("words", "activated"),
    [
        (["-W", "ignore", "-X", "utf8", "program.py"], True),
        (["-mprogram"], True),
        (["-m", "pip"], False),
        (["-W", "ignore", "-X", "utf8", "-m", "pip"], False),
        (["-Bmpip"], True),  # switches in one word are not taken apart: to activate needlessly costs only time
        (["-mpip.__main__"], False),
        (["pip3.11"], False),
        (["folder/pip3"], False),
        (["pipeline.py"], True),
        (["-S", "program.py"], False),
        (["-E", "program.py"], False),
        (["-I", "program.py"], False),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_programs_that_are_no_application_are_left_alone(words: list[str], activated: bool, tmp_path: Path) -> None:
    """However the interpreter is told what to run; and its environment stays as it was."""
    text = "import os, sys; print('stagelight' in sys.modules, os.environ['PYTHONPATH'] == os.environ['AS_GIVEN'])"
    for name in ("program.py", "pip3.11", "pip3", "pipeline.py", "pip/__main__.py", "pip/__init__.py", "folder/pip3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if "__init__" in name else text)
    off = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    environment = with_autopath(variables("http://127.0.0.1:9", "http://127.0.0.1:9", PYTHONPATH=f"{tmp_path}:", **off))

    done = finished(["python", *words], {**environment, "AS_GIVEN": environment["PYTHONPATH"]}, tmp_path)

    assert done == (0, f"{activated} True\n", "")


def test_run_keeps_the_path_of_its_program(tmp_path: Path) -> None:
    """An empty part of PYTHONPATH is the current folder; what cannot be run is one clear line."""
    (tmp_path / "script.sh").write_text("no program")
    (tmp_path / "script.sh").chmod(0o755)
    program = "import os; print(os.environ['PYTHONPATH'])"
    environment = variables("http://127.0.0.1:9", "http://127.0.0.1:9", PYTHONPATH=f":/a:{AUTOPATH}:")

    runs = [str(BIN / "stagelight"), "run", "--"]
    assert finished([*runs, "python", "-c", program], environment, tmp_path)[1] == f"{AUTOPATH}::/a:\n"
    assert finished([*runs, "./script.sh"], environment, tmp_path) == (
        1,
        "",
        "stagelight: './script.sh' cannot be run: Exec format error\n",
    )
