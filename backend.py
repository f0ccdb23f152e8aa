"""ComfyUI in this process: run one graph, turn its events into ours.

:func:`run_graph` is the part that needs the device: a generator over a picklable :class:`Job`, so
that on ZeroGPU exactly this function runs in a worker and everything around it stays in the parent
(:mod:`engine`).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfyhost
import estimate
import runner
import workflow
from errors import StudioError
from events import Event, Failed, Finished, Preview, Stage, Step, Tick

TICK = 0.2  # seconds between signs of life; ZeroGPU closes a stream only at a yield
PREVIEW_GAP = 0.3  # seconds between preview pictures
# A node that does not look for an interrupt has one raised in its thread: after SOON seconds where
# files are read, prepared and written, after HANG seconds elsewhere. That ends Python code, and
# native code as soon as it returns. After GIVE_UP more seconds the thread is left behind with its
# executor, and the next run gets a new one.
SOON, HANG, GIVE_UP = 0.4, 20.0, 60.0

log = logging.getLogger("studio")

# The booted ComfyUI. A module global because a ZeroGPU worker is a fork of this process: what is
# passed to the worker as an argument arrives as a copy with an empty cache, a global arrives warm.
HOST: comfyhost.Host | None = None


@dataclass(frozen=True)
class Job:
    """What the device has to do; picklable and small.

    ``stages``: (name, node ids) in order. ``expected``: seconds per stage, for the time left.
    ``work_dir``: for previews. ``known``: the expectation was measured here. ``cancel_file``: stop
    when it is there, or its folder is not; how a job in another process is cancelled.
    """

    graph: dict[str, Any]
    stages: tuple[tuple[str, tuple[str, ...]], ...]
    expected: dict[str, float]
    known: bool
    work_dir: str
    cancel_file: str = ""


@dataclass
class _Watch:
    """What ComfyUI says during one run, gathered on the executor's thread."""

    job: Job
    events: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)
    executed: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    previewed: float = 0.0
    pictures: int = 0

    def hear(self, event: str, data: Any) -> None:
        """ComfyUI's event -> ours. Unknown events are ignored: a new version may send more."""
        if event == "executing" and isinstance(data, dict) and data.get("node"):
            self.executed.append(data["node"])
            self.put("node", data["node"])
        elif event == "execution_cached":
            self.cached = list(data["nodes"])
        elif event == "progress":
            self.put("step", (data["value"], data["max"], data["node"]))
        elif isinstance(data, bytes):
            self._preview(data)

    def at(self, *stages: str) -> bool:
        """Whether the node that runs now belongs to one of these stages."""
        return bool(self.executed) and stage_of(self.job, self.executed[-1]) in stages

    def put(self, kind: str, value: Any) -> None:
        """Queue something for the stream, with the moment it happened."""
        self.events.put((kind, value, time.monotonic()))

    def _preview(self, data: bytes) -> None:
        """A preview as ComfyUI's page gets it: some header bytes, then a JPEG."""
        now, start = time.monotonic(), data.find(b"\xff\xd8\xff")
        if start < 0 or now - self.previewed < PREVIEW_GAP:
            return
        self.previewed = now
        self.pictures += 1
        path = Path(self.job.work_dir) / f"preview-{self.pictures:04d}.jpg"
        try:
            path.write_bytes(data[start:])
        except OSError:  # a full disk costs the pictures on the way, not the video
            return
        self.put("preview", str(path))


def run_graph(job: Job, cancel: threading.Event | None = None) -> Iterator[Event]:
    """Run a job's graph in the booted ComfyUI, on the thread that runs all of them.

    Failures are events: an exception that left this function would cost a ZeroGPU worker its life
    and the message its text. Closing the generator interrupts the run and waits for it to end.
    """
    host = HOST
    if host is None:
        yield Failed("setup", "ComfyUI is not running", "", "Start the studio again.")
        return
    watch = _Watch(job)
    clock = estimate.Clock(job.expected, job.known)
    crash: list[BaseException] = []
    outputs = workflow.outputs(job.graph)

    def work() -> None:
        try:
            host.executor.execute(
                json.loads(json.dumps(job.graph)),
                "studio-run",
                {"client_id": comfyhost.CLIENT},
                outputs,
            )
        except BaseException as error:  # noqa: BLE001 - reported as an event below
            crash.append(error)
        finally:
            watch.put("end", None)

    host.listener = watch.hear
    begun, wall = time.monotonic(), time.time()
    running = host.runner.start(work)
    stop = _Stop(host, running, lambda: watch.at(estimate.PREPARE, estimate.WRITE))
    try:
        while True:
            asked = (cancel is not None and cancel.is_set()) or stop.begun or marked(job)
            if asked and stop.push():
                break
            try:
                kind, value, when = watch.events.get(timeout=TICK)
            except queue.Empty:
                if not running.is_alive() and watch.events.empty():
                    break  # stopped so hard that it could not say so
                yield Tick(time.monotonic() - begun)
                continue
            if kind == "end":
                break
            yield from _translate(kind, value, when, job, clock)
    finally:
        while running.is_alive() and not stop.push():
            running.join(0.05)
        stop.release()
        if crash or not host.executor.success:
            _remove_partial(host, job, wall)
        host.listener = lambda event, data: None
    clock.finish(time.monotonic())
    if not stop.given_up:
        host.trim()
    if stop.given_up:
        yield Failed(
            "node",
            "The run was cancelled, but a node does not stop",
            workflow.title(job.graph, watch.executed[-1]) if watch.executed else "",
            "The next run gets a fresh start; if memory stays full, start the studio again.",
        )
        return
    final = _outcome(host, job, watch, crash, clock, time.monotonic() - begun)
    host.warm = host.warm or isinstance(final, Finished)
    if stop.raised and not watch.at(estimate.WRITE):
        host.unload()  # it may have been stopped with half a model loaded
    yield final


def _remove_partial(host: comfyhost.Host, job: Job, since: float) -> None:
    """Remove what a run that did not end well wrote of its video; an earlier run's stays."""
    for node_id in workflow.outputs(job.graph):
        where = host.output_dir / str(job.graph[node_id]["inputs"]["filename_prefix"])
        for path in where.parent.glob(f"{where.name}*"):
            with contextlib.suppress(OSError):  # housekeeping comes by later
                if path.stat().st_mtime >= since - 1:
                    path.unlink()


class _Stop:
    """Stopping a run's thread: by ComfyUI's interrupt, by an exception, by leaving it behind."""

    def __init__(self, host: comfyhost.Host, running: runner.Running, handling: Callable[[], bool]):
        self.host, self.running, self.handling = host, running, handling
        self.begun = 0.0
        self.raised = self.given_up = False
        self.release: Callable[[], None] = lambda: None  # call it when the run is over

    def push(self) -> bool:
        """Ask again, harder the longer it takes; True once the thread is left behind."""
        import comfy.model_management as mm

        now = time.monotonic()
        if not self.begun:
            self.begun, self.release = now, self.host.stop_between_layers()
        self.host.interrupt()  # again and again: execute() clears a flag set before it began
        patience = SOON if self.handling() else HANG
        thread = self.running.thread if self.running.is_alive() else None
        if not self.raised and now - self.begun > patience and thread is not None:
            self.raised = True
            if patience == HANG:
                log.warning("A node does not stop; its thread is interrupted")
            error = ctypes.py_object(mm.InterruptProcessingException)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), error)
            self.host.runner.retire()  # it may arrive after the run
        if not self.given_up and now - self.begun > HANG + GIVE_UP and self.running.is_alive():
            self.given_up = True
            log.error("A node does not stop; its thread is left behind")
            self.host.runner.retire()
            self.host.renew()
        return self.given_up


def _translate(
    kind: str, value: Any, when: float, job: Job, clock: estimate.Clock
) -> Iterator[Event]:
    if kind == "node":
        name = stage_of(job, value)
        if name is not None and name != clock.current:
            new = name not in clock.entered  # ComfyUI loads some models late; that is no step back
            clock.enter(name, when)
            if new:
                yield Stage(len(clock.entered), len(job.stages), name, clock.seconds_left())
    elif kind == "step":
        step, steps, node = value
        if stage_of(job, node) in (estimate.FIRST, estimate.SECOND):
            clock.step(step, steps, when)
        yield Step(step, steps, clock.seconds_left())
    else:
        yield Preview(value)


def _outcome(
    host: comfyhost.Host,
    job: Job,
    watch: _Watch,
    crash: list,
    clock: estimate.Clock,
    seconds: float,
) -> Finished | Failed:
    """The one final event of a run."""
    for event, data in reversed(host.executor.status_messages):
        if event == "execution_interrupted":
            return Failed.of(interrupted())
        if event == "execution_error":
            return node_failure(host, job.graph, data)
    if crash:
        host.executor.reset()
        if type(crash[0]).__name__ == "InterruptProcessingException":
            return Failed.of(interrupted())
        text = "".join(traceback.format_exception(crash[0]))
        return Failed.of(
            StudioError(f"ComfyUI stopped: {type(crash[0]).__name__}: {crash[0]}", detail=text)
        )
    outputs = getattr(host.executor, "history_result", {}).get("outputs", {})
    for output in outputs.values():
        for item in output.get("images", []):
            path = host.output_dir / item.get("subfolder", "") / item["filename"]
            counts = len(watch.executed), len(watch.cached)
            steps, fresh = clock.sampling(), not host.warm
            return Finished(str(path), seconds, clock.stages(), *counts, steps, fresh)
    return Failed(
        "internal", "The run ended without a video", "", "Try again; if it stays, report it."
    )


def node_failure(host: comfyhost.Host, graph: workflow.Graph, data: dict[str, Any]) -> Failed:
    """A node that raised, with its title and advice; memory is given back."""
    node = workflow.title(graph, data["node_id"]) if data["node_id"] in graph else data["node_type"]
    message = str(data["exception_message"]).strip().split("\n")[0][:400]
    detail = "".join(data.get("traceback") or ())
    if out_of_memory(data["exception_type"], message):
        host.unload()
        empty_cache()
        return Failed(
            "out_of_memory",
            f"Memory ran out in {node!r}",
            node,
            "Choose a smaller size, a shorter clip or the Fast preset.",
            detail[-2500:],
        )
    empty_cache()
    if "No space left on device" in message:
        return Failed(
            "setup",
            f"The disk is full: {node!r} could not write",
            node,
            "Make room on the disk and try again.",
            detail[-2500:],
        )
    kind = data["exception_type"].rsplit(".", 1)[-1]
    return Failed(
        "node",
        f"{node!r} failed: {kind}: {message}",
        node,
        "Try again with other settings; the details name the line that failed.",
        detail[-2500:],
    )


def out_of_memory(kind: str, message: str) -> bool:
    """Whether an exception's type and message say that memory ran out, on any device."""
    said = message.lower()
    return (
        "OutOfMemory" in kind
        or kind.rsplit(".", 1)[-1] == "MemoryError"
        or any(words in said for words in ("out of memory", "not enough memory", "can't allocate"))
    )


def empty_cache() -> None:
    """Give freed device memory back. The only place that does."""
    import comfy.model_management as mm

    mm.soft_empty_cache()


def interrupted() -> StudioError:
    """The failure that stands for a person's own cancel."""
    return StudioError("Cancelled", category="interrupted")


def marked(job: Job) -> bool:
    """Whether a job was cancelled by its file."""
    mark = job.cancel_file
    return bool(mark) and (os.path.exists(mark) or not os.path.isdir(os.path.dirname(mark)))


def stage_of(job: Job, node_id: str | None) -> str | None:
    """The stage a node belongs to; None for one that only passes settings along."""
    return next((name for name, ids in job.stages if node_id in ids), None)
