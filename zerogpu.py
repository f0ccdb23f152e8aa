"""The one function that runs on ZeroGPU, and the parent's side of it.

On a ZeroGPU Space the page runs in a process without a GPU. :func:`gpu_run` is the only function the
``spaces`` package is told about: it forks this process, gives the fork a GPU for the time reserved,
and streams our events back. Everywhere else :data:`ACTIVE` is False, ``spaces`` is not imported, and
:mod:`engine` runs :func:`backend.run_graph` itself.

What the package does not do, and this module does: signs of life while a GPU is waited for, cancel
before, while and after the wait, failures in words, one retry after a time-out, a fork that meets no
held lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import backend
import duration
import estimate
import forkgate
import mediafile
import models
import zerogpu_errors as refusals
from duration import Reservation
from errors import BadInput, SetupError
from events import Event, Failed, Finished, Note, Tick
from request import Request

log = logging.getLogger("studio.zerogpu")

ACTIVE = os.environ.get("SPACES_ZERO_GPU", "").strip().lower() in ("1", "t", "true")

if ACTIVE:
    import spaces  # before torch: it replaces torch's CUDA calls in this process
else:

    class spaces:
        """Stands for the package where there is no ZeroGPU: its decorator changes nothing."""

        @staticmethod
        def GPU(**_: Any) -> Callable:
            """The identity."""
            return lambda function: function


def _size() -> str:
    """``large`` or ``xlarge``; a wrong setting is reported when the engine chooses its weights."""
    try:
        return models.zero_gpu(os.environ).size
    except SetupError:
        return "large"


SIZE = _size()
# Jobs handed to GPUs at once. Each has a card of its own, but they share this machine's memory:
# what ComfyUI moves off a card is that worker's own, and the text encoder alone has 12 GB.
SLOTS = 2 if ACTIVE else 1
# Jobs that may wait, here and in Gradio's queue, whose own default on ZeroGPU is 1.
QUEUE = 32

EVENT_BYTES = 3800  # a pipe takes 4,096 at once: a worker killed while writing leaves no half event
SAID_NOTHING = 60.0  # a worker ticks five times a second; silent for so long, it hangs
GONE = 1.5  # seconds after a worker's end in which the package, too, has to notice it
CANCEL_GRACE = 5.0  # seconds a cancelled worker has to say so; the mark stops it afterwards, too
# Seconds a cancelled worker's node has to stop. Then the worker ends itself: its GPU is free at once,
# and the next run gets a new worker instead of one in which an old node still works.
STUCK = 15.0
TOKEN_SLACK = 10.0  # seconds a visitor's token must still be good for, to be used again

JOB, CANCEL, PID = "job.pickle", "cancel", "worker.pid"


def factor() -> float:
    """What ZeroGPU multiplies a declared duration by; the package knows the card's own figure."""
    if SIZE == "xlarge":
        return duration.FACTOR["xlarge"]
    if ACTIVE:
        from spaces.zero import config

        return float(config.get_config()["duration_factor"])
    return duration.FACTOR["large"]


def reservation(
    request: Request, weights: str, speeds: estimate.Speeds, warm: bool
) -> Reservation | None:
    """What a run reserves; None off ZeroGPU. See :func:`duration.reserve`."""
    if not ACTIVE:
        return None
    return duration.reserve(request, weights, speeds, warm, size=SIZE, factor=factor())


if ACTIVE:
    forkgate.GATE.install()


# ---------------------------------------------------------------------------------- in the worker


def _declared(job_file: str, seconds: float) -> int:
    """The duration of one call; asked in the parent, with the call's own arguments."""
    return duration.declared(seconds, factor())


@spaces.GPU(duration=_declared, size=SIZE)
def gpu_run(job_file: str, seconds: float) -> Iterator[Event]:
    """Run one job on the GPU; the last event is one Finished or one Failed.

    Args:
        job_file: a pickled :class:`backend.Job`. Its arguments cross a pipe that nobody may be left
            to read, so they are kept tiny. A job that is gone, or has a cancel mark beside it, was
            cancelled while it waited: ZeroGPU starts it all the same.
        seconds: of GPU time reserved; read by the decorator.
    """
    events = None
    try:
        job = _load(Path(job_file))
        if job is None:
            yield Failed.of(backend.interrupted())
            return
        events = backend.run_graph(job)
        stopping = None
        for event in events:
            if stopping is None and backend.marked(job):
                stopping = time.monotonic()
            elif stopping is not None and time.monotonic() - stopping > STUCK:
                log.error("A cancelled node does not stop; its GPU worker ends")
                os._exit(1)
            yield small(event)
    except Exception as error:
        log.exception("The run failed in a way nobody expected")
        what, advice = f"{type(error).__name__}: {str(error)[:300]}", "If it stays, report it."
        yield small(Failed("internal", what, "", f"Try again. {advice}").scrubbed())
    finally:
        if events is not None:
            events.close()


def _load(path: Path) -> backend.Job | None:
    """The job, after leaving this process's id beside it; None when it was cancelled."""
    try:
        if (path.parent / CANCEL).exists():
            return None
        (path.parent / PID).write_text(str(os.getpid()))
        return pickle.loads(path.read_bytes())
    except OSError:
        return None


def small(event: Event) -> Event:
    """The event, cut where it would not fit the pipe in one piece."""
    if isinstance(event, (Failed, Note)):
        for length in (2000, 1000, 300, 100):
            if len(pickle.dumps(event)) <= EVENT_BYTES:
                break
            if isinstance(event, Note):
                event = Note(event.text[:length])
                continue
            texts = event.what[:length], event.where[:100], event.advice[:length]
            event = Failed(event.category, *texts, event.detail[-length:])
    return event


# ---------------------------------------------------------------------------------- in the parent


class _Call:
    """One call of :func:`gpu_run`, on a thread that outlives nobody's patience.

    The package's generator blocks while it waits for a GPU, and can be closed only by the thread
    that runs it; so it runs on a thread of its own, to its end, and is stopped by the cancel mark.
    """

    def __init__(self, job_file: Path, seconds: int):
        self.job_file, self.seconds = job_file, seconds
        self.heard: queue.SimpleQueue = queue.SimpleQueue()
        self.begun: float | None = None  # when the worker was forked, or first spoke
        self.spoke = self.killed = False
        with contextlib.suppress(OSError):
            (job_file.parent / PID).unlink()  # of an attempt before this one
        self.thread = threading.Thread(
            target=forkgate.carried(self._pump), name="zerogpu", daemon=True
        )
        self.thread.start()

    def _pump(self) -> None:
        try:
            for event in gpu_run(str(self.job_file), self.seconds):
                if self.begun is None:
                    self.begun = forkgate.GATE.last_fork() or time.monotonic()
                self.heard.put(event)
        except Exception as error:  # noqa: BLE001 - becomes the run's last event
            log.info("The GPU call ended: %s: %s", type(error).__name__, error)
            self.begun = self.begun or forkgate.GATE.last_fork()
            self.heard.put(error)
        else:
            self.heard.put(None)

    def events(self, cancel: threading.Event) -> Iterator[Event]:
        """The worker's events and our own ticks; ends with one Finished or Failed, or an exception
        as the generator's value, or None where the stream ended without a word."""
        begun = last = time.monotonic()
        asked, gone, told = 0.0, 0.0, False
        while True:
            if cancel.is_set() and not asked:
                asked = time.monotonic()
                self.stop()
            if asked and (not self.spoke or time.monotonic() - asked > CANCEL_GRACE):
                if self.spoke and last < asked:  # not even a tick: it does not see the mark
                    self._kill()
                return Failed.of(backend.interrupted())
            try:
                event = self.heard.get(timeout=backend.TICK)
            except queue.Empty:
                now = time.monotonic()
                if not self.spoke and not told and now - begun > 1.0:
                    told = True
                    yield Note("Waiting for a GPU on ZeroGPU.")
                if self.spoke and now - last > SAID_NOTHING:
                    self._kill()
                if not self._alive():
                    gone = gone or now
                    if now - gone > GONE:  # it could not tell the scheduler, and will not tell us
                        return refusals.Gone()
                yield Tick(now - begun)
                continue
            if event is None or isinstance(event, (Finished, Failed, BaseException)):
                self.thread.join(1.0)  # the worker is handed back; the next call finds it warm
                return event
            self.spoke, last = True, time.monotonic()
            yield event

    def stop(self) -> None:
        """Leave the cancel mark, which the worker looks for at its start and at every tick."""
        with contextlib.suppress(OSError):
            (self.job_file.parent / CANCEL).touch()

    def _kill(self) -> None:
        """End a worker that hangs: it would hold its GPU, at the visitor's cost, to the deadline."""
        with contextlib.suppress(OSError, ValueError):
            if not self.killed:
                self.killed = True
                log.error("A GPU worker says nothing any more and is ended")
                os.kill(int((self.job_file.parent / PID).read_text()), signal.SIGKILL)

    def _alive(self) -> bool:
        """Whether the worker's process is there; True where that cannot be told."""
        try:
            os.kill(int((self.job_file.parent / PID).read_text()), 0)
        except ProcessLookupError:
            return False
        except (OSError, ValueError):
            return True
        return True

    @property
    def elapsed(self) -> float:
        """Seconds since the worker began; 0 when it never did."""
        return time.monotonic() - self.begun if self.begun is not None else 0.0


def run(
    job: backend.Job, reserved: Reservation, output_dir: Path, cancel: threading.Event
) -> Iterator[Event]:
    """Run a job on a GPU of ZeroGPU: its events, ended by exactly one Finished or Failed.

    Closing the generator stops the job, also one that still waits for its GPU. A time-out is tried
    once more with twice the time, where that is allowed and the visitor's session is still good.

    Args:
        job: with a ``work_dir`` of its own and an output name of its own.
        reserved: GPU time of the first attempt.
        output_dir: ComfyUI's output folder, where a video whose event was lost is looked for.
        cancel: set it from any thread to stop.
    """
    folder = Path(job.work_dir)
    job = replace(job, cancel_file=str(folder / CANCEL))
    (folder / JOB).write_bytes(pickle.dumps(job))
    call = _Call(folder / JOB, reserved.seconds)
    try:
        answer = yield from call.events(cancel)
        final = _judge(answer, call, reserved, job, output_dir)
        longer = None
        if final.__class__ is Failed and final.category == "gpu_timeout":
            longer, why = retry(reserved)
            if longer is None:
                final = refusals.timed_out(reserved.granted, why)
        if longer is not None and not cancel.is_set():
            yield Note(
                f"The run was stopped after {reserved.granted} s, the time reserved for it. It is "
                f"tried once more, with {longer.granted} s; both together use up to "
                f"{reserved.quota + longer.quota} s of GPU quota."
            )
            call = _Call(folder / JOB, longer.seconds)
            answer = yield from call.events(cancel)
            final = _judge(answer, call, longer, job, output_dir)
    finally:
        call.stop()
    yield final


def _judge(
    answer: Any, call: _Call, reserved: Reservation, job: backend.Job, output_dir: Path
) -> Finished | Failed:
    """What the end of a call means: its own final event, a lost video, a time-out, a crash."""
    if isinstance(answer, (Finished, Failed)):
        return answer
    died = isinstance(answer, BaseException)
    if died and not refusals.aborted(answer):
        return refusals.explain(answer)
    video = newest_video(output_dir, job)
    if video is not None:
        log.warning("The final event was lost; the video was found")
        return Finished(str(video), call.elapsed)
    if not died:
        return refusals.silent()
    if call.spoke and over(call.elapsed, reserved.granted) and not call.killed:
        return refusals.timed_out(reserved.granted)
    return refusals.lost(call.elapsed) if call.spoke else refusals.never_started(call.elapsed)


def over(elapsed: float, granted: float) -> bool:
    """Whether a worker that ended after ``elapsed`` seconds was ended by its deadline."""
    return elapsed >= granted - min(2.0, 0.1 * granted)


def retry(reserved: Reservation) -> tuple[Reservation | None, str]:
    """The second attempt's reservation, or None and why there is none."""
    longer = reserved.doubled(duration.maximum())
    if longer is None:
        return None, "A run may not take longer here, so it was not tried again."
    left = session_left()
    if left is not None and left < TOKEN_SLACK:
        return None, "Your visit has expired, so it was not tried again: reload the page."
    return longer, ""


def session_left() -> float | None:
    """Seconds the visitor's token is still good for; None when there is none, or it does not say."""
    from gradio.context import LocalContext
    from spaces.zero import utils

    headers = getattr(LocalContext.request.get(None), "headers", None)
    try:
        return float(utils.jwt_payload(headers["x-ip-token"])["exp"]) - time.time()
    except (KeyError, TypeError, ValueError):
        return None


def newest_video(output_dir: Path, job: backend.Job) -> Path | None:
    """The newest whole video written under this job's own name; never one of another run."""
    saver = next((n for n in job.graph.values() if n["class_type"] == "SaveVideo"), None)
    if saver is None:
        return None
    folder, _, name = str(saver["inputs"]["filename_prefix"]).rpartition("/")
    found = [p for p in (output_dir / folder).glob(f"{name}_*.mp4") if p.is_file()]
    for path in sorted(found, key=lambda p: p.stat().st_mtime_ns, reverse=True):
        with contextlib.suppress(BadInput):  # written to the end, or not at all
            mediafile.probe(path, "video")
            return path
    return None
