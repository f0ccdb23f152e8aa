"""The registry, the walk over a graph, the choice of weights, and ensuring what is here already."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import no_links
import pytest
from fake_hub import FakeHub
from weights_lab import SMALL, Run, Studio, cached, safetensors, sha256

import models
import presets
import registry
import schema
import workflow
from errors import BadInput, SetupError, WeightsError
from modes import MODES
from registry import AUX, FILES, GB, REGISTRY, GpuInfo
from tools import _forms

FORMS = [(mode.key, preset) for mode in MODES.values() for preset in mode.presets]


# ---------------------------------------------------------------------------------- registry


def test_registry_resolves_every_file_any_form_can_ask_for():
    asked = set()
    for mode, preset in FORMS:
        for weights in ("fp8", "bf16"):
            asked |= set(_forms.default_files(mode, preset, weights))
            asked |= set(_forms.control_files(mode, weights))
    assert asked == set(FILES), "a file in the registry that no form can ask for, or the reverse"


def test_registry_knows_every_file_input_of_every_graph():
    nodes = schema.load()
    for mode in MODES:
        for node in workflow.load(mode).values():
            for name, kind, *options in nodes[node["class_type"]]["in"]:
                options = options[0] if options else {}
                media = any("upload" in key for key in options)
                if kind == "COMBO" and options.get("open") and not media:
                    assert (node["class_type"], name) in models.LOADERS
    assert all(any(e[0] == name for e in nodes[kind]["in"]) for kind, name in models.LOADERS)


def test_registry_entries_are_complete_and_apart():
    assert len(REGISTRY) == len(FILES)
    assert len({file.place for file in FILES}) == len(FILES)
    for file in FILES:
        assert file.licence
        assert file.base in ("2.3", "2.0-19b", "-")
        assert file.size > 10_000_000
        assert file.repo.count("/") == 1
        assert not file.path.startswith("/")
        assert file.path.rpartition("/")[2] in (file.name, file.alias)


def test_registry_labels_the_loras_of_the_older_model():
    older = {file.name for file in FILES if file.base == "2.0-19b"}
    assert older == {*presets.CAMERA_LORAS.values(), presets.DETAILER_LORA, presets.POSE_LORA}


def test_camera_loras_live_in_a_repository_each():
    file = REGISTRY["loras", presets.CAMERA_LORAS["dolly-in"]]
    assert file.repo == "Lightricks/LTX-2-19b-LoRA-Camera-Control-Dolly-In"


# ---------------------------------------------------------------------------------- the walk


def test_needed_is_what_the_fast_form_loads_and_nothing_else():
    names = [file.name for file in _forms.default_files("t2v", "fast")]
    assert len(names) == 7
    assert names[0] == registry.TRANSFORMER_FP8
    assert not any("ic-lora" in name or "camera" in name for name in names)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"camera": "jib-up"}, presets.CAMERA_LORAS["jib-up"]),
        ({"detailer": True}, presets.DETAILER_LORA),
        ({"pose": True}, presets.POSE_LORA),
        ({"ic_lora": "motion-track"}, presets.IC_LORAS["motion-track"]),
    ],
)
def test_needed_follows_a_control(values, name):
    plain = set(_forms.default_files("t2v", "fast"))
    more = set(models.needed(_forms.graph("t2v", "fast", **values)))
    assert {file.name for file in more - plain} == {name}


def test_needed_ignores_a_lora_at_strength_zero():
    graph = _forms.graph("t2v", "fast", detailer=True, detailer_strength=0.0)
    assert presets.DETAILER_LORA not in {file.name for file in models.needed(graph)}
    node = graph[workflow.find(graph, "LoRAs")]
    node["inputs"]["lora_2"] = {"on": True, "lora": presets.DETAILER_LORA, "strength": 0.0}
    assert presets.DETAILER_LORA not in {file.name for file in models.needed(graph)}
    node["inputs"]["lora_2"]["strength"] = 0.5
    assert presets.DETAILER_LORA in {file.name for file in models.needed(graph)}
    node["inputs"]["lora_2"]["on"] = False
    assert presets.DETAILER_LORA not in {file.name for file in models.needed(graph)}


def test_needed_ignores_a_loader_that_reaches_no_output():
    graph = _forms.graph("t2v", "fast")
    before = models.needed(graph)
    loader = {"class_type": "LoraLoaderModelOnly", "inputs": {"lora_name": "unheard-of"}}
    graph["999"] = loader | {"_meta": {"title": "Dead"}}
    assert models.needed(graph) == before


def test_needed_takes_only_the_chosen_control_of_style():
    canny = _forms.graph("style", "fast", control="canny")
    depth = _forms.graph("style", "fast", control="depth")
    pose = _forms.graph("style", "fast", control="pose")
    detectors = [
        [f.name for f in models.needed(g) if f.folder == AUX] for g in (canny, depth, pose)
    ]
    assert detectors[0] == []
    assert detectors[1] == ["depth_anything_v2_vitl.pth"]
    assert sorted(detectors[2]) == ["dw-ll_ucoco_384_bs5.torchscript.pt", "yolox_l.onnx"]


def test_needed_names_the_node_and_the_file_it_does_not_know():
    graph = _forms.graph("t2v", "fast")
    graph[workflow.find(graph, "Video VAE")]["inputs"]["vae_name"] = "mine.safetensors"
    with pytest.raises(WeightsError, match=r"'Video VAE' asks for 'mine\.safetensors'"):
        models.needed(graph)


def test_variant_patches_turn_every_graph_to_bf16():
    for mode, preset in FORMS:
        fp8, bf16 = (_forms.default_files(mode, preset, w) for w in ("fp8", "bf16"))
        assert {f.variant for f in fp8} == {"", "fp8"}
        assert {f.variant for f in bf16} == {"", "bf16"}
        assert [f for f in fp8 if not f.variant] == [f for f in bf16 if not f.variant]
    assert models.variant_patches("demo") == []
    with pytest.raises(BadInput, match="Unknown weights"):
        models.variant_patches("fp4")


def test_missing_demo_names_the_control_before_the_run():
    assert models.missing_demo(_forms.graph("style", "fast", control="canny")) is None
    for control in ("depth", "pose"):
        refusal = models.missing_demo(_forms.graph("style", "fast", control=control))
        assert repr(control) in str(refusal)
        assert refusal.where == "control"
        assert refusal.category == "bad_input"


# ---------------------------------------------------------------------------------- the choice


@pytest.mark.parametrize(
    ("gpu", "auto", "full", "words"),
    [
        (None, "demo", "fp8", "no GPU"),
        (GpuInfo("cuda", 16 * GB, "RTX 4080"), "demo", "fp8", "16 GB, and fp8 needs 22 GB"),
        (GpuInfo("cuda", 25_300_000_000, "RTX 4090"), "fp8", "fp8", "streamed from RAM"),
        (GpuInfo("cuda", 34 * GB, "RTX 5090"), "fp8", "fp8", "bf16 needs 80 GB"),
        (GpuInfo("cuda", 85 * GB, "H100"), "bf16", "bf16", "H100 has 85 GB"),
        (GpuInfo("mps", 68 * GB, "M3 Max"), "demo", "bf16", "bf16 needs 96 GB"),
        (GpuInfo("mps", 137 * GB, "M3 Ultra"), "bf16", "bf16", "Metal has no fp8"),
        (GpuInfo("zerogpu", 95 * GB, size="large"), "fp8", "fp8", "48 GB"),
        (GpuInfo("zerogpu", 0, size="xlarge"), "bf16", "bf16", "96 GB"),
    ],
)
def test_choose_fits_the_weights_to_the_machine_and_says_why(gpu, auto, full, words):
    weights, reason = models.choose("auto", gpu)
    assert weights == auto
    assert words in reason
    weights, reason = models.choose("full", gpu)
    assert weights == full
    assert ("expect it to fail" in reason) == (auto == "demo")
    assert models.choose("demo", gpu)[0] == "demo"


def test_zero_gpu_follows_the_setting_and_never_the_emulated_memory():
    assert models.zero_gpu({}).size == "large"
    assert models.zero_gpu({"LTX23_AIO_GPU_SIZE": " XLarge "}).size == "xlarge"
    with pytest.raises(SetupError, match="LTX23_AIO_GPU_SIZE"):
        models.zero_gpu({"LTX23_AIO_GPU_SIZE": "huge"})
    with pytest.raises(BadInput, match="auto, demo or full"):
        models.choose("tiny", None)


# ---------------------------------------------------------------------------------- ensure


def test_everything_present_asks_nobody_and_takes_no_time(tmp_path):
    with FakeHub() as hub:
        studio = Studio(tmp_path, hub)
        batches = []
        for mode in MODES:
            files = _forms.default_files(mode, next(iter(MODES[mode].presets)))
            batches.append([dataclasses.asdict(file) for file in files])
            for file in files:
                cached(studio.home, file, safetensors(fill=2))
        assert studio.ensure(batches=batches).error is None  # places the links
        for env in ({"HF_HUB_OFFLINE": "1"}, {}):
            second = studio.ensure(env, batches=batches)
            assert second.events == []
            assert second.end["seconds"] < 0.2
            assert second.end["hub_imported"] is False
        assert hub.requests == []
        assert len(studio.mistakable()) == 8


@pytest.mark.parametrize("damage", [lambda b: b[:100_000], lambda b: bytes(len(b))])
def test_a_damaged_file_in_the_cache_is_fetched_again(tmp_path, damage):
    whole = safetensors(500_000)
    with FakeHub() as hub:
        studio = Studio(tmp_path, hub)
        stored = hub.add("org/repo", "a.safetensors", whole)
        place = studio.wants("org/repo", "a.safetensors")
        assert studio.ensure().error is None
        place.resolve().write_bytes(damage(whole))
        run = studio.ensure()
        assert run.error is None
        assert any("it is not used" in note for note in run.notes)
        assert sha256(place) == stored.sha256
        assert stored.sent == 2 * len(whole)


@pytest.mark.skipif(not no_links.possible(), reason="links can only be refused on x86-64 Linux")
def test_files_are_copied_where_there_are_no_links(tmp_path):
    with FakeHub() as hub:
        studio = Studio(tmp_path, hub)
        stored = hub.add("org/repo", "deep/a.bin", SMALL)
        place = studio.wants("org/repo", "deep/a.bin")
        run = studio.ensure(no_links=True)
        assert run.error is None
        assert not place.is_symlink()
        assert sha256(place) == stored.sha256
        assert studio.ensure({"HF_HUB_OFFLINE": "1"}, no_links=True).events == []
        code = "import huggingface_hub as h; print(h.hf_hub_download('org/repo', 'deep/a.bin'))"
        env = {**os.environ, **studio.environ(HF_HUB_OFFLINE="1")}
        found = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True
        )
        assert sha256(Path(found.stdout.strip())) == stored.sha256


def test_a_file_of_somebody_else_is_used_and_not_fetched(tmp_path):
    with FakeHub() as hub:
        studio = Studio(tmp_path, hub)
        hub.add("org/repo", "a.safetensors", safetensors())
        place = studio.wants("org/repo", "a.safetensors")
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/a.safetensors").write_bytes(safetensors(fill=3))
        run: Run = studio.ensure({"LTX23_AIO_MODELS": str(tmp_path / "mine")})
        assert run.error is None
        assert place.read_bytes() == safetensors(fill=3)
        assert hub.requests == []
