"""The captured node schema, and checking a graph against it without ComfyUI.

``assets/node_schema.json`` holds facts only (names, types, ranges, outputs) of every node that the
pinned ComfyUI and packs provide; ``tools/capture_schema.py`` writes it and documents its format.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import widgets
import workflow

FILE = Path(__file__).resolve().parent / "assets" / "node_schema.json"
ANY = ("*", "COMFY_MATCHTYPE_V3")
NUMBERS = {"INT": int, "FLOAT": (int, float)}


@lru_cache(maxsize=2)
def load(path: Path = FILE) -> dict[str, dict[str, Any]]:
    """Node class -> its definition. The result is shared: do not change it."""
    return json.loads(path.read_text(encoding="utf-8"))["nodes"]


def validate(graph: workflow.Graph, schema: dict[str, dict[str, Any]] | None = None) -> list[str]:
    """Everything about a graph that its nodes' definitions do not allow, one sentence each.

    Checked: the class exists, inputs are known and none required is missing, literals have the
    type, range and choice, links come from an output that exists and fits. File lists are open:
    whether a file is there is not this check's business.
    """
    schema = schema if schema is not None else load()
    problems = []
    for node_id, node in graph.items():
        where = f"{workflow.title(graph, node_id)!r} ({node['class_type']})"
        definition = schema.get(node["class_type"])
        if definition is None:
            problems.append(f"{where}: no such node type")
            continue
        known = {entry.name: entry for entry in widgets.declared(definition, node["inputs"])}
        required = {name for name, entry in known.items() if not entry.options.get("optional")}
        for name in sorted(required - set(node["inputs"])):
            grow = known[name].options.get("grow")
            grown = sum(given.startswith(f"{name}.") for given in node["inputs"])
            if grow is None or grown < grow["min"]:
                problems.append(f"{where}: input {name!r} is missing")
        for name, value in node["inputs"].items():
            entry = known.get(name) or widgets.grown(known, name)
            if entry is None:
                if not definition.get("flexible"):
                    problems.append(f"{where}: there is no input {name!r}")
            elif workflow.is_link(value):
                problems += _link(graph, schema, where, name, value, entry.kind, entry.options)
            else:
                problems += _literal(where, name, value, entry.kind, entry.options)
    return problems


def _link(
    graph: workflow.Graph,
    schema: dict,
    where: str,
    name: str,
    value: list,
    kind: str,
    options: dict,
) -> list[str]:
    source = graph.get(value[0])
    if source is None:
        return [f"{where}: input {name!r} leads to node {value[0]}, which is not there"]
    outputs = schema.get(source["class_type"], {}).get("out", [])
    if value[1] >= len(outputs):
        return [f"{where}: {source['class_type']} has no output {value[1]} for {name!r}"]
    given = outputs[value[1]][0]
    wanted = set(kind.split(","))
    if kind in ANY or given in ANY or wanted & set(given.split(",")):
        return []
    return [f"{where}: input {name!r} takes {kind}, not {given}"]


def _literal(where: str, name: str, value: Any, kind: str, options: dict) -> list[str]:
    if kind in NUMBERS:
        if isinstance(value, bool) or not isinstance(value, NUMBERS[kind]):
            return [f"{where}: {name!r} takes {kind}, not {value!r}"]
        low, high = options.get("min"), options.get("max")
        if (low is not None and value < low) or (high is not None and value > high):
            return [f"{where}: {name!r} is {value!r}, allowed is {low} to {high}"]
    elif kind == "BOOLEAN" and not isinstance(value, bool):
        return [f"{where}: {name!r} takes BOOLEAN, not {value!r}"]
    elif kind == "STRING" and not isinstance(value, str):
        return [f"{where}: {name!r} takes STRING, not {value!r}"]
    elif kind == "COMBO" and not options.get("open") and value not in options.get("choices", ()):
        return [f"{where}: {name!r} has no choice {value!r}"]
    elif kind == "COMFY_DYNAMICCOMBO_V3":
        if value not in [choice for choice, _ in options["keys"]]:
            return [f"{where}: {name!r} has no choice {value!r}"]
    elif kind not in ("BOOLEAN", "STRING", "COMBO", *ANY) and not kind.startswith("COMFY_"):
        return [f"{where}: {name!r} takes a link of type {kind}, not {value!r}"]
    return []
