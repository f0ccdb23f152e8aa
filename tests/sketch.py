"""Editor-format workflows written by hand, as small as the editor still loads them."""

from __future__ import annotations

import uuid
from typing import Any

NAMES = uuid.UUID("3d7a1f0e-8f2b-4a63-9c54-0d1f6f1f2a10")


class Sketch:
    """Nodes and links of one graph; :meth:`file` is the workflow, :meth:`subgraph` a definition."""

    def __init__(self, first_link: int = 1):
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []
        self.groups: list[dict[str, Any]] = []
        self.next_link = first_link

    def node(
        self,
        node_id: int,
        kind: str,
        values: Any = None,
        inputs: dict[str, str] | None = None,
        outputs: tuple[str, ...] = (),
        **more: Any,
    ) -> int:
        """Add a node. ``inputs``: name -> type, with a `*` behind the name of a linked widget."""
        slots = []
        for name, type_ in (inputs or {}).items():
            slot: dict[str, Any] = {"name": name.rstrip("*"), "type": type_, "link": None}
            if name.endswith("*"):
                slot["widget"] = {"name": name.rstrip("*")}
            slots.append(slot)
        node = {
            "id": node_id,
            "type": kind,
            "pos": [len(self.nodes) * 300, 0],
            "size": [250, 100],
            "flags": {},
            "order": len(self.nodes),
            "mode": 0,
            "inputs": slots,
            "outputs": [{"name": o, "type": o, "links": None} for o in outputs],
            "properties": {},
            **more,
        }
        if values is not None:
            node["widgets_values"] = values
        self.nodes.append(node)
        return node_id

    def link(self, origin: int, slot: int, target: int, name: str) -> None:
        """Connect an output to an input; -10 and -20 are a subgraph's own ends."""
        number, self.next_link = self.next_link, self.next_link + 1
        kind, index = "*", 0
        for node in self.nodes:
            if node["id"] == origin:
                out = node["outputs"][slot]
                out["links"] = [*(out["links"] or []), number]
                kind = out["type"]
        for node in self.nodes:
            if node["id"] == target:
                [index] = [i for i, s in enumerate(node["inputs"]) if s["name"] == name]
                node["inputs"][index]["link"] = number
                kind = node["inputs"][index]["type"] if kind == "*" else kind
        self.links.append([number, origin, slot, target, index, kind])

    def group(self, title: str, left: float, top: float, width: float, height: float) -> None:
        """Draw a frame."""
        self.groups.append(
            {"id": len(self.groups) + 1, "title": title, "bounding": [left, top, width, height]}
        )

    def file(self, *subgraphs: dict[str, Any]) -> dict[str, Any]:
        """The workflow."""
        return {
            "id": str(uuid.uuid5(NAMES, "file")),
            "revision": 0,
            "last_node_id": 900,
            "last_link_id": 900,
            "nodes": self.nodes,
            "links": self.links,
            "groups": self.groups,
            "definitions": {"subgraphs": list(subgraphs)},
            "config": {},
            "extra": {},
            "version": 0.4,
        }

    def subgraph(
        self, name: str, inputs: dict[str, str], outputs: dict[str, str]
    ) -> dict[str, Any]:
        """This graph as a definition with these ends; its links from -10 and to -20 are numbered
        by the order of ``inputs`` and ``outputs``."""
        links = []
        ends: dict[tuple[int, int], list[int]] = {}
        for number, origin, slot, target, index, kind in self.links:
            if target == -20:
                index = list(outputs).index(kind) if kind in outputs else index
            links.append(
                {
                    "id": number,
                    "origin_id": origin,
                    "origin_slot": slot,
                    "target_id": target,
                    "target_slot": index,
                    "type": kind,
                }
            )
            if origin == -10:
                ends.setdefault((-10, slot), []).append(number)
            if target == -20:
                ends.setdefault((-20, index), []).append(number)

        def end(side: int, names: dict[str, str]) -> list[dict[str, Any]]:
            return [
                {
                    "id": str(uuid.uuid5(NAMES, f"{name}/{side}/{label}")),
                    "name": label,
                    "type": kind,
                    "linkIds": ends.get((side, i), []),
                    "pos": [0, 20 * i],
                }
                for i, (label, kind) in enumerate(names.items())
            ]

        return {
            "id": str(uuid.uuid5(NAMES, name)),
            "version": 1,
            "state": {"lastGroupId": 0, "lastNodeId": 0, "lastLinkId": 0, "lastRerouteId": 0},
            "revision": 0,
            "config": {},
            "name": name,
            "inputNode": {"id": -10, "bounding": [0, 0, 100, 60]},
            "outputNode": {"id": -20, "bounding": [900, 0, 100, 60]},
            "inputs": end(-10, inputs),
            "outputs": end(-20, outputs),
            "widgets": [],
            "nodes": self.nodes,
            "groups": [],
            "links": links,
            "extra": {},
        }
