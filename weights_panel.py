"""The sidebar's table of model files: per mode what is here and what is missing; fetch and unload."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

import bootstrap
import models
import workflow
from downloads import size_text
from errors import StudioError
from events import Download, Note
from jobs import Studio
from media import Staged
from modes import MODES
from registry import ModelFile
from request import Request


def files_of(mode_key: str, weights: str, preset: str = "fast") -> tuple[ModelFile, ...]:
    """The files a mode's form needs at its defaults."""
    mode = MODES[mode_key]
    given = {f.name: f.name for f in mode.fields if f.is_media and f.required}
    request = Request(mode=mode_key, preset=preset, **given)
    patches = [*mode.patches(request, Staged(dict(given))), *models.variant_patches(weights)]
    return models.needed(workflow.build(mode_key, patches))


class WeightsPanel:
    """Listeners of the table. Values are those of :data:`cards.MODELS`."""

    def __init__(self, studio: Studio):
        self.studio = studio

    def show(self, mode: str, note: str = "") -> list[Any]:
        """The table, and whether *Fetch files* has something to do for the current mode."""
        weights = self.studio.weights
        if not weights:
            return [
                {"rows": [], "note": "Known once the engine has started."},
                gr.update(visible=False),
            ]
        if weights == "demo":
            size = sum(p.stat().st_size for p in bootstrap.demo_dir().rglob("*") if p.is_file())
            rows = [{"name": m.title, "text": "demo", "state": "here"} for m in MODES.values()]
            text = f"Demo files, {size_text(size)}, made on this machine."
            return [{"rows": rows, "note": note or text}, gr.update(visible=False)]
        finder = models.finder(bootstrap.comfy_dir())
        rows, missing_here = [], 0
        for key, spec in MODES.items():
            files = files_of(key, weights)
            missing = sum(file.size for file in files if finder.find(file) is None)
            if key == mode:
                missing_here = missing
            total = size_text(sum(file.size for file in files))
            text = f"{size_text(missing)} missing" if missing else total
            rows.append({"name": spec.title, "text": text, "state": "gone" if missing else "here"})
        label = f"Fetch {size_text(missing_here)}"
        button = gr.update(visible=bool(missing_here), value=label, interactive=True)
        return [{"rows": rows, "note": note}, button]

    def fetch(self, mode: str) -> Iterator[list[Any]]:
        """Get what the current mode needs, telling how far it is."""
        table, _ = self.show(mode)
        busy = gr.update(interactive=False)
        try:
            files = files_of(mode, self.studio.weights)
            for event in models.ensure(files, bootstrap.comfy_dir()):
                if isinstance(event, Download):
                    left = f", {event.seconds_left:.0f} s left" if event.seconds_left else ""
                    share = f"{size_text(event.done)} of {size_text(event.total)}"
                    table["note"] = f"{share}, {size_text(int(event.speed))}/s{left}"
                elif isinstance(event, Note):
                    table["note"] = event.text
                yield [dict(table), busy]
        except StudioError as error:
            raise gr.Error(str(error), title="The files were not fetched") from None

    def unload(self, mode: str) -> list[Any]:
        """Give the memory back; waits for a running job to end."""
        if self.studio.engine is not None and self.studio.state.status == "ready":
            self.studio.engine.free()
            return self.show(mode, "The models are unloaded; the next video loads them again.")
        return self.show(mode)
