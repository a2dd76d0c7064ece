"""The embedded server under load: durable spans per second, kills, look-ups, start and memory.

    python benchmarks/embedded.py                    # 1,000,000 spans, 2 to 4 minutes
    python benchmarks/embedded.py --spans 100000     # a quick look

Starts ``stagelight up`` on free loopback ports with a database in a temporary directory, and sends posts of 512 spans
without content over OTLP/HTTP. The sender shares the machine with the server. Prints goals beside what was measured
and exits 1 when a goal is missed (the goals hold for 1,000,000 spans on 2 cores).
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embedded_load import POST_SPANS, Server, load, serving
from stagelight.embedded.store import open_readonly
from stagelight.sources import open_source
from stagelight.sources.model import Source, Window

KILLS = 5
_NS = 1_000_000_000


@dataclass(frozen=True)
class Measured:
    """One line of the result."""

    what: str
    goal: str
    value: str
    is_met: bool


def ingest(folder: Path, spans: int, connections: int) -> list[Measured]:
    """Throughput, memory and look-ups of one server."""
    database = folder / "load.db"
    with serving(database) as server:
        idle_mib, idle_s = server.memory_mib(), server.cpu_s()
        done = load(server.port, connections=connections, spans=spans)
        resident_mib, peak_mib = server.memory_mib(), server.memory_mib("VmHWM")
        cpu_us = (server.cpu_s() - idle_s) / done.spans * 1e6
        rate = done.spans / done.seconds
        post_ms = statistics.quantiles([seconds * 1000 for seconds in done.posts_s], n=100)
        found = _count(database)
        looked_up = _look_ups(open_source(str(database)), done.acknowledged)
    count = f"{done.spans:,}"
    return [
        Measured(
            f"durable spans/s, {connections} connections, {POST_SPANS}-span posts",
            ">= 20,000",
            f"{rate:,.0f}",
            rate >= 20_000,
        ),
        Measured("  processor time of the server", "", f"{cpu_us:.1f} us/span", True),
        Measured("  a post, p50 / p99", "", f"{post_ms[49]:.0f} / {post_ms[98]:.0f} ms", True),
        Measured(f"  acknowledged / stored of {count}", "equal", f"{done.spans:,} / {found:,}", found == done.spans),
        Measured(
            f"memory after {count} spans (idle, peak)",
            "<= 80 MB",
            f"{resident_mib:.0f} MB ({idle_mib:.0f}, {peak_mib:.0f})",
            resident_mib <= 80,
        ),
        Measured("  database", "", f"{database.stat().st_size / found:.0f} B/span", True),
        *looked_up,
    ]


def _look_ups(source: Source, traces: list[bytes]) -> list[Measured]:
    chosen = random.sample(traces, min(300, len(traces)))
    times_ms = sorted(_timed_ms(lambda: source.trace(trace_id.hex())) for trace_id in chosen)  # noqa: B023 - called at once
    p50, p99 = times_ms[len(times_ms) // 2], times_ms[len(times_ms) * 99 // 100]
    measured = [Measured("trace by id, p50 / p99", "<= 5 ms", f"{p50:.2f} / {p99:.2f} ms", p99 <= 5)]
    everything = Window(0, time.time_ns() + 60 * _NS)
    last = Window(time.time_ns() - 15 * 60 * _NS, time.time_ns() + 60 * _NS)
    questions: tuple[tuple[str, Callable[[], object]], ...] = (
        ("  newest 50 turns", lambda: source.turns(everything)),
        ("  newest 50 traces", lambda: source.traces(everything)),
        ("  latency by stage, all", lambda: source.latency(everything, "stage")),
        ("  latency series of 60 steps, all", lambda: source.series("latency", last, 60)),
        ("  totals, all", lambda: source.totals(everything)),
    )
    measured += [
        Measured(name, "", f"{statistics.median(_timed_ms(question) for _ in range(3)):.1f} ms", True)
        for name, question in questions
    ]
    source.close()
    return measured


def _timed_ms(question: Callable[[], object]) -> float:
    began = time.perf_counter()
    question()
    return (time.perf_counter() - began) * 1000


def _count(database: Path) -> int:
    connection = open_readonly(database)
    try:
        return int(connection.execute("SELECT count(*) FROM spans").fetchone()[0])
    finally:
        connection.close()


def kills(folder: Path, spans: int) -> Measured:
    """Kill the server in the middle of writing, several times, and look for every acknowledged span."""
    acknowledged = lost = 0
    for round_ in range(KILLS):
        database = folder / f"kill{round_}.db"
        with serving(database) as server:
            goal = spans * (round_ + 1) // (KILLS + 1)

            def kill(done: int, server: Server = server, goal: int = goal) -> None:
                if done >= goal:
                    os.kill(server.process.pid, signal.SIGKILL)

            sent = load(server.port, connections=4, spans=spans, on_post=kill)
            server.process.wait(timeout=30)
        acknowledged += sent.spans
        lost += sent.spans - _found(database, sent.acknowledged)
    return Measured(
        f"acknowledged spans lost over {KILLS} kill -9", "0", f"{lost} of {acknowledged:,}", lost == 0 < acknowledged
    )


def _found(database: Path, traces: list[bytes]) -> int:
    connection = open_readonly(database)
    try:
        return sum(
            connection.execute("SELECT count(*) FROM spans WHERE trace_id = ?", (trace_id,)).fetchone()[0]
            for trace_id in traces
        )
    finally:
        connection.close()


def starts(folder: Path) -> Measured:
    """From the start of the process to the first answer, with a new database and twice with an old one."""
    seconds = []
    for _ in range(3):
        with serving(folder / "start.db") as server:
            seconds.append(server.started_s)
    middle = statistics.median(seconds)
    return Measured("start to first answer, median of 3", "<= 1 s", f"{middle:.2f} s", middle <= 1)


def main() -> int:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=1_000_000, help="spans to store (default 1000000)")
    parser.add_argument("--connections", type=int, default=4, help="senders at the same time (default 4)")
    parser.add_argument("--kill-spans", type=int, default=60_000, help="spans per kill round (default 60000)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured = [starts(folder), *ingest(folder, args.spans, args.connections), kills(folder, args.kill_spans)]
    width = max(len(line.what) for line in measured)
    print(f"{'':{width}}  {'goal':>10}  measured")
    for line in measured:
        print(f"{line.what:{width}}  {line.goal:>10}  {line.value}{'' if line.is_met else '   MISSED'}")
    return 0 if all(line.is_met for line in measured) else 1


if __name__ == "__main__":
    sys.exit(main())
