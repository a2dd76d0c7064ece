"""The hand-over: the host's thread puts an ended call here, one worker does the rest.

Where the host's own providers are used there is no worker and the work is done in place, because a processor of theirs
may flush before we do. Nothing is ever done inside a garbage collection: those items wait for the next opportunity.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from stagelight._guard import guard

__all__ = ["Handover"]

Work = Callable[[], None]

CAPACITY = 16_384
"""Items that wait at most; a call's facts take 1 to 2 KiB without content, so this is about 32 MiB."""

_GATHER_S = 0.02
"""How long the worker lets items gather after the first, so that a busy host is woken 50 times a second at most."""


_GENERATIONS = 3
"""Items make items: the end of a forgotten stream hands in its call, and that its turn."""


class _Marker(threading.Event):
    """Put into the queue by ``drain``: set when everything before it has been done."""


class Handover:
    """A bounded queue and the one worker that empties it.

    Args:
        inline: do the work in the caller's thread; for providers that are not ours.
        capacity: items that may wait; beyond it the caller does the work itself, so that nothing is lost.
        begins: called when the worker begins: starts the threads that its work will need. A Python that is ending lets
            nobody start one (3.12), and the worker may come to its first item only then.
    """

    def __init__(
        self, *, inline: bool = False, capacity: int = CAPACITY, begins: Callable[[], object] | None = None
    ) -> None:
        self._inline = inline
        self._capacity = capacity
        self._begins = begins
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._starting = threading.Lock()
        self.overflows = 0
        """Items done by the caller because the queue was full."""
        if hasattr(os, "register_at_fork"):
            itself = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _restart(itself()))

    def put(self, work: Work) -> None:
        """Hand over one piece of work; never blocks and never raises."""
        if self._inline:
            self.catch_up()
            _do(work)
        elif self._queue.qsize() >= self._capacity:
            self.overflows += 1
            _do(work)
        else:
            self._queue.put(work)
            if self._worker is None:
                self._start()

    def put_aside(self, work: Work) -> None:
        """Hand over from a destructor, where no lock may be taken."""
        self._queue.put(work)

    def catch_up(self) -> None:
        """Do what was put aside, where no worker does it."""
        if self._inline and self._queue.qsize():
            self._empty()

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything handed over so far is done.

        Returns:
            Whether it was done in time.
        """
        if self._inline or self._worker is None or threading.current_thread() is self._worker:
            self._empty()  # without a worker none is started: at exit new threads may be refused
            return True
        deadline = time.monotonic() + timeout_s
        for _ in range(_GENERATIONS):
            marker = _Marker()
            self._queue.put(marker)
            if not marker.wait(max(deadline - time.monotonic(), 0.0)):
                return False
        return True

    @property
    def waiting(self) -> int:
        """Items not done yet."""
        return self._queue.qsize()

    def _start(self) -> None:
        with self._starting:
            if self._worker is not None:
                return
            self._worker = threading.Thread(target=self._run, name="stagelight-handover", daemon=True)
            try:
                self._worker.start()
            except RuntimeError:  # no threads left, or Python is ending: ``drain`` does the work
                self._worker = None
                return
        if self._begins is not None:
            self._begins()

    def _run(self) -> None:
        try:
            while True:
                first = self._queue.get()
                if not isinstance(first, _Marker):
                    time.sleep(_GATHER_S)
                self._take(first)
                self._empty()
        finally:
            self._worker = None  # an error in strict mode ended it: the next work starts another

    def _empty(self) -> None:
        while True:
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                return
            self._take(work)

    @staticmethod
    def _take(work: Any) -> None:
        if isinstance(work, _Marker):
            work.set()
        else:
            _do(work)

    def restart(self) -> None:
        """Begin empty, as a forked child must: what the parent had queued is the parent's to do."""
        self._queue = queue.SimpleQueue()
        self._worker = None
        self._starting = threading.Lock()


def _do(work: Work) -> None:
    with guard("handover"):
        work()


def _restart(handover: Handover | None) -> None:
    if handover is not None:
        handover.restart()
