"""The whole suite, as ``tools/test.py`` runs it: ruff, pytest, and what is said in the last lines."""

from __future__ import annotations

import os
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import _setup

REPORTS = _setup.REPO / ".studio" / "tests"
BYTECODE = _setup.REPO / ".studio" / "bytecode"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@dataclass
class Tally:
    """What pytest's report says of the tests that need the real ComfyUI."""

    ran: int = 0
    failed: int = 0
    skipped: int = 0


def tally(folder: Path) -> Tally | None:
    """Count the tests marked ``comfy`` in a folder's JUnit reports; None if one cannot be read or
    there is none."""
    reports = list(folder.glob("*.xml"))
    try:
        cases = [c for report in reports for c in ElementTree.parse(report).iter("testcase")]
    except (OSError, ElementTree.ParseError):
        return None
    if not reports:
        return None
    found = Tally()
    for case in cases:
        needs = {p.get("value") for p in case.iter("property") if p.get("name") == "needs"}
        if "comfy" not in needs:
            continue
        if case.find("skipped") is not None:
            found.skipped += 1
        else:
            found.ran += 1
            found.failed += case.find("failure") is not None or case.find("error") is not None
    return found


def last_words(problem: str, comfy: str, count: Tally | None) -> list[str]:
    """The closing lines about ComfyUI: loud, if it was not there.

    Args:
        problem: why it could not be had; empty if it was there.
        comfy: its folder.
        count: what the report says.
    """
    if problem:
        skipped = (
            f"{count.skipped} TEST{'S' * (count.skipped != 1)} SKIPPED"
            if count
            else "ITS TESTS SKIPPED"
        )
        return [
            "#" * 100,
            f"# WITHOUT THE REAL COMFYUI: {skipped}, NO VIDEO WAS MADE.",
            *(f"# {line}" for line in problem.splitlines()),
            "#" * 100,
        ]
    if count is None:
        return [f"With the real ComfyUI in {comfy}; pytest left no report to count."]
    if not count.ran:
        return [f"ComfyUI is in {comfy}, but none of the tests that were chosen runs against it."]
    end = f"{count.failed} of them failed" if count.failed else "all of them passed"
    skipped = f", {count.skipped} were skipped" if count.skipped else ""
    return [f"With the real ComfyUI in {comfy}: {count.ran} tests ran against it, {end}{skipped}."]


def passes(real: list[str], arguments: list[str], cores: int) -> dict[str, list[str]]:
    """How pytest is started: name -> command after ``python -m``.

    The whole suite is run by two processes side by side, file by file, and then what is marked
    ``alone`` by one. Whoever chooses tests gets them in one process and in order.

    Args:
        real: ``--comfy-real`` or nothing.
        arguments: what pytest is given.
        cores: of this machine.
    """

    def one(name: str, *options: str) -> list[str]:
        return ["pytest", f"--junitxml={REPORTS / name}.xml", *options, *real, *arguments]

    if arguments or cores < 2:
        return {"pytest": one("all")}
    return {
        "pytest, two at a time": one("side", "-m", "not alone", "-n", "2", "--dist", "loadfile"),
        "pytest, one at a time": one("alone", "-m", "alone"),
    }


def environment(side_by_side: bool = False) -> dict[str, str]:
    """The tests' environment: the dozens of processes they start share one place for bytecode.

    Where none is kept, each of them compiles torch and Gradio anew, ten seconds and more. Two
    processes side by side compute on a core each: torch's threads would wait for each other.
    """
    found = {"PYTHONPYCACHEPREFIX": str(BYTECODE), **os.environ}
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    if side_by_side:
        found["OMP_NUM_THREADS"] = "1"
    return found


def main(arguments: list[str]) -> int:
    """Set up and run all checks.

    Args:
        arguments: ``--no-comfy``, and what pytest is given.

    Returns:
        0 if everything that ran passed, else the first status that was not 0.
    """
    python = str(_setup.prepare("requirements-dev.txt"))
    if "--no-comfy" in arguments:
        arguments = [argument for argument in arguments if argument != "--no-comfy"]
        problem = "It was left out because of --no-comfy."
    else:
        problem = _setup.comfy()
    if not any(shutil.which(name) for name in BROWSERS):
        _setup.say(
            "No Chromium on PATH: the tests in a browser are skipped (apt install chromium)."
        )

    shutil.rmtree(REPORTS, ignore_errors=True)
    steps = {
        "ruff check": ["ruff", "check", "."],
        "ruff format": ["ruff", "format", "--check", "."],
        **passes([] if problem else ["--comfy-real"], arguments, os.cpu_count() or 1),
    }
    status = {}
    for name, command in steps.items():
        _setup.say(f"-- {name}")
        try:
            status[name] = subprocess.call(
                [python, "-m", *command], cwd=str(_setup.REPO), env=environment("-n" in command)
            )
        except KeyboardInterrupt:
            return 130

    import bootstrap

    _setup.say("")
    for name, code in status.items():
        _setup.say(f"{name}: {'passed' if code == 0 else f'FAILED (status {code})'}")
    for line in last_words(problem, str(bootstrap.comfy_dir()), tally(REPORTS)):
        _setup.say(line)
    return next((code for code in status.values() if code), 0)
