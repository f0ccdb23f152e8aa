"""What a form asks for, without a person: the graph of a mode and preset, and its model files."""

from __future__ import annotations

import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))

import models  # noqa: E402
import workflow  # noqa: E402
from media import Staged  # noqa: E402
from modes import MODES  # noqa: E402
from registry import ModelFile  # noqa: E402
from request import Request  # noqa: E402


def graph(mode: str, preset: str, weights: str = "fp8", **values) -> workflow.Graph:
    """The graph of a mode's form at its defaults, with the media it requires and ``values`` set."""
    spec = MODES[mode]
    media = {f.name: f"{f.name}.file" for f in spec.fields if f.is_media and f.required}
    request = Request(mode=mode, preset=preset, **{**media, **values})
    patches = spec.patches(request, Staged(dict(media)))
    return workflow.build(mode, [*patches, *models.variant_patches(weights)])


def default_files(mode: str, preset: str, weights: str = "fp8") -> tuple[ModelFile, ...]:
    """The files the form needs as it opens."""
    return models.needed(graph(mode, preset, weights))


def control_files(mode: str, weights: str = "fp8") -> dict[ModelFile, str]:
    """Files only some setting of some control needs -> that setting, as ``camera=static``."""
    spec = MODES[mode]
    preset = next(iter(spec.presets))
    default = set(default_files(mode, preset, weights))
    found: dict[ModelFile, str] = {}
    for field in spec.fields:
        if field.name == "preset":
            continue
        for choice in field.choices if field.kind == "choice" else (True,):
            if field.kind in ("choice", "toggle"):
                for file in models.needed(graph(mode, preset, weights, **{field.name: choice})):
                    if file not in default:
                        found.setdefault(file, f"{field.name}={choice}".removesuffix("=True"))
    return found
