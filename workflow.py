"""API-format graphs as values: load a copy, address a node by its title, change a leaf, tidy up.

A graph is ``{node id: {"class_type", "inputs", "_meta": {"title"}}}``, what ComfyUI's *Export (API)*
writes. An input is a literal or a link ``[node id, output slot]``. All functions are pure; node ids
never appear in Python, because exporting a workflow again may renumber it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from errors import StudioError

Graph = dict[str, dict[str, Any]]
Patch = tuple[str, str, Any]

FOLDER = Path(__file__).resolve().parent / "workflows"
OUTPUT_CLASS = "SaveVideo"
SWITCH_CLASS = "ComfySwitchNode"


class GraphError(StudioError):
    """A graph is not as it has to be: a title is missing, a link leads nowhere."""

    category = "internal"


@lru_cache(maxsize=16)
def _template(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def load(name: str, folder: Path = FOLDER) -> Graph:
    """A fresh copy of ``<folder>/<name>.json``.

    Raises:
        GraphError: the file is missing or is not in API format.
    """
    path = folder / f"{name}.json"
    try:
        graph = json.loads(_template(path))
    except (OSError, ValueError) as error:
        raise GraphError(
            f"The workflow {path.name} cannot be read: {error}",
            path.name,
            "Restore it, or extract it anew.",
        ) from None
    if not isinstance(graph, dict) or not all(
        isinstance(n, dict) and "class_type" in n for n in graph.values()
    ):
        raise GraphError(
            f"{path.name} is not in ComfyUI's API format",
            path.name,
            "Use tools/extract_modes.py, or ComfyUI's Export (API).",
        )
    return graph


def title(graph: Graph, node_id: str) -> str:
    """A node's title; its class where it has none."""
    node = graph[node_id]
    return node.get("_meta", {}).get("title") or node["class_type"]


def find(graph: Graph, wanted: str) -> str:
    """The id of the one node with that title.

    Raises:
        GraphError: no node has it, or more than one.
    """
    ids = [node_id for node_id in graph if title(graph, node_id) == wanted]
    if len(ids) != 1:
        problem = "no node" if not ids else f"{len(ids)} nodes"
        raise GraphError(
            f"The workflow has {problem} titled {wanted!r}",
            wanted,
            "Give exactly one node this title in ComfyUI and export the workflow again.",
        )
    return ids[0]


@lru_cache(maxsize=4)
def known_classes(folder: Path = FOLDER) -> frozenset[str]:
    """The node types that the modes' graphs consist of; no other may run.

    The editor's own file (``master.json``) is no graph in API format and is left out.
    """
    graphs = (json.loads(_template(path)) for path in sorted(folder.glob("*.json")))
    return frozenset(
        node["class_type"]
        for graph in graphs
        for node in graph.values()
        if isinstance(node, dict) and "class_type" in node
    )


def is_link(value: Any) -> bool:
    """Whether an input's value is a link to another node's output."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and not isinstance(value[1], bool)
    )


def links(node: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """The linked inputs of a node: input name -> (node id, output slot)."""
    return {name: (value[0], value[1]) for name, value in node["inputs"].items() if is_link(value)}


def apply(graph: Graph, patches: Iterable[Patch]) -> Graph:
    """A copy with each ``(title, input, value)`` set.

    Raises:
        GraphError: the title is missing or double, the node has no such input, or the input is a
            link: only leaves are patched.
    """
    graph = copy.deepcopy(graph)
    for wanted, name, value in patches:
        inputs = graph[find(graph, wanted)]["inputs"]
        if name not in inputs:
            raise GraphError(
                f"Node {wanted!r} has no input {name!r}", wanted, "Export the workflow again."
            )
        if is_link(inputs[name]):
            raise GraphError(f"Input {name!r} of {wanted!r} is a link, not a value", wanted)
        inputs[name] = copy.deepcopy(value)
    return graph


def fold(graph: Graph) -> Graph:
    """A copy in which every switch with a literal setting is replaced by the branch it takes."""
    graph = copy.deepcopy(graph)
    taken: dict[str, list] = {}
    for node_id, node in graph.items():
        if node["class_type"] == SWITCH_CLASS and isinstance(node["inputs"].get("switch"), bool):
            branch = node["inputs"]["on_true" if node["inputs"]["switch"] else "on_false"]
            if is_link(branch):
                taken[node_id] = list(branch)
    for node in graph.values():
        for name, (source, _) in links(node).items():
            target, seen = node["inputs"][name], set()
            while target[0] in taken and target[0] not in seen:
                seen.add(target[0])
                target = taken[target[0]]
            if source in taken:
                node["inputs"][name] = list(target)
    return {node_id: node for node_id, node in graph.items() if node_id not in taken}


def upstream(graph: Graph, outputs: Iterable[str]) -> set[str]:
    """Ids of the given nodes and of everything they depend on.

    Raises:
        GraphError: a link leads to a node that is not there.
    """
    reached: set[str] = set()
    todo = list(outputs)
    while todo:
        node_id = todo.pop()
        if node_id in reached:
            continue
        reached.add(node_id)
        for name, (source, _) in links(graph[node_id]).items():
            if source not in graph:
                raise GraphError(
                    f"Input {name!r} of {title(graph, node_id)!r} leads to node {source}, which is not there",
                    title(graph, node_id),
                )
            todo.append(source)
    return reached


def outputs(graph: Graph) -> list[str]:
    """Ids of the nodes that write the video.

    Raises:
        GraphError: there is none.
    """
    ids = [node_id for node_id, node in graph.items() if node["class_type"] == OUTPUT_CLASS]
    if not ids:
        raise GraphError(f"The workflow has no {OUTPUT_CLASS} node", OUTPUT_CLASS)
    return ids


def prune(graph: Graph) -> Graph:
    """A copy without the nodes that no output needs."""
    keep = upstream(graph, outputs(graph))
    return {node_id: copy.deepcopy(node) for node_id, node in graph.items() if node_id in keep}


def build(name: str, patches: Iterable[Patch], folder: Path = FOLDER) -> Graph:
    """The graph of one run: the mode's template, patched, switches folded, dead nodes dropped."""
    return prune(fold(apply(load(name, folder), patches)))


def refuse_foreign(graph: Graph) -> None:
    """Raise if a graph has a node of a type that none of the six modes' graphs has."""
    for node_id, node in graph.items():
        if node["class_type"] not in known_classes():
            raise StudioError(
                f"Nodes of type {node['class_type'][:60]!r} may not run here",
                title(graph, node_id)[:60],
                "Only what the six modes consist of may; use the workflows as they came.",
                category="node",
            )


def refuse_broken(graph: Graph, problems: list[tuple[str, str]]) -> None:
    """Raise the first problem ComfyUI's validation found, as a sentence that names the node."""
    if problems:
        node_id, sentence = problems[0]
        node = title(graph, node_id)
        raise StudioError(
            f"ComfyUI would refuse {node!r}: {sentence[:400]}",
            node,
            "Check that all model files are there (tools/refresh_models.py).",
            category="node",
            detail="\n".join(f"{title(graph, n)}: {s}" for n, s in problems),
        )
