"""A Node gateway with official OpenTelemetry packages in front of a Python application: one trace, one request id."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from receiving import options
from stack.substitution import free_port
from stagelight.conventions import attributes as a
from stagelight.embedded.background import EmbeddedServer
from stagelight.sim import Simulator
from stagelight.sources import open_source

GATEWAY = Path(__file__).resolve().parents[2] / "examples" / "node-gateway"
LIMIT_S = 180

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js 20 or newer"),
    pytest.mark.skipif(
        not (GATEWAY / "node_modules").is_dir(), reason="needs the gateway's packages: npm ci in examples/node-gateway"
    ),
]

APPLICATION = """
import openai, os
from fastapi import FastAPI

app = FastAPI()
client = openai.OpenAI(base_url=os.environ["PROVIDER"], api_key="key", max_retries=0)

@app.get("/ask")
def ask() -> str:
    made = client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hello"}])
    return made.choices[0].message.content
"""


@contextmanager
def running(command: list[str], **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A program with these variables, ended with SIGTERM and waited for, so that it sends what it has."""
    process = subprocess.Popen(
        command,
        cwd=variables.pop("folder"),
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def until_it_answers(url: str) -> None:
    """Wait for a server that is starting."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            httpx.get(url, timeout=LIMIT_S)
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def asked(collector: str, provider: str, folder: Path) -> tuple[httpx.Response, dict[str, Any]]:
    """One question through both; the answer, and the gateway's line about it."""
    (folder / "app.py").write_text(APPLICATION)
    port = free_port()
    shared = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    server = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port)]
    application = running(
        [sys.executable, "-m", "stagelight", "run", "--", *server],
        folder=str(folder),
        PROVIDER=provider,
        OTEL_SERVICE_NAME="answers",
        **shared,
    )
    gateway = running(
        ["node", "--require", "./telemetry.js", "gateway.js"],
        folder=str(GATEWAY),
        UPSTREAM=f"http://127.0.0.1:{port}",
        PORT="0",
        OTEL_SERVICE_NAME="gateway",
        **shared,
    )
    with application, gateway as node:
        until_it_answers(f"http://127.0.0.1:{port}/openapi.json")
        assert node.stdout is not None
        listening = json.loads(node.stdout.readline())
        url = f"http://127.0.0.1:{listening['port']}/ask"
        answer = httpx.get(url, headers={"X-Request-ID": "req-1"}, timeout=LIMIT_S)
        return answer, json.loads(node.stdout.readline())


def test_one_trace_and_one_request_id(tmp_path: Path) -> None:
    """The gateway's spans, the server's, the turn and the model's call are one trace; all know the same request."""
    with EmbeddedServer(options(tmp_path)) as server, Simulator(seed=7, latency="instant") as provider:
        answer, line = asked(f"http://127.0.0.1:{server.addresses.http_port}", provider.url, tmp_path)
        with contextlib.closing(open_source(str(server.addresses.database))) as source:
            trace = source.trace(line["trace_id"])

    assert trace is not None
    spans = {span.name: span for span in trace.spans}
    turn, call = spans["invoke_workflow GET /ask"], spans["chat gpt-4o-mini"]
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == line["request_id"] == "req-1"
    assert answer.headers["traceresponse"].split("-")[1] == line["trace_id"]
    assert {span.service for span in trace.spans} == {"gateway", "answers"}
    assert turn.attributes[a.STAGELIGHT_REQUEST_ID] == "req-1"
    assert (spans["GET /ask"].parent_id, call.parent_id) == (spans["GET"].span_id, turn.span_id)


@pytest.mark.parametrize(
    "headers", [{}, {"X-Request-ID": ""}, {"X-Request-ID": "not an id"}], ids=["none", "empty", "unsafe"]
)
def test_a_request_without_a_usable_id_gets_one(headers: dict[str, str]) -> None:
    """The gateway makes an id, which the application and the client are told."""
    with (
        Simulator(latency="instant") as upstream,
        running(
            ["node", "--require", "./telemetry.js", "gateway.js"],
            folder=str(GATEWAY),
            UPSTREAM=upstream.origin,
            PORT="0",
            OTEL_SDK_DISABLED="true",
        ) as node,
    ):
        assert node.stdout is not None
        listening = json.loads(node.stdout.readline())
        answer = httpx.get(f"http://127.0.0.1:{listening['port']}/v1/models", headers=headers, timeout=LIMIT_S)
        made = answer.headers["x-request-id"]

        assert (answer.status_code, str(uuid.UUID(made))) == (200, made)
        assert [request.header("x-request-id") for request in upstream.requests] == [made]
