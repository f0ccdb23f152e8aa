"""Demo weights: the same bytes every time, whole or healed, and what ComfyUI's own classes expect."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors")

import presets  # noqa: E402
import registry  # noqa: E402
from tools import make_demo_weights as demo  # noqa: E402

SHIM = demo.REPO / "assets" / "custom_nodes"


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by its path in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def header(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Metadata and tensor shapes of a safetensors file."""
    with safetensors.safe_open(path, "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        return file.metadata() or {}, shapes


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Demo weights, made once; tests that change them work on a copy."""
    folder = tmp_path_factory.mktemp("demo")
    demo.make(folder)
    return folder


@pytest.fixture
def copy(made, tmp_path) -> Path:
    """A copy that may be spoilt; modification times stay."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def test_make_gives_the_same_bytes_in_another_process(made, tmp_path):
    out = tmp_path / "other"
    command = [sys.executable, str(demo.REPO / "tools" / "make_demo_weights.py"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert digests(out) == digests(made)


def test_make_leaves_the_global_generator_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.get_rng_state()
    demo.make(tmp_path)
    assert torch.equal(torch.get_rng_state(), expected)


def test_make_stands_in_for_every_file_but_detectors_and_bf16(made):
    stand_ins = {
        file.place
        for file in registry.FILES
        if file.folder != registry.AUX and file.variant != "bf16"
    }
    assert set(demo.file_names()) == stand_ins
    assert {name for name in digests(made) if name != demo.MANIFEST} == stand_ins


def test_make_stays_small(made):
    assert sum(path.stat().st_size for path in made.rglob("*") if path.is_file()) < 20e6


def test_make_writes_configurations_comfyui_reads(made):
    transformer, _ = header(made / demo.TRANSFORMER)
    config = json.loads(transformer["config"])["transformer"]
    for switch in (
        "apply_gated_attention",
        "cross_attention_adaln",
        "caption_proj_before_connector",
    ):
        assert config[switch] is True, f"{switch} is what makes it 2.3"
    assert "vae" in json.loads(header(made / demo.VIDEO_VAE)[0]["config"])
    assert {"audio_vae", "vocoder"} <= set(json.loads(header(made / demo.AUDIO_VAE)[0]["config"]))
    upscaler = json.loads(header(made / demo.UPSCALER)[0]["config"])
    assert (upscaler["in_channels"], upscaler["dims"]) == (128, 3)


def test_make_marks_only_the_half_size_references(made):
    loras = {name for name in demo.file_names() if name.startswith("loras/")}
    factors = {
        name: header(made / name)[0].get("reference_downscale_factor")
        for name in loras
        if header(made / name)[0]
    }
    assert factors == {f"loras/{name}": "2" for name in presets.IC_LORAS.values()}


def test_make_lora_modules_are_layers_of_the_transformer(made):
    _, layers = header(made / demo.TRANSFORMER)
    _, changes = header(made / "loras" / presets.DISTILLED_LORA)
    downs = [name for name in changes if name.endswith(".lora_A.weight")]
    assert len(downs) > 20
    for down in downs:
        layer = layers["model." + down.replace(".lora_A", "")]
        up = changes[down.replace("lora_A", "lora_B")]
        assert (up[0], changes[down][1]) == layer


def test_make_loras_differ_from_each_other(made):
    loras = [made / name for name in demo.file_names() if name.startswith("loras/")]
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in loras}) == len(loras)


def test_make_tokenizer_reads_any_text_back(made):
    sentencepiece = pytest.importorskip("sentencepiece")
    with safetensors.safe_open(made / demo.TEXT_ENCODER, "pt") as file:
        model = file.get_tensor("spiece_model").numpy().tobytes()
        vocabulary = file.get_slice("model.embed_tokens.weight").get_shape()[0]
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=model, add_bos=True)
    assert tokenizer.get_piece_size() == vocabulary
    assert [tokenizer.pad_id(), tokenizer.eos_id(), tokenizer.bos_id()] == [0, 1, 2]
    text = 'A cat walks,  then: théâtre 猫\n"cut"'
    tokens = tokenizer.encode(text)
    assert tokens[0] == 2
    assert tokenizer.decode(tokens) == text
    assert len(tokenizer.encode("the")) < 4, "frequent pairs are one token"


def test_make_again_rewrites_nothing(copy):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    assert all(path.is_file() for path in demo.make(copy))
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def test_make_heals_missing_cut_and_changed_files_only(copy, made):
    (copy / demo.UPSCALER).unlink()
    cut = copy / demo.VIDEO_VAE
    cut.write_bytes(cut.read_bytes()[:1000])
    changed = copy / demo.AUDIO_VAE
    data = bytearray(changed.read_bytes())
    data[-1] ^= 1
    changed.write_bytes(bytes(data))
    whole = copy / demo.TRANSFORMER
    before = whole.stat().st_mtime_ns
    demo.make(copy)
    assert digests(copy) == digests(made)
    assert whole.stat().st_mtime_ns == before


@pytest.mark.parametrize("manifest", [None, "", "[]", '{"version": "0", "files": {}}'])
def test_make_heals_a_folder_with_no_usable_manifest(copy, made, manifest):
    path = copy / demo.MANIFEST
    if manifest is None:
        path.unlink()
    else:
        path.write_text(manifest)
    (copy / demo.UPSCALER).write_bytes(b"")
    demo.make(copy)
    assert digests(copy) == digests(made)


def test_make_heals_what_a_killed_run_left(tmp_path, made):
    out = tmp_path / "killed"
    stale = out / "vae" / ".x.safetensors.1-1.partial"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"half a file")
    os.utime(stale, (0, 0))
    command = [sys.executable, str(demo.REPO / "tools" / "make_demo_weights.py"), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.rglob("*.safetensors")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    reference = digests(made)
    for name, digest in digests(out).items():
        assert ".partial" in name or digest == reference[name], "a file is whole or absent"
    demo.make(out)
    healed = digests(out)
    assert {name: healed[name] for name in reference} == reference
    assert not stale.exists()


def test_make_leaves_no_partial_file_when_writing_fails(tmp_path):
    (tmp_path / demo.TRANSFORMER).mkdir(parents=True)  # cannot be replaced by a file
    with pytest.raises(OSError):
        demo.make(tmp_path)
    assert not list(tmp_path.rglob("*.partial"))


# Runs in a process of its own: ComfyUI's folder first on the path, and nothing booted.
INSIDE_COMFYUI = """
import json, sys
from pathlib import Path
comfy_dir, demo_dir, shim = sys.argv[1:]
sys.path[:0] = [comfy_dir, shim]
import comfy.cli_args
comfy.cli_args.args.cpu = True
import torch
import comfy.ops, comfy.sd, comfy.utils
from comfy.ldm.lightricks.av_model import LTXAVModel
from comfy.ldm.lightricks.latent_upsampler import LatentUpsampler
from comfy.ldm.lightricks.vae.audio_vae import AudioVAE
from comfy.ldm.lightricks.vae.causal_video_autoencoder import VideoVAE
import comfy.text_encoders.lt as lt

own_build = lt.ltxav_te
import ltx23_demo_weights
installed = lt.sd_detect
ltx23_demo_weights._install()
report = {"idempotent": lt.sd_detect is installed}

def differences(name, build, prefix=""):
    (path,) = [p for p in Path(demo_dir).rglob("*.safetensors") if name in p.name]
    tensors, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
    with torch.device("meta"):
        expected = build(json.loads(metadata["config"]), metadata).state_dict()
    expected = {prefix + k.replace("autoencoder.", "audio_vae.", 1): tuple(v.shape) for k, v in expected.items()}
    found = {k: tuple(v.shape) for k, v in tensors.items()}
    return sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))

operations = comfy.ops.disable_weight_init
report["transformer"] = differences(
    "transformer_only",
    lambda config, _: LTXAVModel(**config["transformer"], operations=operations, device="meta"),
    "model.diffusion_model.",
)
report["video"] = differences("video_vae", lambda config, _: VideoVAE(config=config["vae"]))
report["audio"] = differences("audio_vae", lambda _, metadata: AudioVAE(metadata))
report["upscaler"] = differences("upscaler", lambda config, _: LatentUpsampler.from_config(config))

encoders = sorted(str(p) for p in Path(demo_dir, "text_encoders").iterdir())
clip = comfy.sd.load_clip(encoders, clip_type=comfy.sd.CLIPType.LTXV)
conditioning = [clip.encode_from_tokens(clip.tokenize(text)) for text in ("a cat", "a dog")]
report["width"] = conditioning[0].shape[-1]
report["prompts differ"] = bool((conditioning[0][:, -1] != conditioning[1][:, -1]).any())

(path,) = Path(demo_dir, "vae").glob("*audio*")
tensors, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
audio = AudioVAE(metadata).eval()
audio.load_state_dict({k.replace("audio_vae.", "autoencoder.", 1): v for k, v in tensors.items()})
with torch.no_grad():
    sound = audio.decode(torch.randn(1, 8, 27, 16, generator=torch.Generator().manual_seed(0)))
report["rms"], report["peak"] = sound.square().mean().sqrt().item(), sound.abs().max().item()
report["samples"] = sound.shape[-1]

real = {
    "model.norm.weight": torch.empty(3840, device="meta"),
    "text_embedding_projection.audio_aggregate_embed.bias": torch.empty(2048, device="meta"),
    "text_embedding_projection.video_aggregate_embed.weight": torch.empty(1, 1, device="meta"),
    "text_embedding_projection.audio_aggregate_embed.weight": torch.empty(1, 1, device="meta"),
}
report["real"] = lt.sd_detect([real])
report["real class"] = lt.ltxav_te(**report["real"]).__qualname__ == own_build().__qualname__
print(json.dumps(report))
"""


@pytest.mark.comfy
def test_files_are_what_comfyui_builds_and_the_shim_spares_real_ones(made, tmp_path):
    import bootstrap

    arguments = [str(bootstrap.comfy_dir()), str(made), str(SHIM)]
    command = [sys.executable, "-c", INSIDE_COMFYUI, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    for model in ("transformer", "video", "audio", "upscaler"):
        assert report[model] == [], f"names or shapes of the {model} differ from ComfyUI's"
    assert 0.02 < report["rms"] < 0.3, "silent or loud"
    assert report["peak"] < 0.95, "clipped"
    assert report["samples"] == (27 * 4 - 3) * 480  # 48 kHz, 10 ms per mel frame
    assert report["width"] == 128 + 64
    assert report["prompts differ"]
    assert report["idempotent"]
    assert report["real"] == {"text_projection_type": "dual_linear"}
    assert report["real class"]
    for complaint in ("missing", "unexpected", "warning"):
        assert complaint not in done.stderr.lower()
