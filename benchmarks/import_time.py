"""What ``import stagelight`` adds to importing the OpenTelemetry SDK: ``python benchmarks/import_time.py [--json]``.

Fresh interpreters, both imports in turns. Within one interpreter the SDK's trace, metrics and logs are imported first
and timed, then ``stagelight``; the figure is the median of the second. Goal: at most 60 ms.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

ROUNDS = 15
GOAL_MS = 60

PROGRAM = """
import sys, time
now = time.perf_counter
began = now()
import opentelemetry.sdk.trace, opentelemetry.sdk.metrics, opentelemetry.sdk._logs
sdk = now()
import stagelight
ours = now()
modules = len(sys.modules)
stagelight.configure(instrument=False)
print((sdk - began) * 1e3, (ours - sdk) * 1e3, (now() - ours) * 1e3, modules)
import os
os._exit(0)  # nothing is delivered here
"""

BARE = """
import sys, time
began = time.perf_counter()
import stagelight
print((time.perf_counter() - began) * 1e3)
"""


def run(program: str) -> list[float]:
    """The figures a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return [float(figure) for figure in done.stdout.split()]


def main() -> int:
    """Print the figures, as JSON with ``--json``."""
    run(PROGRAM), run(BARE)  # byte code is written
    rounds = [(run(PROGRAM), run(BARE)) for _ in range(ROUNDS)]
    sdk, added, configured, _ = (statistics.median(column) for column in zip(*(one for one, _ in rounds), strict=True))
    bare = statistics.median(only for _, (only,) in rounds)
    figures = {"sdk_ms": sdk, "added_ms": added, "configure_ms": configured, "without_sdk_ms": bare, "goal_ms": GOAL_MS}
    if "--json" in sys.argv[1:]:
        print(json.dumps(figures))
        return 0
    print(f"import of the OpenTelemetry SDK      {sdk:6.1f} ms")
    print(f"import stagelight after it           {added:6.1f} ms   goal {GOAL_MS} ms")
    print(f"configure() after that, once         {configured:6.1f} ms")
    print(f"import stagelight in a fresh process {bare:6.1f} ms")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
