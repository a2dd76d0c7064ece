"""What is acknowledged is kept: through kills, outages, late records, a full disk and a corrupt queue.

``make soak`` runs the same with outages of ten minutes.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from stack.load import Load
from stack.native import Stack
from stack.programs import ROOT
from stack.queries import exposed
from stack.waiting import eventually, settled

SERVICES = ("collector", "prometheus", "loki", "tempo")
BACK_ENDS = SERVICES[1:]
KILLS = 10
UP_S = 1.0
OUTAGE_S = 600.0 if os.environ.get("STAGELIGHT_SOAK") else 30.0
LATE_S = -6 * 3600.0
QUEUE = "/var/lib/otelcol"
PAGE = 4096
DISK = "64m"
RECOVERY_S = 240.0


def nothing_is_missing(load: Load) -> None:
    """Every acknowledged item is in its back end, and the counter's last value is what the client recorded."""
    assert settled(load.missing_spans, 0) == 0
    assert settled(load.missing_logs, 0) == 0
    assert settled(load.counter_in_prometheus, float(load.counter)) == load.counter


def metric(stack: Stack, name: str) -> float:
    """Sum of one of the Collector's own metrics over its labels."""
    return sum(exposed(stack.url("collector", 8888), name).values())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack to be broken; every test leaves it running again."""
    with Stack(tmp_path_factory.mktemp("stack"), SERVICES, stand_in=True) as stack:
        yield stack


def test_ten_kills_of_the_collector_lose_nothing(running: Stack) -> None:
    """A thousand spans a second, and kill -9 every few seconds: all that was acknowledged arrives."""
    with Load(running) as load:
        for _ in range(KILLS):
            before = load.spans
            eventually(lambda: load.spans, lambda now, before=before: now >= before + 1000)  # type: ignore[misc]
            running.kill("collector")
            running.start("collector")

    assert load.refusals > 0
    nothing_is_missing(load)


def test_back_ends_may_be_away(running: Stack) -> None:
    """All three are stopped at once; the Collector takes everything meanwhile and delivers when they are back."""
    with Load(running, spans_per_s=200) as load:
        eventually(lambda: load.spans, lambda sent: sent >= 200)
        for name in BACK_ENDS:
            running.stop(name)
        before = load.spans
        time.sleep(OUTAGE_S)
        during = load.spans - before
        for name in BACK_ENDS:
            running.start(name)

    assert during > 20 * OUTAGE_S, "the Collector did not take what came while the back ends were away"
    nothing_is_missing(load)


def test_a_paused_back_end_delays_only_itself(running: Stack) -> None:
    """Prometheus hangs without closing its port: spans and records go on, and its samples follow."""
    with Load(running, spans_per_s=200) as load:
        eventually(lambda: load.counter, bool)
        running.pause("prometheus")
        before = load.logs
        eventually(lambda: load.logs, lambda now: now > before + 200)
        eventually(load.missing_spans, lambda missing: missing < 400)  # two seconds' worth is always on its way
        running.resume("prometheus")

    nothing_is_missing(load)


def test_records_of_six_hours_ago_are_taken(running: Stack) -> None:
    """Newer ones of the same series came first; an outage of hours is made good all the same."""
    with Load(running, spans_per_s=100) as newer:
        eventually(lambda: min(newer.logs, newer.counter), bool)
    with Load(running, spans_per_s=100, shift_s=LATE_S, run=newer.run, first=1_000_000) as late:
        eventually(lambda: min(late.logs, late.counter), lambda seen: seen > 0)

    for load in (late, newer):
        nothing_is_missing(load)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of 64 MB at ``folder``."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0777", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk_is_survived(tmp_path: Path) -> None:
    """The queue has no room left: the Collector refuses and counts, and when there is room goes on by itself."""
    stack = Stack(tmp_path, SERVICES, stand_in=True)
    with small_disk(stack.path("collector", QUEUE)), stack:
        pid = stack.pid("collector")
        stack.stop("tempo")
        with Load(stack, spans_per_s=2000, padding=2000) as load:
            eventually(lambda: load.refusals, lambda refused: refused > 5, within_s=RECOVERY_S)
            counted = metric(stack, "otelcol_exporter_enqueue_failed_spans")
            refused = metric(stack, "otelcol_receiver_refused_spans")
            stack.start("tempo")
            stuck_at = load.spans
            eventually(lambda: load.spans, lambda now: now > stuck_at + 1000, within_s=RECOVERY_S)

        assert stack.pid("collector") == pid
        assert counted + refused > 0, "nothing that an alert could see was counted"
        nothing_is_missing(load)


def root_page(data: bytearray) -> slice:
    """Where the data begins now: bbolt writes what changes to another page, and its newer meta page tells which."""
    metas = [struct.unpack_from("<5Q", data, page * PAGE + 32) for page in range(2)]
    root = max(metas, key=lambda meta: meta[4])[0]  # by number of the transaction
    return slice(root * PAGE, (root + 1) * PAGE)


CORRUPTIONS: Mapping[str, Callable[[bytearray], None]] = {
    "no database at all": lambda data: data.__setitem__(slice(None), b"\xff" * 65536),
    "cut off": lambda data: data.__delitem__(slice(8192, None)),
    "root of the data": lambda data: data.__setitem__(root_page(data), b"\xff" * PAGE),
    "zeros instead of data": lambda data: data.__setitem__(slice(8192, None), bytes(len(data) - 8192)),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_corrupt_queues_are_set_aside(running: Stack, corruption: str) -> None:
    """What the stack's watch over the Collector does, then the next start: the Collector runs and takes data."""
    running.stop("tempo")
    with Load(running, spans_per_s=500) as load:
        eventually(lambda: load.spans, lambda sent: sent >= 1000)
    running.kill("collector")
    queue = running.path("collector", f"{QUEUE}/queue")
    assert set_aside(queue) == []
    whole = sorted(queue.iterdir())
    broken = queue / "exporter_otlp_grpc_tempo_traces"
    data = bytearray(broken.read_bytes())
    CORRUPTIONS[corruption](data)
    broken.write_bytes(data)

    (kept,) = set_aside(queue)
    running.start("tempo")
    running.start("collector")

    assert (queue / kept).read_bytes() == bytes(data)
    assert set(whole) - {broken} <= set(queue.iterdir())
    with Load(running, spans_per_s=200) as after:
        eventually(lambda: after.spans, lambda sent: sent >= 200)
    nothing_is_missing(after)


def set_aside(queue: Path) -> list[str]:
    """Names of the files that the watch set aside now."""
    before = set(queue.iterdir())
    script = ROOT / "deploy" / "compose" / "collector-health" / "queue.sh"
    subprocess.run(["sh", str(script), str(queue)], check=True, timeout=60, capture_output=True)
    return [path.name for path in queue.iterdir() if path not in before]
