"""What a forked child must begin anew: queues, counts and locks that another thread may have held at the fork."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable

__all__ = ["around_every_fork", "in_every_child"]


def in_every_child(method: Callable[[], object]) -> None:
    """Call a bound method in every child this process forks, as long as its object lives."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_weakly(method))


def _weakly(method: Callable[[], object]) -> Callable[[], None]:
    reference = weakref.WeakMethod(method)

    def call() -> None:
        bound = reference()
        if bound is not None:
            bound()

    return call


def around_every_fork(before: Callable[[], object], after: Callable[[], object]) -> None:
    """Call bound methods in this process before and after every fork, as long as their object lives.

    Args:
        before: called in the thread that forks.
        after: called in the same thread, in the parent only.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_weakly(before), after_in_parent=_weakly(after))
