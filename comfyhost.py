"""ComfyUI as a library inside this process: booted once, spoken to through one small object.

Nothing is bound to a socket: the real ``PromptServer`` class is instantiated, because nodes and the
executor expect it, and its one method through which every event passes is ours. Import this module
freely; ComfyUI and torch are imported by :func:`boot` only.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import allocator
import bootstrap
import models
import runner
from errors import SetupError, StudioError

Listener = Callable[[str, Any], None]
SHIM = "ltx23_demo_weights"  # custom-node folder that lets the tiny text encoder through
SHIM_FOLDER = bootstrap.REPO / "assets" / "custom_nodes"
CLIENT = "studio"  # with no client id, the executor returns cached outputs empty
# From 48 GB up (44 GiB as such cards report themselves) the plain decode fits at 1080p and avoids
# seams; below, tiles of 768 px do. Lightricks' advice, not measured here.
PLAIN_DECODE = 44 * 1024**3
GRAPHS_KEPT = 8  # graphs whose results stay: one of each mode and two more
LARGE_RESULT = 64 * 1024**2  # bytes; a prompt is 25 MB, latents of 121 frames at 1080p are 17 MB
VRAM_FLAGS = ("lowvram", "normalvram", "highvram")

log = logging.getLogger("studio.comfy")


@dataclass
class Host:
    """The booted ComfyUI.

    Attributes:
        executor: ComfyUI's ``PromptExecutor``; keeps its cache between runs.
        listener: called with (event, data) for everything the executor and the progress bars say.
        runner: the thread the executor runs on.
        input_dir, output_dir: ComfyUI's folders.
        device: in words. ``demo``: whether only demo weights are visible.
        tiled: decode the picture in tiles, because the card is small.
        notes: choices made at boot, each with its reason.
    """

    executor: Any
    input_dir: Path
    output_dir: Path
    device: str
    demo: bool
    tiled: bool = False
    notes: tuple[str, ...] = ()
    listener: Listener = field(default=lambda event, data: None)
    runner: runner.Runner = field(default_factory=runner.Runner)
    warm: bool = False  # a run has left its models loaded, in this process

    def hear(self, event: str, data: Any) -> None:
        """Pass an event on to whoever runs a graph right now."""
        self.listener(event, data)

    def problems(self, graph: dict[str, Any]) -> list[tuple[str, str]]:
        """Validate every node, not only the outputs' own check, which some packs' nodes hide from.

        Returns:
            (node id, sentence) for each problem; an empty list when the graph can run.
        """
        import copy

        import execution
        import nodes

        unknown = [
            (node_id, f"ComfyUI has no node of type {node['class_type']!r}.")
            for node_id, node in graph.items()
            if node["class_type"] not in nodes.NODE_CLASS_MAPPINGS
        ]
        if unknown:
            return unknown

        async def check() -> list[tuple[str, str]]:
            prompt, validated, found = copy.deepcopy(graph), {}, []
            for node_id in prompt:
                _, errors, _ = await execution.validate_inputs("check", prompt, node_id, validated)
                found += [(node_id, f"{e['message']}: {e['details']}") for e in errors]
            return found

        return list(dict.fromkeys(asyncio.run(check())))

    def memory(self) -> tuple[int, int]:
        """(used, total) bytes of the device ComfyUI computes on."""
        import comfy.model_management as mm

        device = mm.get_torch_device()
        total = int(mm.get_total_memory(device))
        return total - int(mm.get_free_memory(device)), total

    def interrupt(self) -> None:
        """Ask the running graph to stop at the next layer, step or node."""
        import comfy.model_management as mm

        mm.interrupt_current_processing()

    def stop_between_layers(self) -> Callable[[], None]:
        """From now on, stop an interrupted graph between two layers of any model.

        ComfyUI itself looks between two steps only, and one step, one decode or one long prompt can
        take many seconds. Only installed to stop a run: torch calls every layer slower with it.

        Returns:
            what takes it away again.
        """
        import comfy.model_management as mm
        from torch.nn.modules.module import register_module_forward_pre_hook

        return register_module_forward_pre_hook(
            lambda module, inputs: mm.throw_exception_if_processing_interrupted()
        ).remove

    def renew(self) -> None:
        """A new executor with an empty cache, for when a run's thread cannot be stopped.

        The old one is left with a copy of the server that tells nobody: when it wakes up, it would
        otherwise clear what the new one has written there.
        """
        import copy

        server = self.executor.server
        ghost = copy.copy(server)
        ghost.send_sync = lambda *_, **__: None
        self.executor.server = ghost
        self.executor = _executor(server)

    def unload(self) -> None:
        """Forget loaded models and every cached result, and give their memory back now: models hold
        themselves in circles, which Python would otherwise find in the middle of the next run."""
        self.runner.call(self._unload)

    def _unload(self) -> None:
        import gc

        import comfy.model_management as mm

        self.warm = False
        mm.unload_all_models()
        self.executor.reset()
        gc.collect()

    def trim(self) -> None:
        """Forget results of old graphs, and large ones of all graphs but the last.

        The last graph stays whole: it answers an identical request. Of those before it, prompts and
        latents are worth keeping, and megabytes each; a decoded picture is gigabytes at 1080p.
        """
        cache = self.executor.caches.outputs
        for key, entry in list(cache.cache.items()):
            age = cache.generation - cache.used_generation.get(key, 0)
            if age >= GRAPHS_KEPT or (age and held_bytes(entry.outputs) > LARGE_RESULT):
                for table in (cache.cache, cache.used_generation, cache.timestamps, cache.children):
                    table.pop(key, None)


def held_bytes(value: Any, depth: int = 6) -> int:
    """Bytes of the tensors in a node's result: in lists, dictionaries and ComfyUI's own values."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if depth == 0:
        return 0
    if isinstance(value, (list, tuple)):
        inside: Any = value
    elif isinstance(value, dict):
        inside = value.values()
    elif type(value).__module__.startswith("comfy_api."):
        inside = vars(value).values() if hasattr(value, "__dict__") else ()
    else:
        return 0
    return sum(held_bytes(part, depth - 1) for part in inside)


class _Logged(io.TextIOBase):
    """What packs print while they load goes to the log, not into a command's output."""

    def write(self, text: str) -> int:
        """Log one piece of text."""
        if text.strip():
            log.debug("%s", text.rstrip())
        return len(text)


def _import_args(demo: bool, report: Callable[[str], None]) -> list[str]:
    """Set ComfyUI's options before anything of it that reads them is imported."""
    import torch
    from comfy.cli_args import args

    notes = []
    mps = getattr(torch.backends, "mps", None)
    if not torch.cuda.is_available() and not (mps and mps.is_available()):
        args.cpu = True
    wish = os.environ.get("LTX23_AIO_VRAM", "").strip().lower()
    if wish and wish not in VRAM_FLAGS:
        raise SetupError(
            f"LTX23_AIO_VRAM is {wish[:20]!r}",
            "LTX23_AIO_VRAM",
            "Use lowvram, normalvram or highvram.",
        )
    if wish and not args.cpu:
        for flag in ("lowvram", "highvram"):
            setattr(args, flag, flag == wish)
        notes.append(f"Memory use: {wish}, as LTX23_AIO_VRAM says.")
    args.disable_all_custom_nodes = True
    args.whitelist_custom_nodes = [*bootstrap.packs_allowed(), *([SHIM] if demo else [])]
    args.front_end_root = str(bootstrap.REPO / "assets")  # any folder: the page is never served
    args.disable_api_nodes = True
    return notes


def _dynamic_vram(report: Callable[[str], None]) -> list[str]:
    """Initialise ComfyUI's DynamicVRAM as its main.py does; it matters on cards that cannot hold
    the model, and changes nothing without an NVIDIA card."""
    import comfy.memory_management
    import comfy.model_management as mm
    import comfy.model_patcher
    from comfy.cli_args import args, enables_dynamic_vram

    if args.cpu or not mm.is_nvidia() or mm.is_wsl() or not enables_dynamic_vram():
        return []
    if bootstrap.on_spaces():
        return ["DynamicVRAM is off: it cannot be set up in a process that ZeroGPU forks."]
    if mm.torch_version_numeric < (2, 8):
        return ["DynamicVRAM is off: it needs torch 2.8 or later."]
    import comfy_aimdo.control

    comfy_aimdo.control.init(
        simple_vram_headroom=None if args.reserve_vram is None else int(args.reserve_vram * 1024**3)
    )
    headroom = int(args.vram_headroom * 1024**3)
    if not comfy_aimdo.control.init_devices(
        (d.index, headroom) for d in mm.get_all_torch_devices()
    ):
        return ["DynamicVRAM is off: comfy-aimdo does not support this driver."]
    comfy_aimdo.control.set_log_warning()
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    comfy.memory_management.aimdo_enabled = True
    return ["DynamicVRAM is on: weights stream from memory where the card cannot hold them."]


def _folders(comfy: Path, demo: bool) -> tuple[Path, Path]:
    import folder_paths

    if demo:
        # Only demo weights are visible, so that a real file can never be mixed in, nor the reverse.
        for name, (_, extensions) in list(folder_paths.folder_names_and_paths.items()):
            if name not in ("custom_nodes", "configs"):
                folder_paths.folder_names_and_paths[name] = (
                    [str(bootstrap.demo_dir() / name)],
                    extensions,
                )
        folder_paths.add_model_folder_path("custom_nodes", str(SHIM_FOLDER))
    output = comfy / "output"
    folder_paths.set_output_directory(str(output.resolve()))
    for path in (output, comfy / "input", comfy / "temp"):
        path.mkdir(parents=True, exist_ok=True)
    return comfy / "input", output


def _server(host_ref: list[Host]):
    """The real PromptServer, never started, whose one event method is ours."""
    import server

    class StudioServer(server.PromptServer):
        """Hands events to the host; the base method would queue them on a loop that never runs."""

        def send_sync(self, event, data, sid=None):
            if host_ref:
                host_ref[0].hear(event, data)

    return StudioServer(asyncio.new_event_loop())


def _executor(server: Any):
    """A PromptExecutor with the cache main.py gives it by default (RAM pressure).

    One figure differs: main.py drops results of earlier graphs whenever less than 96 GB of memory
    are free, so switching modes and back reads the prompt again. Here they go when less than a fifth
    of the machine's memory is free; :meth:`Host.trim` sees to it that it does not come to that.
    """
    import comfy.model_management as mm
    import execution

    total_gb = mm.total_ram / 1024
    needed = min(10.0, max(2.0, total_gb * 0.1))
    cache = {"lru": 0, "ram": needed, "ram_inactive": max(needed, total_gb * 0.2)}
    return execution.PromptExecutor(
        server, cache_type=execution.CacheType.RAM_PRESSURE, cache_args=cache
    )


def _progress_hook(host: Host) -> None:
    import comfy.model_management as mm
    import comfy.utils
    from comfy_execution.utils import get_executing_context

    def hook(value, total, preview, prompt_id=None, node_id=None):
        mm.throw_exception_if_processing_interrupted()
        context = get_executing_context()
        if node_id is None and context is not None:
            node_id = context.node_id
        host.hear("progress", {"value": value, "max": total, "node": node_id})

    comfy.utils.set_progress_bar_global_hook(hook)
    comfy.utils.set_progress_bar_enabled(False)  # tqdm on the terminal; the hook is ours


def before_torch(comfy: Path) -> None:
    """What main.py does before torch is imported, where there is an NVIDIA driver.

    DynamicVRAM's library has to be loaded before CUDA's, and ``cuda_malloc`` chooses torch's
    allocator through its environment. Too late once torch is there; not wanted on ZeroGPU.
    """
    there = (comfy / "cuda_malloc.py").is_file() and shutil.which("nvidia-smi")
    if "torch" in sys.modules or bootstrap.on_spaces() or not there:
        return
    if sys.path[0] != str(comfy):
        sys.path.insert(0, str(comfy))
    import comfy_aimdo.control
    import cuda_malloc  # noqa: F401 - imported for what it does

    comfy_aimdo.control.init()


def gpu() -> models.GpuInfo | None:
    """What this machine computes on besides its CPU; imports torch, and of ComfyUI only what has to
    be there before torch."""
    before_torch(bootstrap.comfy_dir())
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return models.GpuInfo("cuda", properties.name, properties.total_memory)
    mps = getattr(torch.backends, "mps", None)
    if mps and mps.is_available():
        import psutil

        return models.GpuInfo("mps", "Apple GPU", psutil.virtual_memory().total)
    return None


def boot(comfy: Path, demo: bool, report: Callable[[str], None] = log.info) -> Host:
    """Start ComfyUI in this process. Call once; 15 to 25 s on two cores.

    Args:
        comfy: ComfyUI's folder, at its pin, with the packs in ``custom_nodes``.
        demo: see only the demo weights.
        report: told what is being done, one short sentence each.

    Raises:
        SetupError: a part of ComfyUI or a pack is missing or does not load.
    """
    if not (comfy / "nodes.py").is_file():
        raise SetupError(
            "ComfyUI is not installed", str(comfy.name), "Run python3 tools/run.py to set it up."
        )
    allocator.keep_freed_memory()
    os.environ.setdefault("MPLCONFIGDIR", os.path.join(tempfile.gettempdir(), "ltx23-matplotlib"))
    os.environ.setdefault("AUX_ANNOTATOR_CKPTS_PATH", str(comfy / "models" / "controlnet_aux"))
    os.environ.setdefault("DO_NOT_TRACK", "1")
    if sys.path[0] != str(comfy):
        sys.path.insert(0, str(comfy))
    try:
        report("Loading torch")
        before_torch(comfy)
        notes = _import_args(demo, report)
        report("Loading ComfyUI")
        input_dir, output_dir = _folders(comfy, demo)
        logging.captureWarnings(True)
        with contextlib.redirect_stdout(_Logged()):
            import nodes

            notes += _dynamic_vram(report)
            host_ref: list[Host] = []
            server = _server(host_ref)
            report("Loading the nodes")
            asyncio.run(nodes.init_extra_nodes(init_custom_nodes=True, init_api_nodes=False))
    except StudioError:
        raise
    except Exception as error:
        import traceback

        raise SetupError(
            f"ComfyUI does not start: {type(error).__name__}: {str(error)[:200]}",
            "ComfyUI",
            "Run python3 tools/run.py again; if it stays, its log names the package that is missing.",
            detail=traceback.format_exc(),
        ) from error
    lost = [
        f"{pin.folder} ({name})"
        for pin in bootstrap.PINS
        for name in pin.provides
        if name not in nodes.NODE_CLASS_MAPPINGS
    ]
    if lost:
        raise SetupError(
            "Some nodes did not load: " + ", ".join(lost[:6]),
            lost[0].split(" ")[0],
            "Run python3 tools/run.py again to restore the pinned packs and their packages.",
        )
    import comfy.model_management as mm

    device = mm.get_torch_device()
    tiled = device.type != "cpu" and mm.get_total_memory(device) < PLAIN_DECODE
    if tiled:
        notes.append("The picture is decoded in tiles: the card has less than 44 GiB.")
    name = mm.get_torch_device_name(device)
    host = Host(_executor(server), input_dir, output_dir, name, demo, tiled, tuple(notes))
    host_ref.append(host)
    _progress_hook(host)
    return host
