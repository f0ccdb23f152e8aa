"""The official workflow templates, read from the installed development package."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

PACKAGE = "comfyui_workflow_templates_json"
ABSENT = f"needs the package {PACKAGE}: pip install -r requirements-dev.txt"


def folder() -> Path | None:
    """Where the templates lie, or None where the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "templates"


def names(pattern: str) -> list[str]:
    """The templates' file names that match, sorted; empty where the package is not installed."""
    found = folder()
    return sorted(path.name for path in found.glob(pattern)) if found else []


def load(name: str) -> Any:
    """One template."""
    return json.loads((folder() / name).read_text(encoding="utf-8"))


LTX = names("video_ltx2_*.json")
