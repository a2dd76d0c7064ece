"""How long the real Tempo keeps traces: what it received late, and blocks that it wrote itself, aged."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from stack.native import Stack
from stack.outputs import send, trace_request
from stack.programs import program
from stack.queries import get
from stack.waiting import eventually, settled

HOUR_S = 3600
DAY_S = 24 * HOUR_S
OVER, WITHIN = 15, 13
"""Days, around the two weeks that are documented."""
WRITTEN = "*+single-tenant+*/meta.json"
"""Of what Tempo has on its disk and has not yet made a block of."""
OFTEN = (
    "-storage.trace.blocklist_poll=1s",  # as shipped five minutes
    "-backend-scheduler.provider.workbackend-scheduler.retention-interval=1s",  # as shipped one hour
)


def restart_with_a_trace(stack: Stack, late_s: int = 0) -> tuple[str, str]:
    """Send a trace, kill Tempo when it has it on its disk, and start it again.

    Returns:
        The ids of the trace and of the block that Tempo makes of it then.
    """
    log = stack.path("tempo", "/var/tempo/live-store/wal")
    before = set(log.glob(WRITTEN))
    message, span = trace_request({"service.name": "old"})
    span.start_time_unix_nano -= late_s * 10**9
    span.end_time_unix_nano -= late_s * 10**9
    send(stack, "traces", message)
    [described] = eventually(lambda: set(log.glob(WRITTEN)) - before, bool)
    stack.kill("tempo")  # its orderly end takes half a minute, and leaves the same
    stack.start("tempo")
    return span.trace_id.hex(), described.parent.name.partition("+")[0]


def has(stack: Stack, trace: str) -> bool:
    """Whether Tempo finds a trace by its id."""
    return bool(get(f"{stack.url('tempo')}/api/v2/traces/{trace}").get("trace"))


def searched(stack: Stack, days: int) -> set[str]:
    """The ids of the traces that one search over the last days finds."""
    now = time.time()
    found = get(f"{stack.url('tempo')}/api/search", q="{}", start=round(now - days * DAY_S), end=round(now))
    return {one["traceID"].zfill(32) for one in found["traces"]}


def age(block: Path, days: int) -> None:
    """Make a block one that Tempo wrote this many days ago."""
    then, description = time.time() - days * DAY_S, block / "meta.json"
    written = datetime.fromtimestamp(then, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    description.write_text(json.dumps(json.loads(description.read_text()) | {"startTime": written, "endTime": written}))
    os.utime(description, (then, then))


def test_late_traces_outlive_a_restart(tmp_path: Path) -> None:
    """What came a day late, and is no block yet when Tempo is killed, is there afterwards."""
    program("tempo")
    with Stack(tmp_path, ["collector", "tempo"]) as stack:
        trace, _ = restart_with_a_trace(stack, late_s=25 * HOUR_S)

        assert has(stack, trace)
        stack.kill("tempo")


def test_traces_are_kept_two_weeks(tmp_path: Path) -> None:
    """A trace of 13 days stays, and is found; one of 15 days is no longer found, and its files go."""
    program("tempo")
    with Stack(tmp_path, ["collector", "tempo"], flags={"tempo": OFTEN}) as stack:
        blocks = stack.path("tempo", "/var/tempo/blocks/single-tenant")
        traces, written = dict[int, str](), dict[int, Path]()
        for days in (OVER, WITHIN):
            traces[days], block = restart_with_a_trace(stack)
            written[days] = blocks / block
        eventually(lambda: all((block / "meta.json").exists() for block in written.values()), bool)
        assert settled(lambda: searched(stack, WITHIN + 1), set(traces.values())) == set(traces.values())

        stack.kill("tempo")
        shutil.rmtree(stack.path("tempo", "/var/tempo/live-store"))  # which forgets after a day
        for days, folder in written.items():
            age(folder, days)
        stack.start("tempo")
        eventually((written[OVER] / "meta.compacted.json").exists, bool)

        expected = {OVER: False, WITHIN: True}
        assert settled(lambda: {days: has(stack, trace) for days, trace in traces.items()}, expected) == expected
        assert searched(stack, WITHIN + 1) == {traces[WITHIN]}
        stack.kill("tempo")
        stack.start("tempo")  # the files would last another hour: none of them, for one that starts with an old mark
        eventually(written[OVER].exists, lambda there: not there)
        assert (written[WITHIN] / "meta.json").exists()
        assert has(stack, traces[WITHIN])
        stack.kill("tempo")
