"""What Fast, Balanced and Quality mean, and which LoRA files the controls name.

A preset is data: it says how a stage is sampled. :mod:`modes` turns it into patches, the page turns
it into the sentence under the choice, and the time estimate counts its model forwards. Figures are
those of Lightricks' own LTX-2.3 pipelines (``ltx-pipelines`` 1.2) where the comment does not say
otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

# Sigmas the distilled model was trained on; stage 2 starts at .909375 because the upscaled latent
# already holds the picture. Lightricks' values, not the rounded ones of the ComfyUI templates.
DISTILLED_SIGMAS = (1.0, 0.99375, 0.9875, 0.98125, 0.975, 0.909375, 0.725, 0.421875, 0.0)
REFINE_SIGMAS = (0.909375, 0.725, 0.421875, 0.0)

DISTILLED_LORA = "ltx_2.3_22b_distilled_1.1_lora_dynamic_fro09_avg_rank_111_bf16.safetensors"
DETAILER_LORA = "ltx-2-19b-ic-lora-detailer.safetensors"
POSE_LORA = "ltx-2-19b-ic-lora-pose-control.safetensors"

CAMERA_MOVES = (
    "static",
    "dolly-in",
    "dolly-out",
    "dolly-left",
    "dolly-right",
    "jib-up",
    "jib-down",
)
CAMERA_LORAS = {move: f"ltx-2-19b-lora-camera-control-{move}.safetensors" for move in CAMERA_MOVES}
IC_LORAS = {
    "union-control": "ltx-2.3-22b-ic-lora-union-control-ref0.5.safetensors",
    "motion-track": "ltx-2.3-22b-ic-lora-motion-track-control-ref0.5.safetensors",
}


@dataclass(frozen=True)
class Preset:
    """How the two stages are sampled.

    Attributes:
        key: ``fast``, ``balanced`` or ``quality``.
        title: the word on the page.
        summary: one sentence, what it does.
        scheduler_steps: steps of LTXVScheduler in stage 1; 0 takes the distilled sigmas.
        guidance: classifier-free guidance of stage 1; 1 means none, and then the negative prompt
            has no effect.
        second_order: sample with SEEDS-2 (two model evaluations a step) instead of Euler.
        distilled_1, distilled_2: strength of the distilled LoRA in each stage; 0 is off.
        control_scale: style only, the resolution of the control signal against the output's.
        default_size: style only, (width, height) in pixels when a request names none.
    """

    key: str
    title: str
    summary: str
    scheduler_steps: int
    guidance: float
    second_order: bool
    distilled_1: float
    distilled_2: float
    control_scale: float = 1.0
    default_size: tuple[int, int] | None = None

    @property
    def steps(self) -> tuple[int, int]:
        """Sampler steps of stage 1 and of stage 2."""
        return (self.scheduler_steps or len(DISTILLED_SIGMAS) - 1, len(REFINE_SIGMAS) - 1)

    @property
    def forwards(self) -> tuple[int, int]:
        """Model forwards of stage 1 (half size) and stage 2 (full size).

        A second-order step evaluates the model twice; guidance above 1 doubles each evaluation.
        """
        order = 2 if self.second_order else 1
        cond = 2 if self.guidance > 1 else 1
        return self.steps[0] * order * cond, self.steps[1] * order


PRESETS: dict[str, Preset] = {
    p.key: p
    for p in (
        Preset(
            "fast",
            "Fast",
            "Distilled sampling: 8 steps at half size, 3 at full size, no guidance.",
            scheduler_steps=0,
            guidance=1.0,
            second_order=False,
            distilled_1=0.5,
            distilled_2=0.5,
        ),
        Preset(
            "balanced",
            "Balanced",
            "The undistilled model: 20 guided steps at half size, 3 distilled ones at full size.",
            scheduler_steps=20,
            guidance=3.0,
            second_order=False,
            distilled_1=0.0,
            distilled_2=0.5,
        ),
        Preset(
            "quality",
            "Quality",
            "Second-order sampling: 15 guided double steps at half size, 3 double ones at full.",
            scheduler_steps=15,
            guidance=3.0,
            second_order=True,
            distilled_1=0.25,
            distilled_2=0.5,
        ),
    )
}


def _style(key: str, scale: float, size: tuple[int, int], words: str) -> Preset:
    title = PRESETS[key].title
    return Preset(key, title, words, 0, 1.0, False, 0.5, 0.5, scale, size)


# The union-control IC-LoRA was trained on the distilled model, so style keeps its sampling and the
# presets vary resolution: of the control signal, and of the video where the request names no size.
STYLE_PRESETS: dict[str, Preset] = {
    p.key: p
    for p in (
        _style(
            "fast", 0.5, (768, 512), "Distilled sampling; control signal at half the video's size."
        ),
        _style(
            "balanced",
            0.75,
            (1024, 640),
            "Distilled sampling; control signal at three quarters of the size.",
        ),
        _style(
            "quality", 1.0, (1280, 768), "Distilled sampling; control signal at the video's size."
        ),
    )
}
