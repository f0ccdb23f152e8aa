"""Every model file a graph can ask for, and which set of them a machine should use. Data only.

The lowest room of the weights: no file system, no network. :mod:`models` walks a graph and looks
files up here; :mod:`downloads` fetches one of them.

Sizes are decimal bytes. They serve the totals shown before anything is fetched; what a download is
checked against comes from the server. Where no exact size was at hand, ``approximate`` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import presets
from errors import BadInput, SetupError

LTX = "LTX-2 Community License"
GEMMA = "Gemma Terms of Use"
APACHE = "Apache-2.0"
CC_BY_NC = "CC-BY-NC-4.0"  # Depth Anything V2 Large: not for commercial use

AUX = "controlnet_aux"  # not one of ComfyUI's own folders: comfyui_controlnet_aux's checkpoint tree
VARIANTS = ("demo", "fp8", "bf16")
REQUESTS = ("auto", "demo", "full")
GB = 1_000_000_000


@dataclass(frozen=True)
class ModelFile:
    """One model file.

    Attributes:
        name: as a graph's loader names it, and as it is called in ComfyUI's folder.
        folder: ComfyUI's folder type; :data:`AUX` is comfyui_controlnet_aux's checkpoint tree.
        repo, path: the Hugging Face repository, and the file's path in it.
        size: bytes; an estimate where ``approximate``.
        base: the model it was trained for: "2.3", "2.0-19b", or "-" where that has no meaning.
        licence: in words.
        alias: another name the same file is known under on people's disks; "" where there is none.
        variant: "fp8" or "bf16" where only that set of weights uses it, else "".
    """

    name: str
    folder: str
    repo: str
    path: str
    size: int
    base: str = "2.3"
    licence: str = LTX
    alias: str = ""
    variant: str = ""
    approximate: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """(folder, name): what :data:`REGISTRY` is keyed by."""
        return self.folder, self.name

    @property
    def place(self) -> str:
        """Path below ``comfyui/models``, with forward slashes."""
        if self.folder == AUX:  # the pack looks for <tree>/<repository>/<file>
            return f"{AUX}/{self.repo}/{self.path}"
        return f"{self.folder}/{self.name}"


KIJAI = "Kijai/LTX2.3_comfy"
COMFY_LTX2 = "Comfy-Org/ltx-2"
TRANSFORMER_FP8 = "ltx-2.3-22b-dev_transformer_only_fp8_scaled.safetensors"
TRANSFORMER_BF16 = "ltx-2.3-22b-dev_transformer_only_bf16.safetensors"
GEMMA_FP4 = "gemma_3_12B_it_fp4_mixed.safetensors"
GEMMA_BF16 = "gemma_3_12B_it.safetensors"


def _kijai(folder: str, name: str, size: int, **more) -> ModelFile:
    return ModelFile(name, folder, KIJAI, f"{folder}/{name}", size, **more)


def _gemma(name: str, size: int, variant: str, **more) -> ModelFile:
    return ModelFile(
        name,
        "text_encoders",
        COMFY_LTX2,
        f"split_files/text_encoders/{name}",
        size,
        base="-",
        licence=GEMMA,
        variant=variant,
        approximate=True,
        **more,
    )


def _lora(name: str, repo: str, size: int, base: str) -> ModelFile:
    return ModelFile(name, "loras", f"Lightricks/{repo}", name, size, base)


def _detector(name: str, repo: str, size: int, licence: str) -> ModelFile:
    return ModelFile(name, AUX, repo, name, size, "-", licence)


# LoRAs that move the camera: Jib and Static are of a higher rank than the dollies.
CAMERA_SIZES = {
    "static": 2_214_978_664,
    "dolly-in": 327_309_208,
    "dolly-out": 327_309_208,
    "dolly-left": 327_309_208,
    "dolly-right": 327_309_208,
    "jib-up": 2_214_978_664,
    "jib-down": 2_214_978_664,
}

FILES: tuple[ModelFile, ...] = (
    _kijai("diffusion_models", TRANSFORMER_FP8, 25_200_000_000, variant="fp8", approximate=True),
    _kijai("diffusion_models", TRANSFORMER_BF16, 42_000_000_000, variant="bf16", approximate=True),
    _kijai("vae", "LTX23_video_vae_bf16.safetensors", 1_450_000_000, approximate=True),
    _kijai("vae", "LTX23_audio_vae_bf16.safetensors", 370_000_000, approximate=True),
    _kijai(
        "text_encoders", "ltx-2.3_text_projection_bf16.safetensors", 2_310_000_000, approximate=True
    ),
    _gemma(GEMMA_FP4, 9_450_000_000, "fp8"),
    _gemma(GEMMA_BF16, 24_400_000_000, "bf16", alias="comfy_gemma_3_12B_it.safetensors"),
    ModelFile(
        "ltx-2.3-spatial-upscaler-x2-1.1.safetensors",
        "latent_upscale_models",
        "Lightricks/LTX-2.3",
        "ltx-2.3-spatial-upscaler-x2-1.1.safetensors",
        995_743_560,
    ),
    ModelFile(
        presets.DISTILLED_LORA,
        "loras",
        "Comfy-Org/ltx-2.3",
        f"split_files/loras/{presets.DISTILLED_LORA}",
        2_741_024_390,
        alias="ltx-2.3-22b-distilled-1.1_lora-dynamic_fro09_avg_rank_111_bf16.safetensors",
    ),
    _lora(
        presets.IC_LORAS["union-control"], "LTX-2.3-22b-IC-LoRA-Union-Control", 654_465_352, "2.3"
    ),
    _lora(
        presets.IC_LORAS["motion-track"],
        "LTX-2.3-22b-IC-LoRA-Motion-Track-Control",
        327_309_314,
        "2.3",
    ),
    _lora(presets.DETAILER_LORA, "LTX-2-19b-IC-LoRA-Detailer", 2_617_401_920, "2.0-19b"),
    _lora(presets.POSE_LORA, "LTX-2-19b-IC-LoRA-Pose-Control", 654_465_256, "2.0-19b"),
    *(
        _lora(name, f"LTX-2-19b-LoRA-Camera-Control-{move.title()}", CAMERA_SIZES[move], "2.0-19b")
        for move, name in presets.CAMERA_LORAS.items()
    ),
    _detector("yolox_l.onnx", "yzd-v/DWPose", 216_746_733, APACHE),
    _detector(
        "dw-ll_ucoco_384_bs5.torchscript.pt",
        "hr16/DWPose-TorchScript-BatchSize5",
        135_059_124,
        APACHE,
    ),
    _detector(
        "depth_anything_v2_vitl.pth",
        "depth-anything/Depth-Anything-V2-Large",
        1_341_395_338,
        CC_BY_NC,
    ),
)

REGISTRY: dict[tuple[str, str], ModelFile] = {file.key: file for file in FILES}


def variant_patches(weights: str) -> list[tuple[str, str, str]]:
    """Patches ``(node title, input, value)`` that turn a graph to one set of weights.

    The graphs name the fp8 files, and the demo weights carry the same names.

    Raises:
        BadInput: ``weights`` is none of :data:`VARIANTS`.
    """
    if weights not in VARIANTS:
        raise BadInput(f"Unknown weights {weights!r}", "weights", "Use demo, fp8 or bf16.")
    if weights != "bf16":
        return []
    return [
        ("Transformer", "unet_name", TRANSFORMER_BF16),
        ("Text encoder", "clip_name1", GEMMA_BF16),
    ]


@dataclass(frozen=True)
class GpuInfo:
    """What a machine computes on.

    Attributes:
        kind: "cuda" (NVIDIA, or AMD through ROCm), "mps" (Apple) or "zerogpu".
        memory: bytes; on Apple the unified memory. On ZeroGPU it is emulated and never looked at.
        name: in words.
        size: ZeroGPU only: "large" or "xlarge".
    """

    kind: str
    memory: int = 0
    name: str = ""
    size: str = "large"


# Decimal bytes. A "24 GB" card reports 23.5 to 24 GiB, an "80 GB" one 79 to 80 GiB.
FITS_FP8, HOLDS_FP8, HOLDS_BF16 = 22 * GB, 32 * GB, 80 * GB
APPLE_HOLDS_BF16 = 96 * GB
GPU_SIZES = ("large", "xlarge")


def zero_gpu(environ: Mapping[str, str]) -> GpuInfo:
    """ZeroGPU's card, by the setting ``LTX23_AIO_GPU_SIZE``; never by the memory it emulates.

    Raises:
        SetupError: the setting is neither large nor xlarge.
    """
    size = environ.get("LTX23_AIO_GPU_SIZE", "").strip().lower() or "large"
    if size not in GPU_SIZES:
        raise SetupError(
            f"LTX23_AIO_GPU_SIZE is {size[:20]!r}", "LTX23_AIO_GPU_SIZE", "Use large or xlarge."
        )
    return GpuInfo("zerogpu", name=f"ZeroGPU {size}", size=size)


def choose(requested: str, gpu: GpuInfo | None) -> tuple[str, str]:
    """Which weights to use, and one sentence that says why.

    ``full`` is honoured on every machine; the sentence then warns where it will not fit.

    Args:
        requested: "auto", "demo" or "full".
        gpu: None where there is no GPU.

    Raises:
        BadInput: ``requested`` is none of the three.
    """
    if requested not in REQUESTS:
        raise BadInput(f"Unknown weights {requested!r}", "weights", "Use auto, demo or full.")
    if requested == "demo":
        return "demo", "Demo weights, as asked: pictures and sound are noise."
    if gpu is not None and gpu.kind == "zerogpu":
        if gpu.size == "xlarge":
            return "bf16", "Full weights in bf16: ZeroGPU xlarge is a card of 96 GB."
        return "fp8", "Full weights in fp8: ZeroGPU large is half a card, 48 GB."
    weights, why, fits = _fit(gpu)
    if fits:
        return weights, f"Full weights in {weights}: {why}."
    if requested == "full":
        return weights, f"Full weights in {weights}, as asked, although {why}: expect it to fail."
    return "demo", f"Demo weights, which give noise: {why}. Ask for full weights to insist."


def _fit(gpu: GpuInfo | None) -> tuple[str, str, bool]:
    """(weights, reason, whether the machine can hold them)."""
    if gpu is None:
        return "fp8", "there is no GPU", False
    name, gb = gpu.name or "the GPU", f"{gpu.memory / GB:.0f} GB"
    if gpu.kind == "mps":
        if gpu.memory >= APPLE_HOLDS_BF16:
            return "bf16", f"{name} has {gb} of unified memory, and Metal has no fp8", True
        return "bf16", f"{name} has {gb} of unified memory, and bf16 needs 96 GB", False
    if gpu.memory >= HOLDS_BF16:
        return "bf16", f"{name} has {gb}", True
    if gpu.memory >= HOLDS_FP8:
        return "fp8", f"{name} has {gb}, and bf16 needs 80 GB", True
    if gpu.memory >= FITS_FP8:
        return "fp8", f"{name} has {gb}, so part of the model is streamed from RAM", True
    return "fp8", f"{name} has {gb}, and fp8 needs 22 GB", False
