"""The captured node definitions against the real ComfyUI, and its verdict on converted workflows."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import templates

import bootstrap
import schema
from export import from_editor
from modes import MODES

KNOWN = schema.load()
TOOL = bootstrap.REPO / "tools" / "capture_schema.py"
# A file that is not there: not in a folder's list, or refused by a loader's own check.
MISSING_FILE = re.compile(
    r"Value not in list: (?P<input>[\w.]+): |Custom validation failed for node: \w+ - Invalid \w+ file"
)


def test_the_captured_definitions_hold_facts_only():
    text = schema.FILE.read_text(encoding="utf-8")
    assert len(KNOWN) > 1000
    for trace in ("tooltip", "captured-file", str(bootstrap.comfy_dir()), "/tmp/"):
        assert trace not in text
    assert KNOWN["UNETLoader"]["in"][0] == ["unet_name", "COMBO", {"open": True}]
    samplers = {name: options for name, _, options in KNOWN["KSamplerSelect"]["in"]}
    assert "euler" in samplers["sampler_name"]["choices"]


@pytest.mark.comfy
def test_the_captured_definitions_are_those_of_the_pinned_comfyui(comfy_path):
    pytest.importorskip("comfyui_frontend_package")
    done = subprocess.run(
        [sys.executable, str(TOOL), "--comfy", str(comfy_path), "--check"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]


@pytest.mark.comfy
@pytest.mark.parametrize("name", templates.LTX)
def test_real_comfyui_misses_nothing_but_files_in_a_converted_template(engine, name):
    import backend

    graph = from_editor(templates.load(name), KNOWN)
    problems = backend.HOST.problems(graph)
    assert problems  # none of the templates' models is here
    others = []
    for node_id, text in problems:
        match = MISSING_FILE.match(text)
        known = {e[0]: e[2] for e in KNOWN[graph[node_id]["class_type"]]["in"] if len(e) > 2}
        if not match or (match["input"] and not known.get(match["input"], {}).get("open")):
            others.append((node_id, text))
    assert others == []


@pytest.mark.comfy
@pytest.mark.parametrize("mode", MODES)
def test_real_comfyui_takes_the_modes_graphs(engine, mode):
    import backend
    import workflow

    problems = backend.HOST.problems(workflow.load(mode))
    assert [(i, t) for i, t in problems if not MISSING_FILE.match(t)] == []
