"""The master workflow: one file, six graphs."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

import master
import schema
import workflow
from export import ALWAYS, BYPASSED, MUTED, EditorError
from modes import MODES

KNOWN = schema.load()
FILE = workflow.FOLDER / "master.json"
TOOL = FILE.parent.parent / "tools" / "extract_modes.py"


@pytest.fixture
def file() -> dict:
    return json.loads(FILE.read_text(encoding="utf-8"))


def tool(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, arguments)], capture_output=True, text=True
    )


def same_but_for_ids(one: workflow.Graph, other: workflow.Graph) -> bool:
    """Whether two graphs are equal once nodes are known by title."""

    def named(graph: workflow.Graph) -> dict:
        titles = {node_id: workflow.title(graph, node_id) for node_id in graph}
        return {
            titles[node_id]: (
                node["class_type"],
                {
                    n: (titles[v[0]], v[1]) if workflow.is_link(v) else v
                    for n, v in node["inputs"].items()
                },
            )
            for node_id, node in graph.items()
        }

    return named(one) == named(other)


def test_extract_gives_the_committed_graphs_byte_for_byte(file):
    graphs = master.extract(file, KNOWN)
    assert set(graphs) == set(MODES)
    for mode, graph in graphs.items():
        committed = (workflow.FOLDER / f"{mode}.json").read_bytes()
        assert master.dumps(graph).encode() == committed, mode


def test_check_passes_here():
    done = tool("--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_says_which_graphs_differ_and_writes_nothing(tmp_path):
    assert tool("--master", FILE, "--out", tmp_path).returncode == 0
    changed = tmp_path / "style.json"
    changed.write_text(changed.read_text().replace('"Prompt"', '"Other"'))
    before = changed.read_bytes()
    done = tool("--master", FILE, "--out", tmp_path, "--check")
    assert done.returncode == 1
    assert "style.json" in done.stdout
    assert "t2v.json" not in done.stdout
    assert changed.read_bytes() == before


def test_renumbering_every_node_changes_nothing_but_numbers(file):
    numbers = [node["id"] for node in file["nodes"]]
    fresh = random.Random(1).sample(range(5000, 9000), len(numbers))
    new = dict(zip(numbers, fresh, strict=True))
    for node in file["nodes"]:
        node["id"] = new[node["id"]]
    for link in file["links"]:
        link[1], link[3] = new[link[1]], new[link[3]]
    for mode, graph in master.extract(file, KNOWN).items():
        assert not set(graph) & set(workflow.load(mode))
        assert same_but_for_ids(graph, workflow.load(mode)), mode


def test_renumbered_graphs_take_every_patch_as_before(file):
    """The studio's own way through a graph, on graphs with other numbers."""
    for node in file["nodes"]:
        node["id"] += 20000
    for link in file["links"]:
        link[1], link[3] = link[1] + 20000, link[3] + 20000
    patches = [("Prompt", "text", "x"), ("Stage 1 noise", "noise_seed", 5)]
    for mode, graph in master.extract(file, KNOWN).items():
        here = workflow.prune(workflow.fold(workflow.apply(graph, patches)))
        assert same_but_for_ids(here, workflow.build(mode, patches)), mode


@pytest.mark.comfy
def test_a_renumbered_mode_makes_the_same_video_in_the_same_stages(
    file, engine, tmp_path, monkeypatch
):
    import av
    import samples

    from events import Finished

    def make(folder: Path) -> tuple[str, list[str]]:
        engine.free()
        request = samples.request_for("keyframe", tmp_path, seed=77)
        *_, final = engine.run(request, folder)
        assert isinstance(final, Finished), final
        with av.open(final.path) as video:
            frames = b"".join(frame.to_ndarray().tobytes() for frame in video.decode(video=0))
        return hashlib.sha256(frames).hexdigest(), [name for name, _ in final.stages]

    before = make(tmp_path / "before")
    for node in file["nodes"]:
        node["id"] += 20000
    for link in file["links"]:
        link[1], link[3] = link[1] + 20000, link[3] + 20000
    folder = tmp_path / "workflows"
    folder.mkdir()
    for mode, graph in master.extract(file, KNOWN).items():
        (folder / f"{mode}.json").write_text(master.dumps(graph))
    monkeypatch.setattr(workflow.build, "__defaults__", (folder,))
    assert make(tmp_path / "after") == before


def test_a_moved_and_recoloured_master_gives_the_same_graphs(file):
    for node in file["nodes"]:
        node["pos"] = {"0": node["pos"][0] + 5000, "1": node["pos"][1] - 700}
        node["color"] = "#123"
    for group in file["groups"]:
        left, top, width, height = group["bounding"]
        group["bounding"] = [left + 5000, top - 700, width, height]
    for mode, graph in master.extract(file, KNOWN).items():
        assert graph == workflow.load(mode)


@pytest.mark.parametrize("mode", [ALWAYS, MUTED, BYPASSED])
def test_a_group_counts_as_on_whatever_the_file_has_switched_off(file, mode):
    inside = set().union(*master.membership(file).values())
    for node in file["nodes"]:
        if str(node["id"]) in inside:
            node["mode"] = mode
    assert master.extract(file, KNOWN)["keyframe"] == workflow.load("keyframe")


def test_a_single_muted_node_in_a_group_that_is_on_stays_muted(file):
    [node] = [
        n for n in file["nodes"] if n["id"] // 1000 == 1 and n.get("title") == "Stage 1 scheduler"
    ]
    node["mode"] = MUTED
    with pytest.raises(EditorError) as caught:
        master.extract(file, KNOWN)
    for part in ("on_true", "Stage 1 uses scheduler", "01 Text to Video"):
        assert part in str(caught.value)


def test_a_link_from_another_mode_is_named(file):
    for node in file["nodes"]:
        node["mode"] = ALWAYS
    [source] = [n for n in file["nodes"] if n["id"] // 1000 == 2 and n.get("title") == "Prompt"]
    [target] = [
        n for n in file["nodes"] if n["id"] // 1000 == 1 and n.get("title") == "Conditioning"
    ]
    [slot] = [s for s in target["inputs"] if s["name"] == "positive"]
    [link] = [link for link in file["links"] if link[0] == slot["link"]]
    link[1] = source["id"]
    with pytest.raises(EditorError, match=r"positive.*01 Text to Video.*'Conditioning'"):
        master.extract(file, KNOWN)


def test_missing_groups_are_named_and_nothing_is_written(file, tmp_path):
    for group in file["groups"]:
        group["title"] = group["title"].replace("04 ", "").replace("05 ", "")
    source = tmp_path / "m.json"
    source.write_text(json.dumps(file))
    done = tool("--master", source, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "'04 Lipsync'" in done.stderr
    assert "'05 Keyframe'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_fault_in_the_last_mode_leaves_all_six_files_alone(file, tmp_path):
    [node] = [n for n in file["nodes"] if n["id"] // 1000 == 6 and n["type"] == "SaveVideo"]
    node["type"] = "NobodyKnowsThis"
    source = tmp_path / "m.json"
    source.write_text(json.dumps(file))
    done = tool("--master", source, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "NobodyKnowsThis" in done.stderr
    assert str(node["id"]) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_group_without_an_output_is_named(file):
    [node] = [n for n in file["nodes"] if n["id"] // 1000 == 6 and n["type"] == "SaveVideo"]
    node["pos"] = [-90000, -90000]
    with pytest.raises(EditorError, match="'06 Style' has no SaveVideo"):
        master.extract(file, KNOWN)


def test_single_writes_one_graph(tmp_path):
    from editor_files import reroutes

    content, wanted = reroutes()
    source, out = tmp_path / "in.json", tmp_path / "graph.json"
    source.write_text(json.dumps(content))
    done = tool("--single", source, "--out", out)
    assert done.returncode == 0, done.stderr
    assert {i: n["inputs"] for i, n in json.loads(out.read_text()).items()} == wanted


@pytest.mark.parametrize("content", ["", "{", "[]", '{"1": {"class_type": "A"}}'])
def test_single_refuses_what_is_not_a_workflow_without_a_traceback(tmp_path, content):
    source, out = tmp_path / "in.json", tmp_path / "graph.json"
    source.write_text(content)
    done = tool("--single", source, "--out", out)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_build_master_lays_the_committed_graphs_out_as_committed(tmp_path):
    builder = Path(TOOL).with_name("build_master.py")
    out = tmp_path / "master.json"
    done = subprocess.run(
        [sys.executable, str(builder), "--out", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    again = {
        mode: graph == workflow.load(mode)
        for mode, graph in master.extract(json.loads(out.read_text()), KNOWN).items()
    }
    assert again == dict.fromkeys(MODES, True)


def test_the_master_holds_no_node_outside_its_groups_but_notes_and_switches(file):
    inside = set().union(*master.membership(file).values())
    outside = {n["type"] for n in file["nodes"] if str(n["id"]) not in inside}
    loaders = {
        "DualCLIPLoader",
        "LatentUpscaleModelLoader",
        "UNETLoader",
        "VAELoader",
        "VAELoaderKJ",
    }
    assert outside == {*loaders, "SetNode", "MarkdownNote", "Fast Groups Muter (rgthree)"}
