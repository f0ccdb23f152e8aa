"""From the API format to the editor's, and the way nodes are laid out."""

from __future__ import annotations

import json

import pytest
import templates

import editor
import layout
import schema
import workflow
from export import from_editor
from modes import MODES

KNOWN = schema.load()


@pytest.mark.parametrize("mode", MODES)
def test_to_editor_and_back_is_the_graph(mode):
    graph = workflow.load(mode)
    assert from_editor(editor.to_editor(graph), KNOWN) == graph


@pytest.mark.parametrize("mode", MODES)
def test_to_editor_of_a_folded_graph_and_back_is_the_graph(mode):
    graph = workflow.build(mode, [("Prompt", "text", "a {cat|dog} {x} | y")])
    assert from_editor(editor.to_editor(graph), KNOWN) == graph


@pytest.mark.parametrize("text", ["see http://x.y/z", "a /* b */ c"])
def test_to_editor_moves_a_prompt_it_cannot_say_into_a_text_node(text):
    graph = workflow.build("t2v", [("Prompt", "text", text)])
    back = from_editor(editor.to_editor(graph), KNOWN)
    source, slot = back[workflow.find(back, "Prompt")]["inputs"]["text"]
    assert (back[source]["inputs"]["value"], slot) == (text, 0)
    assert len(back) == len(graph) + 1


def test_to_editor_moves_a_value_without_a_widget_into_a_node():
    graph = {
        "1": {
            "class_type": "ComfySwitchNode",
            "_meta": {"title": "pick"},
            "inputs": {"switch": True, "on_false": "a", "on_true": 2.5},
        }
    }
    back = from_editor(editor.to_editor(graph), KNOWN)
    links = back["1"]["inputs"]
    values = [back[links[name][0]]["inputs"]["value"] for name in ("on_false", "on_true")]
    assert values == ["a", 2.5]


def test_to_editor_numbers_nodes_whose_ids_are_paths():
    graph = {
        "4:7": {"class_type": "PrimitiveInt", "_meta": {"title": "a"}, "inputs": {"value": 1}},
        "9": {
            "class_type": "PreviewAny",
            "_meta": {"title": "b"},
            "inputs": {"source": ["4:7", 0]},
        },
    }
    back = from_editor(editor.to_editor(graph), KNOWN)
    assert back["9"]["inputs"]["source"] == ["10", 0]


def test_to_editor_gives_the_same_file_for_the_same_graph():
    graph = workflow.load("style")
    assert json.dumps(editor.to_editor(graph)) == json.dumps(editor.to_editor(graph))


@pytest.mark.parametrize("name", templates.LTX)
def test_to_editor_takes_the_official_templates(name):
    graph = from_editor(templates.load(name), KNOWN)
    moved = editor.tellable(graph, KNOWN)
    ids = {key: str(number) for key, number in editor.number(moved).items()}
    back = from_editor(editor.to_editor(graph), KNOWN)
    wanted = {
        ids[key]: {
            "class_type": node["class_type"],
            "_meta": node["_meta"],
            "inputs": {
                n: [ids[v[0]], v[1]] if workflow.is_link(v) else v
                for n, v in node["inputs"].items()
            },
        }
        for key, node in moved.items()
    }
    assert back == wanted


def _boxes(file: dict) -> list[tuple[float, float, float, float]]:
    return [
        (
            n["pos"][0],
            n["pos"][1] - layout.TITLE_BAR,
            n["pos"][0] + n["size"][0],
            n["pos"][1] + n["size"][1],
        )
        for n in file["nodes"]
    ]


def _overlap(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("mode", MODES)
def test_to_editor_lays_nodes_out_without_overlap_each_in_one_group(mode):
    file = editor.to_editor(workflow.load(mode))
    boxes = _boxes(file)
    assert not [(i, j) for i in range(len(boxes)) for j in range(i) if _overlap(boxes[i], boxes[j])]
    frames = [
        (x, y, x + w, y + h) for x, y, w, h in (group["bounding"] for group in file["groups"])
    ]
    assert not [1 for i in range(len(frames)) for j in range(i) if _overlap(frames[i], frames[j])]
    for left, top, right, bottom in boxes:
        homes = [f for f in frames if f[0] < left and f[1] < top and right < f[2] and bottom < f[3]]
        assert len(homes) == 1


@pytest.mark.parametrize("mode", MODES)
def test_to_editor_sections_read_from_models_to_output(mode):
    titles = [group["title"] for group in editor.to_editor(workflow.load(mode))["groups"]]
    assert titles == ["Models", "Inputs", "Stage 1", "Stage 2", "Decode and save"]


def test_links_inside_a_section_lead_to_the_right():
    file = editor.to_editor(workflow.load("t2v"))
    places = {n["id"]: n["pos"] for n in file["nodes"]}
    groups = [g["bounding"] for g in file["groups"]]

    def home(node_id):
        x, y = places[node_id]
        return next(
            i for i, (gx, gy, w, h) in enumerate(groups) if gx < x < gx + w and gy < y < gy + h
        )

    inside = [link for link in file["links"] if home(link[1]) == home(link[3])]
    assert len(inside) >= 30
    assert all(places[link[1]][0] < places[link[3]][0] for link in inside)


def test_depths_puts_a_node_right_of_all_it_needs_and_next_to_its_user():
    assert layout.depths("abcd", [("a", "b"), ("b", "c"), ("d", "c")]) == {
        "a": 0,
        "b": 1,
        "c": 2,
        "d": 1,
    }


def test_arrange_continues_a_high_column_beside_it():
    places, (width, height) = layout.arrange(dict.fromkeys(range(6), (100, 400)), [])
    assert len({x for x, _ in places.values()}) > 1
    assert height <= layout.COLUMN_HEIGHT
    assert width == max(x for x, _ in places.values()) + 100
