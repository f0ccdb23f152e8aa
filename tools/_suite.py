"""The whole suite, as ``tools/test.py`` runs it: ruff, pytest, and what is said in the last lines."""

from __future__ import annotations

import os
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import _setup

REPORT = _setup.REPO / ".studio" / "tests.xml"
BYTECODE = _setup.REPO / ".studio" / "bytecode"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@dataclass
class Tally:
    """What pytest's report says of the tests that need the real ComfyUI."""

    ran: int = 0
    failed: int = 0
    skipped: int = 0


def tally(report: Path) -> Tally | None:
    """Count the tests marked ``comfy`` in a JUnit report; None if there is no report."""
    try:
        cases = list(ElementTree.parse(report).iter("testcase"))
    except (OSError, ElementTree.ParseError):
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


def environment() -> dict[str, str]:
    """The tests' environment: the dozens of processes they start share one place for bytecode.

    Where none is kept, each of them compiles torch and Gradio anew, ten seconds and more.
    """
    found = {"PYTHONPYCACHEPREFIX": str(BYTECODE), **os.environ}
    found.pop("PYTHONDONTWRITEBYTECODE", None)
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

    REPORT.parent.mkdir(exist_ok=True)
    REPORT.unlink(missing_ok=True)
    real = [] if problem else ["--comfy-real"]
    steps = {
        "ruff check": [python, "-m", "ruff", "check", "."],
        "ruff format": [python, "-m", "ruff", "format", "--check", "."],
        "pytest": [python, "-m", "pytest", f"--junitxml={REPORT}", *real, *arguments],
    }
    status = {}
    for name, command in steps.items():
        _setup.say(f"-- {name}")
        try:
            status[name] = subprocess.call(command, cwd=str(_setup.REPO), env=environment())
        except KeyboardInterrupt:
            return 130

    import bootstrap

    _setup.say("")
    for name, code in status.items():
        _setup.say(f"{name}: {'passed' if code == 0 else f'FAILED (status {code})'}")
    for line in last_words(problem, str(bootstrap.comfy_dir()), tally(REPORT)):
        _setup.say(line)
    return next((code for code in status.values() if code), 0)
