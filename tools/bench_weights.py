"""Random weights of LTX-2.3's full size, written on the machine that measures with them.

Names and shapes are those of ComfyUI's own classes, built on the meta device from the configurations
below, so nothing has to be downloaded. The values are noise: what is measured is time and memory.
With other configurations the same code writes models of any size; the tests use the demo's.
"""

from __future__ import annotations

import copy
import json
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import presets
from tools import demo_layout, make_demo_weights

if TYPE_CHECKING:
    import torch

Shapes = dict[str, tuple[int, ...]]
LORA_RANK = 111  # average rank of the distilled LoRA, from its name
# Bytes of one element, by safetensors' names.
TYPES = {"BF16": 2, "F8_E4M3": 1, "F32": 4, "U8": 1}
FP8_LARGEST = 448.0  # of float8_e4m3fn


def _res(layers: int) -> list:
    return ["res_x", {"num_layers": layers}]


@dataclass
class Sizes:
    """The configurations a set of weights is built from; by default those of LTX-2.3 22B.

    Transformer: dimensions of ComfyUI's ``LTXAVModel`` defaults and two connectors of the same
    widths. VAEs and vocoder: widths and depths that give the sizes of the published files (1.45 and
    0.37 GB); the order of the blocks is the demo's. Gemma: ComfyUI's ``Gemma3_12B_Config``.
    """

    transformer: dict[str, Any] = field(default_factory=lambda: _full_transformer())
    video_vae: dict[str, Any] = field(default_factory=lambda: _full_video_vae())
    audio: dict[str, Any] = field(default_factory=lambda: _full_audio())
    upscaler: dict[str, Any] = field(
        default_factory=lambda: {
            **demo_layout.UPSCALER,
            "mid_channels": 1024,
            "num_blocks_per_stage": 4,
        }
    )
    gemma: dict[str, Any] = field(default_factory=dict)
    gemma_head: int = 256
    lora_rank: int = LORA_RANK


def _full_transformer() -> dict[str, Any]:
    return {
        **demo_layout.TRANSFORMER,
        "num_layers": 48,
        "num_attention_heads": 32,
        "attention_head_dim": 128,
        "cross_attention_dim": 4096,
        "audio_num_attention_heads": 32,
        "audio_attention_head_dim": 64,
        "audio_cross_attention_dim": 2048,
        "caption_channels": 3840,
        "connector_num_attention_heads": 32,
        "connector_attention_head_dim": 128,
        "audio_connector_num_attention_heads": 32,
        "audio_connector_attention_head_dim": 64,
        "connector_num_layers": 8,
    }


def _full_video_vae() -> dict[str, Any]:
    config = copy.deepcopy(demo_layout.VIDEO_VAE)
    for side, depths in (("encoder", (4, 6, 4, 2, 2)), ("decoder", (4, 6, 4, 2, 2))):
        found = iter(depths)
        config[f"{side}_blocks"] = [
            _res(next(found)) if block[0] == "res_x" else block
            for block in config[f"{side}_blocks"]
        ]
        config[f"{side}_base_channels"] = 128
    return config


def _full_audio() -> dict[str, Any]:
    config = copy.deepcopy(demo_layout.AUDIO_CONFIG)
    config["audio_vae"]["model"]["params"]["ddconfig"].update(ch=128, num_res_blocks=2)
    blocks = {"resblock_kernel_sizes": [3, 7, 11], "resblock_dilation_sizes": [[1, 3, 5]] * 3}
    config["vocoder"]["vocoder"].update(blocks, upsample_initial_channel=1536)
    config["vocoder"]["bwe"].update(blocks, upsample_initial_channel=512)
    return config


# ------------------------------------------------------------------ shapes


def _shapes(module: Any) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def transformer_shapes(config: dict[str, Any]) -> Shapes:
    """The audio-video transformer and its connectors; needs ComfyUI on ``sys.path``."""
    import comfy.ops
    import torch
    from comfy.ldm.lightricks.av_model import LTXAVModel

    with torch.device("meta"):
        return _shapes(
            LTXAVModel(
                **config,
                dtype=torch.bfloat16,
                device="meta",
                operations=comfy.ops.disable_weight_init,
            )
        )


def video_vae_shapes(config: dict[str, Any]) -> Shapes:
    """The picture's autoencoder; of its statistics only the two that ComfyUI reads."""
    import torch
    from comfy.ldm.lightricks.vae.causal_video_autoencoder import VideoVAE

    with torch.device("meta"):
        return _without_unread(_shapes(VideoVAE(config=config)))


def audio_shapes(config: dict[str, Any]) -> Shapes:
    """The sound's autoencoder and vocoder, under the names in the published file."""
    import torch
    from comfy.ldm.lightricks.vae.audio_vae import AudioVAE

    with torch.device("meta"):
        found = _without_unread(_shapes(AudioVAE({"config": config})))
    return {
        "audio_vae." + name.removeprefix("autoencoder.")
        if name.startswith("autoencoder.")
        else name: shape
        for name, shape in found.items()
    }


def _without_unread(shapes: Shapes) -> Shapes:
    kept = ("std-of-means", "mean-of-means")
    return {
        name: shape
        for name, shape in shapes.items()
        if "per_channel_statistics." not in name or name.endswith(kept)
    }


def upscaler_shapes(config: dict[str, Any]) -> Shapes:
    """The latent upscaler."""
    import torch
    from comfy.ldm.lightricks.latent_upsampler import LatentUpsampler

    with torch.device("meta"):
        return _shapes(LatentUpsampler.from_config(config))


def gemma_shapes(sizes: Sizes) -> Shapes:
    """Gemma 3's language model, without its vision tower."""
    import comfy.ops
    import torch
    from comfy.text_encoders import llama

    config = llama.Gemma3_12B_Config(**sizes.gemma)
    config.head_dim = sizes.gemma_head
    with torch.device("meta"):
        model = llama.Llama2_(
            config, device="meta", dtype=torch.bfloat16, ops=comfy.ops.disable_weight_init
        )
    return {f"model.{name}": shape for name, shape in _shapes(model).items()}


def projection_shapes(sizes: Sizes, gemma: Shapes) -> Shapes:
    """Two projections of all hidden states of Gemma to the streams' widths."""
    hidden = gemma["model.norm.weight"][0]
    states = sum(name.endswith(".self_attn.q_norm.weight") for name in gemma) + 1
    t = sizes.transformer
    widths = {
        "video": t["num_attention_heads"] * t["attention_head_dim"],
        "audio": t["audio_num_attention_heads"] * t["audio_attention_head_dim"],
    }
    found: Shapes = {}
    for name, width in widths.items():
        base = f"text_embedding_projection.{name}_aggregate_embed"
        found[f"{base}.weight"], found[f"{base}.bias"] = (width, hidden * states), (width,)
    return found


def lora_shapes(transformer: Shapes, rank: int) -> Shapes:
    """A low-rank change of every attention and feed-forward layer of the transformer's blocks."""
    found: Shapes = {}
    for name, shape in transformer.items():
        module, _, kind = name.rpartition(".")
        if kind == "weight" and _is_block_linear(name, shape):
            found[f"diffusion_model.{module}.lora_A.weight"] = (rank, shape[1])
            found[f"diffusion_model.{module}.lora_B.weight"] = (shape[0], rank)
    return found


def _is_block_linear(name: str, shape: tuple[int, ...]) -> bool:
    inside = name.startswith("transformer_blocks.") and name.endswith(".weight")
    return inside and len(shape) == 2 and "to_gate_logits" not in name


def parameters(shapes: Shapes) -> int:
    """How many numbers a file holds."""
    return sum(math.prod(shape) for shape in shapes.values())


# ------------------------------------------------------------------ writing


@dataclass(frozen=True)
class Tensor:
    """One tensor to be written: its type's safetensors name, and what makes its bytes."""

    name: str
    shape: tuple[int, ...]
    kind: str
    make: Any  # () -> torch.Tensor on any device


def write(path: Path, tensors: Iterable[Tensor], metadata: dict[str, str] | None = None) -> int:
    """Write a safetensors file tensor by tensor, so that its size does not matter; its bytes."""
    import torch

    tensors = list(tensors)
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for tensor in tensors:
        size = math.prod(tensor.shape) * TYPES[tensor.kind]
        header[tensor.name] = {
            "dtype": tensor.kind,
            "shape": list(tensor.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for tensor in tensors:
            data = tensor.make().contiguous().flatten().view(torch.uint8).cpu()
            file.write(memoryview(data.numpy()))
    return 8 + len(head) + at


class Noise:
    """Fast random values: one block of normal numbers, repeated. Enough for measuring time."""

    def __init__(self, device: str = "cpu", size: int = 1 << 24):
        import torch

        generator = torch.Generator(device).manual_seed(0)
        self.block = torch.randn(size, generator=generator, device=device, dtype=torch.bfloat16)

    def of(self, shape: tuple[int, ...], scale: float) -> torch.Tensor:
        """bf16 values of that shape and standard deviation."""
        count = math.prod(shape)
        times = -(-count // len(self.block))
        return (self.block.repeat(times)[:count] * scale).reshape(shape)


def weight_tensors(shapes: Shapes, noise: Noise, norm: float = 1.0) -> Iterator[Tensor]:
    """bf16: norms are ``norm``, biases and registers 0, weights noise / sqrt(inputs)."""
    import torch

    for name, shape in shapes.items():
        last = name.rsplit(".", 1)[-1]

        def make(shape=shape, last=last) -> torch.Tensor:
            if last in ("bias", "learnable_registers"):
                return torch.zeros(shape, dtype=torch.bfloat16)
            if len(shape) == 1:
                return torch.full(shape, norm, dtype=torch.bfloat16)
            return noise.of(shape, 1 / math.sqrt(math.prod(shape[1:])))

        yield Tensor(name, shape, "BF16", make)


def as_fp8(tensors: Iterable[Tensor], wanted: Any) -> tuple[list[Tensor], dict[str, str]]:
    """The same with the ``wanted(name, shape)`` weights as scaled float8, and the file's metadata.

    The format is ComfyUI's: ``<layer>.weight`` in float8_e4m3fn, ``<layer>.weight_scale``, and the
    layers listed in the metadata.
    """
    import torch

    found: list[Tensor] = []
    layers: dict[str, dict] = {}
    for tensor in tensors:
        if not wanted(tensor.name, tensor.shape):
            found.append(tensor)
            continue
        layer = tensor.name.removesuffix(".weight")
        scale = 6.0 / math.sqrt(tensor.shape[1]) / FP8_LARGEST  # six deviations fit

        def make(tensor=tensor, scale=scale) -> torch.Tensor:
            values = (tensor.make().float() / scale).clamp(-FP8_LARGEST, FP8_LARGEST)
            return values.to(torch.float8_e4m3fn)

        found.append(Tensor(tensor.name, tensor.shape, "F8_E4M3", make))
        found.append(
            Tensor(f"{layer}.weight_scale", (), "F32", lambda scale=scale: torch.tensor([scale]))
        )
        layers[layer] = {"format": "float8_e4m3fn"}
    return found, {"_quantization_metadata": json.dumps({"layers": layers})}


def _kept_small(file: str, shapes: Shapes) -> Iterator[Tensor]:
    """The VAEs and the upscaler get the demo's values, which keep picture and sound finite."""
    import torch

    for name, shape in shapes.items():
        yield Tensor(
            name,
            shape,
            "BF16",
            lambda name=name, shape=shape: make_demo_weights._fill(file, name, shape).to(
                torch.bfloat16
            ),
        )


def make(
    folder: Path, kind: str, sizes: Sizes | None = None, device: str = "cpu"
) -> dict[str, int]:
    """Write a whole set of weights under ``folder``, under the names the demo weights have.

    Args:
        kind: ``fp8`` or ``bf16``, of the transformer; the text encoder is fp8 in both.
        device: where the noise is made.

    Returns:
        file -> bytes. Files that are there already are kept, but for a transformer of another kind.
    """
    sizes, noise = sizes or Sizes(), Noise(device)
    m, written = make_demo_weights, {}
    transformer, gemma = transformer_shapes(sizes.transformer), gemma_shapes(sizes)
    prefix = "model.diffusion_model."

    def put(file: str, tensors: Iterable[Tensor], metadata: dict[str, str] | None = None) -> None:
        if not (folder / file).exists():
            written[file] = write(folder / file, tensors, metadata)

    marker = folder / "transformer.txt"
    if not marker.exists() or marker.read_text() != kind:
        (folder / m.TRANSFORMER).unlink(missing_ok=True)
    named = {prefix + name: shape for name, shape in transformer.items()}
    tensors: Iterable[Tensor] = weight_tensors(named, noise)
    metadata = {"config": json.dumps({"transformer": sizes.transformer})}
    if kind == "fp8":
        tensors, quantised = as_fp8(
            tensors, lambda name, shape: _is_block_linear(name.removeprefix(prefix), shape)
        )
        metadata.update(quantised)
    put(m.TRANSFORMER, tensors, metadata)
    marker.write_text(kind)
    encoder, quantised = as_fp8(
        weight_tensors(gemma, noise, norm=0.0),  # Gemma adds 1 to its norms
        lambda name, shape: name.endswith("_proj.weight") and len(shape) == 2,
    )
    import torch

    pieces = torch.frombuffer(bytearray(m._tokenizer()), dtype=torch.uint8)
    encoder.append(Tensor("spiece_model", tuple(pieces.shape), "U8", lambda: pieces))
    put(m.TEXT_ENCODER, encoder, quantised)
    put(m.TEXT_PROJECTION, weight_tensors(projection_shapes(sizes, gemma), noise))
    for file, shapes, config in (
        (m.VIDEO_VAE, video_vae_shapes(sizes.video_vae), {"vae": sizes.video_vae}),
        (m.AUDIO_VAE, audio_shapes(sizes.audio), sizes.audio),
        (m.UPSCALER, upscaler_shapes(sizes.upscaler), sizes.upscaler),
    ):
        put(file, _kept_small(file, shapes), {"config": json.dumps(config)})
    lora = lora_shapes(transformer, sizes.lora_rank)
    put(f"loras/{presets.DISTILLED_LORA}", weight_tensors(lora, noise))
    return written
