"""The end of the process: what was made is delivered or counted, in bounded time, however the process ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from otlp_receiver import Received, environment, nobody, python, receiver
from stack.substitution import free_port

LIMIT_S = 40
"""The goal is 3 s, which benchmarks/exit_time.py measures; the rest is for busy machines."""
EXPORT_S = 120
"""How long an exporter would wait for a dead collector, if the exit waited for it."""
SPANS = 2000

WORK = """
import atexit, json, os, sys, time

def tell():
    print(json.dumps({"delivery": {name: one._asdict() for name, one in configured.delivery().items()}}))

atexit.register(tell)  # runs last
import stagelight
configured = stagelight.configure()

def work(count, name="m"):
    for _ in range(count):
        with stagelight.llm(provider="acme", model=name) as call:
            call.usage(input_tokens=1)

def linger():
    for _ in range(600):  # in one sleep, Python would not see a signal that came just before it
        time.sleep(0.05)
"""


PATIENT = "sys.modules['stagelight.configure'].EXIT_LIMIT_S = 60.0\n"
"""A busy machine may take longer than the two seconds that an exit gives to delivery."""


def _said(output: str) -> dict[str, Any]:
    """The lines of JSON that a script printed, as one."""
    said: dict[str, Any] = {}
    for line in output.splitlines():
        if line.startswith("{"):
            said |= json.loads(line)
    return said


def _finish(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    try:
        output, errors = process.communicate(timeout=EXPORT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipe.close()
        raise
    return _said(output), errors


def _ended(process: subprocess.Popen[str]) -> tuple[int, float, dict[str, Any], str]:
    said, errors = _finish(process)
    return process.returncode, time.time() - said["done"], said["delivery"], errors


@pytest.fixture(scope="module")
def dead() -> dict[str, tuple[int, float, dict[str, Any], str]]:
    """Exit code, seconds after the work, accounts and errors of processes whose collector is dead, run side by side."""
    script = f'{WORK}\nwork({SPANS})\nprint(json.dumps({{"done": time.time()}}))\nsys.exit(3)'
    found: dict[str, tuple[int, float, dict[str, Any], str]] = {}
    with ExitStack() as stack:
        places = {
            "refused": stack.enter_context(nobody(listening=False)),
            "black hole": stack.enter_context(nobody(listening=True)),
        }
        for protocol in ("http/protobuf", "grpc"):
            running = {
                f"{protocol} {place}": python(
                    script, endpoint, OTEL_EXPORTER_OTLP_PROTOCOL=protocol, OTEL_EXPORTER_OTLP_TIMEOUT=str(EXPORT_S)
                )
                for place, endpoint in places.items()
            }
            with ThreadPoolExecutor(len(running)) as pool:
                found |= zip(running, pool.map(_ended, running.values()), strict=True)
    return found


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("place", ["refused", "black hole"])
def test_a_dead_collector_does_not_hold_the_exit(
    dead: dict[str, tuple[int, float, dict[str, Any], str]], protocol: str, place: str
) -> None:
    """With 2,000 spans queued the process ends in time with its own exit code and says what it lost."""
    code, seconds, delivery, errors = dead[f"{protocol} {place}"]

    assert code == 3
    assert seconds < LIMIT_S
    assert sorted(delivery) == ["logs", "metrics", "traces"]
    assert delivery["traces"]["made"] == delivery["logs"]["made"] == SPANS
    for balance in delivery.values():
        assert balance["made"] == balance["delivered"] + sum(balance["dropped"].values()) + balance["queued"]
        assert balance["delivered"] == 0
    assert "Traceback" not in errors


def _run(body: str, *, patience: str = PATIENT) -> tuple[Received, subprocess.Popen[str], dict[str, Any], str]:
    with receiver() as (received, endpoint):
        process = python(WORK + patience + textwrap.dedent(body), endpoint)
        said, errors = _finish(process)
    return received, process, said, errors


def test_a_healthy_exit_delivers_everything() -> None:
    """Nothing is dropped or queued, also what a running turn still had to bill."""
    received, process, said, errors = _run(f"""
        work({SPANS})
        turn = stagelight.turn("open").__enter__()
        work(1, "inside")
        print(json.dumps({{"done": time.time()}}))
    """)
    balances = said["delivery"]

    assert (process.returncode, errors) == (0, "")
    assert received.spans == {"chat m": SPANS, "chat inside": 1}
    assert len(received.ledger) == SPANS + 1
    assert set(received.ledger.values()) == set(received.span_ids.values()) == {1}
    assert (balances["traces"]["delivered"], balances["logs"]["delivered"]) == (SPANS + 1, SPANS + 1)
    assert all(balance["made"] == balance["delivered"] for balance in balances.values())


def test_the_threads_are_there_before_the_first_call_ends() -> None:
    """A program may end at once after its first call, and a Python that is ending (3.12) starts no more threads."""
    received, process, said, errors = _run("""
        import threading

        def ours():
            return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("stagelight"))

        before = ours()
        with stagelight.llm(provider="acme", model="m") as call:
            call.usage(input_tokens=1)
            print(json.dumps({"before": before, "inside": ours()}))
    """)
    exports = [f"stagelight-export-{signal}" for signal in ("logs", "metrics", "traces")]

    assert (process.returncode, errors) == (0, "")
    assert said["before"] == ["stagelight-export-metrics"]
    assert said["inside"] == [*exports, "stagelight-handover"]
    assert received.spans == {"chat m": 1}
    assert len(received.ledger) == 1


def test_a_call_that_begins_at_the_very_end_holds_nothing_up() -> None:
    """One that the application makes when Python is ending already is delivered, or said to be lost (3.12)."""
    received, process, said, errors = _run("""
        atexit.register(work, 1)  # runs before ours
        print(json.dumps({"done": time.time()}))
    """)
    ended = time.time()

    assert process.returncode == 0
    assert ended - said["done"] < LIMIT_S
    assert received.spans == {"chat m": 1} or "not delivered and dropped: traces 1" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("ending", "code"),
    [("sys.exit(7)", 7), ("raise RuntimeError('host')", 1), ("sys.exit('said')", 1)],
    ids=["code", "exception", "text"],
)
def test_the_exit_code_is_the_programs(ending: str, code: int) -> None:
    """However the program ends, its code and its own error are kept and its spans delivered."""
    received, process, _, errors = _run(f"work(5)\n{ending}")

    assert process.returncode == code
    assert received.spans == {"chat m": 5}
    assert ("host" in errors) == ("host" in ending)


def test_shutdown_by_hand_is_not_done_twice() -> None:
    """An explicit shutdown delivers; the one at exit has nothing to do, says nothing and costs no time."""
    received, process, said, errors = _run("""
        work(5)
        stopped = stagelight.shutdown(60)
        print(json.dumps({"stopped": stopped, "done": time.time()}))
    """)

    assert (process.returncode, said["stopped"], errors) == (0, True, "")
    assert received.spans == {"chat m": 5}


def test_an_abandoned_stream_is_delivered_at_exit() -> None:
    """A stream dropped as the last thing of the process still ends its call and its turn."""
    received, _, _, _ = _run("""
        with stagelight.turn("answer"):
            call = stagelight.llm(provider="acme", model="m")
            with call:
                for _ in call.stream(iter("abc")):
                    break
    """)

    assert received.spans == {"chat m": 1, "invoke_workflow answer": 1}


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
        _finish(process)

    assert process.returncode == -signal.SIGTERM
    assert received.spans == {"chat m": 50}
    assert len(received.ledger) == 50


def test_calls_that_are_slow_to_record_are_delivered() -> None:
    """The exit waits for what calls have left to record beyond its limit for the network, as when little of a processor
    is left: here for a span processor of the application's own.
    """
    received, process, _, errors = _run(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import SpanProcessor

        class Slow(SpanProcessor):
            def on_end(self, span):
                time.sleep(0.75)

        trace.get_tracer_provider().add_span_processor(Slow())
        work(3)
        """,
        patience="",
    )

    assert (process.returncode, errors) == (0, "")
    assert received.spans == {"chat m": 3}
    assert len(received.ledger) == 3


def test_a_handler_of_the_application_stays() -> None:
    """A SIGTERM that the application handles is the application's alone."""
    with receiver() as (received, endpoint):
        handler = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        process = python(f"{handler}{WORK}{PATIENT}work(5)\nprint('ready')\nlinger()", endpoint)
        _terminate(process)
        _finish(process)

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


FORKED = """
def child():
    work(3, "child")

work(5, "before")
with stagelight.turn("open"):
    work(1, "waiting")  # waits for the end of the turn to be billed
    {fork}
    work(2, "after")
"""
FORKS = {
    "os.fork": """
    pid = os.fork()
    if pid == 0:
        child()
        sys.exit(0)
    os.waitpid(pid, 0)
""",
    "multiprocessing": """
    import multiprocessing
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
""",
}


@pytest.mark.parametrize("fork", FORKS.values(), ids=FORKS)
def test_a_forked_child_delivers_its_own(fork: str) -> None:
    """Spans and ledger of parent and child arrive once each, also those of a turn that is open at the fork."""
    with receiver() as (received, endpoint):
        process = python(WORK + PATIENT + FORKED.format(fork=fork.strip()), endpoint)
        _finish(process)

    assert process.returncode == 0
    assert received.spans == {
        "chat before": 5,
        "chat waiting": 1,
        "chat child": 3,
        "chat after": 2,
        "invoke_workflow open": 1,
    }
    assert set(received.span_ids.values()) == {1}
    assert len(received.ledger) == 11
    assert set(received.ledger.values()) == {1}


def test_a_killed_child_of_multiprocessing_delivers() -> None:
    """``Process.terminate`` is a SIGTERM: the child delivers what it has."""
    with receiver() as (received, endpoint):
        process = python(
            WORK
            + PATIENT
            + textwrap.dedent("""
                import multiprocessing

                def child(ready):
                    work(4, "child")
                    ready.set()
                    linger()

                context = multiprocessing.get_context("fork")
                ready = context.Event()
                process = context.Process(target=child, args=(ready,))
                process.start()
                ready.wait(60)
                process.terminate()
                process.join()
            """),
            endpoint,
        )
        _finish(process)

    assert received.spans == {"chat child": 4}
