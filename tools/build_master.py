"""Lay out workflows/master.json anew from the six API-format graphs.

    python tools/build_master.py [--graphs workflows] [--out workflows/master.json]

For when the graphs were written by other means than the editor. From then on the master is what is
edited, and tools/extract_modes.py makes the graphs; run it after this one, since nodes are numbered
anew: nodes that all six graphs share keep their number, others get 1000 times their group's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))

import editor  # noqa: E402
import layout  # noqa: E402
import master  # noqa: E402
import schema  # noqa: E402
import workflow  # noqa: E402
from export import ALWAYS, MUTED  # noqa: E402

NAME = "LTX 2.3 Studio: all modes"
MODELS = "Models (shared by all modes)"
README = """# LTX 2.3 Studio, all modes

Each numbered group is one mode of the studio. Switch one on with the switch below and press *Run*.

The studio finds nodes by their **titles**; positions, colours and numbers are yours. After a change,
save this file and run

`python tools/extract_modes.py --master FILE.json --out workflows`
"""
MARGIN, GAP = 40, 160
STRIDE = 1000  # node numbers: group * STRIDE + number
GETTERS = 900  # from here on, numbers of the nodes that fetch a shared model
HEADING = 190  # pixels at the top of a mode's frame, for its name in large letters
FRAME = "#444"


def shared(graphs: dict[str, workflow.Graph]) -> dict[str, dict[str, Any]]:
    """The nodes that are the same in all six graphs and depend on nothing: id -> node."""
    first = next(iter(graphs.values()))
    known = schema.load()
    return {
        key: node
        for key, node in first.items()
        if editor.loads(node, known) and all(g.get(key) == node for g in graphs.values())
    }


def build(graphs: dict[str, workflow.Graph]) -> dict[str, Any]:
    """The master workflow of six graphs, by mode."""
    known = schema.load()
    board = editor.Board(known)
    common = shared(graphs)
    setters: dict[tuple[str, int], str] = {}
    for key, node in common.items():
        board.node(int(key), node)
        for slot, (kind, *_) in enumerate(known[node["class_type"]]["out"]):
            name = workflow.title(common, key)
            setters[key, slot] = name
            ident = int(key) + 100 * (slot + 1)
            _setter(board, ident, name, kind)
            board.connect(int(key), slot, ident, kind)
    top = 0.0
    for number, (mode, name) in master.GROUPS.items():
        at = (0.0, top)
        top += _mode(board, int(number), name, graphs[mode], setters, common, at)[1] + GAP
    _models(board, list(board.nodes)[: 2 * len(common)])
    return board.workflow(NAME)


def _mode(
    board: editor.Board,
    number: int,
    name: str,
    graph: workflow.Graph,
    setters: dict[tuple[str, int], str],
    common: dict[str, Any],
    at: layout.Point,
) -> layout.Size:
    """Add one mode's group at a place; its size."""
    own = {key: node for key, node in graph.items() if key not in common}
    ids = {key: number * STRIDE + int(key) % STRIDE for key in own}
    state = ALWAYS if number == 1 else MUTED
    for key, node in own.items():
        board.node(ids[key], node, state)
    titles = {ids[key]: workflow.title(graph, key) for key in own}
    inner = [
        (ids[source], ids[key])
        for key in own
        for source, _ in workflow.links(own[key]).values()
        if source in ids
    ]
    parts = layout.sections(titles, inner, [])
    section = {node_id: part for part, members in parts.items() for node_id in members}
    getters: dict[tuple[str, tuple[str, int]], int] = {}
    for key, node in own.items():
        for name_, link in workflow.links(node).items():
            if link[0] in ids:
                board.connect(ids[link[0]], link[1], ids[key], name_)
                continue
            part = section[ids[key]]
            if (part, link) not in getters:
                ident = number * STRIDE + GETTERS + len(getters)
                kind = board.nodes[int(link[0])]["outputs"][link[1]]["type"]
                _getter(board, ident, setters[link], kind, state)
                getters[part, link] = ident
                parts[part].insert(0, ident)
            board.connect(getters[part, link], 0, ids[key], name_)
    before = len(board.groups)
    width, height = board.strip(parts, (at[0] + MARGIN, at[1] + HEADING))
    frame = (width + 2 * MARGIN, height + HEADING + MARGIN)
    board.group(name, at, frame, FRAME)
    place = (round(at[0]) + MARGIN, round(at[1]) + 60)
    _heading(board, number * STRIDE + GETTERS - 1, name, place)
    board.groups.insert(before, board.groups.pop())  # frames are drawn in order: outer ones first
    return frame


def _setter(board: editor.Board, ident: int, name: str, kind: str) -> None:
    board.virtual(
        ident,
        "SetNode",
        f"Set_{name}",
        inputs=[{"name": kind, "type": kind, "link": None}],
        outputs=[{"name": "*", "type": "*", "links": None}],
        properties={"previousName": name},
        widgets_values=[name],
    )


def _getter(board: editor.Board, ident: int, name: str, kind: str, mode: int) -> None:
    board.virtual(
        ident,
        "GetNode",
        f"Get_{name}",
        mode=mode,
        outputs=[{"name": kind, "type": kind, "links": None}],
        widgets_values=[name],
    )


def _heading(board: editor.Board, ident: int, name: str, at: tuple[int, int]) -> None:
    """A mode's name, large enough to be read when everything is on the screen."""
    board.virtual(
        ident,
        "Label (rgthree)",
        name,
        pos=list(at),
        size=[80 * len(name) // 2, 110],
        flags={"allow_interaction": True, "pinned": True},
        properties={
            "fontSize": 96,
            "fontFamily": "Arial",
            "fontColor": "#ffffff",
            "textAlign": "left",
            "backgroundColor": "transparent",
            "padding": 0,
            "borderRadius": 0,
            "angle": 0,
        },
        color="#fff0",
        bgcolor="#fff0",
    )


def _models(board: editor.Board, ids: list[int]) -> None:
    """The shared models, a switch for the modes and a note, left of everything."""
    width, height = board.extent(ids)
    left = -width - GAP
    board.block(ids, (left, 0.0), MODELS, FRAME)
    free = max(i for i in board.nodes if i < STRIDE)
    board.virtual(
        free + 1,
        "MarkdownNote",
        "Read me",
        pos=[round(left), round(height + 70)],
        size=[round(width), 300],
        widgets_values=[README],
    )
    board.virtual(
        free + 2,
        "Fast Groups Muter (rgthree)",
        "Modes: switch one on",
        pos=[round(left), round(height + 430)],
        size=[round(width), 200],
        outputs=[{"name": "OPT_CONNECTION", "type": "*", "links": None}],
        properties={
            "matchColors": "",
            "matchTitle": "^0[1-6] ",
            "showNav": True,
            "showAllGraphs": False,
            "sort": "alphanumeric",
            "customSortAlphabet": "",
            "toggleRestriction": "always one",
        },
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--graphs", type=Path, default=REPO / "workflows")
    parser.add_argument("--out", type=Path, default=REPO / "workflows" / "master.json")
    options = parser.parse_args()
    graphs = {mode: workflow.load(mode, options.graphs) for mode, _ in master.GROUPS.values()}
    options.out.write_text(master.dumps(build(graphs)), encoding="utf-8")
    print(f"Wrote {options.out}. Now run tools/extract_modes.py --master {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
