"""How ComfyUI's editor keeps a node's values: which inputs have a widget, in which order, and how.

The editor stores a node's widget values as a list without names (`widgets_values`), so the order is
everything: ComfyUI's declared input order, the inputs of the choice a dynamic combo takes right
after it, and, in between, the values of widgets that are the editor's own. A few packs store a
dictionary instead. :func:`read` and :func:`write` go both ways; both follow :func:`layout`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Definition = Mapping[str, Any]  # one node of assets/node_schema.json; see tools/capture_schema.py

WIDGET_TYPES = {
    "AUDIO_RECORD",
    "BOOLEAN",
    "BOUNDING_BOX",
    "BOUNDING_BOXES",
    "COLOR",
    "COLORS",
    "COMBO",
    "COMFY_DYNAMICCOMBO_V3",
    "CURVE",
    "FLOAT",
    "IMAGECOMPARE",
    "INT",
    "LOAD_3D",
    "STRING",
    "WEBCAM",
}
EMPTY = {"BOOLEAN": False, "FLOAT": 0.0, "IMAGECOMPARE": ["", ""], "INT": 0}
UNSTORED = {"IMAGECOMPARE"}  # the graph has their values, the file has not
CONTROL = "control_after_generate"
SEEDS = ("seed", "noise_seed")  # an INT of this name gets a control without asking for one
NO_CONTROL = {"Seed (rgthree)"}  # its script takes it away

POWER_LORA = "Power Lora Loader (rgthree)"
POWER_LORA_HEADING = "PowerLoraLoaderHeaderWidget"
CUSTOM_COMBO = "CustomCombo"

# Widgets that are the editor's own and stand before others: class -> {input they follow: count}.
EDITOR_OWN = {"Load3D": {"model_file": 3}}
# Values that come from a pack's script, not from the declared inputs, in front of those.
SCRIPTED = {
    "Power Primitive (rgthree)": ("type", "value"),
    "Power Puter (rgthree)": ("outputs", "code"),
}
# What a widget of the editor alone puts into an exported graph; no node takes it.
DECORATION = {"audioUI", POWER_LORA_HEADING, "➕ Add Lora", "Update inputs"}

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
_ESCAPED = re.compile(r"\\([{}|])")


class Input(NamedTuple):
    """One declared input, unpacked."""

    name: str
    kind: str
    options: Mapping[str, Any]


class Slot(NamedTuple):
    """One widget. ``name`` is empty where it is the editor's own; ``stored``: it is in the file."""

    name: str
    default: Any
    options: Mapping[str, Any] = {}
    kind: str = ""
    stored: bool = True


def inputs(entries: list) -> list[Input]:
    """The captured inputs of a node or of one choice of a dynamic combo."""
    return [Input(e[0], e[1], e[2] if len(e) > 2 else {}) for e in entries]


def has_widget(entry: Input) -> bool:
    """Whether the editor gives this input a widget."""
    if entry.options.get("forceInput"):
        return False
    return "widgetType" in entry.options or entry.kind in WIDGET_TYPES


def default(entry: Input) -> Any:
    """The value of a fresh widget."""
    if "default" in entry.options:
        return entry.options["default"]
    if entry.kind == "COMFY_DYNAMICCOMBO_V3":
        return entry.options["keys"][0][0]
    if entry.kind == "COMBO":
        return next(iter(entry.options.get("choices", [])), "")
    return EMPTY.get(entry.kind, "")


def branch(entry: Input, value: Any) -> list[Input]:
    """The further inputs that a choice brings: a dynamic combo's, or a VHS format's."""
    for choice, entries in entry.options.get("keys", []):
        if choice == value:
            return [sub._replace(name=f"{entry.name}.{sub.name}") for sub in inputs(entries)]
    formats = entry.options.get("formats", {})
    return inputs(formats[value]) if isinstance(value, str) and value in formats else []


def declared(definition: Definition, values: Mapping[str, Any]) -> Iterator[Input]:
    """All inputs a node has when its widgets hold ``values``, in declared order.

    Inputs that grow are not spelled out: they have no widgets.
    """
    yield from _unfold(inputs(definition["in"]), values)


def grown(known: Mapping[str, Input], name: str) -> Input | None:
    """The input of that dotted name that one of the known inputs has grown, if it can."""
    stem, _, rest = name.rpartition(".")
    grow = known[stem].options.get("grow") if stem in known else None
    if grow is None:
        return None
    prefix = grow.get("prefix", "")
    number = rest.removeprefix(prefix)
    numbered = "prefix" in grow and rest.startswith(prefix) and number.isdigit()
    if rest in grow.get("names", ()) or (numbered and int(number) < grow["max"]):
        return inputs([grow["input"]])[0]._replace(name=name)
    return None


def _unfold(entries: list[Input], values: Mapping[str, Any]) -> Iterator[Input]:
    for entry in entries:
        yield entry
        if "keys" in entry.options or "formats" in entry.options:
            # Looked up only now: a reader puts the value in while it holds this generator.
            value = values.get(entry.name, default(entry))
            yield from _unfold(branch(entry, value), values)


def layout(class_type: str, definition: Definition, values: Mapping[str, Any]) -> Iterator[Slot]:
    """The stored values of a node, in order.

    ``values`` decides which inputs a dynamic combo brings; a reader may fill it while it iterates.
    """
    for name in SCRIPTED.get(class_type, ()):
        yield Slot(name, "")
    for entry in declared(definition, values):
        if not has_widget(entry):
            continue
        stored = entry.kind not in UNSTORED
        yield Slot(entry.name, default(entry), entry.options, entry.kind, stored)
        control = entry.options.get(CONTROL)
        if control is None:
            control = entry.kind == "INT" and entry.name in SEEDS and class_type not in NO_CONTROL
        if control:
            yield Slot("", control if isinstance(control, str) else "randomize")
        for _ in range(EDITOR_OWN.get(class_type, {}).get(entry.name, 0)):
            yield Slot("", None)


def read(class_type: str, definition: Definition, stored: Any) -> dict[str, Any]:
    """Input name -> value, from what the editor stored for a node (a list, a dictionary, nothing).

    Inputs beyond the end of the list have their defaults, as in the editor.
    """
    if class_type == POWER_LORA:
        rows = stored.values() if isinstance(stored, dict) else stored or []
        rows = [row for row in rows if isinstance(row, dict) and "lora" in row]
        return {f"lora_{i}": _row(row) for i, row in enumerate(rows, 1)}
    found: dict[str, Any] = {}
    if isinstance(stored, dict):
        for slot in layout(class_type, definition, found):
            if slot.name:
                found[slot.name] = _typed(slot, stored.get(slot.name, slot.default))
        return found
    left = iter(stored or [])
    for slot in layout(class_type, definition, found):
        value = next(left, slot.default) if slot.stored else slot.default
        if slot.name:
            found[slot.name] = _typed(slot, value)
    if class_type == CUSTOM_COMBO:
        found["index"] = next(left, 0)
        found.update((f"option{i}", value) for i, value in enumerate(left, 1))
    return found


def write(class_type: str, definition: Definition, values: Mapping[str, Any]) -> list | dict:
    """What the editor stores for a node whose inputs have these values; linked ones are left out."""
    if class_type == POWER_LORA:
        rows = [dict(v) for v in values.values() if isinstance(v, dict) and "lora" in v]
        return [{}, {"type": POWER_LORA_HEADING}, *rows, {}, ""]
    slots = [slot for slot in layout(class_type, definition, values) if slot.stored]
    if definition["pack"] == "ComfyUI-VideoHelperSuite":
        return {s.name: values.get(s.name, s.default) for s in slots if s.name}
    stored = [
        # The editor must not change the seed of a run that somebody opens again.
        values.get(s.name, s.default) if s.name else "fixed" if s.default else s.default
        for s in slots
    ]
    stored = [
        escape(v) if isinstance(v, str) and s.options.get("dynamicPrompts") else v
        for s, v in zip(slots, stored, strict=True)
    ]
    if class_type == CUSTOM_COMBO:
        stored += [v for name, v in values.items() if name == "index" or name[:6] == "option"]
    return stored


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A Power Lora row as the graph holds it; without a strength of its own, CLIP has none."""
    kept = {
        name: value for name, value in row.items() if name != "strengthTwo" or value is not None
    }
    return {n: float(v) if n.startswith("strength") else v for n, v in kept.items()}


def _typed(slot: Slot, value: Any) -> Any:
    """A number in its input's type: JavaScript saves 24.0 as 24, and the graph must not change."""
    if isinstance(value, bool) or value is None:
        return value
    if slot.kind == "FLOAT" and isinstance(value, int):
        return float(value)
    if slot.kind == "INT" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def sent(class_type: str, definition: Definition, values: dict[str, Any]) -> dict[str, Any]:
    """The values as a node's own widgets send them: prompts are a small language of their own.

    A value that comes from elsewhere, such as a subgraph's widget, is sent as it is.
    """
    prompts = {
        entry.name
        for entry in declared(definition, values)
        if entry.options.get("dynamicPrompts") and isinstance(values.get(entry.name), str)
    }
    return {n: spell_out(v) if n in prompts else v for n, v in values.items()}


def spell_out(text: str) -> str:
    """A prompt as the editor sends it: comments gone, `{a|b}` decided, escapes undone.

    The editor decides by chance; here the first alternative wins, so that extracting twice gives
    the same graph.
    """
    return _ESCAPED.sub(r"\1", _decide(_COMMENT.sub("", text)))


def _decide(text: str) -> str:
    out, at = "", 0
    while at < len(text):
        if text[at] == "\\" and at + 1 < len(text):
            out += text[at : at + 2]
            at += 2
        elif text[at] == "{":
            end, parts = _alternatives(text, at + 1)
            out += _decide(parts[0])
            at = end
        else:
            out += text[at]
            at += 1
    return out


def _alternatives(text: str, at: int) -> tuple[int, list[str]]:
    """The parts of a choice that opens just before ``at``, and where the text goes on after it."""
    parts, depth = [""], 0
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            parts[-1] += text[at : at + 2]
            at += 2
            continue
        at += 1
        if char == "}" and depth == 0:
            return at, parts
        if char == "|" and depth == 0:
            parts.append("")
            continue
        depth += (char == "{") - (char == "}")
        parts[-1] += char
    return at, parts


def escape(text: str) -> str:
    """A prompt that the editor will send as it stands, as far as its language can say it."""
    return re.sub(r"([{}])", r"\\\1", re.sub(r"\\\|", r"\\\\|", text))


def speakable(text: str) -> bool:
    """Whether :func:`escape` can say this text: `//` and `/* */` cannot be escaped."""
    return spell_out(escape(text)) == text
