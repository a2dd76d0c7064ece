"""The example application as a user runs it, against the simulator."""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from stack.substitution import free_port
from stagelight.sim import Fault, Scenario, Simulator
from stagelight.sim.language import closest_sentences, sentences
from stagelight.sim.scenario import Rule

EXAMPLE = Path(__file__).parents[3] / "examples" / "voice_assistant"
ASKED = {"question": "Can turns nest?", "conversation_id": "c-1", "user_id": "u-1", "tenant": "acme"}
ANSWER = "Turns may nest: an inner turn is a child of the outer one."


@contextmanager
def running(sim: Simulator, **settings: str) -> Iterator[httpx.Client]:
    """The application in a process of its own, once it is healthy."""
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "STAGELIGHT_"))}
    environment = {**kept, "OPENAI_BASE_URL": sim.url, "OPENAI_API_KEY": "any", **settings}
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLE), "app:app", "--port", str(port)]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        try:
            deadline = time.monotonic() + 120
            while not is_healthy(client):
                if process.poll() is not None:
                    errors.seek(0)
                    pytest.fail(f"the application ended: {errors.read()}")
                assert time.monotonic() < deadline, "the application did not start"
                time.sleep(0.05)
            yield client
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def is_healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").json() == {"status": "ok"}
    except httpx.ConnectError:
        return False


def ask_everything(**settings: str) -> tuple[list[tuple[int, str, bytes]], list[tuple[str, bytes, set[str]]]]:
    """What the application answers, and what it sends to the provider: path, body and names of headers."""
    failing = Scenario((Rule(Fault("unauthorized"), path="/v1/chat/completions", requests=(4,)),))
    with Simulator(seed=7, latency="instant", scenario=failing) as sim, running(sim, **settings) as client:
        answers = [
            client.post("/chat", json=ASKED),
            client.post("/ask", json=ASKED),
            client.post("/ask", json={"question": "Can turns nest?"}),
            client.post("/ask", json=ASKED),
            client.post("/ask", json={"question": ""}),
        ]
        told = [(one.status_code, one.headers["content-type"], one.content) for one in answers]
        sent = [(one.path, one.body, {name for name, _ in one.headers}) for one in sim.requests]
        return told, sent


def test_it_answers_by_text_and_by_voice_and_telemetry_changes_nothing() -> None:
    """Answers, errors and requests to the provider are the same without telemetry and with a dead collector."""
    told, sent = ask_everything(OTEL_SDK_DISABLED="true")

    text, spoken, anonymous, failed, empty = told
    assert text == (200, "text/plain; charset=utf-8", ANSWER.encode())
    assert spoken == anonymous
    assert spoken[:2] == (200, "audio/wav")
    with wave.open(io.BytesIO(spoken[2])) as played:
        assert len(played.readframes(10_000_000)) == len(ANSWER) * 1600 * 2
    assert failed[0] == 502
    assert json.loads(failed[2]) == {"error": "The AI provider failed: AuthenticationError. Try again later."}
    assert empty[0] == 422
    one_turn = ["/v1/embeddings", "/v1/chat/completions", "/v1/audio/speech"]
    assert [path for path, _, _ in sent] == ["/v1/embeddings", *one_turn[:2], *one_turn, *one_turn, *one_turn[:2]]

    dead = f"http://127.0.0.1:{free_port()}"
    assert ask_everything(OTEL_EXPORTER_OTLP_ENDPOINT=dead) == (told, sent)


def test_there_are_questions_for_the_demo_and_the_pages_answer_them() -> None:
    """At least 40 different questions, and the pages hold a sentence for each of them."""
    questions = (EXAMPLE / "questions.txt").read_text(encoding="utf-8").splitlines()
    pages = [page.read_text(encoding="utf-8") for page in sorted((EXAMPLE / "docs").glob("*.md"))]
    told = [sentence for page in pages for sentence in sentences(page)]

    assert len(set(questions)) == len(questions) >= 40
    assert [question for question in questions if not closest_sentences(question, told, 3)] == []


def test_the_application_is_short() -> None:
    """The example can be read in one sitting."""
    assert len((EXAMPLE / "app.py").read_text(encoding="utf-8").splitlines()) <= 170
