"""Graphs as values."""

from __future__ import annotations

import json

import pytest

import schema
import workflow
from workflow import GraphError


def node(kind: str, title: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}


def small() -> workflow.Graph:
    return {
        "1": node("A", "left", value=1),
        "2": node("B", "right", value=2),
        "3": node("ComfySwitchNode", "choice", switch=False, on_false=["1", 0], on_true=["2", 1]),
        "4": node("ComfySwitchNode", "outer", switch=True, on_false=["2", 0], on_true=["3", 0]),
        "5": node("SaveVideo", "save", video=["4", 0], note="x"),
    }


def test_load_returns_a_copy():
    graph = workflow.load("t2v")
    graph.clear()
    assert workflow.load("t2v")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"nodes": [], "links": []}', '{"1": {}}'])
def test_load_refuses_what_is_not_api_format(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(GraphError, match=r"x\.json"):
        workflow.load("x", tmp_path)


def test_apply_sets_a_leaf_and_leaves_the_original_alone():
    graph = small()
    changed = workflow.apply(graph, [("left", "value", {"a": 1})])
    assert changed["1"]["inputs"]["value"] == {"a": 1}
    assert graph == small()


def test_apply_works_whatever_the_node_ids_are():
    graph = {f"new{k}": v for k, v in small().items()}
    assert workflow.apply(graph, [("right", "value", 9)])["new2"]["inputs"]["value"] == 9


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        (("nobody", "value", 1), "nobody"),
        (("left", "colour", 1), "colour"),
        (("save", "video", 1), "link"),
    ],
)
def test_apply_names_what_it_cannot_patch(patch, says):
    with pytest.raises(GraphError, match=says):
        workflow.apply(small(), [patch])


def test_find_refuses_a_title_that_two_nodes_have():
    graph = small()
    graph["6"] = node("A", "left")
    with pytest.raises(GraphError, match="2 nodes"):
        workflow.find(graph, "left")


def test_fold_follows_switches_through_switches():
    folded = workflow.fold(small())
    assert folded["5"]["inputs"]["video"] == ["1", 0]
    assert set(folded) == {"1", "2", "5"}
    other = workflow.fold(workflow.apply(small(), [("choice", "switch", True)]))
    assert other["5"]["inputs"]["video"] == ["2", 1]


def test_fold_keeps_a_switch_that_is_not_a_literal():
    graph = small()
    graph["3"]["inputs"]["switch"] = ["1", 0]
    assert "3" in workflow.fold(graph)


def test_prune_drops_what_no_output_needs():
    assert set(workflow.prune(workflow.fold(small()))) == {"1", "5"}


def test_prune_names_a_link_that_leads_nowhere():
    graph = small()
    del graph["1"]
    with pytest.raises(GraphError, match="node 1"):
        workflow.prune(graph)


def test_a_graph_without_output_is_refused():
    with pytest.raises(GraphError, match="SaveVideo"):
        workflow.prune({"1": node("A", "left")})


def broken(title: str, name: str, value) -> workflow.Graph:
    graph = workflow.load("t2v")
    graph[workflow.find(graph, title)]["inputs"][name] = value
    return graph


@pytest.mark.parametrize(
    ("title", "name", "value"),
    [
        ("Empty video", "width", 20),
        ("Empty video", "width", "768"),
        ("Empty video", "width", 300.5),
        ("Empty video", "surprise", 1),
        ("Stage 1 sampler", "sampler_name", "eulerr"),
        ("Prompt", "text", 5),
        ("Prompt", "clip", ["1", 0]),
        ("Prompt", "clip", ["2", 7]),
        ("Prompt", "clip", ["999", 0]),
        ("Prompt", "clip", "clip"),
        ("Decode in tiles", "switch", "no"),
    ],
)
def test_schema_validation_names_node_and_input(title, name, value):
    problems = schema.validate(broken(title, name, value))
    assert len(problems) == 1
    assert title in problems[0]
    assert name in problems[0]


def test_schema_validation_finds_unknown_nodes_and_missing_inputs():
    graph = workflow.load("t2v")
    graph[workflow.find(graph, "Prompt")]["class_type"] = "Nothing"
    del graph[workflow.find(graph, "Video")]["inputs"]["images"]
    problems = schema.validate(graph)
    assert any("Nothing" in p for p in problems)
    assert any("'images' is missing" in p for p in problems)


def test_templates_are_stored_in_one_canonical_form():
    for path in sorted(workflow.FOLDER.glob("*.json")):
        if path.stem != "master":
            text = path.read_text(encoding="utf-8")
            assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
