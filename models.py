"""Which model files a graph needs. Below :mod:`backend`, above :mod:`workflow`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import workflow
from errors import BadInput, WeightsError
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
            if folder and isinstance(value, str) and value not in ("", "None"):
                yield node_id, folder, value


def _row_loads(row: Any) -> bool:
    """Whether a row of Power Lora Loader loads its file: the pack skips it when off or at 0."""
    return (
        isinstance(row, dict)
        and bool(row.get("on"))
        and bool(row.get("strength"))
        and row.get("lora") not in (None, "", "None")
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
