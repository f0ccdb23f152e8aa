"""Aspect ratio and resolution on one side, exact pixels on the other.

People think in shapes and qualities, the model in multiples of 64 (or 128) pixels. Pure functions,
no Gradio.
"""

from __future__ import annotations

from request import snap_size

ASPECTS: dict[str, float] = {
    "16:9": 16 / 9,
    "3:2": 3 / 2,
    "1:1": 1.0,
    "2:3": 2 / 3,
    "9:16": 9 / 16,
    "21:9": 21 / 9,
}
CUSTOM = "Custom"

# Pixels of a resolution, whatever the shape; the words are those of common sizes nearby.
RESOLUTIONS: dict[str, int] = {
    "Draft": 384 * 256,
    "Standard": 768 * 512,
    "Large": 1024 * 640,
    "HD": 1280 * 720,
    "Full HD": 1920 * 1080,
}


def size_for(aspect: str, resolution: str, step: int) -> tuple[int, int]:
    """Width and height in pixels, multiples of ``step``, nearest to that shape and area."""
    ratio, area = ASPECTS[aspect], RESOLUTIONS[resolution]
    height = (area / ratio) ** 0.5
    return snap_size(height * ratio, step), snap_size(height, step)


def names_for(width: int, height: int, step: int) -> tuple[str, str]:
    """The (aspect, resolution) that gives exactly this size; ``Custom`` for both where none does."""
    for resolution in RESOLUTIONS:
        for aspect in ASPECTS:
            if size_for(aspect, resolution, step) == (width, height):
                return aspect, resolution
    return CUSTOM, CUSTOM


def nearest_aspect(width: int, height: int) -> str:
    """The aspect closest to a picture's own shape."""
    ratio = width / height
    return min(ASPECTS, key=lambda name: abs(ASPECTS[name] / ratio + ratio / ASPECTS[name]))
