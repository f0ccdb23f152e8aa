"""The tensors of the demo models: names, shapes, and the configuration inside each file.

Tensor names, block lists and rates are those ComfyUI v0.27.0 builds for LTX-2.3; widths and depths
are shrunk to the smallest that still run. :mod:`tools.make_demo_weights` fills them.
"""

from __future__ import annotations

import math

# Widths of the two streams. Cross-attention, text projection and connector share them.
HEADS, VIDEO_HEAD, AUDIO_HEAD = 4, 32, 16
VIDEO, AUDIO = HEADS * VIDEO_HEAD, HEADS * AUDIO_HEAD
BLOCKS = 2
LATENT = 128  # channels of a video latent, and 8 x 16 of an audio latent; fixed by the VAEs
REGISTERS = 128  # learnable tokens of a connector; fixed in ComfyUI

# Gemma: the loader looks for layer 47, so all 48 stay.
LAYERS, HIDDEN, TEXT_HEADS, TEXT_HEAD, INTERMEDIATE, VOCABULARY = 48, 32, 2, 16, 64, 384

TRANSFORMER = {
    "num_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "attention_head_dim": VIDEO_HEAD,
    "cross_attention_dim": VIDEO,
    "audio_num_attention_heads": HEADS,
    "audio_attention_head_dim": AUDIO_HEAD,
    "audio_cross_attention_dim": AUDIO,
    "in_channels": LATENT,
    "out_channels": LATENT,
    "audio_in_channels": LATENT,
    "audio_out_channels": LATENT,
    "caption_channels": HIDDEN,
    "connector_num_attention_heads": HEADS,
    "connector_attention_head_dim": VIDEO_HEAD,
    "audio_connector_num_attention_heads": HEADS,
    "audio_connector_attention_head_dim": AUDIO_HEAD,
    "connector_num_layers": 2,
    # What sets 2.3 apart from 2.0.
    "apply_gated_attention": True,
    "connector_apply_gated_attention": True,
    "cross_attention_adaln": True,
    "caption_proj_before_connector": True,
    "caption_projection_first_linear": False,
    "caption_projection_second_linear": False,
    "timestep_scale_multiplier": 1000,
    "av_ca_timestep_scale_multiplier": 1000,
    "causal_temporal_positioning": True,
    "use_middle_indices_grid": True,
    "frequencies_precision": "float64",
    "rope_type": "split",
}

_RES = ["res_x", {"num_layers": 1}]
VIDEO_VAE = {
    "_class_name": "CausalVideoAutoencoder",
    "dims": 3,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": LATENT,
    "encoder_blocks": [
        _RES,
        ["compress_space_res", {"multiplier": 2}],
        _RES,
        ["compress_time_res", {"multiplier": 2}],
        _RES,
        ["compress_all_res", {"multiplier": 2}],
        _RES,
        ["compress_all_res", {"multiplier": 1}],
        _RES,
    ],
    "decoder_blocks": [  # the decoder runs this list backwards
        _RES,
        ["compress_space", {"multiplier": 2}],
        _RES,
        ["compress_time", {"multiplier": 2}],
        _RES,
        ["compress_all", {"multiplier": 1}],
        _RES,
        ["compress_all", {"multiplier": 2}],
        _RES,
    ],
    "encoder_base_channels": 8,
    "decoder_base_channels": 8,
    "norm_layer": "pixel_norm",
    "patch_size": 4,
    "latent_log_var": "uniform",
    "causal_decoder": False,
    "timestep_conditioning": False,
    "spatial_padding_mode": "zeros",
}

STRIDES = {"space": 4, "time": 2, "all": 8}  # pixels a block of the video VAE merges or splits

UPSCALER = {
    "_class_name": "LatentUpsampler",
    "in_channels": LATENT,
    "mid_channels": 32,  # its group norms have 32 groups
    "num_blocks_per_stage": 1,
    "dims": 3,
    "spatial_upsample": True,
    "temporal_upsample": False,
}

AUDIO_VAE = {
    "double_z": True,
    "mel_bins": 64,
    "z_channels": 8,
    "resolution": 256,
    "in_channels": 2,
    "out_ch": 2,
    "ch": 8,
    "ch_mult": [1, 2, 4],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
    "mid_block_add_attention": False,
    "norm_type": "pixel",
    "causality_axis": "height",
}
_BIGVGAN = {
    "resblock": "AMP1",
    "activation": "snakebeta",
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3, 5]],
    "stereo": True,
    "use_tanh_at_final": False,
    "use_bias_at_final": False,
}
VOCODER = {  # halves its channels at every rate, so the width ends at 1
    **_BIGVGAN,
    "upsample_initial_channel": 64,
    "upsample_rates": [5, 2, 2, 2, 2, 2],
    "upsample_kernel_sizes": [11, 4, 4, 4, 4, 4],
}
BANDWIDTH_EXTENSION = {
    **_BIGVGAN,
    "upsample_initial_channel": 32,
    "upsample_rates": [6, 5, 2, 2, 2],
    "upsample_kernel_sizes": [12, 11, 4, 4, 4],
    "apply_final_activation": False,
    "input_sampling_rate": 16000,
    "output_sampling_rate": 48000,
    "hop_length": 80,
    "n_fft": 512,
    "win_size": 512,
    "num_mels": 64,
}
AUDIO_CONFIG = {
    "audio_vae": {
        "model": {"params": {"ddconfig": AUDIO_VAE, "sampling_rate": 16000}},
        "preprocessing": {
            "stft": {"filter_length": 1024, "hop_length": 160, "win_length": 1024, "causal": True}
        },
    },
    "vocoder": {"vocoder": VOCODER, "bwe": BANDWIDTH_EXTENSION},
}


class Layout(dict):
    """Tensor names and shapes of one file, in the order a module would list them."""

    def linear(self, name: str, out: int, into: int, bias: bool = True) -> None:
        """Add a weight (out, into) and its bias."""
        self.conv(name, out, into, bias=bias)

    def conv(self, name: str, out: int, into: int, *kernel: int, bias: bool = True) -> None:
        """Add a weight (out, into, *kernel) and its bias."""
        self[f"{name}.weight"] = (out, into, *kernel)
        if bias:
            self[f"{name}.bias"] = (out,)

    def norm(self, name: str, width: int, bias: bool = False) -> None:
        """Add the weight of a normalisation layer, and its bias if it has one."""
        self[f"{name}.weight"] = (width,)
        if bias:
            self[f"{name}.bias"] = (width,)

    def attention(self, name: str, query: int, context: int, inner: int) -> None:
        """Add a gated attention: q and k norms, four projections, one gate per head."""
        for part in ("q_norm", "k_norm"):
            self.norm(f"{name}.{part}", inner)
        self.linear(f"{name}.to_q", inner, query)
        self.linear(f"{name}.to_k", inner, context)
        self.linear(f"{name}.to_v", inner, context)
        self.linear(f"{name}.to_gate_logits", HEADS, query)
        self.linear(f"{name}.to_out.0", query, inner)

    def feed_forward(self, name: str, width: int) -> None:
        """Add a feed-forward layer, four times as wide inside."""
        self.linear(f"{name}.net.0.proj", 4 * width, width)
        self.linear(f"{name}.net.2", width, 4 * width)

    def adaln(self, name: str, width: int, parameters: int) -> None:
        """Add a timestep embedding that yields so many modulation vectors."""
        self.linear(f"{name}.emb.timestep_embedder.linear_1", width, 256)
        self.linear(f"{name}.emb.timestep_embedder.linear_2", width, width)
        self.linear(f"{name}.linear", parameters * width, width)


def transformer_layout() -> Layout:
    """The audio-video transformer, its two text connectors included."""
    net = Layout()
    for prefix, width in (("", VIDEO), ("audio_", AUDIO)):
        net[f"{prefix}scale_shift_table"] = (2, width)
        net.linear(f"{prefix}patchify_proj", width, LATENT)
        net.adaln(f"{prefix}adaln_single", width, 9)
        net.adaln(f"{prefix}prompt_adaln_single", width, 2)
        net.linear(f"{prefix}proj_out", LATENT, width)
    for name, width, gate in (("video", VIDEO, "a2v"), ("audio", AUDIO, "v2a")):
        net.adaln(f"av_ca_{name}_scale_shift_adaln_single", width, 4)
        net.adaln(f"av_ca_{gate}_gate_adaln_single", width, 1)
        connector = f"{name}_embeddings_connector"
        net[f"{connector}.learnable_registers"] = (REGISTERS, width)
        for i in range(TRANSFORMER["connector_num_layers"]):
            block = f"{connector}.transformer_1d_blocks.{i}"
            net.attention(f"{block}.attn1", width, width, width)
            net.feed_forward(f"{block}.ff", width)
    for i in range(BLOCKS):
        block = f"transformer_blocks.{i}"
        for prefix, width in (("", VIDEO), ("audio_", AUDIO)):
            net[f"{block}.{prefix}scale_shift_table"] = (9, width)
            net[f"{block}.{prefix}prompt_scale_shift_table"] = (2, width)
            net.attention(f"{block}.{prefix}attn1", width, width, width)
            net.attention(f"{block}.{prefix}attn2", width, width, width)
            net.feed_forward(f"{block}.{prefix}ff", width)
        net[f"{block}.scale_shift_table_a2v_ca_audio"] = (5, AUDIO)
        net[f"{block}.scale_shift_table_a2v_ca_video"] = (5, VIDEO)
        net.attention(f"{block}.audio_to_video_attn", VIDEO, AUDIO, AUDIO)
        net.attention(f"{block}.video_to_audio_attn", AUDIO, VIDEO, AUDIO)
    return net


def video_vae_layout() -> Layout:
    """Encoder and decoder, built from the block lists of the configuration."""
    net = Layout()
    pixels = 3 * VIDEO_VAE["patch_size"] ** 2

    def res_block(name: str, width: int) -> None:
        for part in ("conv1", "conv2"):
            net.conv(f"{name}.res_blocks.0.{part}.conv", width, width, 3, 3, 3)

    width = VIDEO_VAE["encoder_base_channels"]
    net.conv("encoder.conv_in.conv", width, pixels, 3, 3, 3)
    for i, (kind, options) in enumerate(VIDEO_VAE["encoder_blocks"]):
        name = f"encoder.down_blocks.{i}"
        if kind == "res_x":
            res_block(name, width)
            continue
        wider = width * options["multiplier"]
        net.conv(f"{name}.conv.conv", wider // STRIDES[kind.split("_")[1]], width, 3, 3, 3)
        width = wider
    net.conv("encoder.conv_out.conv", LATENT + 1, width, 3, 3, 3)  # one shared log variance

    blocks = list(reversed(VIDEO_VAE["decoder_blocks"]))
    width = VIDEO_VAE["decoder_base_channels"]
    width *= math.prod(options.get("multiplier", 1) for _, options in blocks)
    net.conv("decoder.conv_in.conv", width, LATENT, 3, 3, 3)
    for i, (kind, options) in enumerate(blocks):
        name = f"decoder.up_blocks.{i}"
        if kind == "res_x":
            res_block(name, width)
            continue
        narrower = width // options["multiplier"]
        net.conv(f"{name}.conv.conv", narrower * STRIDES[kind.split("_")[1]], width, 3, 3, 3)
        width = narrower
    net.conv("decoder.conv_out.conv", pixels, width, 3, 3, 3)
    for part in ("std-of-means", "mean-of-means"):
        net[f"per_channel_statistics.{part}"] = (LATENT,)
    return net


def shuffled(name: str) -> int:
    """How many pixels of a block the outputs of a decoder's convolution become; 1 for other tensors.

    Where they share their weights (known as ICNR), the picture is patches of colour as coarse as the
    latent, not a noise of single pixels that no codec can hold.
    """
    if name == "decoder.conv_out.conv.weight":
        return VIDEO_VAE["patch_size"] ** 2
    if name.startswith("decoder.up_blocks.") and name.endswith(".conv.conv.weight"):
        kind, _ = VIDEO_VAE["decoder_blocks"][-1 - int(name.split(".")[2])]
        return STRIDES[kind.split("_")[1]]
    return 1


def audio_vae_layout() -> Layout:
    """The mel autoencoder, the vocoder and its bandwidth extension."""
    net = Layout()
    widths = [AUDIO_VAE["ch"] * factor for factor in AUDIO_VAE["ch_mult"]]
    z, top = AUDIO_VAE["z_channels"], widths[-1]

    def res_block(name: str, out: int, into: int) -> None:
        net.conv(f"{name}.conv1.conv", out, into, 3, 3)
        net.conv(f"{name}.conv2.conv", out, out, 3, 3)
        if out != into:
            net.conv(f"{name}.nin_shortcut.conv", out, into, 1, 1)

    net.conv("audio_vae.encoder.conv_in.conv", widths[0], AUDIO_VAE["in_channels"], 3, 3)
    net.conv("audio_vae.decoder.conv_in.conv", top, z, 3, 3)
    for part in ("encoder", "decoder"):
        for i in (1, 2):
            res_block(f"audio_vae.{part}.mid.block_{i}", top, top)
    for level, width in enumerate(widths):
        down, up = f"audio_vae.encoder.down.{level}", f"audio_vae.decoder.up.{level}"
        res_block(f"{down}.block.0", width, widths[max(level - 1, 0)])
        if width != top:
            net.conv(f"{down}.downsample.conv", width, width, 3, 3)
        res_block(f"{up}.block.0", width, widths[min(level + 1, len(widths) - 1)])
        res_block(f"{up}.block.1", width, width)
        if level:
            net.conv(f"{up}.upsample.conv.conv", width, width, 3, 3)
    net.conv("audio_vae.encoder.conv_out.conv", 2 * z, top, 3, 3)
    net.conv("audio_vae.decoder.conv_out.conv", AUDIO_VAE["out_ch"], widths[0], 3, 3)
    for part in ("std-of-means", "mean-of-means"):
        net[f"audio_vae.per_channel_statistics.{part}"] = (LATENT,)

    def activation(name: str, width: int) -> None:
        net[f"{name}.act.alpha"] = net[f"{name}.act.beta"] = (width,)
        net[f"{name}.upsample.filter"] = net[f"{name}.downsample.lowpass.filter"] = (1, 1, 12)

    for name, config in (
        ("vocoder.vocoder", VOCODER),
        ("vocoder.bwe_generator", BANDWIDTH_EXTENSION),
    ):
        width = config["upsample_initial_channel"]
        net.conv(f"{name}.conv_pre", width, 2 * AUDIO_VAE["mel_bins"], 7)
        for i, kernel in enumerate(config["upsample_kernel_sizes"]):
            net[f"{name}.ups.{i}.weight"] = (width, width // 2, kernel)  # transposed: in before out
            width //= 2
            net[f"{name}.ups.{i}.bias"] = (width,)
            for j in range(len(config["resblock_dilation_sizes"][0])):
                for half in (1, 2):
                    net.conv(f"{name}.resblocks.{i}.convs{half}.{j}", width, width, 3)
                    activation(f"{name}.resblocks.{i}.acts{half}.{j}", width)
        activation(f"{name}.act_post", width)
        net.conv(f"{name}.conv_post", 2, width, 7, bias=False)
    size = BANDWIDTH_EXTENSION["n_fft"]
    net["vocoder.mel_stft.mel_basis"] = (BANDWIDTH_EXTENSION["num_mels"], size // 2 + 1)
    for part in ("forward", "inverse"):
        net[f"vocoder.mel_stft.stft_fn.{part}_basis"] = (size + 2, 1, size)
    return net


def upscaler_layout() -> Layout:
    """The x2 spatial upscaler of latents."""
    net = Layout()
    width = UPSCALER["mid_channels"]
    net.conv("initial_conv", width, LATENT, 3, 3, 3)
    net.norm("initial_norm", width, bias=True)
    for block in ("res_blocks.0", "post_upsample_res_blocks.0"):
        for i in (1, 2):
            net.conv(f"{block}.conv{i}", width, width, 3, 3, 3)
            net.norm(f"{block}.norm{i}", width, bias=True)
    net.conv("upsampler.0", 4 * width, width, 3, 3)
    net.conv("final_conv", LATENT, width, 3, 3, 3)
    return net


def text_encoder_layout() -> Layout:
    """Gemma 3's language model, one key-value head, without its vision tower."""
    net = Layout({"model.embed_tokens.weight": (VOCABULARY, HIDDEN)})
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        for part in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            net.norm(f"{layer}.{part}_layernorm", HIDDEN)
        for part in ("q_norm", "k_norm"):
            net.norm(f"{layer}.self_attn.{part}", TEXT_HEAD)
        for part, heads in (("q", TEXT_HEADS), ("k", 1), ("v", 1)):
            net.linear(f"{layer}.self_attn.{part}_proj", heads * TEXT_HEAD, HIDDEN, bias=False)
        net.linear(f"{layer}.self_attn.o_proj", HIDDEN, TEXT_HEADS * TEXT_HEAD, bias=False)
        for part in ("gate", "up"):
            net.linear(f"{layer}.mlp.{part}_proj", INTERMEDIATE, HIDDEN, bias=False)
        net.linear(f"{layer}.mlp.down_proj", HIDDEN, INTERMEDIATE, bias=False)
    net.norm("model.norm", HIDDEN)
    return net


def text_projection_layout() -> Layout:
    """Two projections of all hidden states of Gemma (embeddings included) to the streams' widths."""
    net = Layout()
    for name, width in (("video", VIDEO), ("audio", AUDIO)):
        net.linear(
            f"text_embedding_projection.{name}_aggregate_embed", width, HIDDEN * (LAYERS + 1)
        )
    return net
