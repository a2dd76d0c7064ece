"""Processes that fork: parent and child deliver their own, once, also when the child is killed."""

from __future__ import annotations

import textwrap

import pytest
from exiting import PATIENT, WORK, finish
from otlp_receiver import python, receiver

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
        finish(process)

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
        finish(process)

    assert received.spans == {"chat child": 4}
