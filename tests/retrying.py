"""Providers that refuse first and answer then, and what a call leaves that its client has sent again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stagelight.conventions import attributes as a
from stagelight.conventions import metrics as m
from stagelight.sim import Fault, Scenario, Simulator
from stagelight.sim.scenario import Rule
from stagelight.testing import Captured

__all__ = ["check_retried", "refusing"]


@contextmanager
def refusing(*statuses: int) -> Iterator[Simulator]:
    """A simulator whose first answers have these statuses, and which asks nobody to wait."""
    faults = [
        Fault("rate_limit", {"retry_after": 0}) if status == 429 else Fault("server_error", {"status": status})
        for status in statuses
    ]
    rules = tuple(Rule(fault, requests=(number,)) for number, fault in enumerate(faults, 1))
    with Simulator(seed=7, latency="instant", scenario=Scenario(rules)) as simulator:
        yield simulator


def check_retried(captured: Captured, simulator: Simulator, attempts: int, *, outcome: str = "completed") -> None:
    """One call, whose attempts it knows and the counter has; no request was outside of it."""
    (call,) = captured.calls
    labels = {
        key: call.attributes[key]
        for key in (a.STAGELIGHT_STAGE, a.GEN_AI_PROVIDER_NAME, a.GEN_AI_REQUEST_MODEL)
        if key in call.attributes
    }
    again = [] if attempts == 1 else [(labels, attempts - 1)]

    assert len(simulator.requests) == attempts
    assert (len(captured.spans), call.outcome) == (1, outcome)
    assert len(captured.ledger) == (1 if outcome == "completed" else 0)
    assert call.attributes.get(a.STAGELIGHT_ATTEMPTS, 1) == attempts
    assert [(point.attributes, point.value) for point in captured.metric(m.STAGELIGHT_RETRIES)] == again
    assert captured.metric(m.STAGELIGHT_UNINSTRUMENTED_CALLS) == ()
