"""Write assets/node_schema.json: what every node of the pinned ComfyUI and its ten packs takes.

    python tools/capture_schema.py [--comfy FOLDER] [--out assets/node_schema.json] [--check]

It boots the real ComfyUI on the CPU in an empty base folder and asks the handler behind
`/object_info`. The file holds facts only: names, types, defaults, limits. Texts for people
(tooltips, descriptions) and lists that depend on the machine (model files, inputs, GPUs) stay out.
The editor renames some core nodes; those titles come from the front end's own English word list, so
the package `comfyui-frontend-package` (see requirements-dev.txt) has to be installed.

The file is `{"comfyui": version, "nodes": {class_type: node}}`, one node a line, sorted by name.

A node:
    in        [[name, type, options?], ...] in the order ComfyUI declares them, which is the order
              of the editor's widgets: required inputs, then optional ones
    out       [[type, name, template?], ...] by output slot
    pack      "ComfyUI" or the custom node pack's folder name
    title     what the editor calls a fresh one, where that is not its class
    output    true: an output node, which ComfyUI executes even if nothing uses it
    hidden    names of the inputs the executor fills in itself; a graph may carry them
    flexible  {"required"|"optional"|"hidden": type}: takes any further input name (rgthree, VHS)

An input's type is ComfyUI's: `INT`, `MODEL`, a union `IMAGE,MASK`, `*`, `COMBO`, `COMFY_MATCHTYPE_V3`,
`COMFY_DYNAMICCOMBO_V3`, `COMFY_AUTOGROW_V3`. Both spellings of a combo are `COMBO` here, for outputs
too. Its options, each left out where ComfyUI has none:
    optional  true: from the optional inputs
    default, min, max, step
    choices   of a COMBO, in order
    open      true: choices depend on the machine or are made in the editor; `choices` then holds
              only those that are always there (perhaps none)
    control_after_generate, forceInput, socketless, widgetType, multiselect, dynamicPrompts,
    image_upload, video_upload, audio_upload, file_upload, image_folder, hidden, rawLink, lazy
              as ComfyUI has them: they decide which widgets the editor shows
    keys      of a COMFY_DYNAMICCOMBO_V3: [[choice, [input, ...]], ...]; the graph names the inputs
              of the choice taken `<name>.<input>`
    grow      of a COMFY_AUTOGROW_V3: {"input": [name, type, options?], "min": n} with "names": [...]
              or "prefix": text and "max": n; the graph names them `<name>.<names[i]>` or
              `<name>.<prefix><i>` from 0
    template, allowed
              of a COMFY_MATCHTYPE_V3: inputs and outputs of one node with the same template have
              one type, out of `allowed`
    formats   of VHS_VideoCombine's format: {choice: [[name, type, options?], ...]} of extra inputs

Compatible types, as ComfyUI's execution.validate_inputs sees them: equal, or either `*` or
COMFY_MATCHTYPE_V3, or the comma-separated sets overlap.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import bootstrap  # noqa: E402

TARGET = REPO / "assets" / "node_schema.json"
MARKER = "captured-file"
SUFFIXES = (
    ".safetensors",
    ".gguf",
    ".pth",
    ".onnx",
    ".png",
    ".wav",
    ".mp4",
    ".latent",
    ".yaml",
    ".json",
)
PROBE = "__captured_probe__"
KEPT = (
    "default",
    "min",
    "max",
    "step",
    "control_after_generate",
    "forceInput",
    "socketless",
    "widgetType",
    "multiselect",
    "dynamicPrompts",
    "image_upload",
    "video_upload",
    "audio_upload",
    "file_upload",
    "image_folder",
    "hidden",
    "rawLink",
    "lazy",
)
# Left out, the editor gives every input called seed a control of its own.
FALSE_MATTERS = ("default", "control_after_generate")
# The editor or the graphics card fills these combos.
OPEN = {("CustomCombo", "choice"), ("SelectModelDevice", "device"), ("SelectCLIPDevice", "device")}
LONGEST_DEFAULT = 200  # characters; a longer default is a text somebody wrote, not a fact


def _choices(values: list, options: dict) -> None:
    """Set a combo's choices, without the files our markers show it to be made of."""
    fixed = [v for v in values if not (isinstance(v, str) and MARKER in v)]
    if len(fixed) < len(values) or not fixed:
        options["open"] = True
    if fixed:
        options["choices"] = fixed


def _input(name: str, spec: Any, optional: bool) -> list:
    """One input in the captured form, from ComfyUI's `(type, options)`."""
    spec = list(spec) if isinstance(spec, (list, tuple)) else [spec]
    kind, raw = spec[0], spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    options: dict[str, Any] = {"optional": True} if optional else {}
    for key in KEPT:
        value = raw.get(key)
        long = isinstance(value, str) and len(value) > LONGEST_DEFAULT
        marked = isinstance(value, str) and MARKER in value
        told = value is not None and (value is not False or key in FALSE_MATTERS)
        if told and not long and not marked:
            options[key] = value
    if isinstance(kind, (list, tuple)):
        _choices(list(kind), options)
        kind = "COMBO"
    elif kind == "COMBO":
        _choices(list(raw.get("options") or []), options)
    elif kind == "COMFY_DYNAMICCOMBO_V3":
        options["keys"] = [[o["key"], _inputs(o["inputs"])] for o in raw["options"]]
    elif kind == "COMFY_AUTOGROW_V3":
        template = raw["template"]
        [grown] = _inputs(template["input"])
        options["grow"] = {"input": grown, "min": template.get("min", 0)}
        for key in ("names", "prefix", "max"):
            if key in template:
                options["grow"][key] = template[key]
    elif kind == "COMFY_MATCHTYPE_V3":
        options["template"] = raw["template"]["template_id"]
        options["allowed"] = raw["template"]["allowed_types"]
    formats = raw.get("formats")
    if formats and all(isinstance(extra, list) for extra in formats.values()):
        options["formats"] = {
            choice: [_input(e[0], e[1:], False) for e in extra] for choice, extra in formats.items()
        }
    return [name, str(kind), options] if options else [name, str(kind)]


def _inputs(groups: dict[str, dict]) -> list[list]:
    """The required and optional inputs of a node or of one choice of a dynamic combo, in order."""
    return [
        _input(name, spec, group == "optional")
        for group in ("required", "optional")
        for name, spec in groups.get(group, {}).items()
    ]


def editor_titles() -> dict[str, str]:
    """Class -> title, for the nodes that the released front end names itself."""
    package = importlib.util.find_spec("comfyui_frontend_package")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("Install comfyui-frontend-package: pip install -r requirements-dev.txt")
    assets = Path(package.submodule_search_locations[0]) / "static" / "assets"
    for file in sorted(assets.glob("nodeDefs-*.js.map")):
        source = json.loads(file.read_text(encoding="utf-8"))
        if source["sources"][0].endswith("/en/nodeDefs.json"):
            words = json.loads(source["sourcesContent"][0])
            return {name: w["display_name"] for name, w in words.items() if "display_name" in w}
    raise SystemExit(f"{assets} has no English word list; is this another front end version?")


def _node(
    name: str, info: dict[str, Any], flexible: dict[str, str], title: str | None
) -> dict[str, Any]:
    """One node in the captured form, from its `/object_info` entry."""
    module = info["python_module"].split(".")
    node: dict[str, Any] = {
        "in": _inputs(info["input"]),
        "out": [],
        "pack": module[1] if module[0] == "custom_nodes" else "ComfyUI",
    }
    for entry in node["in"]:
        if (name, entry[0]) in OPEN:
            entry[2]["open"] = True
    templates = info.get("output_matchtypes") or [None] * len(info["output"])
    for kind, label, template in zip(info["output"], info["output_name"], templates, strict=False):
        kind = kind if isinstance(kind, str) else "COMBO"
        label = label if isinstance(label, str) else kind
        node["out"].append([kind, label, template] if template else [kind, label])
    title = title or info["display_name"] or name
    if title != name:
        node["title"] = title
    if info["output_node"]:
        node["output"] = True
    if info["input"].get("hidden"):
        node["hidden"] = list(info["input"]["hidden"])
    if flexible:
        node["flexible"] = flexible
    return node


def compact(
    object_info: dict[str, dict],
    flexible: dict[str, dict[str, str]],
    titles: dict[str, str] | None = None,
) -> dict[str, dict]:
    """The captured form of `/object_info`: class_type -> node, sorted.

    `flexible` names the classes that take any further input, group -> type; `titles` has the
    editor's own names, see :func:`editor_titles`.
    """
    return {
        name: _node(
            name,
            object_info[name],
            flexible.get(name, {}),
            (titles or {}).get(name.replace(".", "_")),
        )
        for name in sorted(object_info)
    }


def flexible_inputs(mappings: dict[str, type]) -> dict[str, dict[str, str]]:
    """The classes whose INPUT_TYPES answers to any name, by group and type.

    Only Python sees this: as JSON such a dictionary looks empty.
    """
    found: dict[str, dict[str, str]] = {}
    for name, cls in mappings.items():
        for group, inputs in cls.INPUT_TYPES().items():
            if isinstance(inputs, dict) and PROBE not in list(inputs) and PROBE in inputs:
                kind = inputs[PROBE]
                kind = kind[0] if isinstance(kind, (list, tuple)) else kind
                found.setdefault(name, {})[group] = str(kind or "*")
        if getattr(cls, "ACCEPT_ALL_INPUTS", False):
            found.setdefault(name, {})["optional"] = "*"
    return found


def _mark(folders: list[str]) -> None:
    """Put one small file of every kind into the folders whose listings ComfyUI offers as choices."""
    for folder in folders:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for suffix in SUFFIXES:
            (Path(folder) / f"{MARKER}{suffix}").touch()


def capture(comfy: Path, base: Path, titles: dict[str, str]) -> tuple[str, dict[str, dict]]:
    """ComfyUI's version and the captured form of its nodes. Boots ComfyUI in this process.

    Args:
        comfy: ComfyUI's folder, with the packs in its custom_nodes.
        base: an empty folder that ComfyUI may write to.
        titles: the editor's own names of nodes, see :func:`editor_titles`.
    """
    sys.path.insert(0, str(comfy))
    os.environ["MPLCONFIGDIR"] = str(base / "matplotlib")
    os.environ["AUX_ANNOTATOR_CKPTS_PATH"] = str(base / "ckpts")
    from comfy.cli_args import args

    (base / "front").mkdir(parents=True)
    args.cpu = True
    args.base_directory = str(base)
    args.front_end_root = str(base / "front")
    args.disable_all_custom_nodes = True
    args.whitelist_custom_nodes = list(bootstrap.packs_allowed())

    import folder_paths

    folder_paths.folder_names_and_paths["custom_nodes"] = ([str(comfy / "custom_nodes")], set())
    import comfyui_version
    import nodes
    import server

    class Quiet(server.PromptServer):
        def send_sync(self, *_args, **_kwargs) -> None:
            """Nobody listens."""

    async def ask() -> dict[str, dict]:
        quiet = Quiet(asyncio.get_running_loop())
        await nodes.init_extra_nodes(init_custom_nodes=True, init_api_nodes=False)
        listed = {
            path for paths, _ in folder_paths.folder_names_and_paths.values() for path in paths
        }
        inside = [path for path in listed if Path(path).is_relative_to(base)]
        _mark([*inside, folder_paths.get_input_directory()])
        [handler] = [
            route.handler
            for route in quiet.routes
            if route.method == "GET" and route.path == "/object_info"
        ]
        info = json.loads((await handler(None)).body)
        return compact(info, flexible_inputs(nodes.NODE_CLASS_MAPPINGS), titles)

    with contextlib.redirect_stdout(sys.stderr):  # packs greet whoever loads them
        return comfyui_version.__version__, asyncio.run(ask())


def dump(version: str, nodes: dict[str, dict]) -> str:
    """The file's text: one node a line, so that a difference between two captures is readable."""
    lines = (
        f"{json.dumps(name)}:{json.dumps(node, separators=(',', ':'), sort_keys=True)}"
        for name, node in sorted(nodes.items())
    )
    return f'{{"comfyui":{json.dumps(version)},"nodes":{{\n' + ",\n".join(lines) + "\n}}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--comfy", type=Path, default=bootstrap.comfy_dir(), help="ComfyUI's folder"
    )
    parser.add_argument("--out", type=Path, default=TARGET)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 if different")
    options = parser.parse_args()
    out = options.out.resolve()
    with tempfile.TemporaryDirectory() as base:
        text = dump(*capture(options.comfy.resolve(), Path(base).resolve(), editor_titles()))
    if options.check:
        same = out.is_file() and out.read_text(encoding="utf-8") == text
        print(f"{out.name} is {'up to date' if same else 'out of date'}.")
        return 0 if same else 1
    out.write_text(text, encoding="utf-8")
    print(f"{out}: {text.count(chr(10)) - 2} nodes, {len(text) / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.stdout.flush()
    status = main()
    sys.stdout.flush()
    os._exit(status)  # packs leave threads behind
