"""Where nodes go so that a person can read a graph: sections from left to right, columns by depth.

Pure geometry, in the editor's pixels; a position is a node's upper left corner below its title bar.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Size = tuple[float, float]
Point = tuple[float, float]
Edge = tuple[Key, Key]

TITLE_BAR = 30
COLUMN_GAP = 70
ROW_GAP = 25
COLUMN_HEIGHT = 1250  # a higher column is continued in a further one
SWEEPS = 6  # of ordering columns by their neighbours; more change nothing at our sizes

MODELS, INPUTS, OUTPUT = "Models", "Inputs", "Decode and save"
_STAGE = re.compile(r"Stage \d+\b")


def sections(
    titles: Mapping[Key, str], edges: Iterable[Edge], loaders: Iterable[Key]
) -> dict[str, list[Key]]:
    """Section name -> nodes, in reading order: models, inputs, one per stage, output.

    A stage is what its nodes' titles say ("Stage 1 sampling"). A node between two stages belongs to
    the later one, a node after the last to the output, anything else to the inputs.
    """
    edges = list(edges)
    before = _reach(titles, [(b, a) for a, b in edges])
    after = _reach(titles, edges)
    own = {key: m.group() for key, title in titles.items() if (m := _STAGE.match(title))}
    stages = sorted(set(own.values()), key=lambda name: int(name.split()[1]))
    loaders = set(loaders)
    found: dict[str, list[Key]] = {name: [] for name in (MODELS, INPUTS, *stages, OUTPUT)}
    for key in titles:
        if key in own:
            found[own[key]].append(key)
        elif key in loaders:
            found[MODELS].append(key)
        elif stages and not any(k in own for k in before[key]):
            found[INPUTS].append(key)
        else:
            later = [own[k] for k in after[key] if k in own]
            name = min(later, key=stages.index) if later else OUTPUT
            found[name].append(key)
    return {name: keys for name, keys in found.items() if keys}


def _reach(keys: Iterable[Key], edges: Iterable[Edge]) -> dict[Key, set[Key]]:
    """Every node -> all nodes that its edges lead to, near and far."""
    following: dict[Key, set[Key]] = {key: set() for key in keys}
    for a, b in edges:
        following[a].add(b)
    reached: dict[Key, set[Key]] = {}
    for key in following:
        todo, seen = list(following[key]), set()
        while todo:
            k = todo.pop()
            if k not in seen:
                seen.add(k)
                todo += following[k]
        reached[key] = seen
    return reached


def depths(keys: Iterable[Key], edges: Iterable[Edge]) -> dict[Key, int]:
    """A column for every node, right of all it depends on and as near to its users as can be."""
    keys = list(keys)
    inside = set(keys)
    edges = [(a, b) for a, b in edges if a in inside and b in inside]
    depth = dict.fromkeys(keys, 0)
    for _ in keys:
        moved = False
        for a, b in edges:
            if depth[b] <= depth[a] < len(keys):
                depth[b], moved = depth[a] + 1, True
        if not moved:
            break
    for key in sorted(keys, key=lambda k: -depth[k]):
        users = [depth[b] for a, b in edges if a == key]
        if users:
            depth[key] = max(depth[key], min(users) - 1)
    return depth


def arrange(sizes: Mapping[Key, Size], edges: Iterable[Edge]) -> tuple[dict[Key, Point], Size]:
    """A position for every node, the block's upper left corner being (0, 0), and the block's size.

    Args:
        sizes: node -> width and height, without title bar; their order breaks ties.
        edges: (from, to); those to nodes that are not in ``sizes`` are left alone.
    """
    edges = [(a, b) for a, b in edges if a in sizes and b in sizes]
    depth = depths(sizes, edges)
    columns: list[list[Key]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for key in sizes:
        columns[depth[key]].append(key)
    _untangle(columns, edges)
    places: dict[Key, Point] = {}
    x = bottom = 0.0
    for column in columns:
        y, width = 0.0, 0.0
        for key in column:
            w, h = sizes[key]
            if y and y + TITLE_BAR + h > COLUMN_HEIGHT:
                x, y, width = x + width + COLUMN_GAP, 0.0, 0.0
            places[key] = (x, y + TITLE_BAR)
            y += TITLE_BAR + h + ROW_GAP
            width = max(width, w)
            bottom = max(bottom, y - ROW_GAP)
        x += width + COLUMN_GAP
    return places, (max(x - COLUMN_GAP, 0.0), bottom)


def _untangle(columns: list[list[Key]], edges: list[Edge]) -> None:
    """Order every column by the mean place of its neighbours, to and fro."""
    near: dict[Key, list[Key]] = {}
    for a, b in edges:
        near.setdefault(a, []).append(b)
        near.setdefault(b, []).append(a)
    for sweep in range(SWEEPS):
        place = {key: i / max(len(column), 1) for column in columns for i, key in enumerate(column)}
        for column in columns if sweep % 2 else reversed(columns):
            column.sort(
                key=lambda k: sum(place[n] for n in near[k]) / len(near[k]) if k in near else 1.0
            )
            place.update((key, i / len(column)) for i, key in enumerate(column))
