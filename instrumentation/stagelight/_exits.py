"""Delivering before the process ends, however it ends: normally, by SIGTERM, under uvicorn, as a child of a pool."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from types import FrameType, ModuleType
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
    # The first finalizer of a process registers the end of all, which has to come after ours: a pool of connections
    # that is ended before would never close the connection of the last export.
    weakref.finalize(_anchor, int)
    atexit.register(shutdown)
    _in_multiprocessing(shutdown)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(_in_multiprocessing, shutdown))
    if threading.current_thread() is threading.main_thread():
        _on_sigterm(shutdown)
    _when_imported("uvicorn.server", partial(_after_serving, flush))
    _when_imported("celery.signals", partial(_after_tasks, flush))


def _when_imported(module: str, hook: Callable[[ModuleType], None]) -> None:
    import wrapt

    wrapt.register_post_import_hook(hook, module)  # at once, where it has been imported


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


def _on_sigterm(shutdown: Deliver) -> None:
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, partial(_deliver_and_die, shutdown))


def _deliver_and_die(shutdown: Deliver, number: int, _frame: FrameType | None) -> None:
    shutdown()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _after_serving(flush: Deliver, uvicorn_server: Any) -> None:
    """Deliver when uvicorn has answered its last request.

    After its shutdown uvicorn puts back the handler it found and sends itself the signal again. Where that is the
    default one (an application that uvicorn imported, a worker of gunicorn), neither ``atexit`` nor a handler of ours
    would ever run.
    """
    serve_out = uvicorn_server.Server.shutdown

    @functools.wraps(serve_out)
    async def shutdown(server: Any, *args: Any, **kwargs: Any) -> None:
        try:
            await serve_out(server, *args, **kwargs)
        finally:
            flush()

    uvicorn_server.Server.shutdown = shutdown


def _after_tasks(flush: Deliver, celery_signals: Any) -> None:
    """Deliver when a process of Celery's pool has done its last task: it ends without ``atexit``."""

    def deliver(**_: Any) -> None:
        flush()

    celery_signals.worker_process_shutdown.connect(deliver, weak=False)
