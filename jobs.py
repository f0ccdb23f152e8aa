"""One job from the page or the API: its place in the line, its run, and what to say about it.

:class:`Studio` owns the engine, the line and the visits. :class:`Progress` folds the events of a
run into one value that a card, an API answer or a test can read.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import engine as engines
from engine import Engine, EngineState
from errors import StudioError
from events import Download, Event, Failed, Finished, Note, Preview, Stage, Step
from request import Request
from visits import Line, Visit, Visits

BEAT = 0.2  # seconds between signs of life while waiting
DRAWN = 0.7  # seconds a browser needs to draw the page after it asked for the engine's state
log = logging.getLogger("studio")


@dataclass
class Progress:
    """Where a job stands. ``phase``: waiting, starting, download, running, then done or failed."""

    request: Request | None
    phase: str = "waiting"
    ahead: int = 0
    stage: str = ""
    index: int = 0
    count: int = 0
    step: int = 0
    steps: int = 0
    preview: str = ""
    notes: list[str] = field(default_factory=list)
    download: Download | None = None
    final: Finished | Failed | None = None
    begun: float = field(default_factory=time.monotonic)
    _left: tuple[float, float] | None = None  # (seconds left, when that was said)

    def hear(self, event: Event) -> None:
        """Take one event into account."""
        if isinstance(event, Note):
            if event.text not in self.notes:
                self.notes.append(event.text)
        elif isinstance(event, Download):
            self.phase, self.download = "download", event
        elif isinstance(event, Stage):
            self.phase, self.download = "running", None
            self.stage, self.index, self.count = event.name, event.index, event.count
            self.step = self.steps = 0
            self._left = self._said(event.seconds_left)
        elif isinstance(event, Step):
            self.step, self.steps = event.step, event.steps
            self._left = self._said(event.seconds_left)
        elif isinstance(event, Preview):
            self.preview = event.path
        elif isinstance(event, (Finished, Failed)):
            self.final = event
            self.phase = "done" if isinstance(event, Finished) else "failed"

    def _said(self, seconds: float | None) -> tuple[float, float] | None:
        return None if seconds is None else (seconds, time.monotonic())

    @property
    def elapsed(self) -> float:
        """Seconds since the job was handed in."""
        return time.monotonic() - self.begun

    @property
    def seconds_left(self) -> float | None:
        """Seconds to go, counted down since the engine last said so; None while unknown."""
        if self._left is None:
            return None
        said, when = self._left
        return max(0.0, said - (time.monotonic() - when))

    @property
    def fraction(self) -> float:
        """0..1: by time where that is known, else by stages and steps."""
        if self.phase == "download" and self.download:
            return self.download.done / max(1, self.download.total)
        if self.phase == "done":
            return 1.0
        left = self.seconds_left
        if left is not None and self.elapsed + left > 0:
            return self.elapsed / (self.elapsed + left)
        if not self.count:
            return 0.0
        inner = self.step / self.steps if self.steps else 0.0
        return (self.index - 1 + inner) / self.count


class Studio:
    """The engine with everything around it. One per process.

    Args:
        weights: ``auto``, ``demo`` or ``full``.
        outputs: where visits keep their videos.
        keep: whether those files are the owner's own, never swept.
        slots: jobs handed to the engine at once; one, except where every job brings its own GPU.
        prepare: called before the engine boots, with a report function; raises SetupError.
    """

    def __init__(
        self,
        weights: str,
        outputs: Path,
        *,
        keep: bool = True,
        slots: int = 1,
        prepare: Callable[[Callable[[str], None]], object] | None = None,
    ):
        self.asked, self.prepare = weights, prepare
        self.engine: Engine | None = None
        self.reason = ""
        self.line = Line(slots)
        self.visits = Visits(outputs, keep)
        self._state = EngineState("off", "Starting")
        self._booting = threading.Lock()
        self.opened = threading.Event()  # somebody is there: on the page, or with a job

    # ------------------------------------------------------------------ the engine

    @property
    def state(self) -> EngineState:
        """The engine's state; ours while there is no engine yet."""
        if self.engine is not None and self._state.status == "ready":
            return self.engine.state
        if self.engine is not None and self._state.status == "booting":
            inner = self.engine.state
            return inner if inner.status == "booting" else self._state
        return self._state

    @property
    def weights(self) -> str:
        """``demo``, ``fp8`` or ``bf16``; empty until it is known."""
        return self.engine.weights if self.engine is not None else ""

    def start(self, head_start: float = 0.0) -> threading.Thread:
        """Boot on a thread of its own; a call while one boots does nothing.

        Importing torch keeps the interpreter busy: for ``head_start`` seconds it waits for a first
        visitor to have the page.
        """

        def work() -> None:
            if head_start and self.opened.wait(head_start):
                time.sleep(DRAWN)
            self._boot()

        thread = threading.Thread(target=work, name="boot", daemon=True)
        thread.start()
        return thread

    def _boot(self) -> None:
        if not self._booting.acquire(blocking=False):
            return
        try:
            if self._state.status == "ready":
                return
            self._tell("Checking ComfyUI")
            if self.prepare is not None:
                self.prepare(self._tell)
            if self.engine is None:
                self._tell("Looking at this machine")
                weights, self.reason = engines.choose_weights(self.asked)
                log.info(self.reason)
                self.engine = Engine(weights)
            self.engine.boot(self._tell)
            self._state = EngineState("ready", "Ready")
        except StudioError as error:
            log.error("%s", error)
            self._state = EngineState("failed", error.what, error=error)
        except Exception as error:
            log.exception("The engine did not start")
            failure = StudioError(f"{type(error).__name__}: {str(error)[:300]}", "engine")
            self._state = EngineState("failed", failure.what, error=failure)
        finally:
            self._booting.release()

    def _tell(self, message: str) -> None:
        self._state = EngineState("booting", message)

    def expected(self, request: Request) -> float | None:
        """Seconds the run would take here; None while nothing was measured."""
        return self.engine.expected(request) if self.engine is not None else None

    # ------------------------------------------------------------------ a job

    def run(self, request: Request, visit: Visit) -> Iterator[Progress]:
        """Wait for the turn, run, and say where it stands at least every half second.

        The last value has ``final`` set. Closing the generator, the visit's switch and its end all
        stop the run; then ``final`` is a Failed of category "interrupted".
        """
        self.opened.set()
        cancel = visit.start()
        progress = Progress(request)
        ticket = self.line.join()
        try:
            yield progress
            while not cancel.is_set():
                progress.ahead = self.line.ahead(ticket)
                status = self.state.status
                if status == "failed":
                    progress.hear(Failed.of(self._refusal()))
                    yield progress
                    return
                if progress.ahead == 0 and status == "ready":
                    break
                progress.phase = "waiting" if progress.ahead else "starting"
                progress.stage = "" if progress.ahead else self.state.message
                cancel.wait(BEAT)
                yield progress
            if cancel.is_set():
                progress.hear(Failed("interrupted", "Cancelled"))
            else:
                yield from self._follow(progress, visit, cancel)
            yield progress
        finally:
            cancel.set()
            self.line.leave(ticket)

    def _follow(
        self, progress: Progress, visit: Visit, cancel: threading.Event
    ) -> Iterator[Progress]:
        progress.phase, progress.stage = "running", ""
        yield progress
        stream = self.engine.run(progress.request, visit.folder, cancel)
        shown = time.monotonic()
        try:
            for event in stream:
                progress.hear(event)
                now = time.monotonic()
                due = 0.0 if isinstance(event, Stage) else BEAT
                if progress.final is None and now - shown >= due:
                    shown = now
                    yield progress
        finally:
            stream.close()
        if progress.final is None:
            progress.hear(Failed("internal", "The run ended without a result", "", "Try again."))

    def _refusal(self) -> StudioError:
        error = self.state.error
        advice = "Mend that, then press Try again on the engine's card."
        if error is None:
            return StudioError("The engine did not start", advice=advice, category="setup")
        return StudioError(
            f"The engine did not start: {error.what}",
            error.where,
            error.advice or advice,
            category="setup",
            detail=error.detail,
        )
