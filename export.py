"""From the editor's format to the API format: what ComfyUI's own *Export (API)* would write.

The editor keeps nodes, links and groups; the executor wants values and `[node id, slot]`. In between
lie the editor's conveniences, and every one of them is resolved here: reroutes, primitive nodes and
set/get pairs, muted and bypassed nodes, subgraphs in subgraphs with values of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import widgets
from errors import StudioError
from workflow import Graph

ALWAYS, MUTED, BYPASSED = 0, 2, 4  # a node's mode; 1 and 3 (on event, on trigger) run as 0
SUBGRAPH_INPUT, SUBGRAPH_OUTPUT = "-10", "-20"  # the ids of a subgraph's own two ends

NOTES = {"Note", "MarkdownNote", "Label (rgthree)", "Bookmark (rgthree)"}
REROUTES = {"Reroute", "Reroute (rgthree)", "mxReroute", "SetNode"}
SWITCHBOARDS = {
    "Fast Actions Button (rgthree)",
    "Fast Bypasser (rgthree)",
    "Fast Groups Bypasser (rgthree)",
    "Fast Groups Muter (rgthree)",
    "Fast Muter (rgthree)",
    "Mute / Bypass Relay (rgthree)",
    "Mute / Bypass Repeater (rgthree)",
    "Node Collector (rgthree)",
    "Node Combiner (rgthree)",
    "Random Unmuter (rgthree)",
}
PRIMITIVES = {"PrimitiveNode", "PresetText|pysssss"}
VIRTUAL = NOTES | REROUTES | SWITCHBOARDS | PRIMITIVES | {"GetNode"}


class EditorError(StudioError):
    """A workflow in the editor's format cannot be converted; ``where`` names the node."""

    category = "bad_input"


@dataclass(frozen=True)
class Link:
    """One connection inside one graph."""

    origin: str
    slot: int
    target: str
    kind: str


@dataclass(frozen=True)
class Source:
    """What feeds an input: an output of a node that runs, or a plain value."""

    node_id: str = ""
    slot: int = 0
    value: Any = None

    @property
    def is_link(self) -> bool:
        return bool(self.node_id)


@dataclass
class Frame:
    """One graph as it is used: the root, or one instance of a subgraph."""

    body: Mapping[str, Any]
    path: str = ""
    parent: Frame | None = None
    instance: Mapping[str, Any] | None = None
    nodes: dict[str, dict] = field(default_factory=dict)
    links: dict[int, Link] = field(default_factory=dict)
    inner: dict[str, Frame] = field(default_factory=dict)


def from_editor(
    workflow: Mapping[str, Any],
    schema: Mapping[str, widgets.Definition],
    modes: Mapping[str, int] | None = None,
) -> Graph:
    """The API-format graph of an editor-format workflow.

    Args:
        workflow: the editor's file, either of its two layouts.
        schema: class -> definition, see schema.load().
        modes: root node id -> mode, for nodes that shall be on or off other than the file says.

    Raises:
        EditorError: not an editor-format file, a node nobody knows, a link that leads nowhere, a
            circle of reroutes.
    """
    return Converter(workflow, schema, modes or {}).graph()


class Converter:
    """The state of one conversion."""

    def __init__(
        self,
        workflow: Mapping[str, Any],
        schema: Mapping[str, widgets.Definition],
        modes: Mapping[str, int],
    ):
        if not isinstance(workflow, Mapping) or not isinstance(workflow.get("nodes"), list):
            raise EditorError(
                "This is not a workflow in ComfyUI's editor format",
                "",
                "Save it from the editor with Save, not with Export (API).",
            )
        self.schema = schema
        self.modes = modes
        definitions = (workflow.get("definitions") or {}).get("subgraphs") or []
        self.subgraphs = {str(body["id"]): body for body in definitions}
        self._values: dict[int, dict[str, Any]] = {}
        self._renumbered = _renumber(workflow, self.subgraphs)
        self.root = self._frame(workflow, "", None, None)

    # -- reading -------------------------------------------------------------------------------

    def _frame(
        self,
        body: Mapping[str, Any],
        path: str,
        parent: Frame | None,
        instance: Mapping[str, Any] | None,
    ) -> Frame:
        if path.count(":") > 32:
            raise EditorError("A subgraph contains itself", str(body.get("name", "")))
        frame = Frame(body, path, parent, instance)
        for link in body.get("links") or []:
            number, parsed = _link(link)
            frame.links[number] = parsed
        for node in body["nodes"]:
            node_id = str(node["id"])
            frame.nodes[node_id] = node
            if node["type"] in self.subgraphs:
                inner = self.subgraphs[node["type"]]
                inside = f"{self.full_id(frame, node)}:"
                frame.inner[node_id] = self._frame(inner, inside, frame, node)
        return frame

    def full_id(self, frame: Frame, node: Mapping[str, Any]) -> str:
        """A node's id in the graph: the subgraph instances around it, then its own."""
        renumbered = self._renumbered.get(str(frame.body.get("id", "")), {})
        return f"{frame.path}{renumbered.get(node['id'], node['id'])}"

    def mode(self, frame: Frame, node: Mapping[str, Any]) -> int:
        """A node's mode, as the file or the caller says."""
        if frame.parent is None and str(node["id"]) in self.modes:
            return self.modes[str(node["id"])]
        return node.get("mode", ALWAYS)

    def where(self, frame: Frame, node: Mapping[str, Any]) -> str:
        """A node for a person: title, class and id."""
        kind = node["type"]
        kind = self.subgraphs[kind].get("name", "subgraph") if kind in self.subgraphs else kind
        return f"{self.title(node)!r} ({kind}, node {self.full_id(frame, node)})"

    def title(self, node: Mapping[str, Any]) -> str:
        """A node's title; where nobody gave it one, the name ComfyUI shows."""
        known = self.schema.get(node["type"], {})
        return node.get("title") or known.get("title") or node["type"]

    # -- writing -------------------------------------------------------------------------------

    def graph(self) -> Graph:
        """All nodes that would be executed, with links to others that would be."""
        graph: Graph = {}
        self._emit(self.root, graph)
        for node in graph.values():
            for name, value in list(node["inputs"].items()):
                if _points(value) and value[0] not in graph:
                    del node["inputs"][name]
        return dict(sorted(graph.items(), key=lambda item: _order(item[0])))

    def _emit(self, frame: Frame, graph: Graph) -> None:
        for node_id, node in frame.nodes.items():
            if self.mode(frame, node) in (MUTED, BYPASSED):
                continue
            if node_id in frame.inner:
                self._emit(frame.inner[node_id], graph)
            elif node["type"] in self.schema:
                graph[self.full_id(frame, node)] = {
                    "class_type": node["type"],
                    "_meta": {"title": self.title(node)},
                    "inputs": self._inputs(frame, node),
                }
            elif node["type"] not in VIRTUAL and self._connected(node):
                raise EditorError(
                    f"There is no node type {node['type']!r} in this ComfyUI",
                    self.where(frame, node),
                    "Install the pack it comes from, or take the node out of the workflow.",
                )

    def _connected(self, node: Mapping[str, Any]) -> bool:
        return any(slot.get("link") is not None for slot in node.get("inputs") or []) or any(
            slot.get("links") for slot in node.get("outputs") or []
        )

    def _inputs(self, frame: Frame, node: Mapping[str, Any]) -> dict[str, Any]:
        """A node's inputs: widget values, then whatever is linked over them, in declared order."""
        found: dict[str, Any] = {}
        kind = node["type"]
        for name, value in widgets.sent(kind, self.schema[kind], self.values(node)).items():
            found[name] = {"__value__": value} if isinstance(value, list) else value
        for slot in node.get("inputs") or []:
            if slot.get("link") is None:
                continue
            source = self.feed(frame, node, slot, slot.get("type", "*"), ())
            if source is None:
                continue
            if source.is_link:
                found[slot["name"]] = [source.node_id, source.slot]
            elif slot["name"] in found or self._takes(kind, slot["name"]):
                value = source.value
                found[slot["name"]] = {"__value__": value} if isinstance(value, list) else value
        order = [e.name for e in widgets.declared(self.schema[kind], found)]
        place = {name: i for i, name in enumerate(order)}
        return dict(
            sorted(
                found.items(),
                key=lambda item: place.get(item[0], place.get(item[0].split(".")[0], len(place))),
            )
        )

    def _takes(self, kind: str, name: str) -> bool:
        """Whether a class has an input of this name; editors newer than the pins know more."""
        definition = self.schema[kind]
        names = {entry.name for entry in widgets.inputs(definition["in"])}
        return name in names or name.split(".")[0] in names or "flexible" in definition

    def values(self, node: Mapping[str, Any]) -> dict[str, Any]:
        """The values in a node's own widgets."""
        key = id(node)
        if key not in self._values:
            kind = node["type"]
            self._values[key] = widgets.read(kind, self.schema[kind], node.get("widgets_values"))
        return self._values[key]

    # -- resolving -----------------------------------------------------------------------------

    def feed(
        self,
        frame: Frame,
        node: Mapping[str, Any],
        slot: Mapping[str, Any],
        kind: str,
        seen: tuple,
    ) -> Source | None:
        """What feeds a linked input, past everything that only the editor has."""
        link = frame.links.get(slot["link"])
        if link is None:
            raise EditorError(
                f"Input {slot['name']!r} hangs on link {slot['link']}, which leads nowhere",
                self.where(frame, node),
                "Open the workflow in ComfyUI, connect the input again and save.",
            )
        step = (frame.path, str(node["id"]), slot["name"])
        if step in seen:
            raise EditorError("Links go round in a circle", self.where(frame, node))
        seen = (*seen, step)
        if link.origin == SUBGRAPH_INPUT and frame.parent and frame.instance:
            return self._outside(frame, link.slot, seen)
        origin = frame.nodes.get(link.origin)
        if origin is None:
            raise EditorError(
                f"Input {slot['name']!r} leads to node {link.origin}, which is not there",
                self.where(frame, node),
                "Open the workflow in ComfyUI, connect the input again and save.",
            )
        return self._output(frame, origin, link.slot, kind, seen)

    def _outside(self, frame: Frame, index: int, seen: tuple) -> Source | None:
        """What feeds a subgraph's own input: a link outside, or a value of this instance."""
        name = frame.body["inputs"][index]["name"]
        slots = frame.instance.get("inputs") or []
        [slot] = [s for s in slots if s["name"] == name][:1] or [{}]
        if slot.get("link") is not None:
            return self.feed(frame.parent, frame.instance, slot, slot.get("type", "*"), seen)
        promoted = self.promoted(frame)
        return Source(value=promoted[name]) if name in promoted else None

    def _output(
        self, frame: Frame, node: Mapping[str, Any], slot: int, kind: str, seen: tuple
    ) -> Source | None:
        """What an output of a node stands for."""
        node_id, node_type = str(node["id"]), node["type"]
        if node_type in PRIMITIVES:
            return Source(value=(node.get("widgets_values") or [None])[0])
        if self.mode(frame, node) == MUTED:
            return None
        if self.mode(frame, node) == BYPASSED:
            passed = _bypass(self._slots(node), node.get("outputs") or [], slot, kind)
            if passed is None or passed.get("link") is None:
                return None
            return self.feed(frame, node, passed, passed.get("type", "*"), seen)
        if node_id in frame.inner:
            return self._inside(frame.inner[node_id], slot, kind, seen)
        if node_type in REROUTES:
            [entry] = (node.get("inputs") or [{}])[slot : slot + 1] or [{}]
            return self.feed(frame, node, entry, kind, seen) if entry.get("link") else None
        if node_type == "GetNode":
            return self._fetched(frame, node, kind, seen)
        if node_type in VIRTUAL:
            return None
        return Source(self.full_id(frame, node), slot)

    def _inside(self, frame: Frame, index: int, kind: str, seen: tuple) -> Source | None:
        """What a subgraph's own output stands for."""
        [number] = (frame.body["outputs"][index].get("linkIds") or [])[:1] or [None]
        if number not in frame.links:
            return None
        link = frame.links[number]
        if link.origin == SUBGRAPH_INPUT:
            return self._outside(frame, link.slot, seen)
        return self._output(frame, frame.nodes[link.origin], link.slot, kind, seen)

    def _fetched(
        self, frame: Frame, node: Mapping[str, Any], kind: str, seen: tuple
    ) -> Source | None:
        """What the setter of the same name is given, in this graph or one around it."""
        name = (node.get("widgets_values") or [""])[0]
        scope: Frame | None = frame
        while scope:
            for setter in scope.nodes.values():
                if (
                    setter["type"] == "SetNode"
                    and (setter.get("widgets_values") or [""])[0] == name
                ):
                    entry = (setter.get("inputs") or [{}])[0]
                    if entry.get("link") is None:
                        return None
                    return self.feed(scope, setter, entry, kind, seen)
            scope = scope.parent
        raise EditorError(
            f"Nothing sets {name!r}",
            self.where(frame, node),
            "Choose another constant in the node, or add a Set node of that name.",
        )

    def _slots(self, node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """A node's inputs in the editor's order: sockets first, then widgets."""
        slots = node.get("inputs") or []
        return sorted(slots, key=lambda slot: bool(slot.get("widget")))

    # -- subgraph values -----------------------------------------------------------------------

    def promoted(self, frame: Frame) -> dict[str, Any]:
        """The values that one instance of a subgraph gives to its inputs that have a widget.

        Where the file lists `proxyWidgets`, the editor that wrote it kept those values in the
        subgraph itself, the same for all instances.
        """
        found: dict[str, Any] = {}
        for index, entry in enumerate(frame.body.get("inputs") or []):
            box = self._inner_widget(frame, index)
            if box:
                found[entry["name"]] = box[0]
        stored = frame.instance.get("widgets_values_named") or frame.instance.get("widgets_values")
        if isinstance(stored, dict):
            found.update((name, stored[name]) for name in found if name in stored)
        elif not (frame.instance.get("properties") or {}).get("proxyWidgets"):
            found.update(zip(list(found), stored or [], strict=False))
        return found

    def _inner_widget(self, frame: Frame, index: int) -> list[Any]:
        """The value in the first widget behind a subgraph's input, boxed; empty if there is none."""
        for number in frame.body["inputs"][index].get("linkIds") or []:
            link = frame.links.get(number)
            node = frame.nodes.get(link.target) if link else None
            if node is None:
                continue
            [slot] = [s for s in node.get("inputs") or [] if s.get("link") == number][:1] or [{}]
            if str(node["id"]) in frame.inner:
                values = self.promoted(frame.inner[str(node["id"])])
            else:
                values = self.values(node) if node["type"] in self.schema else {}
            if slot.get("name") in values or slot.get("widget"):
                return [values.get(slot["name"])]
        return []


def _link(link: Any) -> tuple[int, Link]:
    """A link of either layout: a list, or a mapping."""
    if isinstance(link, Mapping):
        return link["id"], Link(
            str(link["origin_id"]), link["origin_slot"], str(link["target_id"]), str(link["type"])
        )
    return link[0], Link(str(link[1]), link[2], str(link[3]), str(link[5]))


def _renumber(
    workflow: Mapping[str, Any], subgraphs: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[int, int]]:
    """Subgraph -> old node id -> new one. The editor gives every node of a file an id of its own."""
    used = {node["id"] for node in workflow["nodes"]}
    state = workflow.get("state") or {}
    last = workflow.get("last_node_id", state.get("lastNodeId", 0))
    changed: dict[str, dict[int, int]] = {}
    for name, body in subgraphs.items():
        for node in body["nodes"]:
            number = node["id"]
            if number in used and isinstance(number, int):
                last = next(n for n in range(last + 1, last + len(used) + 2) if n not in used)
                changed.setdefault(name, {})[number] = last
                number = last
            elif isinstance(number, int):
                last = max(last, number)
            used.add(number)
    return changed


def _points(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def _order(node_id: str) -> tuple:
    return tuple((not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in node_id.split(":"))


def fits(one: str, other: str) -> bool:
    """Whether the editor lets these two types be connected."""
    if one in ("", "*", 0) or other in ("", "*", 0):
        return True
    return bool(set(str(one).lower().split(",")) & set(str(other).lower().split(",")))


def _bypass(
    slots: list[Mapping[str, Any]], outputs: list[Mapping[str, Any]], slot: int, kind: str
) -> Mapping[str, Any] | None:
    """The input that stands in for an output of a bypassed node."""
    if not slots:
        return None
    if kind in ("*", ""):
        return slots[slot] if slot < len(slots) else slots[0]
    out = outputs[slot].get("type", "*") if slot < len(outputs) else "*"

    def suits(entry: Mapping[str, Any]) -> bool:
        return fits(entry.get("type", "*"), out) and fits(entry.get("type", "*"), kind)

    if slot < len(slots) and suits(slots[slot]):
        return slots[slot]
    exact = [entry for entry in slots if entry.get("type") == kind]
    return next(iter(exact or filter(suits, slots)), None)
