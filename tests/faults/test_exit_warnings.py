"""The end of a process says nothing of ours, also where Python tells of everything that was left open."""

from __future__ import annotations

import subprocess
import sys

from otlp_receiver import environment, receiver

LIMIT_S = 60

WORK = """
import stagelight

stagelight.configure()
for _ in range(2):
    with stagelight.llm(provider="acme", model="m") as call:
        call.usage(input_tokens=1)
    stagelight.flush(30)
with stagelight.llm(provider="acme", model="m"):
    pass
"""


def test_no_connection_is_left_open_at_exit() -> None:
    """Under ``-X dev -W error`` a process that exported before and at its end writes nothing to its standard error."""
    with receiver(keeps_connections=True) as (received, endpoint):
        ended = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", WORK],
            env=environment(endpoint),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(received.span_ids) == 3
