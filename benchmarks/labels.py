"""What 200,000 distinct values of model, feature, tenant and route cost: ``python benchmarks/labels.py [--json]``.

Every value comes with a whole call in a turn (``stagelight.turn`` and ``stagelight.llm``), recorded into the
accumulators that ``configure()`` uses, with nothing exported, in three orders: each value once, all values mixed, and
mixed with one frequent model that comes late.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import stagelight
from opentelemetry._logs import NoOpLogger
from opentelemetry.trace import NoOpTracer
from stagelight import _runtime
from stagelight._handover import Handover
from stagelight.conventions import attributes as a
from stagelight.export.accumulators import Accumulators
from stagelight.instruments import Instruments
from stagelight.settings import Settings

VALUES = 200_000
MIXED = 60_000
LATE = "model-that-matters"


def resident_mb() -> float:
    """Resident memory of this process in MB; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4096 / 1e6 if statm.exists() else 0.0


def once(number: int) -> tuple[str, ...]:
    """Every value once, all four together."""
    return tuple(f"{kind}-{number}" for kind in ("model", "feature", "tenant", "route"))


def mixed(number: int) -> tuple[str, ...]:
    """Few values come often, most seldom, in all combinations."""
    draw = random.Random(number)
    return tuple(f"{kind}-{int(draw.paretovariate(0.4))}" for kind in ("model", "feature", "tenant", "route"))


def late(number: int) -> tuple[str, ...]:
    """As mixed; in the second half every tenth call is of one model."""
    values = mixed(number)
    return (LATE, *values[1:]) if number > MIXED // 2 and number % 10 == 0 else values


def measure(values: Callable[[int], tuple[str, ...]], calls: int) -> dict[str, float | bool]:
    """Record and count."""
    accumulators = Accumulators()
    runtime = _runtime.Runtime(
        tracer=NoOpTracer(),
        instruments=Instruments(accumulators),
        logger=NoOpLogger("benchmark"),
        handover=Handover(inline=True),
        settings=Settings(),
        configured=True,
    )
    with _runtime.replaced(runtime):
        record(("warm",) * 4)
        gc.collect()
        before, began = resident_mb(), time.perf_counter()
        for number in range(calls):
            record(values(number))
        seconds = time.perf_counter() - began
        gc.collect()
    series = {metric.name: many for metric, many in accumulators.all()}
    models = {one.labels.get(a.GEN_AI_REQUEST_MODEL) for many in series.values() for one in many}
    return {
        "growth_mb": resident_mb() - before,
        "most_series": max(map(len, series.values())),
        "series": sum(map(len, series.values())),
        "us_per_turn": seconds / calls * 1e6,
        "late_model_named": LATE in models,
    }


def record(values: tuple[str, ...]) -> None:
    """One turn with one streamed call."""
    model, feature, tenant, route = values
    with stagelight.turn("answer", feature=feature), stagelight.llm(provider="acme", model=model) as call:
        stagelight.identify(tenant=tenant, route=route)
        for _ in call.stream(("a", "b")):
            pass
        call.usage(input_tokens=9, output_tokens=3)


def main() -> int:
    """Print the figures, as JSON with ``--json``."""
    found = {
        "once": measure(once, VALUES),
        "mixed": measure(mixed, MIXED),
        "late": measure(late, MIXED),
    }
    if "--json" in sys.argv[1:]:
        print(json.dumps(found))
        return 0
    for name, figures in found.items():
        shown = ", ".join(f"{key} {float(value):,.1f}" for key, value in figures.items())
        print(f"{name:<8}{shown}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
