"""A small database with fixed times, written as the server writes it, ways to run the command line, and a server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from stagelight import cost
from stagelight.cli import main
from stagelight.conventions import attributes as names
from stagelight.embedded.retention import Retention
from stored import logs, record, span, store, traces, usage

PROGRAM = (sys.executable, "-m", "stagelight")

DAY = ("--since", "2026-09-21", "--until", "2026-09-22", "--utc")
"""The range in which everything below happened."""

KEEP = Retention(age_s=1e10, usage_age_s=1e10)
"""Of the fixed past, nothing is too old."""

HOSTILE = "evil\x1b[31mred\x1b]0;owned\x07\u202egnp.exe\r\nnext"
"""A name that would repaint, rename and reorder a terminal."""


class Result(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str


Run = Callable[..., Result]


def turn_span(number: int, trace: int, *, at: float, lasts: float, **attributes: Any) -> Span:
    """The span of a turn."""
    basic = {
        names.STAGELIGHT_STAGE: "turn",
        names.GEN_AI_WORKFLOW_NAME: "answer",
        names.STAGELIGHT_OUTCOME: "completed",
        names.STAGELIGHT_FEATURE: "help",
    }
    given = {getattr(names, name): value for name, value in attributes.items() if name != "error"}
    return span(
        number, trace=trace, at=at, lasts=lasts, name="invoke_workflow answer", error="error" in attributes,
        attributes={**basic, **given},
    )  # fmt: skip


def call_span(number: int, trace: int, parent: int, stage: str, name: str, **more: Any) -> Span:
    """The span of a call."""
    at, lasts, error = more.pop("at"), more.pop("lasts"), more.pop("error", False)
    attributes = {names.STAGELIGHT_STAGE: stage, names.STAGELIGHT_OUTCOME: "completed"}
    attributes |= {getattr(names, key): value for key, value in more.items()}
    return span(
        number, trace=trace, parent=parent, at=at, lasts=lasts, name=name, kind=Span.SPAN_KIND_CLIENT, error=error,
        attributes=attributes,
    )  # fmt: skip


def complete_turn(trace: int, at: float) -> list[Span]:
    """A turn with an embedding, a search, a streamed answer and its speech."""
    first = trace * 16
    return [
        turn_span(
            first, trace, at=at, lasts=1.24,
            STAGELIGHT_TURN_COST=0.00057384, STAGELIGHT_TURN_COST_STATUS="estimated", STAGELIGHT_TURN_CALLS=3,
            STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN=0.42, STAGELIGHT_TURN_TIME_TO_FIRST_AUDIO=0.91,
            STAGELIGHT_TURN_INPUT_TOKENS=912, STAGELIGHT_TURN_OUTPUT_TOKENS=120,
            STAGELIGHT_TENANT="acme", USER_HASH="h1:k1:0a1b2c",
        ),
        call_span(
            first + 1, trace, first, "embedding", "embeddings text-embedding-3-small", at=at + 0.01, lasts=0.08,
            GEN_AI_REQUEST_MODEL="text-embedding-3-small", GEN_AI_PROVIDER_NAME="openai",
            GEN_AI_USAGE_INPUT_TOKENS=12, STAGELIGHT_COST_AMOUNT=2.4e-07, STAGELIGHT_COST_STATUS="exact",
        ),
        call_span(
            first + 2, trace, first, "retrieval", "retrieval docs", at=at + 0.1, lasts=0.012,
            STAGELIGHT_RETRIEVAL_COUNT=5, STAGELIGHT_RETRIEVAL_TOP_SCORE=0.91,
        ),
        call_span(
            first + 3, trace, first, "llm", "chat gpt-4o-mini", at=at + 0.12, lasts=0.6,
            GEN_AI_REQUEST_MODEL="gpt-4o-mini", GEN_AI_PROVIDER_NAME="openai",
            GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK=0.3, GEN_AI_USAGE_INPUT_TOKENS=900,
            GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS=512, GEN_AI_USAGE_OUTPUT_TOKENS=120,
            STAGELIGHT_COST_AMOUNT=0.0001686, STAGELIGHT_COST_STATUS="exact",
        ),
        call_span(
            first + 4, trace, first, "tts", "text_to_speech tts-1", at=at + 0.74, lasts=0.5,
            GEN_AI_REQUEST_MODEL="tts-1", GEN_AI_PROVIDER_NAME="openai", GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK=0.17,
            STAGELIGHT_TTS_CHARACTERS=27, STAGELIGHT_TTS_AUDIO_SECONDS=1.8,
            STAGELIGHT_COST_AMOUNT=0.000405, STAGELIGHT_COST_STATUS="estimated",
        ),
    ]  # fmt: skip


def failed_turn(trace: int, at: float) -> list[Span]:
    """A turn whose only call was refused by the provider."""
    first = trace * 16
    return [
        turn_span(
            first, trace, at=at, lasts=0.3, error=True, STAGELIGHT_OUTCOME="error", ERROR_TYPE="RateLimitError",
            STAGELIGHT_TURN_CALLS=1, STAGELIGHT_TURN_COST_STATUS="unpriced",
        ),
        call_span(
            first + 1, trace, first, "llm", "chat house-model", at=at + 0.05, lasts=0.2, error=True,
            GEN_AI_REQUEST_MODEL="house-model", GEN_AI_PROVIDER_NAME="acme", ERROR_TYPE="RateLimitError",
            STAGELIGHT_OUTCOME="error", STAGELIGHT_COST_STATUS="unpriced", STAGELIGHT_COST_REASON="unknown_model",
        ),
    ]  # fmt: skip


def write_scene(path: Path) -> None:
    """Two turns that worked, one that failed, a trace without a turn, their ledger and three log lines."""
    shared = {"feature": "help", "provider": "openai", "tenant": "acme", "user": "h1:k1:0a1b2c"}
    ledger = []
    for number, at in ((1, 0.0), (2, 60.0)):
        ledger += [
            usage(at, trace=number, stage="embedding", model="text-embedding-3-small", input_tokens=12, cost=2.4e-07,
                  status="exact", **shared),
            usage(at + 0.1, trace=number, stage="llm", model="gpt-4o-mini", input_tokens=900, output_tokens=120,
                  cached_tokens=512, cost=0.0001686, status="exact", **shared),
            usage(at + 0.2, trace=number, stage="tts", model="tts-1", characters=27, audio_seconds=1.8, cost=0.000405,
                  status="estimated", **shared),
        ]  # fmt: skip
    ledger += [
        usage(120, trace=3, stage="llm", model="house-model", provider="acme", status="unpriced",
              reason="unknown_model", feature="help"),
        usage(180, stage="tts", model="tts-1", audio_seconds=2.0, status="partial", cost=0.0001, provider="openai",
              missing=["characters"]),
    ]  # fmt: skip
    store(
        path,
        traces(*complete_turn(1, 0), *complete_turn(2, 60), *failed_turn(3, 120), service="voice"),
        traces(span(90, trace=4, at=200, lasts=0.05, name="GET /health"), service="web"),
        logs(
            record("started", at=-5, severity_text="INFO"),
            record("asked the provider again", at=60.4, trace=2, severity_text="WARN", severity_number=13),
            record("gave up", at=120.3, trace=3, severity_text="ERROR", severity_number=17),
            service="voice",
        ),
        logs(*ledger, service="voice"),
        retention=KEEP,
    )


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of `write_scene`."""
    path = tmp_path_factory.mktemp("cli") / "scene.db"
    write_scene(path)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in this process with an empty environment of our own variables; its output is a pipe's."""
    for variable in ("STAGELIGHT_SOURCE", "STAGELIGHT_PRICES", "STAGELIGHT_SERVER_TOKEN", "STAGELIGHT_ID_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def run_command(*words: str | Path) -> Result:
        arguments: Sequence[str] = [str(word) for word in words]
        capsys.readouterr()
        status = main(arguments)
        return Result(status, *capsys.readouterr())

    return run_command


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of the environment of the tests is taken for an application's, and no price stays behind."""
    for variable in list(os.environ):
        if variable.startswith(("OTEL_", "STAGELIGHT_")):
            monkeypatch.delenv(variable)
    yield
    cost.configure(None)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A server that `stagelight up` started; yields what it announced, line by title."""
    command = [*PROGRAM, "up", "--port", "0", "--grpc-port", "0", "--db", str(tmp_path / "up.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        announced: dict[str, str] = {}
        for line in up.stdout:
            if line.startswith("  export OTEL_EXPORTER_OTLP_PROTOCOL="):
                break
            title, _, rest = line.strip().partition("  ")
            announced[title] = rest.strip()
        yield announced
        up.send_signal(signal.SIGINT)
        _, err = up.communicate(timeout=60)

    assert (up.returncode, err) == (0, "Stopped. Whatever was accepted is in the database.\n")
