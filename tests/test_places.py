"""Finding model files on this machine, telling whole ones from damaged ones, and placing them."""

from __future__ import annotations

import os
import time

import pytest
from weights_lab import cached, empty_machine, safetensors

import hub_cache
import models
import places
import presets
import registry
from registry import AUX, REGISTRY, ModelFile


def content(file: ModelFile) -> bytes:
    return safetensors() if file.name.endswith(".safetensors") else b"onnx or torch"


# ---------------------------------------------------------------------------------- whole or not


def test_whole_finds_what_is_cut_short(tmp_path):
    path = tmp_path / "a.safetensors"
    for data, words in (
        (safetensors(), ""),
        (safetensors()[:-1], "header says"),
        (safetensors() + b"x", "header says"),
        (safetensors()[:12], "cut short"),
        (b"", "empty"),
        (b"<html>not found</html>", "not a safetensors"),
        (b"\x05\0\0\0\0\0\0\0[1,2]", "not a safetensors"),
    ):
        path.write_bytes(data)
        os.utime(path, ns=(time.time_ns(), time.time_ns()))
        why = places.whole(path)
        assert words in why, data
        assert bool(why) == bool(words)
    assert "cannot be read" in places.whole(tmp_path / "none")


def test_whole_finds_a_torch_archive_that_is_cut_short(tmp_path):
    import zipfile

    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", bytes(100_000))
    assert places.whole(path) == ""
    path.write_bytes(path.read_bytes()[:50_000])
    assert places.whole(path) == "is cut short"


# ---------------------------------------------------------------------------------- places

VAE = REGISTRY["vae", "LTX23_video_vae_bf16.safetensors"]
UNET = REGISTRY["diffusion_models", registry.TRANSFORMER_FP8]
LORA = REGISTRY["loras", presets.DISTILLED_LORA]
POSE = REGISTRY[AUX, "yolox_l.onnx"]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return empty_machine(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("file", "where"),
    [
        (VAE, "comfy/models/vae/{name}"),
        (UNET, "comfy/models/unet/{name}"),
        (POSE, "comfy/models/controlnet_aux/yzd-v/DWPose/{name}"),
        (POSE, "comfy/custom_nodes/comfyui_controlnet_aux/ckpts/yzd-v/DWPose/{name}"),
        (VAE, "mine/{name}"),
        (VAE, "mine/vae/{name}"),
        (VAE, "mine/models/vae/{name}"),
        (UNET, "mine/unet/{name}"),
        (LORA, "mine/loras/ltx/2.3/{name}"),
        (LORA, "mine/loras/{alias}"),
    ],
)
def test_locate_finds_a_file_where_people_keep_them(machine, monkeypatch, file, where):
    monkeypatch.setenv("LTX23_AIO_MODELS", os.pathsep.join([str(machine / "mine"), "/nowhere"]))
    path = machine / where.format(name=file.name, alias=file.alias)
    assert models.locate(file, machine / "comfy") is None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content(file))
    assert models.locate(file, machine / "comfy") == path
    assert list(models.ensure([file], machine / "comfy")) == []
    assert places.target(file, machine / "comfy").read_bytes() == content(file)


def test_locate_reads_comfyuis_extra_model_paths(machine):
    (machine / "comfy/extra_model_paths.yaml").write_text(
        "other:\n  base_path: ../mine\n  is_default: true\n"
        "  vae: |\n    nowhere\n    somewhere/vae\n  loras: /absolute/loras\nempty:\n"
    )
    path = machine / "mine/somewhere/vae" / VAE.name
    path.parent.mkdir(parents=True)
    path.write_bytes(safetensors())
    assert models.locate(VAE, machine / "comfy").resolve() == path
    (machine / "comfy/extra_model_paths.yaml").write_text("{ broken")
    assert models.locate(VAE, machine / "comfy") is None


def test_locate_uses_the_cache_even_after_the_branch_moved_on(machine):
    old = cached(machine / "hf", VAE, safetensors())
    hub_cache.write_whole(hub_cache.repo_dir(VAE.repo, machine / "hf/hub") / "refs/main", "2" * 40)
    assert models.locate(VAE, machine / "comfy") == old


def test_a_damaged_copy_is_passed_over_and_said(machine):
    (machine / "mine" / VAE.name).write_bytes(safetensors()[:-5])
    good = cached(machine / "hf", VAE, safetensors())
    events = list(models.ensure([VAE], machine / "comfy", extra_dirs=[machine / "mine"]))
    assert [type(event).__name__ for event in events] == ["Note"]
    assert VAE.name in events[0].text
    assert "it is not used" in events[0].text
    assert os.path.realpath(machine / "comfy/models/vae" / VAE.name) == os.path.realpath(good)


def test_a_damaged_file_in_comfyui_is_set_aside_and_not_deleted(machine):
    at = machine / "comfy/models/vae" / VAE.name
    at.parent.mkdir()
    at.write_bytes(safetensors()[:-5])
    cached(machine / "hf", VAE, safetensors())
    list(models.ensure([VAE], machine / "comfy"))
    assert places.whole(at) == ""
    assert at.with_name(at.name + ".damaged").read_bytes() == safetensors()[:-5]


def test_a_link_whose_target_moved_is_repaired(machine):
    at = machine / "comfy/models/vae" / VAE.name
    at.parent.mkdir()
    at.symlink_to(machine / "gone")
    good = machine / "mine" / VAE.name
    good.write_bytes(safetensors())
    assert list(models.ensure([VAE], machine / "comfy", extra_dirs=[machine / "mine"])) == []
    assert os.readlink(at) == str(good)


def test_detectors_go_to_the_packs_own_tree(machine, monkeypatch):
    monkeypatch.setenv("AUX_ANNOTATOR_CKPTS_PATH", str(machine / "ckpts"))
    cached(machine / "hf", POSE, b"onnx")
    list(models.ensure([POSE], machine / "comfy"))
    assert (machine / "ckpts/yzd-v/DWPose/yolox_l.onnx").read_bytes() == b"onnx"
