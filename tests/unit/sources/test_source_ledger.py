"""The ledger of one trace: what each call cost and of which components."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from scene import ALL
from stagelight.embedded.transform import logs_batch
from stagelight.sources import open_source
from stagelight.sources.model import COST_DIMENSIONS, LedgerRow
from stored import identifier, logs, record, span, store, traces, usage

COMPONENTS = "stagelight.cost.components"


def test_trace_carries_its_ledger(tmp_path: Path) -> None:
    """Events of the trace come in order of time with exact components; unpriced ones have none."""
    path = tmp_path / "store.db"
    priced = record(
        at=1,
        trace=1,
        event_name="stagelight.usage.recorded",
        span_id=identifier(2, 8),
        attributes={
            "stagelight.cost.status": "exact",
            "stagelight.cost.amount": 0.3,
            f"{COMPONENTS}.input": 0.1,
            f"{COMPONENTS}.output": 0.2,
        },
    )
    unpriced = usage(at=2, trace=1, status="unpriced", reason="no_usage")
    elsewhere = usage(at=1, trace=9, status="exact", cost=0.5)
    store(path, traces(span(1), span(2, parent=1)), logs(unpriced, priced, elsewhere))
    source = open_source(str(path))
    try:
        trace = source.trace(identifier(1, 16).hex())
    finally:
        source.close()
    assert trace is not None

    components = {"input": Decimal("0.1"), "output": Decimal("0.2")}
    assert trace.ledger == (
        LedgerRow(span_id=identifier(2, 8).hex(), cost=Decimal("0.3"), components=components),
        LedgerRow(span_id=None, cost=None, components={}),
    )


def test_counts_too_large_for_a_sum(tmp_path: Path) -> None:
    """Counts near 2^63 that an older version stored are summed exactly, by every key."""
    path = tmp_path / "store.db"
    store(path, logs(*(usage(at=at, model="m", input_tokens=7, cost=0.5, status="exact") for at in range(3))))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE usage SET input_tokens = 9223372036854775807, output_tokens = -2")
    source = open_source(str(path))
    found = [source.cost(ALL, by)[0] for by in COST_DIMENSIONS]
    source.close()

    assert [(row.calls, row.input_tokens, row.output_tokens) for row in found] == [(3, 3 * (2**63 - 1), -6)] * 6


def test_counts_are_bounded_at_intake() -> None:
    """A usage event with a count beyond 2^53 is rejected, with a reason; its neighbour is kept."""
    batch = logs_batch(logs(usage(input_tokens=2**53), usage(at=1, output_tokens=2**53 + 1)))

    assert (len(batch.usage[0].rows), batch.rejected) == (1, 1)
    assert batch.reason == "gen_ai.usage.output_tokens of a usage event is larger than 9007199254740992"
