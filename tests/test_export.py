"""From the editor's format to the API format, without ComfyUI."""

from __future__ import annotations

import json

import editor_files
import pytest
import templates
from sketch import Sketch

import export
import schema
from export import EditorError, from_editor

KNOWN = schema.load()


@pytest.mark.parametrize("name", editor_files.CASES)
def test_from_editor_resolves(name):
    file, wanted = editor_files.CASES[name]()
    graph = from_editor(file, KNOWN)
    assert {node_id: node["inputs"] for node_id, node in graph.items()} == wanted


def test_from_editor_gives_each_instance_of_a_subgraph_its_own_values():
    inner = Sketch(500)
    inner.node(31, "EmptyLatentImage", [8, 24, 1], {"width*": "INT", "height*": "INT"}, ("LATENT",))
    inner.link(-10, 0, 31, "width")
    inner.link(-10, 1, 31, "height")
    inner.link(31, 0, -20, "LATENT")
    body = inner.subgraph("Sized", {"width": "INT", "height": "INT"}, {"LATENT": "LATENT"})
    s = Sketch()
    promoted = {"width*": "INT", "height*": "INT"}
    s.node(1, body["id"], [64, 32], promoted, ("LATENT",))
    s.node(2, body["id"], [96], promoted, ("LATENT",))
    s.node(3, body["id"], [], promoted, ("LATENT",), widgets_values_named={"height": 40})
    shared = {"properties": {"proxyWidgets": [["31", "width"], ["31", "height"]]}}
    s.node(4, body["id"], [1, 2], promoted, ("LATENT",), **shared)
    graph = from_editor(s.file(body), KNOWN)
    sizes = {i: (n["inputs"]["width"], n["inputs"]["height"]) for i, n in graph.items()}
    assert sizes == {"1:31": (64, 32), "2:31": (96, 24), "3:31": (8, 40), "4:31": (8, 24)}


def test_from_editor_titles_a_node_as_the_person_did_or_as_the_editor_does():
    s = Sketch()
    s.node(1, "ComfySwitchNode", [True])
    s.node(2, "ComfySwitchNode", [True], title="Mine")
    titles = [node["_meta"]["title"] for node in from_editor(s.file(), KNOWN).values()]
    assert titles == ["Switch", "Mine"]


def test_from_editor_wraps_a_list_so_that_it_is_no_link():
    s = Sketch()
    s.node(1, "CreateBoundingBoxes", [64, 64, [1, 2]])
    assert from_editor(s.file(), KNOWN)["1"]["inputs"]["editor_state"] == {"__value__": [1, 2]}


def test_from_editor_names_an_unknown_node():
    s = Sketch()
    s.node(7, "NobodyKnowsThis", [], {"x": "INT"}, title="My node")
    s.node(8, "PrimitiveInt", [1, "fixed"], outputs=("INT",))
    s.link(8, 0, 7, "x")
    with pytest.raises(EditorError) as caught:
        from_editor(s.file(), KNOWN)
    for part in ("NobodyKnowsThis", "My node", "node 7"):
        assert part in str(caught.value)


def test_from_editor_lets_unknown_decoration_be():
    s = Sketch()
    s.node(7, "NobodyKnowsThis", ["hello"])
    assert from_editor(s.file(), KNOWN) == {}


@pytest.mark.parametrize("damage", ["link", "node"])
def test_from_editor_names_a_link_that_leads_nowhere(damage):
    file, _ = editor_files.bypassed()
    [node] = [n for n in file["nodes"] if n["id"] == 5]
    node["title"] = "My decoder"
    if damage == "link":
        file["links"] = [link for link in file["links"] if link[3] != 5]
    else:
        file["nodes"] = [n for n in file["nodes"] if n["id"] != 2]
    with pytest.raises(EditorError) as caught:
        from_editor(file, KNOWN)
    for part in ("My decoder", "VAEDecode", "node 5"):
        assert part in str(caught.value)


def test_from_editor_names_a_getter_nobody_sets():
    s = Sketch()
    s.node(1, "GetNode", ["gone"], outputs=("LATENT",), title="Get_gone")
    s.node(2, "LatentFlip", ["x-axis: vertically"], {"samples": "LATENT"}, ("LATENT",))
    s.link(1, 0, 2, "samples")
    with pytest.raises(EditorError, match=r"Nothing sets 'gone'.*'Get_gone'.*node 1"):
        from_editor(s.file(), KNOWN)


def test_from_editor_refuses_a_circle_of_reroutes():
    s = Sketch()
    s.node(1, "Reroute", inputs={"": "*"}, outputs=("LATENT",))
    s.node(2, "Reroute", inputs={"": "*"}, outputs=("LATENT",))
    s.node(3, "LatentFlip", ["x-axis: vertically"], {"samples": "LATENT"}, ("LATENT",))
    s.link(1, 0, 2, "")
    s.link(2, 0, 1, "")
    s.link(2, 0, 3, "samples")
    with pytest.raises(EditorError, match="circle"):
        from_editor(s.file(), KNOWN)


def test_from_editor_refuses_a_subgraph_in_itself():
    inner = Sketch(500)
    body = inner.subgraph("Loop", {}, {})
    inner.node(9, body["id"], [])
    s = Sketch()
    s.node(1, body["id"], [])
    with pytest.raises(EditorError, match="contains itself"):
        from_editor(s.file(body), KNOWN)


@pytest.mark.parametrize("content", [[], {}, {"1": {"class_type": "A", "inputs": {}}}])
def test_from_editor_refuses_what_is_not_a_workflow(content):
    with pytest.raises(EditorError, match="editor format"):
        from_editor(content, KNOWN)


def test_from_editor_leaves_the_file_alone():
    file, _ = editor_files.subgraphs()
    before = json.dumps(file)
    from_editor(file, KNOWN)
    assert json.dumps(file) == before


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        ("*", "A", True),
        ("A,B", "b", True),
        ("A", "B", False),
        ("", "B", True),
        ("A,B", "C,D", False),
    ],
)
def test_fits_compares_types_as_the_editor_does(one, other, answer):
    assert export.fits(one, other) is answer


@pytest.mark.skipif(not templates.LTX, reason=templates.ABSENT)
def test_there_are_official_templates_to_compare_with():
    assert len(templates.LTX) >= 13


@pytest.mark.parametrize("name", templates.LTX)
def test_official_ltx_template_converts_and_fits_the_captured_definitions(name):
    graph = from_editor(templates.load(name), KNOWN)
    assert any(node["class_type"] == "SaveVideo" for node in graph.values())
    assert schema.validate(graph, KNOWN) == []


@pytest.mark.skipif(not templates.LTX, reason=templates.ABSENT)
def test_every_official_template_converts_or_names_an_unknown_node():
    refusals = {name: _refusal(templates.load(name)) for name in templates.names("*.json")}
    refusals = {name: text for name, text in refusals.items() if text is not None}
    others = {n: text for n, text in refusals.items() if text and "There is no node" not in text}
    assert others == {}
    assert sum(text == "" for text in refusals.values()) >= 190


def _refusal(file) -> str | None:
    """Why a file does not convert, empty where it does; None for a list of templates."""
    if not isinstance(file, dict) or "nodes" not in file:
        return None
    try:
        from_editor(file, KNOWN)
    except EditorError as error:
        return str(error)
    return ""
