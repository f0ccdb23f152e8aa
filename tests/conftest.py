"""Options, skips and fixtures the whole suite shares.

Tests marked ``comfy`` run against the real ComfyUI and are left out unless ``--comfy-real`` is given;
the same goes for ``gpu`` and ``slow``. What was left out is said at the end, loudly, because a suite
that is green without ComfyUI has not shown that a video comes out.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import bootstrap

REASONS = {
    "comfy": "needs the real ComfyUI: run tools/test.py, or pytest with --comfy-real",
    "gpu": "needs a GPU and the full weights: run with --gpu",
    "slow": "takes minutes: run with --slow",
}
OPTIONS = {"comfy": "--comfy-real", "gpu": "--gpu", "slow": "--slow"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
NO_BROWSER = "needs a headless Chromium on PATH: apt install chromium"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("studio")
    group.addoption("--comfy-real", action="store_true", help="run the tests that boot ComfyUI")
    group.addoption("--gpu", action="store_true", help="run the tests that need a GPU")
    group.addoption("--slow", action="store_true", help="run the tests that take minutes")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--comfy-real"):
        problems = bootstrap.check()
        if problems:
            raise pytest.UsageError(
                "--comfy-real: ComfyUI is not complete: "
                + "; ".join(map(str, problems))
                + ". Run python3 tools/run.py, or set LTX23_AIO_COMFY_DIR."
            )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for name, option in OPTIONS.items():
            if item.get_closest_marker(name):
                item.user_properties.append(("needs", name))  # tools/test.py counts these
                if not config.getoption(option):
                    item.add_marker(pytest.mark.skip(reason=REASONS[name]))
        if item.get_closest_marker("browser") and browser() is None:
            item.add_marker(pytest.mark.skip(reason=NO_BROWSER))


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    said = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    without = sum(REASONS["comfy"] in text for text in said)
    if without:
        terminalreporter.section("NOT TESTED: the real ComfyUI", "=", red=True, bold=True)
        terminalreporter.line(
            f"{without} tests were skipped for lack of ComfyUI. No video was made in this run."
        )
    if any(NO_BROWSER in text for text in said):
        terminalreporter.section("NOT TESTED: the page in a browser", "=", red=True, bold=True)
        terminalreporter.line("The tests in a browser were skipped for lack of Chromium.")


def browser() -> str | None:
    """The path of a Chromium that can run headless, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def repo() -> Path:
    """The repository's root."""
    return bootstrap.REPO


@pytest.fixture(scope="session")
def comfy_path(pytestconfig: pytest.Config) -> Path:
    """The folder of the real ComfyUI; a test that asks for it has to be marked ``comfy``."""
    if not pytestconfig.getoption("--comfy-real"):
        pytest.skip(REASONS["comfy"])
    return bootstrap.comfy_dir()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium; a test that asks for it has to be marked ``browser``."""
    return browser() or pytest.skip(NO_BROWSER)


@pytest.fixture(scope="session")
def engine(comfy_path: Path):
    """The booted engine with demo weights, one for the whole session, as one studio has."""
    from engine import Engine

    engine = Engine("demo", comfy_path)
    engine.boot()
    return engine
