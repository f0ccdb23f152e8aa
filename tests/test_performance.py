"""What must not run twice, counted in nodes and files, never by a clock; and the bench's arithmetic."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import samples

import backend
import bootstrap
import comfyhost
import engine as engines
import media
import mediafile
import presets
import readahead
import schema
import workflow
from events import Finished
from modes import LOADERS, MODES
from tools import bench, bench_gpu, bench_parts, bench_runs

comfy = pytest.mark.comfy
LORAS = ("LoRAs", "Stage 1 LoRAs", "Stage 2 LoRAs")


@contextmanager
def nodes_that_run():
    """The ids of the nodes that the executor runs meanwhile, in order."""
    host, hear = backend.HOST, backend.HOST.hear
    seen: list[str] = []

    def listen(event, data):
        if event == "executing" and isinstance(data, dict) and data.get("node"):
            seen.append(data["node"])
        hear(event, data)

    host.hear = listen
    try:
        yield seen
    finally:
        del host.hear


def ran(engine, request, folder) -> list[str]:
    """Titles of the nodes that run for a request."""
    graph = engines.graph_for(request, "demo")
    with nodes_that_run() as ids:
        *_, final = engine.run(request, folder)
    assert isinstance(final, Finished), final
    assert final.executed == len(ids)
    return [workflow.title(graph, node_id) for node_id in ids]


@comfy
def test_only_the_strength_in_stage_2_leaves_stage_1_alone(engine, tmp_path):
    request = samples.request_for("t2v", tmp_path, prompt="strength", seed=201)
    ran(engine, request, tmp_path)
    with bench_runs.other_strength(0.33):
        titles = ran(engine, request, tmp_path)
    assert "Stage 2 sampling" in titles
    assert "Stage 2 LoRAs" in titles
    not_again = {*LOADERS, "LoRAs", "Stage 1 LoRAs", "Prompt", "Stage 1 sampling", "Upscale latent"}
    assert not not_again & set(titles)


@comfy
@pytest.mark.parametrize("change", [{"seed": 212}, {"prompt": "a wolf"}, {"seconds": 0.5}])
def test_loaders_never_run_twice(engine, tmp_path, change):
    request = samples.request_for("t2v", tmp_path, prompt="loaders", seed=211)
    ran(engine, request, tmp_path)
    titles = ran(engine, request.replace(**change), tmp_path)
    assert "Stage 1 sampling" in titles
    assert not {*LOADERS, *LORAS} & set(titles)


@comfy
def test_a_changed_word_reads_one_prompt_and_not_the_other(engine, tmp_path):
    request = samples.request_for("t2v", tmp_path, prompt="one", preset="balanced", seed=221)
    ran(engine, request, tmp_path)
    titles = ran(engine, request.replace(prompt="two"), tmp_path)
    assert titles.count("Prompt") == 1
    assert "Negative prompt" not in titles


@comfy
def test_after_one_mode_the_others_load_only_what_is_new(engine, tmp_path):
    ran(engine, samples.request_for("t2v", tmp_path, seed=231), tmp_path)
    for mode in MODES:
        request = samples.request_for(mode, tmp_path, seed=232)
        assert not set(LOADERS) & set(ran(engine, request, tmp_path)), mode


@comfy
def test_results_of_old_graphs_and_large_ones_are_forgotten(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(comfyhost, "GRAPHS_KEPT", 2)
    for seed in range(241, 245):
        ran(engine, samples.request_for("t2v", tmp_path, seed=seed), tmp_path)
    cache = backend.HOST.executor.caches.outputs
    assert set(cache.used_generation.values()) == {cache.generation - 1, cache.generation}
    assert cache.cache.keys() <= cache.used_generation.keys()
    monkeypatch.setattr(comfyhost, "LARGE_RESULT", 2**20)
    last = samples.request_for("t2v", tmp_path, seed=245)
    ran(engine, last, tmp_path)
    large = [k for k, e in cache.cache.items() if comfyhost.held_bytes(e.outputs) > 2**20]
    assert large
    assert {cache.used_generation[key] for key in large} == {cache.generation}
    assert ran(engine, last, tmp_path) == []


@comfy
def test_held_bytes_sees_into_a_video(engine):
    from fractions import Fraction

    import torch
    from comfy_api.latest import InputImpl, Types

    frames = torch.zeros(5, 8, 8, 3)
    parts = Types.VideoComponents(images=frames, audio=None, frame_rate=Fraction(24))
    assert comfyhost.held_bytes([[InputImpl.VideoFromComponents(parts)]]) == frames.numel() * 4
    assert comfyhost.held_bytes([[{"samples": frames}], "text", None]) == frames.numel() * 4


@comfy
def test_full_size_weights_have_the_shapes_the_demo_weights_were_shrunk_from(engine):
    from tools import bench_weights as weights
    from tools import demo_layout as layout

    tiny = bench_gpu.tiny_sizes()
    gemma = weights.gemma_shapes(tiny)
    assert gemma == dict(layout.text_encoder_layout())
    assert weights.projection_shapes(tiny, gemma) == dict(layout.text_projection_layout())
    assert weights.transformer_shapes(tiny.transformer) == dict(layout.transformer_layout())
    assert weights.video_vae_shapes(tiny.video_vae) == dict(layout.video_vae_layout())
    assert weights.audio_shapes(tiny.audio) == dict(layout.audio_vae_layout())
    assert weights.upscaler_shapes(tiny.upscaler) == dict(layout.upscaler_layout())


@comfy
def test_full_size_weights_are_as_large_as_the_published_files(engine):
    from tools import bench_weights as weights

    full = weights.Sizes()
    transformer, gemma = weights.transformer_shapes(full.transformer), weights.gemma_shapes(full)
    bf16_gb = {
        "transformer": (transformer, 42.0),
        "video VAE": (weights.video_vae_shapes(full.video_vae), 1.45),
        "audio VAE": (weights.audio_shapes(full.audio), 0.37),
        "upscaler": (weights.upscaler_shapes(full.upscaler), 1.0),
        "text encoder": (gemma, 24.0),
        "text projection": (weights.projection_shapes(full, gemma), 2.3),
    }
    for name, (shapes, published) in bf16_gb.items():
        assert weights.parameters(shapes) * 2 / 1e9 == pytest.approx(published, rel=0.03), name


@comfy
@pytest.mark.parametrize("kind", ["bf16", "fp8"])
def test_random_weights_can_be_read_and_are_finite(engine, tmp_path, kind):
    import torch
    from safetensors.torch import load_file

    from tools import bench_weights as weights
    from tools import make_demo_weights

    written = weights.make(tmp_path, kind, bench_gpu.tiny_sizes())
    assert set(written) == {
        *(f for f in make_demo_weights.file_names() if not f.startswith("loras/")),
        f"loras/{presets.DISTILLED_LORA}",
    }
    for file, size in written.items():
        tensors = load_file(tmp_path / file)
        assert (tmp_path / file).stat().st_size == size
        assert all(torch.isfinite(t.float()).all() for t in tensors.values()), file
    tensors = load_file(tmp_path / make_demo_weights.TRANSFORMER)
    name = "model.diffusion_model.transformer_blocks.0.attn1.to_q"
    weight = tensors[f"{name}.weight"].float() * tensors.get(f"{name}.weight_scale", 1.0)
    assert (kind == "fp8") == (tensors[f"{name}.weight"].dtype == torch.float8_e4m3fn)
    assert float(weight.std()) == pytest.approx(weight.shape[1] ** -0.5, rel=0.1)
    assert weights.make(tmp_path, kind, bench_gpu.tiny_sizes()) == {}


# ------------------------------------------------------------------ files


def test_an_unchanged_file_is_read_once_and_a_changed_one_again(tmp_path):
    request = samples.request_for("style", tmp_path)
    before = media._content.cache_info(), mediafile._look.cache_info()
    names = media.plan(request).names
    assert media.plan(request.replace(seed=5)).names == names
    after = media._content.cache_info(), mediafile._look.cache_info()
    assert [b.misses - a.misses for a, b in zip(before, after, strict=True)] == [1, 1]
    samples.video(tmp_path / "video.mp4", seconds=1.5)
    assert media.plan(request).names["video"] != names["video"]


def test_a_file_changed_under_the_same_size_and_date_is_noticed(tmp_path):
    request = samples.request_for("a2v", tmp_path)
    sound = tmp_path / "audio.wav"
    name, state = media.plan(request).names["audio"], sound.stat()
    data = sound.read_bytes()
    sound.write_bytes(data)
    assert media.plan(request).names["audio"] == name
    sound.write_bytes(data[:-4] + b"\0\0\0\0")
    os.utime(sound, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert media.plan(request).names["audio"] != name


def test_staging_a_large_video_writes_no_second_copy(tmp_path):
    figures = bench_parts.staging(tmp_path, 1, megabytes=60)
    assert figures["megabytes"] > 40
    assert figures["written_megabytes"] < figures["megabytes"] / 2


# ------------------------------------------------------------------ Gradio's import


GRADIO = """
import quick_gradio
quick_gradio.prepare(); quick_gradio.prepare()
import gradio, gradio.component_meta, sys
assert sum(type(f).__name__ == "_Finder" for f in sys.meta_path) == 1
with gradio.Blocks() as page:
    button, text = gradio.Button(), gradio.Textbox()
    button.click(lambda: "a", None, text)
print(gradio.component_meta.create_or_modify_pyi(object, "Button", []), len(page.fns))
"""


def test_gradio_works_without_writing_its_stub_files(repo):
    done = subprocess.run(
        [sys.executable, "-c", GRADIO], cwd=repo, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["None", "1"], done.stderr


def test_gradio_still_has_the_functions_that_are_replaced():
    import quick_gradio

    assert hasattr(importlib.import_module(quick_gradio.MODULE), quick_gradio.FUNCTION)
    assert "create_app" in vars(importlib.import_module("gradio.routes").App)


def test_page_makes_one_server_and_it_serves(monkeypatch):
    import gradio
    import httpx
    from gradio.routes import App

    import quick_gradio

    made, make = [], App.create_app
    counted = staticmethod(lambda *a, **k: made.append(a) or make(*a, **k))
    monkeypatch.setattr(App, "create_app", counted)
    with quick_gradio.without_servers():
        with gradio.Blocks(analytics_enabled=False) as page:
            gradio.Markdown("Composed")
        page.queue(max_size=3)
    assert made == []
    try:
        _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, inbrowser=False)
        assert len(made) == 1
        assert "Composed" in httpx.get(address).text
    finally:
        page.close()


# ------------------------------------------------------------------ the bench itself


def test_overhead_is_what_is_not_a_nodes_own_time():
    run = bench_runs.Ours(seconds=2.0, nodes=1.5, executor=1.75, executed=9)
    assert (run.overhead, run.around) == (0.5, 0.25)


def test_ratio_takes_neighbours_so_that_a_slow_round_cancels():
    assert bench_runs.ratio([1.0, 10.0, 1.2], [2.0, 20.0, 2.0]) == 0.5


def test_sides_alternate():
    orders = [bench_runs.alternating(turn, ["ours", "theirs"]) for turn in range(4)]
    assert orders[0] == orders[2] == orders[1][::-1] == orders[3][::-1]


def test_memory_growth_compares_the_same_mix_of_modes():
    resident = [500] * 10 + [100, 200, 100, 200, 100, 200] + [150] * 28 + [101, 202] * 3
    figures = bench_runs.memory_figures(resident, settle=10, highest=999)
    assert figures["growth"] == pytest.approx(0.01)
    assert figures["runs"] == 50


def test_scenarios_change_one_thing_each(tmp_path):
    base = samples.request_for("t2v", tmp_path, prompt="a red fox")
    other = samples.request_for("i2v", tmp_path)
    requests = bench_runs.scenario_requests(base, other, 3)
    assert set(requests) == set(bench_runs.SCENARIOS)
    graphs = {name: engines.graph_for(r, "demo") for name, r in requests.items()}
    changed = differing(graphs["cold"], graphs["seed"])
    assert changed == {"Stage 1 noise", "Stage 2 noise", "Save video"}
    assert differing(graphs["cold"], graphs["word"]) == {"Prompt", "Save video"}
    assert graphs["back"] == graphs["identical"]
    with bench_runs.other_strength():
        strength = engines.graph_for(requests["strength"], "demo")
    assert differing(graphs["word"], strength) == {"Stage 2 LoRAs", "Save video"}
    assert engines.graph_for(requests["word"], "demo") == graphs["word"]


def differing(a: workflow.Graph, b: workflow.Graph) -> set[str]:
    assert a.keys() == b.keys()
    return {workflow.title(a, n) for n in a if a[n] != b[n]}


def test_table_says_which_target_is_met_and_which_is_missed():
    results = {
        "boot": {"ours": 20.0, "theirs": 10.0, "ratio": 2.0},
        "memory": {"runs": 50, "peak": 2e9, "settled": 1e9, "last": 1.001e9, "growth": 0.001},
    }
    text = bench.table(bench.rows(results))
    assert "no slower: MISSED" in text
    assert "< 1 %: met" in text
    assert len(text.splitlines()) == 2 + 3


def test_unknown_options_are_refused():
    with pytest.raises(SystemExit):
        bench.main(["--fast"])


@pytest.mark.parametrize("mode", MODES)
def test_compiled_graphs_are_valid(tmp_path, mode):
    plain = engines.graph_for(samples.request_for(mode, tmp_path), "fp8")
    compiled = bench_gpu.with_compile(plain)
    assert schema.validate(compiled) == []
    assert len(compiled) == len(plain) + 2
    assert plain == engines.graph_for(samples.request_for(mode, tmp_path), "fp8")


def test_gpu_cases_cover_every_mode_preset_and_size():
    found = bench_gpu.cases()
    assert len({c.name for c in found}) == len(found)
    assert {(c.mode, c.preset, c.size) for c in found if not c.tiled} == {
        (m, p, s) for m in MODES for p in MODES[m].presets for s in bench_gpu.SIZES
    }


def test_share_of_peak_is_work_over_time_over_peak(tmp_path):
    import estimate

    request = samples.request_for("t2v", tmp_path, width=768, height=512, seconds=5.0)
    work = estimate.work(request)[estimate.SECOND]
    found = bench_gpu.figures(request, {estimate.SECOND: 2.0}, peak=work)
    assert found[estimate.SECOND]["share_of_peak"] == pytest.approx(0.5)
    assert found[estimate.SECOND]["seconds_per_step"] == pytest.approx(2.0 / 3)
    assert estimate.FIRST not in found
    json.dumps(found)


# ------------------------------------------------------------------ before torch


BEFORE = """
import os, sys
import bootstrap, comfyhost
comfyhost.before_torch(bootstrap.comfy_dir())
import json
print(json.dumps({"torch": "torch" in sys.modules, "library": "comfy_aimdo.control" in sys.modules,
                  "allocator": os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "")}))
"""


@comfy
@pytest.mark.skipif(os.name == "nt", reason="a script stands for the driver's tool")
@pytest.mark.parametrize(("driver", "spaces"), [(True, False), (False, False), (True, True)])
def test_what_has_to_come_before_torch_comes_with_a_driver_only(repo, tmp_path, driver, spaces):
    environment = {k: v for k, v in os.environ.items() if k != "PYTORCH_CUDA_ALLOC_CONF"}
    environment["PATH"] = str(tmp_path)
    environment["LTX23_AIO_COMFY_DIR"] = str(bootstrap.comfy_dir())
    if spaces:
        environment["SPACES_ZERO_GPU"] = environment["SPACE_ID"] = "true"
    if driver:
        (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", BEFORE],
        cwd=repo,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    wanted = driver and not spaces
    assert found["torch"] is False
    assert found["library"] is wanted
    assert ("cudaMallocAsync" in found["allocator"]) is wanted


# ------------------------------------------------------------------ reading ahead


def test_base_files_begin_with_the_text_encoder(tmp_path, monkeypatch):
    from safetensors.numpy import save_file

    import registry

    for name, folder in (
        (registry.TRANSFORMER_FP8, "diffusion_models"),
        (registry.GEMMA_FP4, "text_encoders"),
    ):
        (tmp_path / "models" / folder).mkdir(parents=True)
        save_file({"a": np.zeros(3)}, tmp_path / "models" / folder / name)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("LTX23_AIO_MODELS", raising=False)
    names = [path.name for path in engines.Engine("fp8", tmp_path).base_files()]
    assert names == [registry.GEMMA_FP4, registry.TRANSFORMER_FP8]


class Reads:
    """Counts the bytes that this process has read, as Linux counts them."""

    def __enter__(self):
        self.begun = self._count()
        return self

    def __exit__(self, *_):
        self.bytes = self._count() - self.begun

    def _count(self) -> int:
        with open("/proc/self/io") as file:
            return int(next(line for line in file if line.startswith("rchar")).split()[1])


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="counts reads as Linux does")
@pytest.mark.parametrize(
    ("room", "stopped", "megabytes"),
    [(64, False, 8), (64, True, 0), (5, False, 3), (2, False, 0)],
    ids=["all", "stopped", "what fits", "nothing fits"],
)
def test_files_are_read_ahead_as_far_as_memory_goes(tmp_path, room, stopped, megabytes):
    paths = [tmp_path / "a", tmp_path / "gone", tmp_path / "b"]
    paths[0].write_bytes(bytes(3 << 20))
    paths[2].write_bytes(bytes(5 << 20))
    stop = threading.Event()
    if stopped:
        stop.set()
    with Reads() as reads:
        readahead.start(paths, stop, lambda: readahead.SPARE + (room << 20)).join()
    assert reads.bytes >> 20 == megabytes
