"""The thread that ComfyUI's executor runs on."""

from __future__ import annotations

import contextvars
import ctypes
import os
import threading
import time

import pytest

import runner

LIMIT = 10.0  # seconds; generous


def ended(running: runner.Running) -> bool:
    running.join(LIMIT)
    return not running.is_alive()


def ident(host: runner.Runner) -> int:
    found: list[int] = []
    assert ended(host.start(lambda: found.append(threading.get_ident())))
    return found[0]


def test_runner_keeps_its_thread():
    host = runner.Runner()
    assert ident(host) == ident(host) != threading.get_ident()


def test_runner_carries_context_variables_of_each_caller():
    word, seen, host = contextvars.ContextVar("word"), [], runner.Runner()
    for text in ("first", "second"):
        word.set(text)
        assert ended(host.start(lambda: seen.append(word.get())))
    assert seen == ["first", "second"]


def test_call_raises_what_the_work_raises_and_goes_on():
    host = runner.Runner()
    with pytest.raises(ZeroDivisionError):
        host.call(lambda: 1 / 0)
    over = threading.Event()
    host.call(over.set)
    assert over.is_set()


def test_join_waits_no_longer_than_told():
    host, over = runner.Runner(), threading.Event()
    running = host.start(lambda: over.wait(LIMIT))
    running.join(0.05)
    assert running.is_alive()
    over.set()
    assert ended(running)


def test_retire_gives_the_next_work_a_thread_of_its_own():
    host, over = runner.Runner(), threading.Event()
    stuck = host.start(lambda: over.wait(LIMIT))
    host.retire()
    assert ident(host) != stuck.thread.ident
    assert stuck.is_alive()
    over.set()
    assert ended(stuck)
    stuck.thread.join(LIMIT)
    assert not stuck.thread.is_alive()


def test_work_whose_thread_was_ended_from_outside_is_not_alive():
    host = runner.Runner()

    def spin() -> None:
        while True:
            pass

    running = host.start(spin)
    while running.thread is None:
        time.sleep(0.01)
    raised = ctypes.py_object(SystemExit)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(running.thread.ident), raised)
    host.retire()
    assert ended(running)
    running.thread.join(LIMIT)
    assert not running.thread.is_alive()
    over = threading.Event()
    host.call(over.set)
    assert over.is_set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_runner_works_in_a_fork():
    host = runner.Runner()
    ident(host)
    child = os.fork()
    if child == 0:
        over = threading.Event()
        host.start(over.set)
        os._exit(0 if over.wait(LIMIT) else 1)
    assert os.waitpid(child, 0)[1] == 0
