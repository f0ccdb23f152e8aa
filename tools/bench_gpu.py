"""Full-size random weights on a card: ``python tools/bench.py --gpu [--kind fp8] [--budget 540]``.

Times every stage of every mode and preset at three sizes, first and second run: seconds per step,
share of the matrix peak this very device reaches, loading, decoding, peak memory. One process
measures one variant (kind of weights, attention back end, compiled or not); without ``--kind`` every
variant gets a process of its own. The JSON is written after every case, so a limit on time costs only
what was not reached; cases come in the order of their worth.

``--tiny`` takes the demo's sizes and the CPU, to try the tool itself.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import backend
import bootstrap
import comfyhost
import engine as engines
import estimate
import media
import workflow
from events import Finished
from modes import MODES
from request import Request
from tools import bench_weights, demo_layout

SIZES = ((768, 512), (1280, 704), (1920, 1088))  # 121 frames each
TINY_SIZES = ((256, 256),)
ATTENTION = {"pytorch": "use_pytorch_cross_attention", "sage": "use_sage_attention"}
ATTENTION["flash"] = "use_flash_attention"
VARIANTS = (
    ("fp8", "pytorch", False),
    ("bf16", "pytorch", False),
    ("fp8", "sage", False),
    ("fp8", "flash", False),
    ("fp8", "pytorch", True),
)
SAMPLING = {estimate.FIRST: 0, estimate.SECOND: 1}  # stage -> index into Preset.forwards


@dataclass(frozen=True)
class Case:
    """One mode, preset and size, with the picture decoded at once or in tiles."""

    mode: str
    preset: str
    size: tuple[int, int]
    tiled: bool = False

    @property
    def name(self) -> str:
        """As in the table."""
        width, height = self.size
        return f"{self.mode} {self.preset} {width}x{height}" + (" tiled" if self.tiled else "")


def cases(sizes: tuple[tuple[int, int], ...] = SIZES) -> list[Case]:
    """Every mode, preset and size, the ones that decide something first.

    Text to video at every size and preset; then its decode in tiles; then the other modes.
    """
    first = [Case("t2v", preset, size) for size in sizes for preset in MODES["t2v"].presets]
    tiles = [Case("t2v", "fast", size, True) for size in sizes]
    others = [
        Case(mode, preset, size)
        for preset, size, mode in itertools.product(MODES["t2v"].presets, sizes, MODES)
        if mode != "t2v"
    ]
    return [*first, *tiles, *others]


def with_compile(graph: workflow.Graph) -> workflow.Graph:
    """The graph with ComfyUI's own TorchCompileModel before each stage's guider."""
    graph = workflow.apply(graph, [])
    for stage in (1, 2):
        inputs = graph[workflow.find(graph, f"Stage {stage} guidance")]["inputs"]
        node_id = f"bench-compile-{stage}"
        graph[node_id] = {
            "class_type": "TorchCompileModel",
            "inputs": {"model": inputs["model"], "backend": "inductor"},
            "_meta": {"title": f"Stage {stage} compile"},
        }
        inputs["model"] = [node_id, 0]
    return graph


def matrix_peak(device: str, dtype: str, size: int = 8192, seconds: float = 2.0) -> float:
    """TFLOP/s of one large matrix product after another on this device; 0 where it cannot.

    Args:
        dtype: ``bf16`` or ``fp8`` (torch's scaled product, as ComfyUI uses it).
        size: of the square matrices.
    """
    import torch

    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    if dtype == "fp8":
        one = torch.ones((), device=device)
        left = a.to(torch.float8_e4m3fn)
        right = a.to(torch.float8_e4m3fn).t()

        def product() -> Any:
            return torch._scaled_mm(left, right, one, one, out_dtype=torch.bfloat16)

    else:

        def product() -> Any:
            return a @ a

    try:
        product()
    except (RuntimeError, NotImplementedError):
        return 0.0
    _wait(device)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        for _ in range(4):
            product()
        _wait(device)
        count += 4
    return count * 2 * size**3 / (time.perf_counter() - begun) / 1e12


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def figures(request: Request, stages: dict[str, float], peak: float) -> dict[str, Any]:
    """What a run's stage seconds mean: seconds per step, TFLOP/s, share of the measured peak."""
    preset = MODES[request.mode].presets[request.preset]
    work = estimate.work(request)
    found: dict[str, Any] = {"stages": {name: round(s, 3) for name, s in stages.items()}}
    for name, index in SAMPLING.items():
        if stages.get(name):
            speed = work[name] / stages[name]
            found[name] = {
                "seconds_per_step": stages[name] / preset.steps[index],
                "seconds_per_forward": stages[name] / preset.forwards[index],
                "tflops": speed,
                "share_of_peak": speed / peak if peak else None,
            }
    return found


def request_for(case: Case, folder: Path, seconds: float, seed: int) -> Request:
    """A case as a request, with media made on the spot."""
    sys.path.append(str(bootstrap.REPO / "tests"))
    import samples

    width, height = case.size
    return samples.request_for(
        case.mode,
        folder,
        preset=case.preset,
        width=width,
        height=height,
        seconds=seconds,
        seed=seed,
    )


def run(request: Request, tiled: bool, compiled: bool, folder: Path) -> dict[str, Any]:
    """Run a request's graph once; stage seconds, seconds in all, peak bytes of the device.

    Raises:
        RuntimeError: it failed; the message says at which node.
    """
    import torch

    host = backend.HOST
    staged = media.stage(request, host.input_dir)
    graph = engines.graph_for(request, "demo", staged, tiled=tiled)
    graph = with_compile(graph) if compiled else graph
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    job = backend.Job(graph, engines.stage_map(request.mode, graph), {}, False, str(folder))
    begun = time.perf_counter()
    *_, final = backend.run_graph(job)
    if not isinstance(final, Finished):
        raise RuntimeError(str(final))
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    Path(final.path).unlink(missing_ok=True)
    return {"seconds": time.perf_counter() - begun, "stages": dict(final.stages), "peak": peak}


def boot(folder: Path, attention: str) -> None:
    """Boot ComfyUI over the full-size weights in ``folder``, as the demo weights are booted."""
    comfy = bootstrap.comfy_dir()
    sys.path.insert(0, str(comfy))
    from comfy.cli_args import args

    for name, flag in ATTENTION.items():
        setattr(args, flag, name == attention)
    bootstrap.demo_dir = lambda: folder
    backend.HOST = comfyhost.boot(comfy, True, lambda message: None)


def tiny_sizes() -> bench_weights.Sizes:
    """The demo's configurations."""
    return bench_weights.Sizes(
        transformer=demo_layout.TRANSFORMER,
        video_vae=demo_layout.VIDEO_VAE,
        audio=demo_layout.AUDIO_CONFIG,
        upscaler=demo_layout.UPSCALER,
        gemma={
            "hidden_size": demo_layout.HIDDEN,
            "vocab_size": demo_layout.VOCABULARY,
            "intermediate_size": demo_layout.INTERMEDIATE,
            "num_attention_heads": demo_layout.TEXT_HEADS,
            "num_key_value_heads": 1,
        },
        gemma_head=demo_layout.TEXT_HEAD,
        lora_rank=4,
    )


def measured(options: argparse.Namespace, weights: Path) -> Iterator[dict[str, Any]]:
    """Measure one variant, case by case; the first item is about the device."""
    import torch

    ends = time.monotonic() + options.budget
    begun = time.monotonic()
    boot(weights, options.attention)
    booted = time.monotonic() - begun
    device = "cpu" if options.tiny else "cuda"
    sizes = tiny_sizes() if options.tiny else None
    begun = time.monotonic()
    written = bench_weights.make(weights, options.kind, sizes, device)
    yield {
        "device": backend.HOST.device,
        "notes": backend.HOST.notes,
        "torch": torch.__version__,
        "boot_seconds": booted,
        "weights_gb": sum(written.values()) / 1e9,
        "weights_seconds": time.monotonic() - begun,
        "peak_bf16": (peak := matrix_peak(device, "bf16", 256 if options.tiny else 8192)),
        "peak_fp8": 0.0 if options.tiny else matrix_peak(device, "fp8"),
    }
    seconds = 1.0 if options.tiny else 5.0  # 25 or 121 frames at 24 fps
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        for case in cases(TINY_SIZES if options.tiny else SIZES):
            if time.monotonic() > ends:
                return
            try:
                first, second = (
                    run(
                        request_for(case, folder, seconds, seed),
                        case.tiled,
                        options.compile,
                        folder,
                    )
                    for seed in (1, 2)
                )
            except RuntimeError as error:
                yield {"case": case.name, "failed": str(error)}
                continue
            request = request_for(case, folder, seconds, 2)
            yield {
                "case": case.name,
                "first_seconds": first["seconds"],
                "second_seconds": second["seconds"],
                "load_seconds": first["stages"].get(estimate.LOAD, 0.0),
                "peak_gb": max(first["peak"], second["peak"]) / 1e9,
                **figures(request, second["stages"], 0.0 if options.tiny else peak),
            }


def table(found: list[dict[str, Any]]) -> str:
    """The cases as a Markdown table."""
    lines = [
        "| case | first run | second run | stage 1, s/step | stage 2, s/step | share of peak"
        " | picture decoded | peak memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        if "failed" in row:
            lines.append(f"| {row['case']} | failed: {row['failed'][:60]} | | | | | | |")
        elif "case" in row:
            one, two = row.get(estimate.FIRST, {}), row.get(estimate.SECOND, {})
            share = two.get("share_of_peak")
            cells = [
                row["case"],
                f"{row['first_seconds']:.1f} s",
                f"{row['second_seconds']:.1f} s",
                f"{one.get('seconds_per_step', 0):.2f}",
                f"{two.get('seconds_per_step', 0):.2f}",
                f"{share:.0%}" if share else "",
                f"{row['stages'].get(estimate.PICTURE, 0):.2f} s",
                f"{row['peak_gb']:.0f} GB",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: list[str], out: Path) -> int:
    """Command line of ``bench.py --gpu``; 1 where there is no NVIDIA card and it is not tiny."""
    parser = argparse.ArgumentParser(prog="bench.py --gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=("fp8", "bf16"), help="default: every variant in turn")
    parser.add_argument("--attention", choices=tuple(ATTENTION), default="pytorch")
    parser.add_argument("--compile", action="store_true", help="with ComfyUI's TorchCompileModel")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds for one variant")
    parser.add_argument("--weights", type=Path, help="where the weights go; some 57 GB for bf16")
    parser.add_argument("--tiny", action="store_true", help="demo sizes on the CPU")
    options = parser.parse_args(arguments)
    import torch

    if not (options.tiny or torch.cuda.is_available()):
        print("--gpu needs an NVIDIA card; --tiny tries the tool without one", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="bench-weights-") as name:
        weights = options.weights or Path(name)
        if options.kind is None:
            return _every_variant(arguments, out, weights)
        logging.disable(logging.WARNING)
        found: list[dict[str, Any]] = []
        for row in measured(options, weights):
            found.append(row)
            about = {k: getattr(options, k) for k in ("kind", "attention", "compile")}
            out.write_text(json.dumps({**about, "rows": found}, indent=1), encoding="utf-8")
            print(row.get("case", "device"), file=sys.stderr, flush=True)
    print(table(found))
    return 0


def _every_variant(arguments: list[str], out: Path, weights: Path) -> int:
    """Each variant in a process of its own, its JSON beside ``out``."""
    status = 0
    for kind, attention, compiled in VARIANTS:
        target = out.with_name(
            f"{out.stem}-{kind}-{attention}{'-compiled' if compiled else ''}.json"
        )
        command = [sys.executable, str(Path(__file__).with_name("bench.py")), "--gpu"]
        command += ["--out", str(target), *arguments, "--kind", kind, "--attention", attention]
        command += ["--weights", str(weights), *(["--compile"] if compiled else [])]
        print(f"{kind}, {attention}{', compiled' if compiled else ''}", flush=True)
        status = subprocess.call(command) or status
    return status
