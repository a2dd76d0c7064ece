"""Every item put into a queue is delivered once or counted as dropped, whatever the exporter and the caller do."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stack.waiting import eventually
from stagelight import _guard
from stagelight.export.accounting import Account, Balance
from stagelight.export.batches import BatchQueue, Limits
from stagelight.export.complaints import Complaints
from stagelight.export.deadline import all_answered, all_within, once

Mode = Literal["succeeds", "fails", "raises", "blocks"]
PATIENCE_S = 60.0
EXPORT_THREAD = "stagelight-export-traces"


@contextlib.contextmanager
def lenient() -> Iterator[None]:
    """As in a user's process: our failures are counted, not raised."""
    _guard.set_strict(False)
    try:
        yield
    finally:
        _guard.set_strict(True)


class Exporter:
    """Does as it is told, and remembers what it accepted."""

    def __init__(self) -> None:
        self.mode: Mode = "succeeds"
        self.accepted: list[int] = []
        self.batches: list[int] = []
        self.go_on = threading.Event()

    def __call__(self, batch: Sequence[int]) -> bool:
        mode = self.mode
        if mode == "blocks":
            self.go_on.wait(2 * PATIENCE_S)
        if mode == "raises":
            raise RuntimeError("no network")
        if mode == "fails":
            return False
        self.accepted += batch
        self.batches.append(len(batch))
        return True


def queue_of(exporter: Exporter, limits: Limits) -> BatchQueue[int]:
    """A queue of numbers; each is as large as itself in bytes."""
    return BatchQueue(
        Account("traces"), exporter, size=lambda number: number % 100, limits=limits, complaints=Complaints()
    )


def holds(balance: Balance) -> bool:
    """The equation of the accounts."""
    return balance.queued >= 0 and balance.made == balance.delivered + sum(balance.dropped.values()) + balance.queued


STEP = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 30)),
    st.tuples(st.just("put from threads"), st.integers(1, 30)),
    st.tuples(st.just("mode"), st.sampled_from(["succeeds", "fails", "raises", "blocks"])),
    st.tuples(st.just("flush"), st.sampled_from([0.0, 0.005])),
    st.tuples(st.just("close"), st.none()),
)
LIMITS = st.builds(
    Limits, st.integers(1, 40), st.integers(100, 3000), st.integers(1, 20), st.integers(50, 1000), st.just(0.002)
)


class History:
    """A queue with what was done to it."""

    def __init__(self, limits: Limits) -> None:
        self.exporter = Exporter()
        self.queue = queue_of(self.exporter, limits)
        self.lock = threading.Lock()
        self.made = 0

    def do(self, kind: str, argument: object) -> None:
        if kind == "put":
            self.put(int(str(argument)))
        elif kind == "put from threads":
            threads = [threading.Thread(target=self.put, args=(int(str(argument)),)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        elif kind == "mode":
            self.exporter.mode = argument  # type: ignore[assignment]  # drawn from the modes
            if argument != "blocks":
                self.release()
        elif kind == "flush":
            self.queue.flush(float(str(argument)))
        else:
            self.queue.close()

    def put(self, count: int) -> None:
        for _ in range(count):
            with self.lock:
                self.made += 1
                number = self.made
            self.queue.put(number)

    def release(self) -> None:
        self.exporter.go_on.set()
        self.exporter.go_on = threading.Event()

    def settle(self) -> None:
        if self.exporter.mode == "blocks":
            self.exporter.mode = "succeeds"
        deadline = time.monotonic() + PATIENCE_S
        while not self.queue.flush(0.05) and time.monotonic() < deadline:
            self.release()


@settings(max_examples=80, deadline=None)
@given(LIMITS, st.lists(STEP, max_size=12))
def test_accounts_hold_in_every_history(limits: Limits, steps: list[tuple[str, object]]) -> None:
    """At every moment made = delivered + dropped + queued; in the end nothing is queued, nothing came twice."""
    logging.disable(logging.ERROR)
    with lenient():
        history = History(limits)
        try:
            for kind, argument in steps:
                history.do(kind, argument)
                balance = history.queue.account.balance()
                assert holds(balance)
                assert balance.made == history.made
            history.settle()
        finally:
            logging.disable(logging.NOTSET)
            history.queue.close()
            history.release()
        final, accepted = history.queue.account.balance(), history.exporter.accepted
        assert holds(final)
        assert final.queued == 0
        assert final.delivered == len(accepted) == len(set(accepted))


def test_a_full_queue_drops_the_newest_and_counts_them() -> None:
    """What is queued stays; what does not fit is counted under its reason."""
    exporter = Exporter()
    exporter.mode = "blocks"
    queue = queue_of(exporter, Limits(items=3, batch=1, delay_s=0.0))
    queue.put(0)
    while queue._items:
        time.sleep(0.001)

    for number in range(1, 7):
        queue.put(number)

    assert queue.account.balance() == Balance(7, 0, {"queue_full": 3}, 4)
    exporter.go_on.set()
    assert queue.flush(PATIENCE_S)
    assert exporter.accepted == [0, 1, 2, 3]
    queue.close()


def test_a_queue_is_bounded_in_bytes() -> None:
    """Few large items fill a queue as many small ones do."""
    exporter = Exporter()
    queue = queue_of(exporter, Limits(size=250, delay_s=60))

    for number in (99, 99, 99, 52):
        queue.put(number)

    assert queue.account.balance().dropped == {"queue_full": 1}
    queue.close()


def test_a_batch_is_bounded_in_bytes_and_an_item_too_large_goes_alone() -> None:
    """Batches stay below what receivers accept."""
    exporter = Exporter()
    queue = queue_of(exporter, Limits(batch_size=60, delay_s=60))
    for number in (20, 20, 30, 99, 10, 1):
        queue.put(number)

    assert queue.flush(PATIENCE_S)
    assert exporter.batches == [2, 1, 1, 2]
    queue.close()


def test_enough_items_do_not_wait() -> None:
    """The delay is for few items: a full batch, in items or bytes, leaves at once."""
    for limits in (Limits(batch=5, delay_s=60), Limits(batch_size=100, delay_s=60)):
        exporter = Exporter()
        queue = queue_of(exporter, limits)
        for number in (21, 22, 23, 24, 25):
            queue.put(number)
        deadline = time.monotonic() + PATIENCE_S
        while not exporter.accepted and time.monotonic() < deadline:
            time.sleep(0.002)
        assert exporter.accepted[0] == 21
        queue.close()


def test_a_flush_keeps_its_deadline() -> None:
    """A blocked exporter costs the caller the timeout, not more."""
    exporter = Exporter()
    exporter.mode = "blocks"
    queue = queue_of(exporter, Limits())
    queue.put(1)

    began = time.monotonic()
    sent = queue.flush(0.1)

    assert not sent
    assert 0.1 <= time.monotonic() - began < PATIENCE_S
    exporter.go_on.set()
    queue.close()


def test_a_flush_waits_for_what_was_queued_before_it_only() -> None:
    """Items that keep coming do not keep a flush from ending."""
    exporter = Exporter()
    queue = queue_of(exporter, Limits(items=10**6, batch=1))
    stop = threading.Event()

    def keep_coming() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            queue.put(number)

    thread = threading.Thread(target=keep_coming)
    thread.start()
    try:
        assert queue.flush(PATIENCE_S)
    finally:
        stop.set()
        thread.join()
        queue.close()


def test_closing_counts_what_is_left_and_what_comes_later() -> None:
    """After the end everything is a drop with a reason, and the exporter is left alone."""
    exporter = Exporter()
    queue = queue_of(exporter, Limits(delay_s=60))
    queue.put(1)
    queue.put(2)
    queue.close()
    queue.put(3)
    queue.close()

    assert queue.account.balance() == Balance(3, 0, {"shutdown": 3}, 0)
    assert exporter.accepted == []


def test_a_closed_queue_leaves_no_thread() -> None:
    """Fifty queues that came and went have left as many threads as there were."""
    before = {thread.ident for thread in threading.enumerate()}
    for _ in range(50):
        queue = queue_of(Exporter(), Limits(delay_s=60))
        queue.put(1)
        queue.close()

    deadline = time.monotonic() + PATIENCE_S
    while {thread.ident for thread in threading.enumerate()} - before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert {thread.ident for thread in threading.enumerate()} <= before


def test_an_exporter_that_ends_its_thread_does_not_end_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next item finds a new thread, and what was in hand is counted."""

    class Ending(Exporter):
        def __call__(self, batch: Sequence[int]) -> bool:
            if not self.accepted and not self.go_on.is_set():
                self.go_on.set()
                raise SystemExit
            return super().__call__(batch)

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    exporter = Ending()
    queue = queue_of(exporter, Limits(delay_s=0.2))
    queue.put(1)
    thread = queue._thread
    assert thread is not None
    thread.join(PATIENCE_S)
    queue.put(2)

    assert queue.flush(PATIENCE_S)
    assert queue.account.balance() == Balance(2, 1, {"export_error": 1}, 0)
    queue.close()


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no thread left, as at the end of the interpreter, the host sees nothing of it."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    exporter = Exporter()
    queue = queue_of(exporter, Limits(delay_s=0))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        queue.put(1)
        assert not queue.flush(0.01)
    queue.put(2)

    assert queue.flush(PATIENCE_S)
    assert exporter.accepted == [1, 2]
    queue.close()


def test_all_parts_are_asked_before_the_first_is_waited_for() -> None:
    """Two slow queues take the time of one, and an early failure does not cut the others short."""

    class Failing:
        def ask(self) -> int:
            return 1

        def answered(self, asked: int, timeout_s: float) -> bool:
            return False

    slow, slower = Exporter(), Exporter()
    slow.mode = slower.mode = "blocks"
    queues = [queue_of(one, Limits(delay_s=60)) for one in (slow, slower)]
    for queue in queues:
        queue.put(1)

    def let_go() -> None:
        """The first is free when the second is, which therefore must have been asked."""
        eventually(lambda: [list(queue._items) for queue in queues], lambda waiting: not any(waiting))
        slower.go_on.set()
        eventually(lambda: slower.accepted, bool)
        slow.go_on.set()

    helper = threading.Thread(target=let_go)
    helper.start()
    began = time.monotonic()
    answered = all_answered(PATIENCE_S, [Failing(), *queues])
    took_s = time.monotonic() - began
    accepted = [slow.accepted, slower.accepted]
    helper.join()
    for queue in queues:
        queue.close()

    assert not answered
    assert accepted == [[1], [1]]
    assert took_s < PATIENCE_S


def test_works_within_a_deadline() -> None:
    """Works get the time that is left, run side by side, and a hung one does not hold up the caller."""
    release = threading.Event()
    began = time.monotonic()

    assert all_within(PATIENCE_S, [lambda left: 0 < left <= PATIENCE_S, lambda _: True])
    assert not all_within(PATIENCE_S, [lambda _: False])
    assert not all_within(0.1, [lambda _: release.wait(2 * PATIENCE_S)])
    assert time.monotonic() - began < PATIENCE_S
    release.set()


def test_once() -> None:
    """A second call does nothing."""
    calls: list[int] = []
    stop = once(lambda: calls.append(1))
    stop()
    stop()

    assert calls == [1]
