"""The ledger of one trace: what each call cost and of which components."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from stagelight.sources import open_source
from stagelight.sources.model import LedgerRow
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
