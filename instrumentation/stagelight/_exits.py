"""Delivering before the process ends, however it ends: normally, by SIGTERM, under uvicorn, in multiprocessing."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

__all__ = ["deliver_at_exit"]

Deliver = Callable[[], object]


class _Anchor:
    """Lives as long as the process: what multiprocessing calls after a fork belongs to an object."""


_anchor = _Anchor()


def deliver_at_exit(shutdown: Deliver, flush: Deliver) -> None:
    """Have everything delivered before this process, or a child it forks, ends.

    Args:
        shutdown: delivers and stops, within its own limit.
        flush: delivers only: where the process may live on.
    """
    atexit.register(shutdown)
    _in_multiprocessing(shutdown)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(_in_multiprocessing, shutdown))
    if threading.current_thread() is threading.main_thread():
        _on_sigterm(shutdown, flush)


def _in_multiprocessing(shutdown: Deliver) -> None:
    """Processes of multiprocessing may end without ``atexit``, and clear the hooks they inherit when they begin."""
    util: Any = sys.modules.get("multiprocessing.util")
    process: Any = sys.modules.get("multiprocessing.process")
    if util is None or process is None:
        return

    def register(_anchor: object = None) -> None:
        if process.parent_process() is not None:
            util.Finalize(None, shutdown, exitpriority=0)

    util.register_after_fork(_anchor, register)
    register()


def _on_sigterm(shutdown: Deliver, flush: Deliver) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    if handler == signal.SIG_DFL:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, partial(_deliver_and_die, shutdown))
        return
    server = getattr(handler, "__self__", None)
    if type(server).__module__ == "uvicorn.server":
        _after_serving(server, flush)


def _deliver_and_die(shutdown: Deliver, number: int, _frame: FrameType | None) -> None:
    shutdown()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _after_serving(server: Any, flush: Deliver) -> None:
    """Deliver when uvicorn has answered its last request.

    An application that uvicorn imports is configured while uvicorn's own handler stands. After its shutdown uvicorn
    puts the default handler back and sends itself the signal again, so that neither ``atexit`` nor a handler of ours
    would ever run.
    """
    serve_out = server.shutdown

    async def shutdown(*args: Any, **kwargs: Any) -> None:
        try:
            await serve_out(*args, **kwargs)
        finally:
            flush()

    server.shutdown = shutdown
