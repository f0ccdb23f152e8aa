"""The controls a mode can have: names, limits, defaults and the words beside them.

Limits are LTX-2.3's own rules. What a mode does with a field's value is in :mod:`modes`; how a value
is checked is in :mod:`request`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import presets

# The rules of LTX-2.3 (Lightricks' documentation; ComfyUI floors silently where they are broken).
SIZE_STEP = 64  # two stages: the half-size latent still needs multiples of 32 pixels
SIZE_STEP_IC_LORA = 128  # an IC-LoRA with a half-size reference halves once more
SIZE_MIN, SIZE_MAX = 128, 2560
PIXELS_MAX = 2560 * 1440  # the largest size Lightricks names for LTX-2.3
FRAMES_MAX = 993  # the largest 8k+1 that LTXVEmptyLatentAudio takes (1000)
FRAMES_TRAINED = 257  # where the vendor's own interface stops
AUDIO_LATENTS_PER_SECOND = 25  # audio VAE: 16 kHz, hop 160, downsampled by 4
PROMPT_MAX = 8000  # characters

NEGATIVE_DEFAULT = "blurry, low quality, distorted, jittery motion, flicker, watermark, subtitles"


@dataclass(frozen=True)
class Field:
    """One control of a mode: what a person can set, and its limits.

    ``kind`` is ``text``, ``choice``, ``integer``, ``number``, ``toggle``, ``image``, ``audio`` or
    ``video``; ``step`` is what a slider moves by; ``advanced`` keeps it folded away at first.
    """

    name: str
    kind: str
    label: str
    help: str = ""
    default: Any = None
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    required: bool = False
    advanced: bool = False
    unit: str = ""

    @property
    def flag(self) -> str:
        """The command line's name for it."""
        return "--" + self.name.replace("_", "-")

    @property
    def is_media(self) -> bool:
        """Whether the value is the path of a file a person gives."""
        return self.kind in ("image", "audio", "video")


PROMPT = Field(
    "prompt",
    "text",
    "Prompt",
    "What is seen and heard, in plain sentences: subject, motion, camera, light, sound.",
    default="",
)
NEGATIVE = Field(
    "negative_prompt",
    "text",
    "Negative prompt",
    "What to avoid. Works with Balanced and Quality; Fast samples without guidance and ignores it.",
    default=NEGATIVE_DEFAULT,
    advanced=True,
)
PRESET = Field(
    "preset",
    "choice",
    "Preset",
    "How much work goes into the video.",
    default="fast",
    choices=("fast", "balanced", "quality"),
)


def size(name: str, default: int, step: int) -> Field:
    return Field(
        name,
        "integer",
        name.capitalize(),
        f"Multiples of {step}; other values are moved to the nearest.",
        default=default,
        minimum=SIZE_MIN,
        maximum=SIZE_MAX,
        step=step,
        unit="px",
    )


SECONDS = Field(
    "seconds",
    "number",
    "Length",
    "Rounded to the nearest length the model can make (8k+1 frames).",
    default=5.0,
    minimum=0.2,
    maximum=40.0,
    step=0.1,
    unit="s",
)
FPS = Field(
    "fps",
    "integer",
    "Frames per second",
    "24, 25 and 50 are what the model was trained on.",
    default=24,
    minimum=8,
    maximum=60,
    step=1,
    unit="fps",
)
SEED = Field(
    "seed",
    "integer",
    "Seed",
    "The same seed and settings give the same video.",
    default=42,
    minimum=0,
    maximum=2**32 - 1,
    step=1,
)
METADATA = Field(
    "metadata",
    "toggle",
    "Keep the settings in the file",
    "The mp4 carries the graph and the request, so that it can be reopened here and in ComfyUI.",
    default=True,
    advanced=True,
)


def strength(name: str, label: str, what: str, default: float, maximum: float = 2.0) -> Field:
    return Field(
        name,
        "number",
        label,
        what,
        default=default,
        minimum=0.0,
        maximum=maximum,
        step=0.05,
        advanced=True,
    )


LORA_FIELDS = (
    Field(
        "camera",
        "choice",
        "Camera move",
        "A LoRA trained for LTX-2.0 (19B); on 2.3 its effect varies.",
        default="none",
        choices=("none", *presets.CAMERA_MOVES),
        advanced=True,
    ),
    strength("camera_strength", "Camera strength", "LoRA strength of the camera move.", 1.0),
    Field(
        "detailer",
        "toggle",
        "Detailer",
        "Sharpens texture. A LoRA trained for LTX-2.0 (19B).",
        default=False,
        advanced=True,
    ),
    strength("detailer_strength", "Detailer strength", "LoRA strength of the detailer.", 1.0),
)
IC_HELP = "In-context LoRA, trained for LTX-2.3."
IC_LORA = Field(
    "ic_lora",
    "choice",
    "IC-LoRA",
    IC_HELP + " Without a control video it only colours the result.",
    default="none",
    choices=("none", *presets.IC_LORAS),
    advanced=True,
)
IC_LORA_STYLE = Field(
    "ic_lora",
    "choice",
    "IC-LoRA",
    IC_HELP + " Union control follows edges, depth or pose; motion track follows drawn tracks.",
    default="union-control",
    choices=tuple(presets.IC_LORAS),
    advanced=True,
)
IC_STRENGTH = strength("ic_strength", "IC-LoRA strength", "LoRA strength of the IC-LoRA.", 1.0)
POSE_FIELDS = (
    Field(
        "pose",
        "toggle",
        "Pose LoRA",
        "Steadier bodies. An IC-LoRA trained for LTX-2.0 (19B).",
        default=False,
        advanced=True,
    ),
    strength("pose_strength", "Pose strength", "LoRA strength of the pose LoRA.", 1.0),
)
IMAGE = Field("image", "image", "Image", "The first frame of the video.", required=True)
AUDIO = Field("audio", "audio", "Audio", "Kept as it is; the picture follows it.", required=True)
AUDIO_START = Field(
    "audio_start",
    "number",
    "Start in the audio",
    "Seconds to skip at the beginning of the file.",
    default=0.0,
    minimum=0.0,
    maximum=36000.0,
    step=0.1,
    advanced=True,
    unit="s",
)


def image_strength(default: float, what: str) -> Field:
    return strength("image_strength", "Image strength", what, default, 1.0)


FIRST = "How firmly the first stage holds to the image; near 1 the picture may freeze."


def mode_fields(*own: Field, step: int = SIZE_STEP, ic: Field = IC_LORA) -> tuple[Field, ...]:
    """A mode's fields in the form's order; its own come right after the prompt."""
    sizes = (size("width", 768, step), size("height", 512, step))
    loras = (*LORA_FIELDS, ic, IC_STRENGTH, *POSE_FIELDS)
    return (PROMPT, *own, PRESET, *sizes, SECONDS, FPS, SEED, NEGATIVE, *loras, METADATA)
