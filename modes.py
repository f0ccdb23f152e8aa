"""The six modes as data: fields, limits, presets, stages, and how a request becomes patches.

A field added to a mode appears in the form, on the command line, in the API, in the metadata and in
the tests; nothing else in the studio asks which mode it is dealing with. A patch is
``(node title, input, value)``; see :mod:`workflow` for how it is applied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

import fields
import presets
from fields import Field
from presets import PRESETS, STYLE_PRESETS, Preset

Patch = tuple[str, str, Any]


@dataclass(frozen=True)
class Mode:
    """One of the six modes.

    Attributes:
        key: as on the command line; also names ``workflows/<key>.json``.
        tag: as in the page's header.
        title, summary: for people.
        fields: every control the mode consumes, in the form's order.
        presets: by key.
        stages: (what a person reads, titles of the nodes it covers), in running order.
        size_step: width and height are multiples of this, in pixels.
        media_patches: patches that only this mode needs, from the request and its staged files.
    """

    key: str
    tag: str
    title: str
    summary: str
    fields: tuple[Field, ...]
    stages: tuple[tuple[str, tuple[str, ...]], ...]
    media_patches: Callable[[Any, Any], list[Patch]]
    presets: dict[str, Preset] = dataclass_field(default_factory=lambda: PRESETS)
    size_step: int = fields.SIZE_STEP

    def field(self, name: str) -> Field | None:
        """The field of that name, or None where the mode does not have it."""
        return next((f for f in self.fields if f.name == name), None)

    def patches(self, request: Any, staged: Any) -> list[Patch]:
        """Everything the request says, as patches of this mode's graph.

        Args:
            request: a validated :class:`request.Request` of this mode.
            staged: a :class:`media.Staged`: names of its files inside ComfyUI's input folder.
        """
        return [*_common(request, self), *self.media_patches(request, staged)]


def _common(r: Any, mode: Mode) -> list[Patch]:
    """Patches of the controls that all six modes share."""
    preset = mode.presets[r.preset]
    scheduled = preset.scheduler_steps > 0
    patches: list[Patch] = [
        ("Prompt", "text", r.prompt),
        ("Negative prompt", "text", r.negative_prompt),
        ("Conditioning", "frame_rate", float(r.fps)),
        ("Empty video", "width", r.width // 2),
        ("Empty video", "height", r.height // 2),
        ("Empty video", "length", r.frames),
        ("Stage 1 noise", "noise_seed", r.seed),
        ("Stage 2 noise", "noise_seed", r.seed),
        ("Stage 1 uses scheduler", "switch", scheduled),
        ("Stage 1 guidance", "cfg", preset.guidance),
        ("Stage 1 uses second order", "switch", preset.second_order),
        ("Stage 2 uses second order", "switch", preset.second_order),
        ("Video", "fps", float(r.fps)),
        _lora("Stage 1 LoRAs", 1, presets.DISTILLED_LORA, preset.distilled_1),
        _lora("Stage 2 LoRAs", 1, presets.DISTILLED_LORA, preset.distilled_2),
        _lora(
            "LoRAs",
            1,
            presets.CAMERA_LORAS.get(r.camera, ""),
            r.camera_strength,
            r.camera != "none",
        ),
        _lora("LoRAs", 2, presets.DETAILER_LORA, r.detailer_strength, r.detailer),
        _lora("LoRAs", 3, presets.POSE_LORA, r.pose_strength, r.pose),
        _lora(
            "Stage 1 LoRAs",
            2,
            presets.IC_LORAS.get(r.ic_lora, ""),
            r.ic_strength,
            r.ic_lora != "none",
        ),
    ]
    if scheduled:
        patches.append(("Stage 1 scheduler", "steps", preset.scheduler_steps))
    return patches


def _lora(title: str, row: int, file: str, strength: float, on: bool = True) -> Patch:
    """A row of a Power Lora Loader, counted as ComfyUI's editor does: from 1, from the top.

    A row that is off or at strength 0 loads nothing.
    """
    on = bool(on and strength and file)
    return title, f"lora_{row}", {"on": on, "lora": file or "None", "strength": float(strength)}


def _generated_sound(r: Any) -> list[Patch]:
    # The causal audio decoder makes 30 ms less than its latents stand for (4n-3 of 4n mel frames), so
    # the latent is asked for that much longer; the file's sound is cut to the picture's length.
    return [
        ("Empty sound", "frames_number", r.frames + -(-3 * r.fps // 100)),
        ("Empty sound", "frame_rate", r.fps),
    ]


def audio_latents(frames: int, fps: int) -> int:
    """Audio latent frames for a clip, as LTXVEmptyLatentAudio counts them (rounded up)."""
    return -(-frames * fields.AUDIO_LATENTS_PER_SECOND // fps)


def _given_sound(r: Any, staged: Any) -> list[Patch]:
    return [
        ("Sound", "audio", staged.names["audio"]),
        ("Cut sound to length", "amount", audio_latents(r.frames, r.fps)),
    ]


def _image(r: Any, staged: Any) -> list[Patch]:
    return [
        ("Image", "image", staged.names["image"]),
        ("Stage 1 image", "strength", float(r.image_strength)),
    ]


def _t2v(r: Any, staged: Any) -> list[Patch]:
    return _generated_sound(r)


def _i2v(r: Any, staged: Any) -> list[Patch]:
    return [*_generated_sound(r), *_image(r, staged)]


def _a2v(r: Any, staged: Any) -> list[Patch]:
    return _given_sound(r, staged)


def _lipsync(r: Any, staged: Any) -> list[Patch]:
    return [*_given_sound(r, staged), *_image(r, staged)]


def _keyframe(r: Any, staged: Any) -> list[Patch]:
    patches = _generated_sound(r)
    for name, title in (("first_frame", "first frame"), ("last_frame", "last frame")):
        patches.append((title.capitalize(), "image", staged.names[name]))
        patches += [(f"Stage {n} {title}", "strength", float(r.image_strength)) for n in (1, 2)]
    return patches


def _style_mode(r: Any, staged: Any) -> list[Patch]:
    scale = STYLE_PRESETS[r.preset].control_scale
    sound, image = bool(staged.names.get("audio")), bool(staged.names.get("image"))
    patches: list[Patch] = [
        ("Source video", "file", staged.names["video"]),
        ("Control size", "width", round(r.width * scale)),
        ("Control size", "height", round(r.height * scale)),
        # The detectors work at the control's own resolution; their node takes multiples of 64.
        ("Control: depth", "resolution", round(min(r.width, r.height) * scale / 64) * 64),
        ("Control: pose", "resolution", round(min(r.width, r.height) * scale / 64) * 64),
        ("Control by depth", "switch", r.control == "depth"),
        ("Control by pose", "switch", r.control == "pose"),
        ("Control guide", "strength", float(r.control_strength)),
        ("Keep the source's sound", "switch", sound),
        ("Stage 2 keeps the source's sound", "switch", sound),
        ("Play the source's sound", "switch", sound),
        ("Stage 1 uses image", "switch", image),
        ("Stage 2 uses image", "switch", image),
    ]
    patches += _given_sound(r, staged) if sound else _generated_sound(r)
    return patches + (_image(r, staged) if image else [])


# ---------------------------------------------------------------------------------- stages

LOADERS = ("Transformer", "Text encoder", "Video VAE", "Audio VAE", "Latent upscaler")

# What a person reads -> the nodes whose work it is. Nodes that only pass settings along are in no
# stage: they take no time, and ComfyUI runs them in whatever order it likes.
STAGES = (
    ("Loading the models", (*LOADERS, "LoRAs", "Stage 1 LoRAs", "Stage 2 LoRAs")),
    ("Reading the prompt", ("Prompt", "Negative prompt")),
    (
        "Preparing the inputs",
        (
            *("Image compression", "First frame compression", "Last frame compression"),
            *("Encode sound", "Source frames", "Control size", "Control: edges"),
            *("Control: depth", "Control: pose", "Control guide"),
            *("Stage 1 image", "Stage 1 first frame", "Stage 1 last frame"),
        ),
    ),
    ("Stage 1: composing at half size", ("Stage 1 sampling",)),
    (
        "Upscaling",
        ("Upscale latent", "Stage 2 image", "Stage 2 first frame", "Stage 2 last frame"),
    ),
    ("Stage 2: refining at full size", ("Stage 2 sampling",)),
    ("Decoding the picture", ("Decode picture at once", "Decode picture in tiles")),
    ("Decoding the sound", ("Decode sound",)),
    ("Writing the file", ("Save video",)),
)

# ---------------------------------------------------------------------------------- the modes

MODES: dict[str, Mode] = {
    m.key: m
    for m in (
        Mode(
            "t2v",
            "T2V",
            "Text to video",
            "A video with sound from a description.",
            fields.mode_fields(),
            STAGES,
            _t2v,
        ),
        Mode(
            "i2v",
            "I2V",
            "Image to video",
            "An image comes to life, with sound.",
            fields.mode_fields(fields.IMAGE, fields.image_strength(0.7, fields.FIRST)),
            STAGES,
            _i2v,
        ),
        Mode(
            "a2v",
            "A2V",
            "Audio to video",
            "A picture to a sound you give; the sound stays exactly as it is.",
            fields.mode_fields(fields.AUDIO, fields.AUDIO_START),
            STAGES,
            _a2v,
        ),
        Mode(
            "lipsync",
            "LIPSYNC",
            "Lipsync",
            "A face speaks or sings your recording.",
            fields.mode_fields(
                fields.IMAGE,
                fields.AUDIO,
                fields.image_strength(0.7, fields.FIRST),
                fields.AUDIO_START,
            ),
            STAGES,
            _lipsync,
        ),
        Mode(
            "keyframe",
            "KEY",
            "Keyframes",
            "From a first frame to a last frame, with what happens between.",
            fields.mode_fields(
                Field("first_frame", "image", "First frame", "Where it begins.", required=True),
                Field("last_frame", "image", "Last frame", "Where it ends.", required=True),
                fields.image_strength(1.0, "How firmly both frames are held."),
            ),
            STAGES,
            _keyframe,
        ),
        Mode(
            "style",
            "STYLE",
            "Style",
            "A video's motion in another look.",
            fields.mode_fields(
                Field(
                    "video",
                    "video",
                    "Source video",
                    "Its motion is kept, and its sound if it has any.",
                    required=True,
                ),
                Field("image", "image", "Style image", "Optional: the look, as the first frame."),
                Field(
                    "control",
                    "choice",
                    "Control",
                    "What is kept of the source: edges (canny), depth or body pose.",
                    default="canny",
                    choices=("canny", "depth", "pose"),
                ),
                fields.strength(
                    "control_strength",
                    "Control strength",
                    "How firmly the control is followed.",
                    1.0,
                    1.0,
                ),
                fields.image_strength(1.0, "How firmly the first stage holds to the style image."),
                step=fields.SIZE_STEP_IC_LORA,
                ic=fields.IC_LORA_STYLE,
            ),
            STAGES,
            _style_mode,
            STYLE_PRESETS,
            fields.SIZE_STEP_IC_LORA,
        ),
    )
}
