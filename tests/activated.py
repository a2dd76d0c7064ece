"""Programs that know nothing of Stagelight, started with its variables, and what arrives from them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import stagelight
from sinks import Sink

AUTOPATH = str(Path(stagelight.__file__).parent / "autopath")
BIN = Path(sys.executable).parent
PATIENCE_S = 120
"""How long anything may take on a loaded machine."""


class Span(NamedTuple):
    """What the tests look at."""

    scope: str
    name: str
    trace: str
    id: str
    parent: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


def variables(sink: str, simulator: str, **more: str) -> dict[str, str]:
    """The environment of a program whose calls go to the simulator and whose telemetry goes to the sink."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "STAGELIGHT_", "COV"))}
    return {
        **own,
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink,
        "OTEL_SERVICE_NAME": "shop",
        "OPENAI_BASE_URL": simulator,
        "OPENAI_API_KEY": "any",
        "PYTHONUNBUFFERED": "1",
        "PATH": f"{BIN}{os.pathsep}{own.get('PATH', '')}",
        **more,
    }


def with_autopath(environment: Mapping[str, str]) -> dict[str, str]:
    """Activated by ``PYTHONPATH`` alone."""
    path = environment.get("PYTHONPATH")
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, [AUTOPATH, path]))}


@contextmanager
def started(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A program in a session of its own, of which nothing is left after the block."""
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE_S)


def finished(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> tuple[int, str, str]:
    """Exit code, output and errors of a program that ends by itself."""
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    return done.returncode, done.stdout, done.stderr


def output_of(folder: Path) -> str:
    """What a started program has said."""
    return (folder / "output.txt").read_text()


def terminate(process: subprocess.Popen[str]) -> int:
    """Ask a program to end, as a container's host does, and wait for it."""
    process.send_signal(signal.SIGTERM)
    return process.wait(PATIENCE_S)


def until(condition: Callable[[], Any], what: str, folder: Path) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen; the program said:\n{output_of(folder)}")
        time.sleep(0.02)


def answers(url: str, **headers: str) -> str | None:
    """The body of an answer, ``None`` while nobody answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=PATIENCE_S) as answer:  # noqa: S310
            return str(answer.read().decode())
    except OSError:
        return None


def spans(sink: Sink) -> list[Span]:
    """Every span that has arrived."""
    return [
        Span(
            scope.scope.name,
            span.name,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            _values(span.attributes),
            _values(of.resource.attributes),
        )
        for request in list(sink.requests)
        for of in getattr(request, "resource_spans", ())
        for scope in of.scope_spans
        for span in scope.spans
    ]


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in attributes}


def ours(sink: Sink) -> Counter[str]:
    """How often each name of a span of Stagelight's has arrived; a span that arrives twice is counted twice."""
    return Counter(span.name for span in spans(sink) if span.scope == "stagelight")


def parents(sink: Sink) -> dict[str, Span]:
    """Spans by id."""
    return {span.id: span for span in spans(sink)}
