"""Write docs/workflows.md's tables and pictures: the six graphs as they are and what is patched.

    python tools/draw_workflows.py            write docs/workflows.md and docs/workflow_*.svg
    python tools/draw_workflows.py --check    exit 1 where they differ

Which control sets which input is found out, not written down: a control is changed, and the patches
are compared with those before.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

REPO = Path(__file__).resolve().parent.parent
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))

import editor  # noqa: E402
import workflow  # noqa: E402
from fields import Field  # noqa: E402
from modes import MODES, Mode  # noqa: E402
from tools import _documents  # noqa: E402

DOCS = REPO / "docs"
PAGE = DOCS / "workflows.md"
HEAD = 30  # pixels of a node's title bar
SCALE = 0.4  # of the picture against the editor's pixels
FILES = {"image": "a.png", "audio": "a.wav", "video": "a.mp4"}
SILENT = "silent.mp4"


def changes(spec: Field) -> list[Any]:
    """Values of a control to compare with its default; a file's name for a file."""
    if spec.is_media:
        return ["other_" + FILES[spec.kind]]
    if spec.kind == "choice":
        return list(spec.choices)
    if spec.kind == "toggle":
        return [True, False]
    if spec.kind == "text":
        return ["other words"]
    return [type(spec.default)(spec.minimum), type(spec.default)(spec.maximum)]


def patches(mode: Mode, **given: Any) -> dict[tuple[str, str], Any]:
    """(title, input) -> value, of a job with the defaults and what is given."""
    switched_on = {"camera": "static", "detailer": True, "pose": True}
    values = {spec.name: spec.default for spec in mode.fields}
    values.update({k: v for k, v in switched_on.items() if k in values})
    if mode.field("ic_lora") and "none" in mode.field("ic_lora").choices:
        values["ic_lora"] = "union-control"
    media = {spec.name: FILES[spec.kind] for spec in mode.fields if spec.is_media}
    media.update({name: given.pop(name) for name in list(given) if name in media})
    # The sound of a source video, where it has any, is staged apart.
    if "audio" not in media and media.get("video", SILENT) != SILENT:
        media["audio"] = "sound_of_" + media["video"] + ".wav"
    values.update(given)
    job = SimpleNamespace(**values)
    job.frames = 8 * round(job.seconds * job.fps / 8) + 1
    made = mode.patches(job, SimpleNamespace(names={k: v for k, v in media.items() if v}))
    return {(title, name): value for title, name, value in made}


def patched(mode: Mode) -> dict[tuple[str, str], list[str]]:
    """Every (title, input) that any job of this mode sets -> the controls that change it."""
    found: dict[tuple[str, str], list[str]] = {key: [] for key in patches(mode)}
    bases = [{}, {"video": SILENT}] if mode.field("video") else [{}]
    for base in bases:
        before = patches(mode, **base)
        for spec in mode.fields:
            values = changes(spec)
            if spec.is_media and not spec.required:
                values.append("")
            if spec.kind == "video":
                values.append(SILENT)
            for value in values:
                after = patches(mode, **{**base, spec.name: value})
                for key in sorted(set(before) | set(after)):
                    if before.get(key) != after.get(key):
                        users = found.setdefault(key, [])
                        if spec.name not in users:
                            users.append(spec.name)
    return found


def table(mode: Mode) -> str:
    """The Markdown table of one mode."""
    graph = workflow.load(mode.key)
    rows = []
    for (title, name), users in patched(mode).items():
        kind = graph[workflow.find(graph, title)]["class_type"]
        rows.append((title, f"`{kind}`", f"`{name}`", ", ".join(f"`{u}`" for u in users)))
    return _documents.table(("node's title", "type", "input", "changed by"), rows)


def picture(mode: Mode) -> str:
    """The mode's template as an SVG, laid out as it opens in ComfyUI."""
    flow = editor.to_editor(workflow.load(mode.key))
    nodes = {node["id"]: node for node in flow["nodes"] if node["type"] != "MarkdownNote"}
    boxes = [(*g["bounding"], g["title"]) for g in flow["groups"]]
    left = min([b[0] for b in boxes] + [n["pos"][0] for n in nodes.values()]) - 20
    top = min([b[1] for b in boxes] + [n["pos"][1] - HEAD for n in nodes.values()]) - 20
    right = max([b[0] + b[2] for b in boxes] + [n["pos"][0] + n["size"][0] for n in nodes.values()])
    low = max([b[1] + b[3] for b in boxes] + [n["pos"][1] + n["size"][1] for n in nodes.values()])
    width, height = right - left + 20, low - top + 20
    titles = {title for title, _ in patched(mode)}
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left:.0f} {top:.0f} {width:.0f} {height:.0f}" '
        f'width="{width * SCALE:.0f}" height="{height * SCALE:.0f}" font-family="sans-serif">',
        f"<title>{escape(mode.title)}: the graph of workflows/{mode.key}.json</title>",
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{height:.0f}" fill="#1b1d22"/>',
    ]
    for x, y, w, h, title in boxes:
        out.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{w:.0f}" height="{h:.0f}" rx="8" fill="#262a33"/>'
            f'<text x="{x + 14:.0f}" y="{y + 34:.0f}" font-size="28" fill="#9aa4b8">{escape(title)}</text>'
        )
    for link in flow["links"]:
        a, b = nodes.get(link[1]), nodes.get(link[3])
        if not (a and b):
            continue
        x1, y1 = a["pos"][0] + a["size"][0], a["pos"][1] + 14 + 20 * link[2]
        x2, y2 = b["pos"][0], b["pos"][1] + 14 + 20 * link[4]
        bend = max(40, abs(x2 - x1) / 3)
        out.append(
            f'<path d="M{x1:.0f} {y1:.0f}C{x1 + bend:.0f} {y1:.0f} {x2 - bend:.0f} {y2:.0f} '
            f'{x2:.0f} {y2:.0f}" fill="none" stroke="#6f7d99" stroke-width="2" opacity=".7"/>'
        )
    for node in nodes.values():
        (x, y), (w, h) = node["pos"], node["size"]
        name = node.get("title") or node["type"]
        color = "#7a5b1e" if name in titles else "#3a4152"
        out.append(
            f'<rect x="{x:.0f}" y="{y - HEAD:.0f}" width="{w:.0f}" height="{h + HEAD:.0f}" rx="6" '
            f'fill="#343a47" stroke="#4d566a"/>'
            f'<rect x="{x:.0f}" y="{y - HEAD:.0f}" width="{w:.0f}" height="{HEAD}" rx="6" fill="{color}"/>'
            f'<text x="{x + 8:.0f}" y="{y - 9:.0f}" font-size="17" fill="#f2f2f2">{escape(name)}</text>'
            f'<text x="{x + 8:.0f}" y="{y + 20:.0f}" font-size="13" fill="#b8bfcc">{escape(node["type"])}</text>'
        )
    return "\n".join([*out, "</svg>", ""])


def contents() -> dict[Path, str]:
    """Every file this tool writes, and its text."""
    text = PAGE.read_text(encoding="utf-8")
    files: dict[Path, str] = {}
    for mode in MODES.values():
        text = _documents.replaced(text, f"patches-{mode.key}", table(mode))
        files[DOCS / f"workflow_{mode.key}.svg"] = picture(mode)
    return {PAGE: text, **files}


if __name__ == "__main__":
    sys.exit(_documents.settle(contents(), __doc__ or ""))
