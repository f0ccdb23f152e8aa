"""The master workflow: six numbered groups in one editor-format file, one mode each.

A mode's graph is what ComfyUI's *Export (API)* would write if only its group were on, less what its
output does not need. Groups without one of the six numbers are shared: they stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import widgets
from export import ALWAYS, BYPASSED, MUTED, NOTES, EditorError, from_editor
from workflow import OUTPUT_CLASS, Graph, upstream

GROUPS = {
    "01": ("t2v", "01 Text to Video"),
    "02": ("a2v", "02 Audio to Video"),
    "03": ("i2v", "03 Image to Video"),
    "04": ("lipsync", "04 Lipsync"),
    "05": ("keyframe", "05 Keyframe"),
    "06": ("style", "06 Style"),
}
TITLE_BAR = 30  # pixels of a node that lie above its position
COLLAPSED = (160, 0)  # about what is left of a collapsed node below its title bar

_NUMBER = re.compile(r"\s*0?([1-6])(?!\d)")


def extract(
    workflow: Mapping[str, Any], schema: Mapping[str, widgets.Definition]
) -> dict[str, Graph]:
    """Mode -> API-format graph, for all six modes.

    Raises:
        EditorError: a group is missing or has no output, a node nobody knows, a link that leads
            nowhere, a required input whose source is in a group that is off.
    """
    members = membership(workflow)
    missing = [name for key, (_, name) in GROUPS.items() if key not in members]
    if missing:
        raise EditorError(
            f"The workflow has no group {missing[0]!r}"
            + (f", nor {', '.join(map(repr, missing[1:]))}" if missing[1:] else ""),
            missing[0],
            "Give each of the six groups its number and name in ComfyUI.",
        )
    return {
        mode: _one(workflow, schema, members, key, name) for key, (mode, name) in GROUPS.items()
    }


def membership(workflow: Mapping[str, Any]) -> dict[str, set[str]]:
    """Group number -> ids of the root nodes in it, by where a node's middle is, as in the editor."""
    members: dict[str, set[str]] = {}
    for group in workflow.get("groups") or []:
        match = _NUMBER.match(str(group.get("title", "")))
        if not match:
            continue
        left, top, width, height = group["bounding"][:4]
        inside = members.setdefault(f"0{match[1]}", set())
        for node in workflow.get("nodes") or []:
            x, y = _middle(node)
            if left <= x < left + width and top <= y < top + height:
                inside.add(str(node["id"]))
    return members


def dumps(value: Any) -> str:
    """A graph's or a workflow's text as it is committed."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _middle(node: Mapping[str, Any]) -> tuple[float, float]:
    x, y = _pair(node.get("pos"), (0, 0))
    width, height = _pair(node.get("size"), (200, 100))
    if (node.get("flags") or {}).get("collapsed"):
        width, height = COLLAPSED
    return x + width / 2, y - TITLE_BAR + (TITLE_BAR + height) / 2


def _pair(value: Any, otherwise: tuple[float, float]) -> tuple[float, float]:
    """A position or size: the editor has written lists and dictionaries."""
    if isinstance(value, Mapping):
        value = list(value.values())
    return (value[0], value[1]) if isinstance(value, list) and len(value) >= 2 else otherwise


def switches(
    workflow: Mapping[str, Any], members: Mapping[str, set[str]], key: str
) -> dict[str, int]:
    """The modes of the root nodes when only this group is on.

    A group that is off as a whole is switched on as a group switch does it, all of it; in one that
    is on, single nodes that are muted or bypassed stay so.
    """
    own = members[key]
    others = set().union(*(ids for other, ids in members.items() if other != key)) - own
    modes = dict.fromkeys(others, MUTED)
    working = {
        str(n["id"]): n.get("mode", ALWAYS)
        for n in workflow["nodes"]
        if str(n["id"]) in own and n["type"] not in NOTES
    }
    if all(mode in (MUTED, BYPASSED) for mode in working.values()):
        modes.update(dict.fromkeys(own, ALWAYS))
    return modes


def _one(
    workflow: Mapping[str, Any],
    schema: Mapping[str, widgets.Definition],
    members: Mapping[str, set[str]],
    key: str,
    name: str,
) -> Graph:
    graph = from_editor(workflow, schema, switches(workflow, members, key))
    own = [i for i in graph if i.split(":")[0] in members[key]]
    found = [i for i in own if graph[i]["class_type"] == OUTPUT_CLASS]
    if not found:
        raise EditorError(
            f"Group {name!r} has no {OUTPUT_CLASS} node",
            name,
            f"Put the group's {OUTPUT_CLASS} node inside its frame.",
        )
    needed = upstream(graph, found)
    graph = {node_id: node for node_id, node in graph.items() if node_id in needed}
    for node_id, node in graph.items():
        _complete(node_id, node, schema[node["class_type"]], name)
    return graph


def _complete(
    node_id: str, node: Mapping[str, Any], definition: widgets.Definition, group: str
) -> None:
    """Refuse a node with an empty socket: its source is muted, or in a group that is off."""
    given = {name for full in node["inputs"] for name in (full, full.split(".")[0])}
    for entry in widgets.declared(definition, node["inputs"]):
        if entry.options.get("optional") or entry.name in given:
            continue
        if entry.options.get("grow", {}).get("min", 1) == 0:
            continue
        raise EditorError(
            f"Input {entry.name!r} has no value when only {group!r} is on",
            f"{node['_meta']['title']!r} ({node['class_type']}, node {node_id})",
            "Connect it to a node of its own group, or of a group without a number.",
        )
