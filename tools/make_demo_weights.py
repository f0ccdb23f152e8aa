#!/usr/bin/env python3
"""Write demo weights: random tiny models of LTX-2.3's real architecture under the real file names.

ComfyUI's stock loaders read them, so every mode runs from end to end on a CPU in seconds; pictures
and sound are noise. Only the text encoder needs help (``assets/custom_nodes/ltx23_demo_weights``),
because ComfyUI fixes Gemma's sizes in code.

Every tensor is drawn from a generator of its own, seeded by file and tensor name: two runs give the
same bytes, and PyTorch's global generator stays untouched. Nothing of ComfyUI is imported.

Usage: python tools/make_demo_weights.py [--out DIR]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

REPO = Path(__file__).resolve().parents[1]
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))

import bootstrap  # noqa: E402
import presets  # noqa: E402
from tools import demo_layout as layout  # noqa: E402

if TYPE_CHECKING:
    import torch

MANIFEST = "manifest.json"
STALE_SECONDS = 3600.0  # a temporary file older than this was left behind by a killed run
LORA_RANK = 4

TRANSFORMER = "diffusion_models/ltx-2.3-22b-dev_transformer_only_fp8_scaled.safetensors"
VIDEO_VAE = "vae/LTX23_video_vae_bf16.safetensors"
AUDIO_VAE = "vae/LTX23_audio_vae_bf16.safetensors"
UPSCALER = "latent_upscale_models/ltx-2.3-spatial-upscaler-x2-1.1.safetensors"
TEXT_ENCODER = "text_encoders/gemma_3_12B_it_fp4_mixed.safetensors"
TEXT_PROJECTION = "text_encoders/ltx-2.3_text_projection_bf16.safetensors"

# Weights of less than the usual size, by a part of the tensor's name: the vocoder's residual blocks
# would amplify one another otherwise, and its two outputs are what makes the sound neither silent
# nor clipped.
GAINS = {
    ".convs2.": 0.2,
    "vocoder.vocoder.conv_post.": 0.03,
    "vocoder.bwe_generator.conv_post.": 0.02,
}


def _draw(file: str, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal values, the same for the same file and tensor name."""
    import torch

    seed = hashlib.sha256(f"{file}/{name}".encode()).digest()[:8]
    generator = torch.Generator().manual_seed(int.from_bytes(seed, "little") >> 1)
    return torch.randn(shape, generator=generator)


def _fill(file: str, name: str, shape: tuple[int, ...], norm: float = 1.0) -> torch.Tensor:
    """The float32 values of one tensor: norms are ``norm``, biases 0, weights randn / sqrt(inputs)."""
    import torch

    last = name.rsplit(".", 1)[-1]
    if name.startswith("vocoder.mel_stft."):
        return _spectral_basis(name)
    if last == "filter":
        return _kaiser_filter()
    if last == "std-of-means":
        return torch.ones(shape)
    # A thousand random registers would drown the prompt's few tokens; empty ones take them up.
    if last in ("mean-of-means", "bias", "alpha", "beta", "learnable_registers"):
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.full(shape, norm)
    inputs = math.prod(shape[1:])
    if ".ups." in name:  # transposed: each output sample sees about two kernel taps of each input
        inputs = 2 * shape[0]
    gain = next((value for part, value in GAINS.items() if part in name), 1.0)
    copies = layout.shuffled(name)
    values = _draw(file, name, (shape[0] // copies, *shape[1:])) * (gain / math.sqrt(inputs))
    values = values.repeat_interleave(copies, 0)
    if ".conv_post." in name:  # what goes in is not centred; a zero-sum kernel keeps out the offset
        values -= values.mean(-1, keepdim=True)
    return values


def _kaiser_filter() -> torch.Tensor:
    """The anti-aliasing filter of BigVGAN's activations: 12 taps, half band, shape (1, 1, 12)."""
    import torch

    taps, cutoff, half_width = 12, 0.25, 0.3
    attenuation = 2.285 * (taps // 2 - 1) * math.pi * 4 * half_width + 7.95
    beta = 0.1102 * (attenuation - 8.7)  # Kaiser's formula above 50 dB
    window = torch.kaiser_window(taps, periodic=False, beta=beta)
    values = torch.sinc(2 * cutoff * (torch.arange(taps) - taps / 2 + 0.5)) * window
    return (values / values.sum()).view(1, 1, taps)


def _spectral_basis(name: str) -> torch.Tensor:
    """The vocoder's own spectrogram: Hann-windowed Fourier bases and a mel filter bank.

    ComfyUI never reads the inverse basis; it only has to be there.
    """
    import torch
    from torchaudio.functional import melscale_fbanks

    config = layout.BANDWIDTH_EXTENSION
    size, rate = config["n_fft"], config["input_sampling_rate"]
    if name.endswith("mel_basis"):
        mels = config["num_mels"]
        bank = melscale_fbanks(size // 2 + 1, 0.0, rate / 2, mels, rate, "slaney", "slaney")
        return bank.T.contiguous()
    angle = 2 * math.pi / size * torch.outer(torch.arange(size // 2 + 1), torch.arange(size))
    basis = torch.cat((angle.cos(), -angle.sin())) * torch.hann_window(size)
    if name.endswith("inverse_basis"):
        basis = basis * (config["hop_length"] / size)
    return basis.unsqueeze(1)


def _model(
    file: str,
    shapes: layout.Layout,
    config: dict | None = None,
    prefix: str = "",
    norm: float = 1.0,
):
    import torch

    tensors = {
        f"{prefix}{name}": _fill(file, name, shape, norm).to(torch.bfloat16).contiguous()
        for name, shape in shapes.items()
    }
    return tensors, {} if config is None else {"config": json.dumps(config)}


def _text_encoder(file: str):
    import torch

    tensors, _ = _model(file, layout.text_encoder_layout(), norm=0.0)  # Gemma adds 1 to its norms
    tensors["spiece_model"] = torch.frombuffer(bytearray(_tokenizer()), dtype=torch.uint8)
    return tensors, {}


def _lora(file: str, metadata: dict[str, str]):
    """A low-rank change of every attention and feed-forward layer, as large as the layer itself."""
    import torch

    tensors = {}
    for name, shape in layout.transformer_layout().items():
        module, _, kind = name.rpartition(".")
        if kind != "weight" or len(shape) != 2 or not module.startswith("transformer_blocks."):
            continue
        if module.endswith("to_gate_logits"):
            continue
        for part, size, inputs in (
            ("lora_A", (LORA_RANK, shape[1]), shape[1]),
            ("lora_B", (shape[0], LORA_RANK), LORA_RANK),
        ):
            key = f"diffusion_model.{module}.{part}.weight"
            tensors[key] = (_draw(file, key, size) / math.sqrt(inputs)).to(torch.bfloat16)
    return tensors, metadata


def _tokenizer() -> bytes:
    """A SentencePiece BPE model: 4 control pieces, 256 bytes, frequent pairs, printable ASCII.

    The protocol buffer is written out here because a trained one would change with the version of
    the library. Field numbers are those of sentencepiece_model.proto; ids are Gemma's (pad 0, eos 1,
    bos 2, unknown 3).
    """
    normal, unknown, control, byte = 1, 2, 3, 6
    space = "\u2581"
    common = "thheineranreonatenndtiesorteofedisitalarst"
    pairs = [common[i : i + 2] for i in range(0, len(common), 2)]
    pairs += [space + letter for letter in "tasocwib"]
    letters = [space, *map(chr, range(33, 127))]
    pieces = [("<pad>", control), ("<eos>", control), ("<bos>", control), ("<unk>", unknown)]
    pieces += [(f"<0x{value:02X}>", byte) for value in range(256)]
    pieces += [(piece, normal) for piece in (*pairs, *letters)]
    assert len(pieces) == layout.VOCABULARY

    def field(number: int, value: int | float | bytes) -> bytes:
        if isinstance(value, float):
            return bytes([number << 3 | 5]) + struct.pack("<f", value)
        if isinstance(value, int):
            return _varint(number << 3) + _varint(value)
        return _varint(number << 3 | 2) + _varint(len(value)) + value

    model = b""
    for rank, (piece, kind) in enumerate(
        pieces
    ):  # BPE merges the pair with the highest score first
        score = float(-rank) if kind == normal else 0.0
        model += field(1, field(1, piece.encode()) + field(2, score) + field(3, kind))
    trainer = field(3, 2) + field(4, len(pieces)) + field(35, 1)  # BPE, size, byte fallback
    trainer += b"".join(field(40 + i, identity) for i, identity in enumerate((3, 2, 1, 0)))
    for i, name in enumerate((b"<unk>", b"<bos>", b"<eos>", b"<pad>")):
        trainer += field(45 + i, name)
    # No dummy space in front, keep runs of spaces, write a space as U+2581.
    normaliser = field(1, b"identity") + field(3, 0) + field(4, 0) + field(5, 1)
    return model + field(2, trainer) + field(3, normaliser)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _recipes() -> dict[str, Callable[[str], tuple[dict[str, torch.Tensor], dict[str, str]]]]:
    """What makes each file: tensors and metadata from its own name.

    One metadata entry at most: safetensors writes several in an order that changes between runs.
    """
    half = {"reference_downscale_factor": "2"}  # the ref0.5 IC-LoRAs take a reference of half size
    loras = {presets.DISTILLED_LORA: {}, presets.DETAILER_LORA: {}, presets.POSE_LORA: {}}
    loras |= dict.fromkeys(presets.IC_LORAS.values(), half)
    loras |= {name: {} for name in presets.CAMERA_LORAS.values()}
    return {
        TRANSFORMER: lambda file: _model(
            file,
            layout.transformer_layout(),
            {"transformer": layout.TRANSFORMER},
            prefix="model.diffusion_model.",
        ),
        VIDEO_VAE: lambda file: _model(file, layout.video_vae_layout(), {"vae": layout.VIDEO_VAE}),
        AUDIO_VAE: lambda file: _model(file, layout.audio_vae_layout(), layout.AUDIO_CONFIG),
        UPSCALER: lambda file: _model(file, layout.upscaler_layout(), layout.UPSCALER),
        TEXT_ENCODER: _text_encoder,
        TEXT_PROJECTION: lambda file: _model(file, layout.text_projection_layout()),
        **{
            f"loras/{name}": lambda file, metadata=metadata: _lora(file, metadata)
            for name, metadata in loras.items()
        },
    }


def _version() -> str:
    """What the bytes depend on: this file and the layouts. Editing either makes every file stale."""
    digest = hashlib.sha256()
    for source in (Path(__file__), Path(layout.__file__)):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _read_manifest(folder: Path) -> dict[str, str]:
    """The sha256 of each file as it was written; empty if missing, damaged or of another version."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return manifest["files"] if manifest["version"] == _version() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write(path: Path, data: bytes) -> None:
    """Write a file that is either whole or absent, also when two processes write it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{os.getpid()}-{threading.get_ident()}"
    temporary = path.with_name(f".{path.name}.{writer}.partial")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _sweep(folder: Path) -> None:
    """Remove what a killed run left behind."""
    for path in folder.rglob(".*.partial"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


def file_names() -> list[str]:
    """The demo files, as ``<model folder>/<file name>``."""
    return list(_recipes())


def make(folder: Path) -> list[Path]:
    """Write the demo models under ``folder``, about 13 MB in a few seconds.

    Files whose bytes are already as they should be stay untouched; a damaged or missing one is made
    again. Each appears whole or not at all.

    Args:
        folder: a folder of its own, with one sub-folder per kind of model; created when missing.

    Returns:
        The path of every demo file, written now or before.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    recipes = _recipes()
    known = _read_manifest(folder)
    hashes: dict[str, str] = {}
    for name in recipes:
        with suppress(OSError):
            digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            if digest == known.get(name):
                hashes[name] = digest
    if len(hashes) < len(recipes):
        from safetensors.torch import save

        _sweep(folder)
        for name in recipes:
            if name in hashes:
                continue
            tensors, metadata = recipes[name](name)
            data = save(tensors, metadata or None)
            _write(folder / name, data)
            hashes[name] = hashlib.sha256(data).hexdigest()
        manifest = {"version": _version(), "files": hashes}
        _write(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
    return [folder / name for name in recipes]


def main(arguments: list[str] | None = None) -> int:
    """Command line: write the demo weights and say where they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=bootstrap.demo_dir(), metavar="DIR")
    folder = parser.parse_args(arguments).out
    started = time.perf_counter()
    paths = make(folder)
    size = sum(path.stat().st_size for path in paths)
    print(
        f"{len(paths)} demo models, {size / 1e6:.1f} MB, in {time.perf_counter() - started:.2f} s: "
        f"{folder}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
