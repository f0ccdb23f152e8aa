"""Forking a process that has threads, without taking a held lock along.

A lock that another thread holds while this process forks stays locked in the fork for ever. ZeroGPU
forks this process whenever a job needs a new worker. Standard library only.
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 2.0  # seconds a fork waits; by then the GPU is granted and paid for

log = logging.getLogger("studio.zerogpu")


class Gate:
    """Keeps forks and the short work of other threads apart.

    Work that takes locks inside libraries (decoding, validating, loading) is done ``with GATE``,
    any number of threads at once. A fork waits for it, and nobody begins while a fork happens.
    """

    def __init__(self):
        self._reset()
        self._installed = False

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._busy = 0
        self._forked = threading.local()

    def install(self) -> None:
        """From now on every fork of this process goes through the gate."""
        if not self._installed:
            self._installed = True
            os.register_at_fork(
                before=self._before, after_in_parent=self._after, after_in_child=self._reset
            )

    def __enter__(self) -> None:
        with self._changed:
            self._busy += 1

    def __exit__(self, *_: Any) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def _before(self) -> None:
        self._changed.acquire()
        if not self._changed.wait_for(lambda: self._busy == 0, PATIENCE):
            log.warning("A GPU worker starts while other work goes on")

    def _after(self) -> None:
        self._changed.release()
        self._forked.when = time.monotonic()

    def last_fork(self) -> float | None:
        """When the calling thread last forked, in ``time.monotonic()`` seconds; None if never."""
        return getattr(self._forked, "when", None)


GATE = Gate()  # one per process: forking is a matter of the whole process


def carried(function: Callable[[], Any]) -> Callable[[], Any]:
    """The function, to be called on another thread with this thread's context variables.

    The visitor's token is one of them; a plain thread would lose it, and with it their quota.
    """
    context = contextvars.copy_context()
    return lambda: context.run(function)
