"""The form, built from the modes' fields: one set of controls that a mode shows, hides and relabels.

Six forms would weigh four times as much in the browser, and a person who changes the mode would lose
what they wrote. What is in the form becomes a :class:`request.Request` in :func:`collect`; a request
goes back into it through :meth:`Form.updates`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr

import cards
import media
import sizes
from errors import BadInput
from fields import Field
from modes import MODES, Mode
from request import VALUE_NAMES, Request, check_value

UNION: dict[str, Field] = {}  # by name, as the first mode that has it describes it
PARTS: dict[str, Field] = {}  # the controls: a field whose choices differ has one for each set


def part_of(mode: Mode, spec: Field) -> str:
    """The key of the control that stands for a mode's field.

    Gradio refuses a value that is not among a control's present choices, and the browser may still
    send the old mode's value after a change; so choices are never changed, controls are.
    """
    return spec.name if UNION[spec.name].choices == spec.choices else f"{spec.name}-{mode.key}"


for _mode in MODES.values():
    for _field in _mode.fields:
        UNION.setdefault(_field.name, _field)
        PARTS.setdefault(part_of(_mode, _field), _field)

MEDIA = tuple(name for name, spec in UNION.items() if spec.is_media)
IMAGES = tuple(name for name in MEDIA if UNION[name].kind == "image")
LORAS = tuple(
    name
    for name in UNION
    if name.split("_")[0] in ("camera", "detailer", "ic", "pose") and name in UNION
)
# What can be refused by value; a choice, a toggle and a slider cannot leave their limits.
FALLIBLE = (*MEDIA, "prompt", "negative_prompt", "width", "height", "seconds", "fps", "seed")
FALLIBLE += ("audio_start",)
FIRST_MODE = next(iter(MODES))
MODE_CHOICES = [(mode.title, mode.key) for mode in MODES.values()]
UPLOAD_HELP = {
    "image": "PNG, JPEG or WebP",
    "audio": "WAV, MP3, FLAC or M4A",
    "video": "MP4, MOV or WebM",
}


def words(choice: str) -> str:
    """A choice's value as a person reads it."""
    return choice.replace("-", " ").capitalize()


@dataclass
class Form:
    """The page's controls: by field name, with the places for their errors and what was seen in files.

    ``order`` is the order of values in every event that takes the whole form.
    """

    parts: dict[str, gr.components.Component] = field(default_factory=dict)
    errors: dict[str, gr.HTML] = field(default_factory=dict)
    crops: dict[str, gr.HTML] = field(default_factory=dict)
    rows: dict[str, Any] = field(default_factory=dict)
    aspect: Any = None
    resolution: Any = None
    preset_words: Any = None
    randomise: Any = None
    reuse_seed: Any = None
    heard: Any = None
    fit: Any = None
    order: tuple[str, ...] = tuple(PARTS)

    def inputs(self) -> list[Any]:
        """All controls, in ``order``."""
        return [self.parts[name] for name in self.order]

    def outputs(self) -> list[Any]:
        """What :meth:`updates` returns values for."""
        return [*self.inputs(), self.aspect, self.resolution, *self.rows.values()]

    def updates(self, mode_key: str, values: dict[str, Any] | None = None) -> list[Any]:
        """Show a mode: its own fields, labels, choices; ``values`` by field name where given."""
        mode, given = MODES[mode_key], values or {}
        made = [self._part(mode, name, given) for name in self.order]
        width, height = given.get("width"), given.get("height")
        if width and height:
            aspect, resolution = sizes.names_for(width, height, mode.size_step)
            made += [gr.update(value=aspect), gr.update(value=resolution)]
        else:
            made += [gr.skip(), gr.skip()]
        made += [gr.update(visible=any(mode.field(n) for n in names)) for names in self.rows]
        return made

    def values(self, mode_key: str, raw: tuple[Any, ...]) -> dict[str, Any]:
        """Values in ``order`` -> by field name, each from the control its mode shows."""
        mode, by_part = MODES[mode_key], dict(zip(self.order, raw, strict=True))
        shown = {f.name: by_part[part_of(mode, f)] for f in mode.fields}
        return {name: shown.get(name, by_part[name]) for name in UNION}

    def _part(self, mode: Mode, key: str, given: dict[str, Any]) -> Any:
        name = PARTS[key].name
        spec = mode.field(name)
        if spec is None or part_of(mode, spec) != key:
            return gr.update(visible=False)
        change: dict[str, Any] = {"visible": True, "label": label(spec)}
        if not spec.is_media:
            change["info"] = spec.help
        if name in given:
            change["value"] = given[name]
        elif name in KEPT_APART:
            change["value"] = spec.default
        return gr.update(**change)


# Their default differs from mode to mode, so a mode change sets them anew.
KEPT_APART = tuple(
    name for name in UNION if len({f.default for m in MODES.values() if (f := m.field(name))}) > 1
)


def label(spec: Field) -> str:
    """The field's label with its unit, and whether it may be left out."""
    text = spec.label + (f" ({spec.unit})" if spec.unit else "")
    return text + ("" if spec.required or not spec.is_media else " (optional)")


def choices(spec: Field) -> list[tuple[str, str]]:
    """(what is read, value) for each choice."""
    if spec.name == "preset":
        return [(p.title, p.key) for p in MODES[FIRST_MODE].presets.values()]
    return [(words(choice), choice) for choice in spec.choices]


def control(spec: Field, visible: bool, key: str) -> Any:
    """The Gradio component for a field; ``key`` is what :data:`PARTS` calls it."""
    common = {"label": label(spec), "visible": visible, "elem_id": f"field-{key}"}
    if spec.kind == "image":
        common |= {"type": "filepath", "sources": ["upload", "clipboard"], "image_mode": None}
        return gr.Image(height=190, buttons=[], placeholder=UPLOAD_HELP["image"], **common)
    if spec.kind == "audio":
        return gr.Audio(type="filepath", sources=["upload", "microphone"], buttons=[], **common)
    if spec.kind == "video":
        return gr.Video(sources=["upload"], height=220, buttons=[], **common)
    common |= {"info": spec.help, "value": spec.default}
    if spec.kind == "text":
        high = 4 if spec.name == "prompt" else 2
        shown = PLACEHOLDER if spec.name == "prompt" else None
        return gr.Textbox(lines=high, max_lines=12, placeholder=shown, **common)
    if spec.kind == "toggle":
        return gr.Checkbox(**common)
    if spec.kind == "choice":
        kind = gr.Radio if len(spec.choices) <= 3 else gr.Dropdown
        return kind(choices=choices(spec), **common)
    if spec.name == "seconds" or spec.name.endswith("strength"):
        return gr.Slider(spec.minimum, spec.maximum, step=spec.step, **common)
    return gr.Number(precision=0 if spec.kind == "integer" else None, step=spec.step, **common)


PLACEHOLDER = "A lighthouse keeper climbs the last steps and lights the lamp; wind, gulls, the hum of the lens."


def place(form: Form, name: str) -> None:
    """Put a field and the room for its error into the current column."""
    spec, first = UNION[name], MODES[FIRST_MODE]
    for key, part in PARTS.items():
        if part.name == name:
            mine = first.field(name)
            form.parts[key] = control(part, mine is not None and part_of(first, mine) == key, key)
    if name in FALLIBLE:
        form.errors[name] = cards.card(cards.FIELD_ERROR, "", "slot")
    if spec.kind == "image":
        form.crops[name] = cards.card(cards.CROP, {}, "slot")


def row(form: Form, *names: str) -> None:
    """Fields side by side, in a row that hides with them."""
    shown = any(MODES[FIRST_MODE].field(name) for name in names)
    with gr.Row(visible=shown, equal_height=False) as made:
        for name in names:
            with gr.Column(min_width=150):
                place(form, name)
    form.rows[names] = made


def build() -> Form:
    """All controls, in the order a person fills them in. Call inside a ``gr.Blocks``."""
    form = Form()
    place(form, "prompt")
    row(form, "first_frame", "last_frame")
    row(form, "video")
    row(form, "image")
    row(form, "audio")
    with gr.Row(visible=False, elem_classes="studio-heard-row") as heard_row:
        form.heard = cards.card(cards.HEARD, "", "slot", scale=3)
        form.fit = gr.Button("Fit the clip to it", size="sm", scale=1, min_width=130)
    form.rows[("audio", "audio_start")] = heard_row
    place(form, "control")
    place(form, "preset")
    form.preset_words = cards.card(cards.PRESET, {}, "slot")
    with gr.Row():
        form.aspect = gr.Radio(
            [*sizes.ASPECTS, sizes.CUSTOM], value="3:2", label="Shape", elem_id="aspect", scale=3
        )
        form.resolution = gr.Dropdown(
            [*sizes.RESOLUTIONS, sizes.CUSTOM],
            value="Standard",
            label="Resolution",
            elem_id="resolution",
            scale=2,
            min_width=140,
            filterable=False,
        )
    place(form, "seconds")
    with gr.Row(equal_height=False):
        for name in ("fps", "seed"):
            with gr.Column(min_width=150):
                place(form, name)
    with gr.Row(equal_height=False, elem_id="seed-tools"):
        form.randomise = gr.Checkbox(
            True, label="New seed for every video", elem_id="randomise", container=False, scale=3
        )
        form.reuse_seed = gr.Button(
            "Reuse last seed", size="sm", interactive=False, scale=2, min_width=120
        )
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        row(form, "width", "height")
        rest = [n for n, f in UNION.items() if f.advanced and n not in LORAS and n != "metadata"]
        for name in rest:
            place(form, name)
        place(form, "metadata")
    with gr.Accordion("Camera, detail and pose LoRAs", open=False, elem_id="loras"):
        for first, second in zip(LORAS[::2], LORAS[1::2], strict=True):
            row(form, first, second)
    return form


# ---------------------------------------------------------------------------------- values


def collect(
    mode_key: str, values: dict[str, Any]
) -> tuple[Request | None, dict[str, str], list[str]]:
    """What is in the form as a request.

    Returns:
        (the request, or None; errors by field name; labels of required files not given yet)
    """
    mode = MODES[mode_key]
    mine = {f.name: values.get(f.name) for f in mode.fields}
    errors: dict[str, str] = {}
    missing = [f.label for f in mode.fields if f.required and not mine[f.name]]
    for spec in mode.fields:
        value = mine[spec.name]
        if spec.is_media:
            if value and (problem := file_problem(value, spec.kind, spec.label)):
                errors[spec.name] = problem
        elif value is None:
            errors[spec.name] = f"{spec.label} is empty."
        else:
            try:
                check_value(spec, value)
            except BadInput as error:
                errors[spec.name] = sentence(error, spec)
    if errors or missing:
        return None, errors, missing
    try:
        request = Request(mode=mode_key, **{k: v for k, v in mine.items() if v is not None})
        media.plan(request)
    except BadInput as error:
        name = error.where if error.where in UNION else "prompt"
        return None, {name: sentence(error, UNION[name])}, []
    return request, {}, []


def sentence(error: BadInput, spec: Field) -> str:
    """An error's text with the field called as the form calls it."""
    text = str(error)
    for prefix in (f"{spec.name}: ", f"{spec.name} "):
        text = text.removeprefix(prefix)
    return f"{spec.label}: {text}" if text != str(error) else text


def file_problem(path: str, kind: str, shown: str) -> str:
    """What is wrong with an uploaded file, as a sentence; empty when it can be used."""
    stamp = _stamp(path)
    return _probe(path, stamp, kind)[1].replace(f"{kind}: ", f"{shown}: ", 1)


def info(path: str, kind: str) -> media.MediaInfo | None:
    """What a file holds; None when it cannot be used. Remembered by path and time of change."""
    return _probe(path, _stamp(path), kind)[0]


def _stamp(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=256)
def _probe(path: str, stamp: int, kind: str) -> tuple[media.MediaInfo | None, str]:
    try:
        return media.probe(path, kind), ""
    except BadInput as error:
        return None, str(error)


def values_of(request: Request) -> dict[str, Any]:
    """A request's values by field name, for :meth:`Form.updates`; files only where they exist."""
    values = {name: getattr(request, name) for name in VALUE_NAMES if name in UNION}
    known = {f.name for f in MODES[request.mode].fields}
    found = {name: value for name, value in values.items() if name in known}
    for name in MEDIA:
        if name in found and not (found[name] and Path(found[name]).is_file()):
            found[name] = None
    return found


def defaults(mode_key: str) -> dict[str, Any]:
    """A mode's defaults by field name, files empty, sizes those of its first preset."""
    mode = MODES[mode_key]
    values = {f.name: f.default for f in mode.fields if not f.is_media}
    size = mode.presets[values["preset"]].default_size
    if size:
        values["width"], values["height"] = size
    return values


def article(text: str) -> str:
    """``an image``, ``a source video``."""
    return ("an " if text[0].lower() in "aeiou" else "a ") + text[0].lower() + text[1:]
