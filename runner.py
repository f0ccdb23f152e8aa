"""One thread that stays: every run of ComfyUI's executor happens on it, and all else that computes.

On a CPU, torch's OpenMP library keeps helpers for each thread that ever called it. As soon as there
are more of them than cores, they sleep between two operations instead of waiting for the next, and
the nodes of a demo clip take a third longer on two cores (docs/performance.md).
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

NAME = "executor"


class Running:
    """Work that was handed to a :class:`Runner`."""

    def __init__(self):
        self.thread: threading.Thread | None = None  # None until it begins
        self._future: Future | None = None

    def is_alive(self) -> bool:
        """Whether it has not ended: neither by itself nor with its thread."""
        if self.thread is not None and not self.thread.is_alive():
            return False
        return not self._future.done()

    def join(self, timeout: float) -> None:
        """Wait for its end, at most ``timeout`` seconds."""
        wait([self._future], timeout)

    def result(self) -> None:
        """Wait for its end and raise what it raised."""
        self._future.result()


class Runner:
    """Does one thing after another on the same thread."""

    def __init__(self):
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    def start(self, work: Callable[[], object]) -> Running:
        """Begin ``work`` with the caller's context variables; :meth:`Running.result` raises what it
        raises."""
        if self._pool is None or self._process != os.getpid():  # threads do not survive a fork
            self._pool = ThreadPoolExecutor(1, thread_name_prefix=NAME)
            self._process = os.getpid()
        running, context = Running(), contextvars.copy_context()

        def begin() -> None:
            running.thread = threading.current_thread()
            context.run(work)

        running._future = self._pool.submit(begin)
        return running

    def call(self, work: Callable[[], object]) -> None:
        """Do ``work``, wait for its end, and raise what it raises. Not from the thread itself."""
        self.start(work).result()

    def retire(self) -> None:
        """Let go of the thread: it ends with what it does now, the next work gets a new one.

        For a thread that an exception was raised in from outside, which may arrive late.
        """
        if self._pool is not None and self._process == os.getpid():
            self._pool.shutdown(wait=False)
        self._pool = None
