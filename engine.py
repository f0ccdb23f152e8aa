"""One request from start to end: files in place, graph built and checked, run, tagged, handed over.

:class:`Engine` is what the page, the command line and the tests hold.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import backend
import bootstrap
import comfyhost
import duration
import editor
import estimate
import forkgate
import housekeeping
import logs
import media
import models
import readahead
import tags
import warmup
import workflow
import zerogpu
from errors import SetupError, StudioError
from events import Event, Failed, Finished, Note, Tick
from modes import MODES
from request import Request
from workflow import refuse_broken, refuse_foreign

log = logging.getLogger("studio")


@dataclass(frozen=True)
class EngineState:
    """What the page shows of the engine. Memory in bytes of the computing device."""

    status: str = "off"  # off, booting, ready, failed
    message: str = ""
    device: str = ""
    memory_used: int = 0
    memory_total: int = 0
    error: StudioError | None = None
    busy: bool = False


class Engine:
    """ComfyUI with one set of weights.

    Args:
        weights: ``demo``, ``fp8`` or ``bf16``.
        comfy: ComfyUI's folder; by default where :func:`bootstrap.comfy_dir` says.
    """

    def __init__(self, weights: str = "demo", comfy: Path | None = None):
        self.weights = weights
        self.comfy = comfy or bootstrap.comfy_dir()
        self._state = EngineState()
        self._boot_lock = threading.Lock()
        self._run_lock = threading.BoundedSemaphore(zerogpu.SLOTS)  # 1 but on ZeroGPU
        self._running: set[str] = set()
        costs = estimate.DEMO if weights == "demo" else estimate.CUDA
        if zerogpu.ACTIVE:
            costs = duration.costs(weights, zerogpu.SIZE)
        self.speeds = estimate.Speeds(costs)
        self.runs = 0
        self.keeper = housekeeping.Keeper(self.comfy)

    # ------------------------------------------------------------------ state

    @property
    def state(self) -> EngineState:
        """The engine's state now, with the device's memory once it is ready."""
        host = backend.HOST
        if host is None or self._state.status != "ready":
            return self._state
        busy = bool(self._running)
        if zerogpu.ACTIVE:  # the card of this process is emulated, its memory means nothing
            return EngineState("ready", self._state.message, f"ZeroGPU {zerogpu.SIZE}", busy=busy)
        return EngineState("ready", self._state.message, host.device, *host.memory(), None, busy)

    def boot(self, report: Callable[[str], None] = log.info) -> None:
        """Start ComfyUI once; later calls return at once. Safe to call from any thread.

        Raises:
            SetupError: it does not start; call again after mending it.
        """

        def tell(message: str) -> None:
            self._state = EngineState("booting", message)
            report(message)

        stop_reading = threading.Event()
        with self._boot_lock:
            if self._state.status == "ready":
                return
            try:
                if backend.HOST is None:
                    if self.weights == "demo":
                        tell("Writing demo weights")
                        from tools import make_demo_weights

                        make_demo_weights.make(bootstrap.demo_dir())
                    else:
                        readahead.start(self.base_files(), stop_reading)
                    backend.HOST = comfyhost.boot(self.comfy, self.weights == "demo", tell)
                elif backend.HOST.demo != (self.weights == "demo"):
                    raise SetupError(
                        "ComfyUI already runs with other weights in this process",
                        "weights",
                        "Start anew.",
                    )
            except StudioError as error:
                stop_reading.set()
                self._state = EngineState("failed", error.what, error=error)
                raise
            self._state = EngineState("ready", "Ready", backend.HOST.device)
            self.keeper.tidy()

    def base_files(self) -> list[Path]:
        """Model files on this machine that every mode loads, the text encoder's first, as it is the
        first to run."""
        graph = graph_for(Request(mode="t2v", prompt="-"), self.weights)
        files = sorted(models.needed(graph), key=lambda file: file.folder != "text_encoders")
        found = (models.locate(file, self.comfy) for file in files)
        return [path for path in found if path is not None]

    # ------------------------------------------------------------------ before a run

    def expected(self, request: Request) -> float | None:
        """Seconds a run would take here; None while no run has been measured in this process."""
        if not self.speeds.known:
            return None
        return sum(self.speeds.seconds(request, warm=self.runs > 0).values())

    def reservation(self, request: Request) -> duration.Reservation | None:
        """What a run would reserve on ZeroGPU, with a sentence for the form; None elsewhere.

        Raises:
            BadInput: it cannot fit; the advice names the nearest settings that do.
        """
        return zerogpu.reservation(request, self.weights, self.speeds, self.runs > 0)

    # ------------------------------------------------------------------ the run

    def run(
        self, request: Request, out_dir: Path, cancel: threading.Event | None = None
    ) -> Iterator[Event]:
        """Make the video; the last event is one Finished or one Failed.

        Closing the generator, or setting ``cancel``, interrupts the run within a second.

        Args:
            request: the validated job.
            out_dir: where the mp4 goes.
            cancel: set it from any thread to stop.
        """
        cancel = cancel or threading.Event()
        ident, begun, last = logs.new_id(), time.monotonic(), None
        events = self._reported(request, Path(out_dir), cancel, ident)
        try:
            for event in events:
                last = event.scrubbed() if isinstance(event, Failed) else event
                yield last
        finally:
            events.close()
            self.keeper.release(ident)
            logs.ended(ident, request, self.weights, last, time.monotonic() - begun)
            self.keeper.tidy()

    def _reported(
        self, request: Request, out_dir: Path, cancel: threading.Event, ident: str
    ) -> Iterator[Event]:
        """The run's events; whatever is raised inside becomes the last of them."""
        try:
            yield from self._run(request, out_dir, cancel, ident)
        except StudioError as error:
            yield Failed.of(error)
        except GeneratorExit:
            cancel.set()
            raise
        except OSError as error:
            yield Failed(
                "setup",
                f"A file could not be written: {error.strerror or error}",
                Path(str(error.filename or "")).name,
                "Make room on the disk, or correct the folder's rights, and try again.",
                traceback.format_exc()[-2500:],
            )
        except Exception as error:
            log.exception("The run failed in a way nobody expected")
            yield Failed(
                "internal",
                f"{type(error).__name__}: {str(error)[:300]}",
                "",
                "",
                traceback.format_exc()[-2500:],
            )

    def _run(
        self, request: Request, out_dir: Path, cancel: threading.Event, ident: str
    ) -> Iterator[Event]:
        begun = time.monotonic()
        plan = media.plan(request)
        self.keeper.hold(ident, plan.names.values())
        graph = graph_for(request, self.weights, plan)
        if self.weights == "demo" and (refusal := models.missing_demo(graph)):
            raise refusal
        self.reservation(request)  # what cannot fit is refused before anything is done
        yield from (Note(text) for text in plan.notes)
        yield from self._wait_for_boot(cancel, begun)
        host = backend.HOST
        if host.tiled:
            graph = graph_for(request, self.weights, plan, tiled=True)
        with forkgate.GATE:
            media.stage(request, host.input_dir, plan)
        if self.weights != "demo":
            yield from models.ensure(models.needed(graph), self.comfy, cancel=cancel)
        yield from self._wait_for_turn(cancel, begun)
        try:
            self._running.add(ident)
            refuse_foreign(graph)
            with forkgate.GATE:
                refuse_broken(graph, host.problems(graph))
            if zerogpu.ACTIVE:
                yield from warmup.warm(host, graph, cancel)
            prefix = f"{housekeeping.RUN_DIR}{os.getpid()}-"
            with tempfile.TemporaryDirectory(prefix=prefix) as work_dir:
                yield from self._execute(request, plan, graph, out_dir, work_dir, cancel, begun)
        finally:
            self._running.discard(ident)
            self._run_lock.release()

    def _execute(
        self,
        request: Request,
        staged: media.Staged,
        graph: workflow.Graph,
        out_dir: Path,
        work_dir: str,
        cancel: threading.Event,
        begun: float,
    ) -> Iterator[Event]:
        stages = stage_map(request.mode, graph)
        job = backend.Job(
            graph,
            stages,
            only(stages, self.speeds.seconds(request, warm=self.runs > 0)),
            self.speeds.known,
            work_dir,
        )
        if zerogpu.ACTIVE:
            # Workers do not see each other's files: every run gets an output name of its own.
            reserved, job = self.reservation(request), renamed(job, str(time.time_ns()))
            yield Note(reserved.sentence)
            run = zerogpu.run(job, reserved, backend.HOST.output_dir, cancel)
        else:
            run = backend.run_graph(job, cancel)
        final = yield from until_final(run)
        lost = isinstance(final, Finished) and not Path(final.path).is_file()
        if lost and not zerogpu.ACTIVE:
            # The executor answers an identical run from its cache, even when the file is gone.
            again = renamed(job, str(time.time_ns()))
            final = yield from until_final(backend.run_graph(again, cancel))
        if not isinstance(final, Finished):
            yield final
            return
        self.runs += 1
        self.speeds.learn(request, final.stages, final.sampling, final.fresh)
        target = out_dir / f"{request.mode}-{request.seed}-{digest(graph)[:12]}.mp4"
        with forkgate.GATE:
            tags.finish(Path(final.path), target, self.tags(request, staged, graph))
        yield replace(final, path=str(target), seconds=time.monotonic() - begun)

    def tags(self, request: Request, staged: media.Staged, graph: workflow.Graph) -> dict[str, str]:
        """What the mp4 carries: nothing, or the graph in ComfyUI's convention and the request.

        Dropped on ComfyUI, a video opens as ``workflow``: laid out, the run's values in its widgets.
        Paths of a person's files never leave this machine: only their names are kept.
        """
        if not request.metadata:
            return {}
        name = f"{MODES[request.mode].title}, seed {request.seed}"
        values = request.to_dict()
        values.update({name: plain_name(path) for name, path in request.media.items()})
        return {
            "prompt": json.dumps(graph, ensure_ascii=False),
            "workflow": json.dumps(editor.to_editor(graph, name=name), ensure_ascii=False),
            "request": json.dumps(values, ensure_ascii=False),
            "inputs": json.dumps({name: staged.names[name] for name in request.media}),
        }

    def _wait_for_boot(self, cancel: threading.Event, begun: float) -> Iterator[Event]:
        if self._state.status == "ready":
            return
        errors: list[StudioError] = []

        def boot() -> None:
            try:
                self.boot()
            except StudioError as error:
                errors.append(error)

        thread = threading.Thread(target=boot, daemon=True, name="boot")
        thread.start()
        said = ""
        while thread.is_alive():
            thread.join(backend.TICK)
            if cancel.is_set():
                raise backend.interrupted()
            message = self._state.message
            if message and message != said:
                said = message
                yield Note(f"Starting the engine: {message}")
            yield Tick(time.monotonic() - begun)
        if errors:
            raise errors[0]

    def _wait_for_turn(self, cancel: threading.Event, begun: float) -> Iterator[Event]:
        while not self._run_lock.acquire(timeout=backend.TICK):
            if cancel.is_set():
                raise backend.interrupted()
            yield Tick(time.monotonic() - begun)
        if cancel.is_set():
            self._run_lock.release()
            raise backend.interrupted()

    def interrupt(self) -> None:
        """Stop whatever runs; its own stream reports it."""
        if backend.HOST is not None:
            backend.HOST.interrupt()

    def free(self) -> None:
        """Unload the models and forget cached results; waits for a running job to end.

        On ZeroGPU there is nothing to free: each worker's card is Hugging Face's to take back.
        """
        if backend.HOST is None or zerogpu.ACTIVE:
            return
        with self._run_lock:
            backend.HOST.unload()
            backend.empty_cache()
            self.runs = 0


def graph_for(
    request: Request,
    weights: str = "fp8",
    staged: media.Staged | None = None,
    tiled: bool = False,
) -> workflow.Graph:
    """The graph of a request: what would run, and what *download graph* gives.

    Needs neither ComfyUI nor torch. ``tiled`` decodes the picture in tiles, for small cards.

    Raises:
        BadInput: one of the request's files cannot be used.
    """
    patches = MODES[request.mode].patches(request, staged or media.plan(request))
    patches += [*models.variant_patches(weights), ("Decode in tiles", "switch", tiled)]
    return named(workflow.build(request.mode, patches))


def plain_name(path: str) -> str:
    """A file's name without its folder, as text that can be written into any container."""
    return Path(path).name.encode("utf-8", "replace").decode()


def choose_weights(requested: str) -> tuple[str, str]:
    """``auto``, ``demo`` or ``full`` -> (``demo``, ``fp8`` or ``bf16``; the reason, a sentence)."""
    if requested == "demo":
        return models.choose(requested, None)
    gpu = models.zero_gpu(os.environ) if zerogpu.ACTIVE else comfyhost.gpu()
    return models.choose(requested, gpu)


def until_final(events: Iterator[Event]):
    """Pass events on up to the final one, which is returned; its absence is a crash."""
    try:
        for event in events:
            if isinstance(event, (Finished, Failed)):
                return event
            yield event
    finally:
        events.close()
    return Failed(
        "gpu_lost",
        "The run stopped without a word",
        "",
        "Try again; if it stays, choose a smaller size.",
    )


def stage_map(mode: str, graph: workflow.Graph) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The mode's stages that this graph has, with the ids of the nodes they cover."""
    ids = {workflow.title(graph, node_id): node_id for node_id in graph}
    found = [
        (name, tuple(ids[t] for t in titles if t in ids)) for name, titles in MODES[mode].stages
    ]
    return tuple((name, nodes) for name, nodes in found if nodes)


def only(
    stages: tuple[tuple[str, tuple[str, ...]], ...], seconds: dict[str, float]
) -> dict[str, float]:
    """The expectation for the stages a graph has."""
    return {name: seconds[name] for name, _ in stages}


def digest(graph: workflow.Graph) -> str:
    """A hash of a graph's content."""
    return hashlib.sha256(json.dumps(graph, sort_keys=True).encode()).hexdigest()


def named(graph: workflow.Graph, salt: str = "") -> workflow.Graph:
    """The graph with its output named after its own content, so that runs never meet on disk."""
    prefix = f"studio/{digest(graph)[:24]}{salt}"
    return workflow.apply(graph, [("Save video", "filename_prefix", prefix)])


def renamed(job: backend.Job, salt: str) -> backend.Job:
    """The same job writing to another file, so that its last node runs again."""
    return backend.Job(named(job.graph, salt), job.stages, job.expected, job.known, job.work_dir)
