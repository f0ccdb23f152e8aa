"""Our converter against the vendor's: the released front end in headless Chromium."""

from __future__ import annotations

import json

import editor_files
import front_end
import pytest
import samples
import templates

import editor
import master
import schema
import tags
import widgets
import workflow
from engine import graph_for
from export import from_editor
from modes import MODES

pytestmark = [pytest.mark.comfy, pytest.mark.browser]

KNOWN = schema.load()
MASTER = workflow.FOLDER / "master.json"
# Drawing graphs takes a browser long: always two modes and three templates, with --slow all of them.
SHORT = {"t2v", "style", *templates.LTX[:3]}
HARD_PROMPT = 'a {red|blue} fox, "{quoted}" | pipe\nnew line, C:\\dir, see http://x.y/z'


def run_graph(mode: str, folder) -> workflow.Graph:
    """A graph as one run has it: a person's values patched in, switches folded."""
    return graph_for(samples.request_for(mode, folder, prompt=HARD_PROMPT, seed=123456789))


def some(names) -> list:
    """The names as parameters; those that are not in SHORT only with --slow."""
    return [name if name in SHORT else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(scope="module")
def exports(request, comfy_path, chromium, tmp_path_factory) -> dict:
    """Everything the front end is asked in this file, in one visit."""
    absent = front_end.missing()
    if absent:
        pytest.skip(f"needs {', '.join(absent)}: pip install -r requirements-dev.txt")
    folder = tmp_path_factory.mktemp("front-end")
    media = tmp_path_factory.mktemp("media")
    files: dict[tuple[str, str], dict] = {}
    wanted = {*templates.LTX, *MODES} if request.config.getoption("--slow") else SHORT
    for name in wanted & set(templates.LTX):
        files["template", name] = templates.load(name)
    for name, case in editor_files.CASES.items():
        files["case", name] = case()[0]
    whole = json.loads(MASTER.read_text(encoding="utf-8"))
    members = master.membership(whole)
    for key, (mode, _) in master.GROUPS.items():
        if mode not in wanted:
            continue
        files["graph", mode] = editor.to_editor(workflow.load(mode))
        files["run", mode] = editor.to_editor(run_graph(mode, media))
        switched = json.loads(MASTER.read_text(encoding="utf-8"))
        states = master.switches(switched, members, key)
        for node in switched["nodes"]:
            node["mode"] = states.get(str(node["id"]), node["mode"])
        files["master", mode] = switched
    video = media / "made-here.mp4"
    carried = {
        "prompt": json.dumps(run_graph("style", media)),
        "workflow": json.dumps(files["run", "style"]),
    }
    tags.finish(samples.video(media / "plain.mp4", 0.5), video, carried)
    with front_end.served(comfy_path, folder / "base") as url:
        found = front_end.drive(
            url, chromium, widgets=True, load=list(files.values()), drop=[str(video)]
        )
    loaded = dict(zip(files, found["load"], strict=True))
    return {"files": files, "load": loaded, "widgets": found["widgets"], "drop": found["drop"][0]}


def taken(graph: dict) -> dict:
    """A graph without what widgets of the editor alone add; no node takes it."""
    return {
        node_id: {
            "class_type": node["class_type"],
            "title": node["_meta"]["title"],
            "inputs": {n: v for n, v in node["inputs"].items() if n not in widgets.DECORATION},
        }
        for node_id, node in graph.items()
    }


def differences(ours: dict, theirs: dict) -> list[tuple]:
    """Node for node, input for input."""
    ours, theirs = taken(ours), taken(theirs)
    found = []
    for node_id in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(node_id, {}), theirs.get(node_id, {})
        found += [
            (node_id, key, a.get(key), b.get(key))
            for key in ("class_type", "title")
            if a.get(key) != b.get(key)
        ]
        one, other = a.get("inputs", {}), b.get("inputs", {})
        found += [
            (node_id, name, one.get(name, "absent"), other.get(name, "absent"))
            for name in sorted(one.keys() | other.keys())
            if one.get(name, "absent") != other.get(name, "absent")
        ]
    return found


@pytest.mark.parametrize("name", some(templates.LTX))
def test_official_template_exports_as_from_the_front_end(exports, name):
    ours = from_editor(exports["files"]["template", name], KNOWN)
    theirs = exports["load"]["template", name]["output"]
    assert len(theirs) >= 30
    assert differences(ours, theirs) == []


@pytest.mark.parametrize("name", editor_files.CASES)
def test_every_convenience_of_the_editor_resolves_as_in_the_front_end(exports, name):
    ours = from_editor(exports["files"]["case", name], KNOWN)
    assert differences(ours, exports["load"]["case", name]["output"]) == []


@pytest.mark.parametrize("mode", some(MODES))
def test_a_graph_laid_out_by_us_is_exported_unchanged(exports, mode):
    theirs = exports["load"]["graph", mode]
    assert theirs["missing"] == []
    assert differences(workflow.load(mode), theirs["output"]) == []


@pytest.mark.parametrize("mode", some(MODES))
def test_a_run_laid_out_by_us_would_run_as_it_was_made(exports, mode, tmp_path):
    theirs = exports["load"]["run", mode]["output"]
    assert differences(from_editor(exports["files"]["run", mode], KNOWN), theirs) == []
    text = theirs[workflow.find(theirs, "Prompt")]["inputs"]["text"]
    assert theirs[text[0]]["inputs"]["value"] == HARD_PROMPT
    noise = theirs[workflow.find(theirs, "Stage 1 noise")]
    assert noise["inputs"]["noise_seed"] == 123456789


@pytest.mark.parametrize("mode", some(MODES))
def test_the_master_with_one_group_on_exports_that_modes_graph(exports, mode):
    theirs = exports["load"]["master", mode]
    assert theirs["missing"] == []
    assert differences(workflow.load(mode), workflow.prune(theirs["output"])) == []


@pytest.mark.parametrize("mode", some(MODES))
def test_the_master_saved_again_by_the_front_end_gives_the_same_six_graphs(exports, mode):
    saved = exports["load"]["master", mode]["workflow"]
    assert master.extract(saved, KNOWN) == {m: workflow.load(m) for m in MODES}


def test_a_video_dropped_on_the_front_end_opens_laid_out(exports):
    theirs = exports["drop"]
    assert differences(from_editor(exports["files"]["run", "style"], KNOWN), theirs["output"]) == []
    assert theirs["workflow"]["groups"][0]["title"] == "Models"


def test_widgets_are_in_the_front_ends_order_for_every_node_type(exports):
    wrong = {}
    for name, definition in KNOWN.items():
        if name == widgets.POWER_LORA or name in PROMPT_BOXES:
            continue
        theirs = [label for label, stored in exports["widgets"][name] if stored]
        ours = [slot.name for slot in widgets.layout(name, definition, {}) if slot.stored]
        agree = all(mine in ("", label) for mine, label in zip(ours, theirs, strict=False))
        if len(ours) > len(theirs) or not agree:
            wrong[name] = (ours, theirs)
    assert wrong == {}


# These four turn inputs that ComfyUI declares as combos into menus of their own.
PROMPT_BOXES = {
    "Power Prompt (rgthree)",
    "Power Prompt - Simple (rgthree)",
    "SDXL Power Prompt - Positive (rgthree)",
    "SDXL Power Prompt - Simple / Negative (rgthree)",
}
