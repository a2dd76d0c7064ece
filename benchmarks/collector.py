"""The Collector's whole pipeline on one processor core: spans per second into a back end that only counts them.

    python benchmarks/collector.py                  # about 90 seconds, with the programs of `make tools`
    python benchmarks/collector.py --seconds 10     # a quick look

Runs the shipped configuration, pinned to one core; sender and sink share the others. First as fast as it goes, then
at the goal of 15,000 small spans a second, at which every span must arrive. Prints goals beside what was measured and
exits 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedded_load import POST_SPANS, Post

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from stack.native import Stack
from stack.outputs import PROTOBUF, Outputs, receiving

GOAL = 15_000
CONNECTIONS = 4
DRAIN_S = 60.0


@dataclass(slots=True)
class Counted(Outputs):
    """Counts spans and forgets them."""

    arrived: int = 0
    last_at: float = field(default_factory=time.monotonic)

    def take(self, signal: str, request: Any) -> None:
        """Add the spans of a request."""
        if signal == "traces":
            self.arrived += sum(len(scope.spans) for of in request.resource_spans for scope in of.scope_spans)
            self.last_at = time.monotonic()


@dataclass(slots=True)
class Phase:
    """What one phase came to."""

    sent: int
    refused: int
    arrived: int
    sending_s: float
    """Until the last post was acknowledged."""
    whole_s: float
    """Until the last span had arrived."""
    collector_cpu_s: float
    sender_cpu_s: float
    span_bytes: float

    @property
    def rate(self) -> float:
        """Spans per second, acknowledged and arrived."""
        return self.arrived / self.whole_s


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def phase(stack: Stack, counted: Counted, *, seconds: float, rate: float | None) -> Phase:
    """Send for so long: at ``rate`` spans a second, or as fast as it goes; then wait until all has arrived."""
    before = counted.arrived
    cpu_before = cpu_s(stack.pid("collector")), time.process_time()
    post, lock = Post(), threading.Lock()
    sent = refused = size = 0
    began = time.monotonic()
    due = began

    def next_due() -> float | None:
        nonlocal due
        with lock:
            if due - began >= seconds or time.monotonic() - began >= seconds:
                return None
            at = due
            due += POST_SPANS / rate if rate else 0.0
            return at

    def send(seed: int) -> None:
        nonlocal sent, refused, size
        chance = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", stack.places["collector", 4318], timeout=60)
        headers = {"content-type": PROTOBUF, "authorization": f"Bearer {stack.token}"}
        while (at := next_due()) is not None:
            time.sleep(max(0.0, at - time.monotonic()))
            body, _ = post.fresh(chance)
            connection.request("POST", "/v1/traces", body, headers)
            response = connection.getresponse()
            response.read()
            with lock:
                sent, size = sent + POST_SPANS * (response.status == 200), size + len(body)
                refused += POST_SPANS * (response.status != 200)
        connection.close()

    threads = [threading.Thread(target=send, args=(random.getrandbits(60),)) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sending_s = time.monotonic() - began
    deadline = time.monotonic() + DRAIN_S
    while counted.arrived - before < sent and time.monotonic() < deadline:
        time.sleep(0.01)
    return Phase(
        sent=sent,
        refused=refused,
        arrived=counted.arrived - before,
        sending_s=sending_s,
        whole_s=counted.last_at - began,
        collector_cpu_s=cpu_s(stack.pid("collector")) - cpu_before[0],
        sender_cpu_s=time.process_time() - cpu_before[1],
        span_bytes=size / (sent + refused),
    )


def report(name: str, done: Phase) -> None:
    """Print what a phase came to."""
    print(f"{name}")
    print(f"  {done.rate:,.0f} spans/s of {done.span_bytes:.0f} bytes over {done.whole_s:.1f} s")
    print(f"  sent {done.sent:,}, refused {done.refused:,}, arrived {done.arrived:,}")
    print(
        f"  Collector {done.collector_cpu_s / done.arrived * 1e6:.1f} us/span, "
        f"{done.collector_cpu_s / done.whole_s:.0%} of its core; "
        f"sender and sink {done.sender_cpu_s / done.whole_s:.0%} of another"
    )


def is_disturbed(done: Phase) -> bool:
    """Whether something else took a part of the core while as much as possible was sent."""
    return done.collector_cpu_s < 0.8 * done.whole_s


def main() -> int:
    """Measure both phases and compare with the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a phase (default 30)")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("needs two processor cores: one for the Collector, one for the sender")
    with tempfile.TemporaryDirectory() as folder:
        stack, counted = Stack(Path(folder), ["collector"]), Counted()
        os.sched_setaffinity(0, cores[:1])  # the Collector inherits it
        with receiving(stack, counted), stack:
            for task in Path("/proc/self/task").iterdir():
                os.sched_setaffinity(int(task.name), cores[1:])
            phase(stack, counted, seconds=2.0, rate=GOAL / 3)  # warm
            fastest = phase(stack, counted, seconds=args.seconds, rate=None)
            steady = phase(stack, counted, seconds=args.seconds, rate=GOAL)
    report("as fast as it goes", fastest)
    report(f"at {GOAL:,} spans/s", steady)
    is_met = (
        fastest.rate >= GOAL and steady.refused == 0 and steady.sent == steady.arrived and steady.rate >= 0.95 * GOAL
    )
    if is_disturbed(fastest):
        alone = fastest.arrived / fastest.collector_cpu_s
        print(f"other programs took the Collector's core; at this cost one of its own takes {alone:,.0f} spans/s")
    print(f"goal: {GOAL:,} spans/s on one core, all arrived: {'met' if is_met else 'MISSED'}")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
