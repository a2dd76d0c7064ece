"""Metrics are pushed by a thread of their own that keeps deadlines; locks hold where a collection cuts in."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from stagelight import _guard
from stagelight._bounds import LabelBounds
from stagelight._runtime import InFlight
from stagelight.export.accounting import Account
from stagelight.export.accumulators import Accumulators
from stagelight.export.batches import BatchQueue, Limits
from stagelight.export.complaints import Complaints
from stagelight.export.pushed_metrics import PushedMetrics
from stagelight.export.reader import PushReader

PATIENCE_S = 60.0


class Exporter(MetricExporter):
    """Remembers pushes; fails, raises or hangs when told."""

    def __init__(self) -> None:
        super().__init__()
        self.pushes: list[MetricsData] = []
        self.result: MetricExportResult | None = MetricExportResult.SUCCESS
        self.open = threading.Event()
        self.open.set()
        self.stopped = 0

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        self.open.wait(2 * PATIENCE_S)
        if self.result is None:
            raise RuntimeError("no network")
        self.pushes.append(metrics_data)
        return self.result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self.stopped += 1


class Pushing:
    """A reader on a provider with one counter."""

    def __init__(self, interval_s: float = 600) -> None:
        self.exporter = Exporter()
        complaints = Complaints()
        pushed = PushedMetrics(self.exporter, None, InstrumentationScope("tests"), complaints)
        self.account = pushed.account
        self.reader = PushReader(pushed, interval_s, complaints)
        self.provider = MeterProvider([self.reader], Resource({}), shutdown_on_exit=False)
        self.meter = self.provider.get_meter("tests")
        self.meter.create_counter("orders").add(1)


@pytest.fixture
def pushing() -> Iterator[Pushing]:
    """As above, stopped after the test."""
    made = Pushing()
    yield made
    made.exporter.open.set()
    made.reader.close()


def test_a_flush_pushes_and_says_whether_it_was_taken(pushing: Pushing) -> None:
    """The answer is the exporter's, not that a flush was tried."""
    assert pushing.provider.force_flush(PATIENCE_S * 1000)
    assert pushing.reader.force_flush(PATIENCE_S * 1000)
    pushing.exporter.result = MetricExportResult.FAILURE
    assert not pushing.reader.force_flush(PATIENCE_S * 1000)
    assert len(pushing.exporter.pushes) == 3
    assert pushing.account.balance() == (3, 2, {"export_failed": 1}, 0)


def test_an_exporter_that_raises_stops_nothing(pushing: Pushing) -> None:
    """Its points are counted as dropped, and the next push is made."""
    _guard.set_strict(False)
    pushing.exporter.result = None
    assert not pushing.reader.force_flush(PATIENCE_S * 1000)
    pushing.exporter.result = MetricExportResult.SUCCESS
    assert pushing.reader.force_flush(PATIENCE_S * 1000)
    assert pushing.account.balance() == (2, 1, {"export_error": 1}, 0)


def test_a_hung_push_does_not_hold_up_a_flush(pushing: Pushing) -> None:
    """A flush ends at its deadline; its push is made when the exporter is free."""
    pushing.exporter.open.clear()
    began = time.monotonic()
    assert not pushing.reader.force_flush(100)
    assert not pushing.reader.force_flush(100)
    assert time.monotonic() - began < PATIENCE_S
    pushing.exporter.open.set()
    assert pushing.reader.force_flush(PATIENCE_S * 1000)


def test_a_flush_is_answered_by_a_push_that_began_after_it(pushing: Pushing) -> None:
    """A push under way does not contain what was recorded since."""
    pushing.exporter.open.clear()
    first = pushing.reader.ask()
    while pushing.account.balance().queued == 0:
        time.sleep(0.001)
    pushing.meter.create_counter("later").add(1)
    second = pushing.reader.ask()
    pushing.exporter.open.set()

    assert pushing.reader.answered(first, PATIENCE_S)
    assert pushing.reader.answered(second, PATIENCE_S)
    names = [
        {metric.name for of in push.resource_metrics for scope in of.scope_metrics for metric in scope.metrics}
        for push in pushing.exporter.pushes
    ]
    assert names == [{"orders"}, {"orders", "later"}]


def test_the_end_pushes_once_more_and_leaves_no_thread() -> None:
    """A shutdown by the application pushes, stops the exporter, and ends the thread; a second one does nothing."""
    pushing = Pushing()
    pushing.provider.shutdown()
    pushing.reader._thread.join(PATIENCE_S)

    assert not pushing.reader._thread.is_alive()
    assert len(pushing.exporter.pushes) == 1
    assert pushing.exporter.stopped == 1
    assert not pushing.reader.force_flush(100)


def test_pushes_come_at_the_interval() -> None:
    """Without being asked."""
    pushing = Pushing(interval_s=0.02)
    deadline = time.monotonic() + PATIENCE_S
    while len(pushing.exporter.pushes) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    pushing.reader.close()

    assert len(pushing.exporter.pushes) >= 3


def test_a_fork_waits_for_a_collection(pushing: Pushing, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child never finds the SDK's locks held by the collecting thread, which it does not have."""
    monkeypatch.setattr("stagelight.export.reader._FORK_WAITS_S", PATIENCE_S)
    collecting, go_on = threading.Event(), threading.Event()

    def read(_: CallbackOptions) -> list[Observation]:
        collecting.set()
        go_on.wait(PATIENCE_S)
        return [Observation(1)]

    pushing.meter.create_observable_gauge("slow", [read])
    pushing.reader.ask()
    assert collecting.wait(PATIENCE_S)
    forked = threading.Event()

    def stand_still() -> None:
        pushing.reader._stand_still()
        forked.set()
        pushing.reader._go_on()

    thread = threading.Thread(target=stand_still)
    thread.start()
    assert not forked.wait(0.05)
    go_on.set()
    assert forked.wait(PATIENCE_S)
    thread.join()


def test_a_fork_does_not_wait_for_ever(pushing: Pushing) -> None:
    """A collection that hangs costs a fork a second at most, and nothing is released that was not held."""
    held = threading.Event()
    release = threading.Event()

    def hold() -> None:
        with pushing.reader._collecting:
            held.set()
            release.wait(2 * PATIENCE_S)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(PATIENCE_S)
    began = time.monotonic()
    pushing.reader._stand_still()
    pushing.reader._go_on()

    took_s = time.monotonic() - began
    release.set()
    thread.join()

    assert 0.9 < took_s < PATIENCE_S


QUEUE: BatchQueue[int] = BatchQueue(
    Account("traces"), lambda _: True, size=int, limits=Limits(delay_s=600), complaints=Complaints()
)
ACCOUNT, IN_FLIGHT, BOUNDS, ACCUMULATORS = Account("logs"), InFlight(), LabelBounds(), Accumulators()


@pytest.mark.parametrize(
    ("lock", "work"),
    [
        (ACCOUNT._lock, ACCOUNT.made),
        (ACCOUNT._lock, ACCOUNT.balance),
        (IN_FLIGHT._lock, lambda: IN_FLIGHT.change("llm", "openai", 1)),
        (BOUNDS._lock, lambda: BOUNDS.admit("model", "new")),
        (ACCUMULATORS.lock, ACCUMULATORS.all),
        (QUEUE._changed, lambda: QUEUE.put(1)),
        (QUEUE._complaints._lock, lambda: QUEUE._complaints.lost(0, "traces")),
    ],
)
def test_a_garbage_collection_may_cut_in_anywhere(lock: Any, work: Callable[[], object]) -> None:
    """A span or call that ends inside a collection finds our locks held by its own thread: they let it in."""
    done = threading.Event()

    def within() -> None:
        with lock:
            work()
        done.set()

    threading.Thread(target=within, daemon=True).start()

    assert done.wait(PATIENCE_S)


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="this system does not fork")
def test_objects_that_are_gone_are_not_called_after_a_fork() -> None:
    """What a hook belongs to can be collected; the hook then does nothing."""
    from stagelight._forks import _weakly

    calls: list[int] = []

    class Owner:
        def work(self) -> None:
            calls.append(1)

    owner = Owner()
    hook = _weakly(owner.work)
    hook()
    del owner
    hook()

    assert calls == [1]
