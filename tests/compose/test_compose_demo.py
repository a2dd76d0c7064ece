"""The programs of profile demo, started as the compose file starts them but without an image."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from compose.deployment import compose_file
from stack.programs import ROOT
from stack.waiting import eventually

SERVICES = compose_file()["services"]
PLACES = {
    "scenario.yaml": ROOT / "instrumentation" / "stagelight" / "demo" / "scenario.yaml",
    "visit.py": ROOT / "deploy" / "compose" / "demo" / "visit.py",
    "voice_assistant/questions.txt": ROOT / "examples" / "voice_assistant" / "questions.txt",
}
"""Where the files are that the Dockerfile copies into the working directory."""


def command(service: str, **changed: str) -> list[str]:
    """The command of a service with this interpreter, the files of the checkout, and some words changed."""
    words = {"python": sys.executable} | {name: str(path) for name, path in PLACES.items()} | changed
    return [words.get(word, word) for word in SERVICES[service]["command"]]


@contextmanager
def started(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended at the end."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def test_the_simulator_starts() -> None:
    """With the words of the compose file it says where it listens."""
    with started(command("sim", **{"0.0.0.0": "127.0.0.1", "4330": "0"})) as process:  # noqa: S104  # no listener
        assert process.stdout is not None
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1\n", process.stdout.readline())


def test_visitors_ask_round_after_round() -> None:
    """Forty questions a round, most of them for speech, and the results on standard output."""
    asked: list[tuple[str, str]] = []

    class Application(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body["question"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"an answer")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Application) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with started([*command("visitors", **{"http://app:8000": address}), "--pause=0"]) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            eventually(lambda: len(asked), lambda number: number > 40)
        server.shutdown()

    assert said == "round 1: 38 answered, 2 stopped\n"
    assert {path for path, _ in asked} == {"/ask", "/chat"}


def test_the_application_starts_with_its_environment_file(tmp_path: Path) -> None:
    """The entry point takes the exports that set-up wrote, and then becomes the application."""
    file = tmp_path / "environment"
    file.write_text("export OTEL_EXPORTER_OTLP_HEADERS='authorization=Bearer%20abc'\n")
    words = [word.replace("$$", "$") for word in SERVICES["app"]["entrypoint"]]
    entrypoint = [word.replace("/run/secrets/environment", str(file)) for word in words]
    shown = "import os, sys; print(os.environ['OTEL_EXPORTER_OTLP_HEADERS'], *sys.argv[1:])"
    done = subprocess.run(
        [*entrypoint, sys.executable, "-c", shown, "two words"], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout == "authorization=Bearer%20abc two words\n"
