"""What a person can try at once in every mode: a prompt, the files of ``assets/seed_inputs``, settings.

The files are drawn and synthesised by ``tools/make_seed_inputs.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from request import Request
from theme import SEEDS


@dataclass(frozen=True)
class Example:
    """One filled form; ``values`` are the request's, files by their name in the folder."""

    title: str
    mode: str
    values: dict[str, Any]

    def request(self) -> Request:
        """The example as a request, its files located."""
        placed = {
            name: str(SEEDS / value) if name in FILES else value
            for name, value in self.values.items()
        }
        return Request(mode=self.mode, **placed)


FILES = ("image", "audio", "video", "first_frame", "last_frame")

EXAMPLES: dict[str, tuple[Example, ...]] = {
    "t2v": (
        Example(
            "Storm at dusk",
            "t2v",
            {
                "prompt": "A lighthouse on a black cliff in a storm at dusk. Waves break high against "
                "the rocks, the beam sweeps slowly through the rain. The camera drifts closer. "
                "Wind, surf, a distant foghorn.",
                "seconds": 4.0,
            },
        ),
        Example(
            "Tea in a tin cup",
            "t2v",
            {
                "prompt": "Close-up of hot tea poured into a dented tin cup on a wooden table, steam "
                "curling in the morning light. Shallow focus, handheld. The sound of pouring, a fire "
                "crackling near by.",
                "seconds": 3.0,
                "width": 512,
                "height": 768,
            },
        ),
    ),
    "i2v": (
        Example(
            "The lamp is lit",
            "i2v",
            {
                "image": "lighthouse.jpg",
                "prompt": "The beam of the lighthouse turns over a calm sea at dusk, the sun sinks, "
                "its path glitters on the water. Slow swell, gulls far away.",
                "seconds": 4.0,
            },
        ),
    ),
    "a2v": (
        Example(
            "Strings on a wall of light",
            "a2v",
            {
                "audio": "melody.m4a",
                "prompt": "Thin threads of amber light on a dark stage are plucked one by one and "
                "swing in time with the music. Slow orbit, haze, deep shadows.",
                "seconds": 6.0,
            },
        ),
    ),
    "lipsync": (
        Example(
            "Evening report",
            "lipsync",
            {
                "image": "portrait.jpg",
                "audio": "speech.m4a",
                "prompt": "A woman with dark hair looks into the camera and speaks calmly, small "
                "nods, natural blinks. Soft warm key light, plain studio.",
                "seconds": 5.0,
                "width": 640,
                "height": 640,
            },
        ),
    ),
    "keyframe": (
        Example(
            "Day into night",
            "keyframe",
            {
                "first_frame": "valley_day.jpg",
                "last_frame": "valley_night.jpg",
                "prompt": "Time lapse over a mountain valley: the sun sets, shadows climb the ridges, "
                "stars come out, a window in the hut lights up. Crickets rise.",
                "seconds": 4.0,
            },
        ),
    ),
    "style": (
        Example(
            "Tram in watercolour",
            "style",
            {
                "video": "tram.mp4",
                "prompt": "A red tram crosses a stone bridge before green hills, painted in loose "
                "watercolour on rough paper, pigment bleeding at the edges.",
                "seconds": 2.0,  # on a CPU the edges of one frame take a third of a second
                "width": 640,
                "height": 384,
            },
        ),
    ),
}
MOST = max(len(examples) for examples in EXAMPLES.values())
