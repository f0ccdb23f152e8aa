"""Which model files a graph needs, and getting them to where ComfyUI looks.

Below :mod:`backend`, above :mod:`workflow`. The rooms under this one: :mod:`registry` has every file
as data and chooses the weights; :mod:`places` finds files on this machine and links them;
:mod:`downloads` fetches one from the Hub, resumably; :mod:`hub_cache` is the Hugging Face cache on
disk and its mirror on Spaces.
"""

from __future__ import annotations

import collections
import errno
import os
import queue
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import downloads
import hub_cache
import places
import workflow
from download_parts import Halt, Halted
from downloads import Hub, Remote
from errors import BadInput, StudioError, WeightsError
from events import Download, Event, Note, Tick
from registry import (  # noqa: F401 - the names callers know this module by
    AUX,
    REGISTRY,
    VARIANTS,
    GpuInfo,
    ModelFile,
    choose,
    variant_patches,
    zero_gpu,
)

# (class, input) of every loader a graph may contain -> the folder its file lies in. Media inputs
# (LoadImage, LoadAudio, LoadVideo) are not here: a person supplies those.
LOADERS: dict[tuple[str, str], str] = {
    ("UNETLoader", "unet_name"): "diffusion_models",
    ("UnetLoaderGGUF", "unet_name"): "diffusion_models",
    ("CheckpointLoaderSimple", "ckpt_name"): "checkpoints",
    ("CLIPLoader", "clip_name"): "text_encoders",
    ("DualCLIPLoader", "clip_name1"): "text_encoders",
    ("DualCLIPLoader", "clip_name2"): "text_encoders",
    ("LTXAVTextEncoderLoader", "text_encoder"): "text_encoders",
    ("LTXAVTextEncoderLoader", "ckpt_name"): "checkpoints",
    ("VAELoader", "vae_name"): "vae",
    ("VAELoaderKJ", "vae_name"): "vae",
    ("LTXVAudioVAELoader", "ckpt_name"): "checkpoints",
    ("LatentUpscaleModelLoader", "model_name"): "latent_upscale_models",
    ("LoraLoader", "lora_name"): "loras",
    ("LoraLoaderModelOnly", "lora_name"): "loras",
    ("DWPreprocessor", "bbox_detector"): AUX,
    ("DWPreprocessor", "pose_estimator"): AUX,
    ("DepthAnythingV2Preprocessor", "ckpt_name"): AUX,
}
NOT_FILES = ("", "None", "pixel_space")  # choices of these inputs that load nothing from disk
POWER_LORA = "Power Lora Loader (rgthree)"


def _asked(graph: workflow.Graph) -> Iterator[tuple[str, str, str]]:
    """(node id, folder, file name) for every file on the way to an output."""
    reached = workflow.upstream(graph, workflow.outputs(graph))
    for node_id in graph:
        if node_id not in reached:
            continue
        node = graph[node_id]
        for name, value in node["inputs"].items():
            if node["class_type"] == POWER_LORA:
                if _row_loads(value):
                    yield node_id, "loras", str(value["lora"])
                continue
            folder = LOADERS.get((node["class_type"], name))
            if folder and isinstance(value, str) and value not in NOT_FILES:
                yield node_id, folder, value


def _row_loads(row: Any) -> bool:
    """Whether a row of Power Lora Loader loads its file: the pack skips it when off or at 0."""
    return (
        isinstance(row, dict)
        and bool(row.get("on"))
        and bool(row.get("strength"))
        and row.get("lora") not in (None, *NOT_FILES)
    )


def needed(graph: workflow.Graph) -> tuple[ModelFile, ...]:
    """The files a built graph loads, in its own order, each once.

    A loader that reaches no output, a LoRA that is off and media a person supplies do not count.

    Args:
        graph: patched; folded and pruned by :func:`workflow.build`.

    Raises:
        WeightsError: a loader names a file that :data:`REGISTRY` does not have.
        GraphError: the graph has no output, or a link leads nowhere.
    """
    files: dict[tuple[str, str], ModelFile] = {}
    for node_id, folder, name in _asked(graph):
        file = REGISTRY.get((folder, name))
        if file is None:
            title = workflow.title(graph, node_id)
            raise WeightsError(
                f"Node {title!r} asks for {name!r}, which is not a file the studio knows",
                title,
                "Add it to registry.py with its repository and size, or choose another file.",
            )
        files[file.key] = file
    return tuple(files.values())


# Files the demo weights have no stand-in for -> the request's field, and what it is called there.
_NO_DEMO = {
    "yolox_l.onnx": "pose",
    "dw-ll_ucoco_384_bs5.torchscript.pt": "pose",
    "depth_anything_v2_vitl.pth": "depth",
}


def missing_demo(graph: workflow.Graph) -> BadInput | None:
    """The refusal to show where a graph needs a file that the demo weights cannot stand in for.

    Depth and pose detectors are real networks with no tiny twin; everything else has one.
    """
    for file in needed(graph):
        if file.folder == AUX:
            kind = _NO_DEMO.get(file.name, file.name)
            return BadInput(
                f"The control {kind!r} needs a detector that the demo weights do not include",
                "control",
                "Choose canny, or use full weights.",
            )
    return None


# ---------------------------------------------------------------------------------- getting them

WORKERS = 4  # files fetched at once; xet and the Hub's CDN fill a line with fewer
TICK = 0.25  # seconds between events, so that a stream can be closed promptly
WINDOW = 5.0  # seconds the speed is averaged over


def locate(
    file: ModelFile, comfy_dir: Path, extra_dirs: Sequence[Path] | None = None
) -> Path | None:
    """A whole copy of the file on this machine, or None.

    Looks in comfyui/models, in ``extra_dirs`` (default: ``LTX23_AIO_MODELS``), in ComfyUI's
    extra_model_paths.yaml and in the Hugging Face cache, in this order.
    """
    return finder(comfy_dir, extra_dirs).find(file)


def finder(
    comfy_dir: Path,
    extra_dirs: Sequence[Path] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> places.Finder:
    """A :class:`places.Finder` over everything :func:`locate` looks at."""
    extra = places.extra_dirs(environ) if extra_dirs is None else extra_dirs
    return places.Finder(comfy_dir, extra, hub_cache.cache_dir(environ), environ)


def ensure(
    files: Iterable[ModelFile],
    comfy_dir: Path,
    *,
    cancel: threading.Event | None = None,
    extra_dirs: Sequence[Path] | None = None,
    environ: Mapping[str, str] = os.environ,
    workers: int = WORKERS,
    retries: int = downloads.RETRIES,
    backoff: float = downloads.BACKOFF,
) -> Iterator[Event]:
    """Bring every file to where ComfyUI looks; fetch what is nowhere on this machine.

    With everything present it asks nobody and yields nothing. Otherwise, before the first byte, it
    has asked the Hub for every missing file (does this token get in, how large is it) and compared
    the sum with the room on the disk. Closing the generator or setting ``cancel`` stops within a
    moment; the next call goes on where this one stopped. No thread outlives it.

    Args:
        comfy_dir: ComfyUI's folder.
        extra_dirs: further folders to look in; default those of ``LTX23_AIO_MODELS``.
        environ: read for folders only; the Hub's own settings come from the process environment.
        workers: files fetched at once.
        retries, backoff: see :mod:`downloads`.

    Yields:
        Note, Download and Tick events.

    Raises:
        WeightsError: a file cannot be had or placed; category "interrupted" after ``cancel``.
    """
    here = finder(comfy_dir, extra_dirs, environ)
    missing: list[ModelFile] = []
    for file in dict.fromkeys(files):
        path = here.find(file)
        if path is None:
            missing.append(file)
        else:
            _place(path, file, here)
    damaged = {path for path, _ in here.damaged}
    for path, why in dict.fromkeys(here.damaged):
        yield Note(f"{path.name} in {path.parent} {why}: it is not used.")
    if missing:
        batch = _Batch(missing, here, damaged, Halt(cancel), workers, retries, backoff)
        yield from batch.run()


def _place(path: Path, file: ModelFile, here: places.Finder) -> None:
    at = places.target(file, here.comfy_dir, here.environ)
    try:
        places.place(path, at)
    except OSError as error:
        free = shutil.disk_usage(hub_cache.existing(at)).free
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise downloads.disk_full(file, path.stat().st_size, free, at.parent) from error
        raise WeightsError(
            f"{file.name} cannot be placed in {at.parent}: {error.strerror or error}",
            file.name,
            "Make this folder writable.",
        ) from error


class _Batch:
    """The files one call of :func:`ensure` fetches. Its threads end with :meth:`run`."""

    def __init__(
        self,
        files: list[ModelFile],
        here: places.Finder,
        damaged: set[Path],
        halt: Halt,
        workers: int,
        retries: int,
        backoff: float,
    ):
        self.files, self.here, self.damaged, self.halt = files, here, damaged, halt
        self.notes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.hub = Hub(here.cache, halt, retries, backoff, self.notes.put)
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="weights")
        self.done: dict[tuple[str, str], int] = {}  # bytes here, by file; each key has one writer
        self.total, self.begun = 0, time.monotonic()
        self.finished: set[tuple[str, str]] = set()
        self.marks: collections.deque[tuple[float, int]] = collections.deque()

    def run(self) -> Iterator[Event]:
        """Describe, check the disk, fetch, place."""
        try:
            asked = {self.pool.submit(self.hub.describe, file): file for file in self.files}
            yield from self._wait(asked, lambda: Tick(time.monotonic() - self.begun), gather=True)
            remotes = sorted((f.result() for f in asked), key=lambda r: -r.size)
            self.hub.check_disk(remotes, self._copies(remotes))
            self.total = sum(remote.size for remote in remotes)
            self.done = {remote.file.key: self.hub.have(remote) for remote in remotes}
            yield Note(self._plan(remotes))
            fetched = {self.pool.submit(self._fetch, remote): remote.file for remote in remotes}
            yield from self._wait(fetched, lambda: self._progress(remotes))
            yield self._progress(remotes)
        except Halted:
            raise WeightsError(
                "The download was stopped",
                advice="Run it again: it goes on where it stopped.",
                category="interrupted",
            ) from None
        finally:
            self.halt.set()
            self.hub.close()
            self.pool.shutdown(wait=True, cancel_futures=True)

    def _wait(self, futures: dict[Future, ModelFile], event: Any, gather: bool = False) -> Iterator:
        """Yield events until all are done; the first failure is raised, or with ``gather`` all."""
        pending, errors = set(futures), []
        while pending:
            finished, pending = wait(pending, TICK, FIRST_COMPLETED)
            if self.halt.is_set():
                self.hub.close()  # wakes a thread that waits for xet's next bytes
            for future in finished:
                error = future.exception()
                if isinstance(error, StudioError) and gather:
                    errors.append(error)
                elif error:
                    raise error
            while not self.notes.empty():
                yield Note(self.notes.get())
            if pending:
                yield event()
        if errors:
            raise _together(errors)

    def _fetch(self, remote: Remote) -> None:
        key = remote.file.key

        def progress(size: int) -> None:
            self.done[key] = size

        cached = hub_cache.find(remote.file.repo, remote.file.path, self.here.cache)
        path = self.hub.fetch(remote, progress, replace=cached in self.damaged)
        _place(path, remote.file, self.here)
        self.done[key] = remote.size
        self.finished.add(key)

    def _copies(self, remotes: list[Remote]) -> int:
        """Bytes needed a second time, where ComfyUI's folder can only be given copies."""
        models = self.here.comfy_dir / "models"
        return 0 if places.can_link(models) else sum(remote.size for remote in remotes)

    def _plan(self, remotes: list[Remote]) -> str:
        left = self.total - sum(self.done.values())
        repos = len({remote.file.repo for remote in remotes})
        free = shutil.disk_usage(hub_cache.existing(self.here.cache)).free
        count = "One file is" if len(remotes) == 1 else f"{len(remotes)} files are"
        places_ = "one repository" if repos == 1 else f"{repos} repositories"
        return (
            f"{count} missing: {downloads.size_text(left)} to fetch from {places_}; "
            f"the disk has {downloads.size_text(free)} free."
        )

    def _progress(self, remotes: list[Remote]) -> Download:
        now, done = time.monotonic(), sum(self.done.values())
        self.marks.append((now, done))
        while len(self.marks) > 2 and now - self.marks[0][0] > WINDOW:
            self.marks.popleft()
        since, before = self.marks[0]
        speed = max(0.0, (done - before) / (now - since)) if now > since else 0.0
        busy = [r for r in remotes if self.done[r.file.key] < r.size]
        return Download(
            file=(busy or remotes)[0].file.name,
            done=done,
            total=self.total,
            speed=speed,
            seconds_left=(self.total - done) / speed if speed else None,
            files_done=len(self.finished),
            files_total=len(remotes),
        )


def _together(errors: list[StudioError]) -> StudioError:
    """Several refusals as one error: what is missing is said once, and all at once."""
    if len(errors) == 1:
        return errors[0]
    whats = list(dict.fromkeys(error.what.rstrip(".") for error in errors))
    shown = "; ".join(whats[:4]) + (f"; and {len(whats) - 4} more" if len(whats) > 4 else "")
    advice = list(dict.fromkeys(error.advice for error in errors))
    return WeightsError(
        f"{len(errors)} files cannot be fetched: {shown}",
        errors[0].where,
        advice[0],
        detail="\n".join(map(str, errors)),
    )
