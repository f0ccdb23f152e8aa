"""Lets ComfyUI's stock loaders read the demo text encoder. It adds no nodes.

ComfyUI writes Gemma 3 12B's sizes into its code; those of the demo files are read from the tensors
instead. A text encoder of the real width (3840) takes ComfyUI's own path, untouched. The studio
allows this folder to load only while it runs on demo weights.
"""

from __future__ import annotations

import comfy.text_encoders.llama as llama
import comfy.text_encoders.lt as lt
import torch
from comfy import sd1_clip

NODE_CLASS_MAPPINGS: dict[str, type] = {}
REAL_WIDTH = 3840


def _sizes(state_dicts: list[dict]) -> dict | None:
    """Gemma's sizes and the widths of the two projections; None where the files are real ones."""
    merged = {name: tensor for state_dict in state_dicts for name, tensor in state_dict.items()}
    norm = merged.get("model.norm.weight")
    video = merged.get("text_embedding_projection.video_aggregate_embed.weight")
    audio = merged.get("text_embedding_projection.audio_aggregate_embed.weight")
    if norm is None or video is None or audio is None or norm.shape[0] == REAL_WIDTH:
        return None
    layer = "model.layers.0."
    head = merged[f"{layer}self_attn.q_norm.weight"].shape[0]
    return {
        "hidden_size": norm.shape[0],
        "vocab_size": merged["model.embed_tokens.weight"].shape[0],
        "intermediate_size": merged[f"{layer}mlp.gate_proj.weight"].shape[0],
        "num_hidden_layers": sum(name.endswith(".self_attn.q_norm.weight") for name in merged),
        "num_attention_heads": merged[f"{layer}self_attn.q_proj.weight"].shape[0] // head,
        "num_key_value_heads": merged[f"{layer}self_attn.k_proj.weight"].shape[0] // head,
        "head_dim": head,
        "projections": (video.shape[0], audio.shape[0]),
    }


class DemoGemma(llama.BaseLlama, llama.BaseGenerate, torch.nn.Module):
    """Gemma 3 of any size, without the vision tower the demo files lack."""

    def __init__(self, sizes: dict, dtype, device, operations):
        super().__init__()
        sizes = dict(sizes)
        head = sizes.pop("head_dim")
        config = llama.Gemma3_12B_Config(**sizes)
        config.head_dim = head  # a class attribute there, not a field
        self.num_layers = config.num_hidden_layers
        self.model = llama.Llama2_(config, device=device, dtype=dtype, ops=operations)
        self.dtype = dtype


class DemoGemmaModel(lt.Gemma3_12BModel):
    """ComfyUI's Gemma wrapper around :class:`DemoGemma`."""

    def __init__(self, sizes: dict, device="cpu", dtype=None, model_options=None):
        self.dtypes = {dtype}
        sd1_clip.SDClipModel.__init__(
            self,
            device=device,
            layer="all",
            textmodel_json_config=sizes,
            dtype=dtype,
            special_tokens={"start": 2, "pad": 0},
            layer_norm_hidden_state=False,
            model_class=DemoGemma,
            enable_attention_masks=True,
            return_attention_masks=True,
            model_options=model_options or {},
        )


def _demo_text_encoder(sizes: dict, dtype_llama: torch.dtype | None) -> type:
    """The class ComfyUI instantiates in place of its own LTX-2 text encoder."""
    sizes = dict(sizes)
    video, audio = sizes.pop("projections")

    class DemoTextEncoder(lt.LTXAVTEModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            torch.nn.Module.__init__(self)
            dtype = dtype if dtype_llama is None else dtype_llama
            self.dtypes = {dtype}
            self.compat_mode = False
            self.text_projection_type = "dual_linear"
            self.gemma3_12b = DemoGemmaModel(sizes, device, dtype, model_options)
            self.text_embedding_projection = lt.DualLinearProjection(
                sizes["hidden_size"] * (sizes["num_hidden_layers"] + 1),
                video,
                audio,
                dtype=dtype,
                device=device,
                operations=self.gemma3_12b.operations,
            )

    return DemoTextEncoder


def _install() -> None:
    """Wrap the two functions ComfyUI's loaders call, once."""
    detect, build = lt.sd_detect, lt.ltxav_te
    if getattr(detect, "ltx23_demo", False):
        return

    def sd_detect(state_dict_list, prefix=""):
        found = detect(state_dict_list, prefix)
        sizes = None if prefix else _sizes(state_dict_list)
        return found if sizes is None else {**found, "demo_sizes": sizes}

    def ltxav_te(*args, demo_sizes=None, **kwargs):
        if demo_sizes is None:
            return build(*args, **kwargs)
        return _demo_text_encoder(demo_sizes, kwargs.get("dtype_llama"))

    sd_detect.ltx23_demo = True
    lt.sd_detect, lt.ltxav_te = sd_detect, ltxav_te


_install()
