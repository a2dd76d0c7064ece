"""The end by a signal: a process delivers first, and still dies of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from exiting import EXPORT_S, PATIENT, WORK, finish
from otlp_receiver import environment, python, receiver
from stack.substitution import free_port


def _terminate(process: subprocess.Popen[str]) -> None:
    """Send SIGTERM once the process has said that it is ready."""
    assert process.stdout is not None
    for line in process.stdout:
        if "ready" in line:
            break
    process.send_signal(signal.SIGTERM)


def test_sigterm_delivers() -> None:
    """A process killed by SIGTERM delivers first and still dies of the signal."""
    with receiver() as (received, endpoint):
        process = python(f"{WORK}{PATIENT}work(50)\nprint('ready')\nlinger()", endpoint)
        _terminate(process)
        finish(process)

    assert process.returncode == -signal.SIGTERM
    assert received.spans == {"chat m": 50}
    assert len(received.ledger) == 50


def test_a_handler_of_the_application_stays() -> None:
    """A SIGTERM that the application handles is the application's alone."""
    with receiver() as (received, endpoint):
        handler = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        process = python(f"{handler}{WORK}{PATIENT}work(5)\nprint('ready')\nlinger()", endpoint)
        _terminate(process)
        finish(process)

    assert process.returncode == 5
    assert received.spans == {"chat m": 5}


SERVED = """
import stagelight
{first}

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    with stagelight.turn("answer"), stagelight.llm(provider="acme", model="m"):
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": b"ok"}})

import sys
{patience}
if __name__ == "__main__":
    import uvicorn
    stagelight.configure()
    uvicorn.run(app, port=int(sys.argv[1]), log_level="critical", lifespan="off")
"""


@pytest.mark.parametrize("command", ["program", "uvicorn"])
def test_uvicorn_loses_nothing(command: str, tmp_path: Path) -> None:
    """Configured before uvicorn runs, or by an application that uvicorn imports: SIGTERM delivers what was answered."""
    (tmp_path / "served.py").write_text(
        SERVED.format(first="stagelight.configure()" if command == "uvicorn" else "", patience=PATIENT)
    )
    port = free_port()
    arguments = {
        "program": ["served.py", str(port)],
        "uvicorn": ["-m", "uvicorn", "served:app", "--port", str(port), "--log-level", "critical", "--lifespan", "off"],
    }[command]
    with receiver() as (received, endpoint):
        process = subprocess.Popen([sys.executable, *arguments], cwd=tmp_path, env=environment(endpoint))
        try:
            for _ in range(20):
                assert _answer(port, process) == b"ok"
            process.send_signal(signal.SIGTERM)
            process.wait(EXPORT_S)
        finally:
            process.kill()
            process.wait(EXPORT_S)

    assert process.returncode == -signal.SIGTERM
    assert received.spans == {"invoke_workflow answer": 20, "chat m": 20}


def _answer(port: int, process: subprocess.Popen[bytes]) -> bytes:
    deadline = time.monotonic() + EXPORT_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=EXPORT_S) as answer:
                body: bytes = answer.read()
                return body
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
