"""Where ComfyUI lives, and the pins, which the schema, the graphs and the submodule agree with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from git_repos import git

import bootstrap
from bootstrap import PINS


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """A home of the test's own, so that a ComfyUI of the machine's is neither found nor touched."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(folder))
    for name in ("SPACE_ID", "LTX23_AIO_COMFY_DIR"):
        monkeypatch.delenv(name, raising=False)
    return folder


# ------------------------------------------------------------------ where


def test_comfy_dir_is_in_the_repository():
    assert bootstrap.comfy_dir() == bootstrap.REPO / "comfyui"


def test_comfy_dir_on_spaces_is_in_the_home(home, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/studio")
    assert bootstrap.comfy_dir() == home / "comfyui"


def test_comfy_dir_variable_wins_and_becomes_absolute(home, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "someone/studio")
    monkeypatch.setenv("LTX23_AIO_COMFY_DIR", "~/elsewhere")
    assert bootstrap.comfy_dir() == home / "elsewhere"
    monkeypatch.setenv("LTX23_AIO_COMFY_DIR", "here")
    assert bootstrap.comfy_dir() == Path.cwd() / "here"


def test_comfy_dir_is_read_from_the_environment_in_one_place():
    reading = re.compile(r"(environ|getenv)\W.*LTX23_AIO_COMFY_DIR")
    files = [*bootstrap.REPO.glob("*.py"), *bootstrap.REPO.glob("tools/*.py")]
    found = [f.name for f in files if reading.search(f.read_text(encoding="utf-8"))]
    assert found == ["bootstrap.py"]


def test_bootstrap_needs_only_the_standard_library(repo):
    code = f"import sys; sys.path.insert(0, {str(repo)!r}); import bootstrap"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------ pins


def test_pins_are_comfyui_and_ten_packs_by_full_commit():
    assert len(PINS) == 11
    assert [pin.core for pin in PINS] == [True] + [False] * 10
    assert all(re.fullmatch("[0-9a-f]{40}", pin.commit) for pin in PINS)
    assert len({pin.folder for pin in PINS}) == len({pin.url for pin in PINS}) == 11
    assert bootstrap.packs_allowed() == tuple(pin.folder for pin in PINS[1:])


def test_pins_provide_nodes_that_the_schema_has_for_that_pack(repo):
    schema = json.loads((repo / "assets" / "node_schema.json").read_text(encoding="utf-8"))
    for pin in PINS:
        assert pin.provides
        for name in pin.provides:
            assert schema["nodes"].get(name, {}).get("pack") == pin.folder, name


def test_pins_provide_every_pack_node_that_a_graph_uses(repo):
    schema = json.loads((repo / "assets" / "node_schema.json").read_text(encoding="utf-8"))
    provided = {name for pin in PINS for name in pin.provides}
    used = {
        node["class_type"]
        for path in (repo / "workflows").glob("*.json")
        if path.stem != "master"
        for node in json.loads(path.read_text(encoding="utf-8")).values()
    }
    of_packs = {name for name in used if schema["nodes"][name]["pack"] != "ComfyUI"}
    assert of_packs
    assert of_packs <= provided


def test_pin_equals_the_submodule_in_the_repository(repo):
    if not (repo / ".git").exists():
        pytest.skip("not a git checkout")
    entry = git(repo, "ls-files", "--stage", "comfyui").split()
    assert entry[:2] == ["160000", PINS[0].commit]
    assert git(repo, "config", "-f", ".gitmodules", "submodule.comfyui.url") == PINS[0].url


def test_command_line_checks_in_one_line_each(tmp_path, repo):
    command = [sys.executable, "bootstrap.py", "--check", "--comfy", str(tmp_path / "none")]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 11
    assert PINS[0].commit in done.stderr
