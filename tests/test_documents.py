"""What the documents say is there, is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

import bootstrap
from tools import _documents, draw_architecture, draw_workflows, env_table, generate, sync_preload

REPO = bootstrap.REPO
TOP = ("README.md", "CLAUDE.md", "SKILLS.md")
DOCUMENTS = [*(REPO / name for name in TOP), *sorted((REPO / "docs").glob("*.md"))]
NAMED = {path: path.read_text(encoding="utf-8") for path in DOCUMENTS}
BY_NAME = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
# What the Hub's documentation of Space settings lists, and the colours it takes.
KEYS = {
    *("title", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file"),
    *("suggested_hardware", "startup_duration_timeout", "short_description", "license", "tags"),
    "preload_from_hub",
}
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
TORCH = {"2.8.0", "2.9.1", "2.10.0", "2.11.0"}  # what ZeroGPU takes; anything else is refused
# Lower layers may not import these as they are imported themselves: they take seconds, or a GPU.
HEAVY = {"torch", "comfy", "nodes", "execution", "folder_paths", "server", "spaces"}
ELSEWHERE = {
    "bench.json",
    "storm.mp4",
    "portrait.jpg",
    "speech.m4a",
    "image.png",
    "FILE.mp4",
    "main.py",
}


def space() -> dict:
    """The README's YAML block."""
    return yaml.safe_load(NAMED[REPO / "README.md"].split("---\n")[1])


def pinned(package: str) -> str:
    """A package's pinned version."""
    lists = "".join((REPO / f"requirements{kind}.txt").read_text() for kind in ("", "-local"))
    return re.search(rf"^{package}(?:\[\w+\])?==([\d.]+)$", lists, re.MULTILINE)[1]


# ---------------------------------------------------------------------------------- the Space


def test_space_settings_are_known_and_within_their_limits():
    given = space()
    assert set(given) == KEYS
    assert (given["sdk"], given["suggested_hardware"]) == ("gradio", "zero-a10g")
    assert given["python_version"] == "3.12"
    assert {given["colorFrom"], given["colorTo"]} <= COLOURS
    assert len(given["short_description"]) <= 60
    assert (REPO / given["app_file"]).is_file()
    assert re.fullmatch(r"\d+(m|h)", given["startup_duration_timeout"])
    assert given["license"] in (REPO / "LICENSE").read_text().lower()


def test_space_gets_the_gradio_and_torch_that_are_tested():
    assert space()["sdk_version"] == pinned("gradio")
    assert pinned("torch") in TORCH


def test_space_preloads_what_the_forms_need_as_they_open():
    given = space()["preload_from_hub"]
    assert given == sync_preload.entries()
    assert len(given) <= sync_preload.ENTRIES


# ---------------------------------------------------------------------------------- what is named


@BY_NAME
def test_documents_name_files_that_exist(path):
    names = re.findall(r"`([\w./-]+\.(?:py|md|json|txt|yml|svg|css|js|sh))`", NAMED[path])
    known = {found.name for found in REPO.glob("tests/*.py")} | ELSEWHERE
    lost = [n for n in names if not (REPO / n).exists() and n not in known]
    assert lost == []


@BY_NAME
def test_documents_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", NAMED[path])
    assert [link for link in links if not (path.parent / link).exists()] == []


@BY_NAME
def test_documents_name_tests_that_exist(path):
    source = "".join(p.read_text(encoding="utf-8") for p in (REPO / "tests").glob("test_*.py"))
    names = set(re.findall(r"`(?:tests/)?(?:test_\w+\.py::)?(test_\w+)`", NAMED[path]))
    files = {p.stem for p in (REPO / "tests").glob("test_*.py")}
    assert [n for n in names if f"def {n}(" not in source and n not in files] == []


@BY_NAME
def test_documents_use_flags_that_the_programs_have(path):
    for line in commands(NAMED[path]):
        script = next((word for word in line if word.endswith(".py")), "")
        if not script or line[0] not in ("python", "python3", ".venv/bin/python"):
            continue
        source = (REPO / script).read_text(encoding="utf-8")
        if script == "tools/generate.py":
            source = generate.build_parser().format_help()
        if script == "tools/bench.py":
            source += (REPO / "tools/bench_gpu.py").read_text(encoding="utf-8")
        if script == "tools/test.py":
            source += (REPO / "tests/conftest.py").read_text(encoding="utf-8")
        if "_documents.settle" in source:
            source += Path(_documents.__file__).read_text(encoding="utf-8")
        flags = [word.split("=")[0] for word in line if word.startswith("--")]
        assert [flag for flag in flags if flag not in source] == [], " ".join(line)


def commands(text: str) -> list[list[str]]:
    """Every command line in the document's fenced blocks, and in its text between backticks."""
    fenced = re.findall(r"^```(?:sh|)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in fenced for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:\.venv/bin/)?python3? [^`]+)`", text)
    found = []
    for line in lines:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        while words and re.fullmatch(r"[A-Z0-9_]+=.*", words[0]):
            words.pop(0)
        if words:
            found.append(words)
    return found


def test_readme_quotes_what_the_program_says():
    table = NAMED[REPO / "README.md"].split("## When something is wrong")[1].split("\n## ")[0]
    quoted = re.findall(r'"([^"]+)"', table)
    assert len(quoted) >= 6
    source = "".join(path.read_text(encoding="utf-8") for path in REPO.glob("*.py"))
    assert [text for text in quoted if text not in source] == []


def test_generated_parts_are_current():
    drawn = {draw_architecture.PICTURE: draw_architecture.picture(), **draw_workflows.contents()}
    assert _documents.settle(drawn, "", ["--check"]) == 0
    assert env_table.main(["--check"]) == 0


# ---------------------------------------------------------------------------------- the structure


def rooms() -> list[str]:
    """The modules in the order of the table in docs/architecture.md, topmost first."""
    return re.findall(
        r"^\| \w+ \| `(\w+)\.py` \|", NAMED[REPO / "docs/architecture.md"], re.MULTILINE
    )


def test_every_module_has_its_line_in_the_architecture():
    assert sorted(rooms()) == sorted(_documents.modules())


def test_no_module_imports_one_above_it():
    height = {name: place for place, name in enumerate(rooms())}
    upwards = [
        f"{name} imports {other}"
        for name, used in _documents.modules().items()
        for other in used
        if height[other] < height[name]
    ]
    assert upwards == []


def test_no_module_imports_torch_or_comfyui_while_it_is_imported():
    found = []
    for path in REPO.glob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            match = re.match(r"(?:import|from) (\w+)", line)
            if match and match[1] in HEAVY:
                found.append(f"{path.name}: {line}")
    assert found == []


def test_modules_stay_small():
    long = {
        path.name: lines
        for path in REPO.glob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 450
    }
    assert long == {}


def test_screenshots_show_every_mode_at_every_width():
    from modes import MODES
    from tools import screenshots

    wanted = {f"{mode}_{width}.png" for mode in MODES for width in screenshots.WIDTHS}
    assert {path.name for path in (REPO / "docs/screenshots").glob("*")} == wanted


# ---------------------------------------------------------------------------------- automation


@pytest.mark.parametrize("path", sorted((REPO / ".github/workflows").glob("*.yml")), ids=str)
def test_workflow_files_are_valid_and_ask_for_no_more_rights_than_reading(path):
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert given["permissions"] == {"contents": "read"}
    assert all(job.get("timeout-minutes") for job in given["jobs"].values())
    for job in given["jobs"].values():
        scripts = [step.get("run", "") for step in job["steps"]]
        # An expression inside a script would be run as code, whoever wrote its value.
        assert not any("${{" in script for script in scripts)
