"""Speed and memory of pricing, beside the library it is built on, in one run: ``python benchmarks/pricing.py``.

Times are the best of many short rounds, taken in turns, so that a busy machine disturbs all of them alike.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import timeit
from collections.abc import Callable
from pathlib import Path

import genai_prices
from stagelight import cost
from stagelight.facts import Usage

ROUNDS = 200
NAMES = 100_000


def resident_mb() -> float:
    """Resident memory of this process in MB; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4096 / 1e6 if statm.exists() else 0.0


def best_ns(calls: dict[str, tuple[Callable[[], object], int]]) -> dict[str, float]:
    """Best time of each call in nanoseconds, all of them measured in turns."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, (call, number) in calls.items():
            best[name] = min(best[name], timeit.timeit(call, number=number) / number * 1e9)
    return best


def speeds() -> dict[str, float]:
    """Warm calls, ours and the library's."""
    text = Usage(input_tokens=900, output_tokens=120)
    cached = Usage(input_tokens=900, output_tokens=120, cache_read_tokens=512, reasoning_tokens=60)
    speech = Usage(characters=900, audio_seconds=3.1)
    audio = Usage(input_tokens=900, output_tokens=120, audio_input_tokens=500, audio_output_tokens=80)
    theirs = genai_prices.Usage(input_tokens=900, output_tokens=120)
    at = 1_795_000_000.0
    return best_ns(
        {
            "chat": (lambda: cost.price(text, provider="openai", request_model="gpt-4o-mini", at=at), 1000),
            "chat, cached and reasoning": (
                lambda: cost.price(cached, provider="openai", request_model="gpt-4o-mini", at=at),
                1000,
            ),
            "speech by characters": (lambda: cost.price(speech, provider="openai", request_model="tts-1", at=at), 1000),
            "audio tokens": (lambda: cost.price(audio, provider="openai", request_model="gpt-audio", at=at), 100),
            "unknown model": (lambda: cost.price(text, provider="openai", request_model="gpt-unheard", at=at), 500),
            "genai_prices.calc_price": (
                lambda: genai_prices.calc_price(theirs, "gpt-4o-mini", provider_id="openai"),
                50,
            ),
            "a Usage record, for scale": (lambda: Usage(input_tokens=900, output_tokens=120), 1000),
        }
    )


def memory() -> float:
    """Growth in MB over random model names."""
    seed, usage = random.Random(1), Usage(input_tokens=1)

    def ask(names: int) -> None:
        for _ in range(names):
            cost.price(usage, provider="openai", request_model=f"gpt-{seed.getrandbits(64):x}")

    ask(2000)
    before = resident_mb()
    ask(NAMES)
    return resident_mb() - before


def first_call_ms() -> float:
    """The first price of a process, with the import of the price data."""
    program = (
        "from time import perf_counter as now\n"
        "from stagelight import cost\nfrom stagelight.facts import Usage\nstart = now()\n"
        "cost.price(Usage(input_tokens=1), provider='openai', request_model='gpt-4o-mini')\n"
        "print((now() - start) * 1e3)"
    )
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True) for _ in "123"]
    return min(float(run.stdout) for run in runs)


def main() -> int:
    """Print the figures, as JSON with ``--json``."""
    first = first_call_ms()
    times = speeds()
    ratio = times["genai_prices.calc_price"] / times["chat"]
    growth = memory()
    if "--json" in sys.argv[1:]:
        print(json.dumps({"first_call_ms": first, "ns": times, "times_faster": ratio, "growth_mb": growth}))
        return 0
    for name, nanoseconds in times.items():
        print(f"{name:<28}{nanoseconds:>10,.0f} ns")
    print(f"{'times faster than the library':<28}{ratio:>9,.0f}")
    print(f"{'first price':<28}{first:>10,.1f} ms")
    print(f"{f'{NAMES:,} random names':<28}{growth:>+10.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
