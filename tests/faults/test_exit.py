"""The end of the process: what was made is delivered or counted, in bounded time, however the process ends."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from exiting import EXPORT_S, WORK, finish, run_to_end
from otlp_receiver import nobody, python

LIMIT_S = 40
"""The goal is 3 s, which benchmarks/exit_time.py measures; the rest is for busy machines."""
SPANS = 2000


def _ended(process: subprocess.Popen[str]) -> tuple[int, float, dict[str, Any], str]:
    said, errors = finish(process)
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


def test_a_healthy_exit_delivers_everything() -> None:
    """Nothing is dropped or queued, also what a running turn still had to bill."""
    received, process, said, errors = run_to_end(f"""
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
    received, process, said, errors = run_to_end("""
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
    received, process, said, errors = run_to_end("""
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
    received, process, _, errors = run_to_end(f"work(5)\n{ending}")

    assert process.returncode == code
    assert received.spans == {"chat m": 5}
    assert ("host" in errors) == ("host" in ending)


def test_shutdown_by_hand_is_not_done_twice() -> None:
    """An explicit shutdown delivers; the one at exit has nothing to do, says nothing and costs no time."""
    received, process, said, errors = run_to_end("""
        work(5)
        stopped = stagelight.shutdown(60)
        print(json.dumps({"stopped": stopped, "done": time.time()}))
    """)

    assert (process.returncode, said["stopped"], errors) == (0, True, "")
    assert received.spans == {"chat m": 5}


def test_an_abandoned_stream_is_delivered_at_exit() -> None:
    """A stream dropped as the last thing of the process still ends its call and its turn."""
    received, _, _, _ = run_to_end("""
        with stagelight.turn("answer"):
            call = stagelight.llm(provider="acme", model="m")
            with call:
                for _ in call.stream(iter("abc")):
                    break
    """)

    assert received.spans == {"chat m": 1, "invoke_workflow answer": 1}


def test_calls_that_are_slow_to_record_are_delivered() -> None:
    """The exit waits for what calls have left to record beyond its limit for the network, as when little of a processor
    is left: here for a span processor of the application's own.
    """
    received, process, _, errors = run_to_end(
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
