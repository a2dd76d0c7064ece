"""Programs that work, and end in one way or another: what they sent, and what they said at their end."""

from __future__ import annotations

import json
import subprocess
import textwrap
from typing import Any

from otlp_receiver import Received, python, receiver

EXPORT_S = 120
"""How long an exporter would wait for a dead collector, if the exit waited for it."""

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
"""The beginning of a program: it can work, linger until it is ended, and says what was delivered."""

PATIENT = "sys.modules['stagelight.configure'].EXIT_LIMIT_S = 60.0\n"
"""A busy machine may take longer than the two seconds that an exit gives to delivery."""


def _said(output: str) -> dict[str, Any]:
    """The lines of JSON that a script printed, as one."""
    said: dict[str, Any] = {}
    for line in output.splitlines():
        if line.startswith("{"):
            said |= json.loads(line)
    return said


def finish(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    """What a program said, and its errors, once it has ended."""
    try:
        output, errors = process.communicate(timeout=EXPORT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        for pipe in filter(None, (process.stdout, process.stderr)):
            pipe.close()
        raise
    return _said(output), errors


def run_to_end(body: str, *, patience: str = PATIENT) -> tuple[Received, subprocess.Popen[str], dict[str, Any], str]:
    """Run a program that begins with `WORK`: what arrived, the process, what it said, and its errors."""
    with receiver() as (received, endpoint):
        process = python(WORK + patience + textwrap.dedent(body), endpoint)
        said, errors = finish(process)
    return received, process, said, errors
