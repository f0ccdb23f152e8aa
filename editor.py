"""From the API format to the editor's: a graph that opens in ComfyUI laid out to be read.

The way back is export.py; `from_editor(to_editor(graph))` is the graph again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import layout
import schema as captured
import widgets
from export import ALWAYS, EditorError
from workflow import Graph, is_link, title

FORMAT = 0.4  # the version of the editor's file format
SLOT, WIDGET, TEXT = 20, 24, 140  # heights: a socket, a widget, a widget of several lines
NARROW, WIDE = 240, 340
PREVIEWS = {"LoadImage": 220, "LoadVideo": 220, "SaveVideo": 260, "LoadAudio": 60}
GROUP_MARGIN = 30
GROUP_TITLE = 50
SECTION_GAP = 60
SCREEN = (1500, 800)  # pixels of the editor's canvas that nothing covers, on a small screen
CORNER = (80, 110)  # where they begin
COLORS = ("#3f789e", "#a1309b", "#8A8", "#b58b2a", "#88A", "#b06634")
PRIMITIVES = {
    str: "PrimitiveStringMultiline",
    bool: "PrimitiveBoolean",
    int: "PrimitiveInt",
    float: "PrimitiveFloat",
}
NAMESPACE = uuid.UUID("6f0cbb5c-3f0c-5d0b-9b53-0c4f3c1d7a11")  # for ids of files, any constant


@dataclass
class Board:
    """An editor-format workflow in the making."""

    schema: Mapping[str, widgets.Definition]
    nodes: dict[int, dict[str, Any]] = field(default_factory=dict)
    links: list[list[Any]] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)

    def node(self, node_id: int, node: Mapping[str, Any], mode: int = ALWAYS) -> dict[str, Any]:
        """Add one node of an API-format graph; its links come later, see :meth:`connect`."""
        kind = node["class_type"]
        definition = self.schema[kind]
        values = {n: _unwrap(v) for n, v in node["inputs"].items() if not is_link(v)}
        made = {
            "id": node_id,
            "type": kind,
            "pos": [0, 0],
            "size": list(size(kind, definition, node["inputs"])),
            "flags": {},
            "order": 0,
            "mode": mode,
            "inputs": _sockets(definition, node["inputs"]),
            "outputs": [
                {"name": name, "type": "*" if "MATCHTYPE" in out else out, "links": None}
                for out, name, *_ in definition["out"]
            ],
            "title": node.get("_meta", {}).get("title") or definition.get("title", kind),
            "properties": {"Node name for S&R": kind},
            "widgets_values": widgets.write(kind, definition, values),
        }
        self.nodes[node_id] = made
        return made

    def virtual(self, node_id: int, kind: str, name: str, **more: Any) -> dict[str, Any]:
        """Add a node that only the editor knows."""
        made = {
            "id": node_id,
            "type": kind,
            "pos": [0, 0],
            "size": [NARROW, 60],
            "flags": {},
            "order": 0,
            "mode": ALWAYS,
            "inputs": [],
            "outputs": [],
            "title": name,
            "properties": {},
            "widgets_values": [],
            **more,
        }
        self.nodes[node_id] = made
        return made

    def connect(self, origin: int, slot: int, target: int, name: str) -> None:
        """Link an output to an input."""
        outputs = self.nodes[origin]["outputs"]
        if slot >= len(outputs):
            raise EditorError(
                f"There is no output {slot}", f"{self.nodes[origin]['title']!r} (node {origin})"
            )
        out = outputs[slot]
        inputs = self.nodes[target]["inputs"]
        [index] = [i for i, entry in enumerate(inputs) if entry["name"] == name]
        number = len(self.links) + 1
        inputs[index]["link"] = number
        out["links"] = [*(out["links"] or []), number]
        kind = out["type"] if out["type"] != "*" else inputs[index]["type"]
        self.links.append([number, origin, slot, target, index, kind])

    def edges(self) -> list[tuple[int, int]]:
        """All links as (from, to)."""
        return [(link[1], link[3]) for link in self.links]

    def block(self, ids: Iterable[int], at: layout.Point, name: str, color: str) -> None:
        """Lay some nodes out in a group of their own."""
        sizes = {node_id: tuple(self.nodes[node_id]["size"]) for node_id in ids}
        for node_id, (x, y) in layout.arrange(sizes, self.edges())[0].items():
            self.nodes[node_id]["pos"] = [
                round(at[0] + GROUP_MARGIN + x),
                round(at[1] + GROUP_TITLE + y),
            ]
        self.group(name, at, self.extent(ids), color)

    def group(self, name: str, at: layout.Point, extent: layout.Size, color: str) -> None:
        """Draw a titled frame."""
        self.groups.append(
            {
                "id": len(self.groups) + 1,
                "title": name,
                "bounding": [round(at[0]), round(at[1]), round(extent[0]), round(extent[1])],
                "color": color,
                "font_size": 24,
                "flags": {},
            }
        )

    def flow(self, parts: Mapping[str, list[int]], at: layout.Point) -> None:
        """Lay sections out side by side, in as many rows as show them largest on a screen."""
        extents = {name: self.extent(ids) for name, ids in parts.items()}
        names = list(parts)

        def zoom(rows: list[list[str]]) -> float:
            width = max(sum(extents[n][0] + SECTION_GAP for n in row) for row in rows)
            height = sum(max(extents[n][1] for n in row) + SECTION_GAP for row in rows)
            return min(SCREEN[0] / width, SCREEN[1] / height)

        y = at[1]
        for row in max(_rows(names), key=zoom):
            first = names.index(row[0])
            _, height = self.strip({n: parts[n] for n in row}, (at[0], y), COLORS[first:])
            y += height + SECTION_GAP

    def strip(
        self, parts: Mapping[str, list[int]], at: layout.Point, colors: tuple[str, ...] = COLORS
    ) -> layout.Size:
        """Lay sections out side by side in one row; the row's size."""
        x = tall = 0.0
        for (name, ids), color in zip(parts.items(), (*colors, *COLORS * len(parts)), strict=False):
            width, height = self.extent(ids)
            self.block(ids, (at[0] + x, at[1]), name, color)
            x, tall = x + width + SECTION_GAP, max(tall, height)
        return x - SECTION_GAP, tall

    def extent(self, ids: Iterable[int]) -> layout.Size:
        """The size of the group that :meth:`block` would make."""
        sizes = {node_id: tuple(self.nodes[node_id]["size"]) for node_id in ids}
        width, height = layout.arrange(sizes, self.edges())[1]
        return width + 2 * GROUP_MARGIN, height + GROUP_TITLE + GROUP_MARGIN

    def workflow(self, name: str) -> dict[str, Any]:
        """The file's content. The same board gives the same content, its id included."""
        order = layout.depths(self.nodes, self.edges())
        for place, node_id in enumerate(sorted(self.nodes, key=lambda k: order[k])):
            self.nodes[node_id]["order"] = place
        return {
            "id": str(uuid.uuid5(NAMESPACE, name)),
            "revision": 0,
            "last_node_id": max(self.nodes, default=0),
            "last_link_id": len(self.links),
            "nodes": list(self.nodes.values()),
            "links": self.links,
            "groups": self.groups,
            "config": {},
            "extra": {"ds": _view(self.groups)},
            "version": FORMAT,
        }


def to_editor(
    graph: Graph,
    schema: Mapping[str, widgets.Definition] | None = None,
    name: str = "LTX 2.3 Studio",
) -> dict[str, Any]:
    """The editor-format workflow of an API-format graph, its values in the widgets.

    Args:
        graph: any graph of known node types; numeric ids are kept.
        schema: class -> definition; by default the captured one.
        name: the same name gives the same file id.
    """
    schema = captured.load() if schema is None else schema
    graph = tellable(graph, schema)
    ids = number(graph)
    board = Board(schema)
    for key, node in graph.items():
        board.node(ids[key], node)
    wire(board, graph, ids)
    titles = {ids[key]: title(graph, key) for key in graph}
    loading = [ids[key] for key, node in graph.items() if loads(node, schema)]
    board.flow(layout.sections(titles, board.edges(), loading), (0, 0))
    return board.workflow(name)


def wire(board: Board, graph: Graph, ids: Mapping[str, int]) -> None:
    """Draw all links of a graph whose nodes are on the board."""
    for key, node in graph.items():
        for name, value in node["inputs"].items():
            if is_link(value):
                board.connect(ids[value[0]], value[1], ids[key], name)


def number(graph: Graph) -> dict[str, int]:
    """Graph id -> editor id: the same number, or a free one for ids such as `12:34`."""
    ids = {key: int(key) for key in graph if key.isdigit()}
    free = max(ids.values(), default=0)
    for key in graph:
        if key not in ids:
            free += 1
            ids[key] = free
    return ids


def loads(node: Mapping[str, Any], schema: Mapping[str, widgets.Definition]) -> bool:
    """Whether a node only brings a model into the graph."""
    linked = any(is_link(value) for value in node["inputs"].values())
    kinds = {out[0] for out in schema[node["class_type"]]["out"]}
    media = {"IMAGE", "AUDIO", "VIDEO", "LATENT", "INT", "FLOAT", "STRING", "SIGMAS", "SAMPLER"}
    return not linked and "oader" in node["class_type"] and not kinds & media


def tellable(graph: Graph, schema: Mapping[str, widgets.Definition]) -> Graph:
    """The graph, with values that no widget can hold moved into nodes of their own.

    These are values in inputs that are sockets in the editor, and prompts that it would change: it
    takes `//` for a comment, and nothing escapes that. A linked text it leaves alone.
    """
    changed: Graph = {}
    free = max(number(graph).values(), default=0)
    for key, node in graph.items():
        inputs = dict(node["inputs"])
        known = {e.name: e for e in widgets.declared(schema[node["class_type"]], inputs)}
        for name, value in node["inputs"].items():
            entry = known.get(name) or known.get(name.split(".")[0])
            if entry is None or type(value) not in PRIMITIVES:
                continue
            prompt = entry.options.get("dynamicPrompts") and isinstance(value, str)
            if widgets.has_widget(entry) and not (prompt and not widgets.speakable(value)):
                continue
            free += 1
            changed[str(free)] = {
                "class_type": PRIMITIVES[type(value)],
                "_meta": {"title": f"{title(graph, key)}: {name}"},
                "inputs": {"value": value},
            }
            inputs[name] = [str(free), 0]
        changed[key] = {**node, "inputs": inputs}
    return changed


def size(kind: str, definition: widgets.Definition, inputs: Mapping[str, Any]) -> layout.Size:
    """Width and height that hold a node's sockets and widgets."""
    sockets = len(_sockets(definition, inputs))
    slots = [s for s in widgets.layout(kind, definition, inputs) if s.stored]
    texts = sum(bool(s.options.get("dynamicPrompts")) for s in slots) + (kind == PRIMITIVES[str])
    rows = len(slots) - texts
    if kind == widgets.POWER_LORA:
        rows = 3 + sum(isinstance(v, dict) for v in inputs.values())
    height = 6 + SLOT * max(sockets, len(definition["out"]))
    height += (8 + WIDGET * rows if rows else 0) + TEXT * texts + PREVIEWS.get(kind, 0)
    return (WIDE if slots or kind == widgets.POWER_LORA else NARROW), height


def _sockets(definition: widgets.Definition, inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A node's inputs as the editor lists them: sockets, then linked widgets."""
    plain, linked = [], []
    for entry in widgets.declared(definition, inputs):
        kind = "*" if "MATCHTYPE" in entry.kind else entry.kind
        if "grow" in entry.options:
            grown = entry.options["grow"]["input"][1]
            plain += [
                {"name": name, "type": "*" if "MATCHTYPE" in grown else grown, "link": None}
                for name in inputs
                if name.startswith(f"{entry.name}.")
            ]
        elif not widgets.has_widget(entry):
            plain.append({"name": entry.name, "type": kind, "link": None})
        elif is_link(inputs.get(entry.name)):
            slot = {"name": entry.name, "type": kind, "widget": {"name": entry.name}, "link": None}
            linked.append(slot)
    known = {slot["name"] for slot in [*plain, *linked]}
    for name, value in inputs.items():
        if is_link(value) and name not in known:
            plain.append({"name": name, "type": "*", "link": None})
    return plain + linked


def _unwrap(value: Any) -> Any:
    """A list travels in a graph as `{"__value__": [...]}`, so that it does not look like a link."""
    return value["__value__"] if isinstance(value, dict) and "__value__" in value else value


def _view(groups: list[dict[str, Any]]) -> dict[str, Any]:
    """What the editor shows at first: everything."""
    if not groups:
        return {"scale": 1, "offset": [0, 0]}
    left, top = (min(g["bounding"][i] for g in groups) for i in (0, 1))
    right, bottom = (max(g["bounding"][i] + g["bounding"][i + 2] for g in groups) for i in (0, 1))
    scale = min(1.0, SCREEN[0] / max(right - left, 1), SCREEN[1] / max(bottom - top, 1))
    return {
        "scale": round(scale, 3),
        "offset": [round(CORNER[0] / scale - left), round(CORNER[1] / scale - top)],
    }


def _rows(names: list[str]) -> list[list[list[str]]]:
    """All ways to break a line of sections into rows."""
    if len(names) < 2:
        return [[names]]
    broken = []
    for rest in _rows(names[1:]):
        broken.append([[names[0]], *rest])
        broken.append([[names[0], *rest[0]], *rest[1:]])
    return broken
