"""Write README.md's table of environment variables from where the program reads them.

    python tools/env_table.py            write it
    python tools/env_table.py --check    exit 1 where it differs

A variable that is read but not described here is an error, and so is the opposite.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))

from tools import _documents  # noqa: E402

README = REPO / "README.md"
DESCRIBED = {
    "LTX23_AIO_COMFY_DIR": "ComfyUI's folder; otherwise `comfyui/` here, or `~/comfyui` on Spaces",
    "LTX23_AIO_MODELS": "further folders to look for model files in before anything is downloaded, "
    "separated as in `PATH`",
    "LTX23_AIO_OUTPUTS": "where the page writes its videos; otherwise `outputs/` here",
    "LTX23_AIO_VRAM": "`lowvram`, `normalvram` or `highvram`: ComfyUI's own memory modes",
    "LTX23_AIO_GPU_SIZE": "`large` (default) or `xlarge`: the card a ZeroGPU Space asks for",
    "LTX23_AIO_MAX_GPU_SECONDS": "the longest GPU time one run on ZeroGPU may reserve, whole seconds; otherwise 300",
    "HF_HOME": "Hugging Face's folder, with its cache and token",
    "HF_HUB_CACHE": "Hugging Face's cache; otherwise `hub/` in `HF_HOME`",
    "HUGGINGFACE_HUB_CACHE": "older name of `HF_HUB_CACHE`",
    "HF_TOKEN_PATH": "file with the Hugging Face token; set by the studio on a Space, unless given",
    "XDG_CACHE_HOME": "folder of caches; Hugging Face's is in it unless `HF_HOME` is set",
    "HOME": "on a Space: where the preloaded models are linked into",
    "AUX_ANNOTATOR_CKPTS_PATH": "folder of the depth and pose detectors; otherwise in ComfyUI's models",
    "MPLCONFIGDIR": "matplotlib's folder; otherwise a temporary one",
    "GRADIO_ANALYTICS_ENABLED": "Gradio's telemetry; `False` unless set",
    "DO_NOT_TRACK": "telemetry of packages inside ComfyUI; `1` (none) unless set",
    "SPACE_ID": "set by Hugging Face: the program runs on a Space",
    "SPACES_ZERO_GPU": "set by Hugging Face: the Space has ZeroGPU hardware",
}


def reads(source: str) -> set[str]:
    """Names of the variables that a module reads from a mapping called ``environ``.

    ``environ.get``, ``setdefault``, ``pop``, ``environ[...]`` and ``... in environ``, ``os.getenv``
    too; a name may be a constant of the module. Plain assignments are no reads.
    """
    tree = ast.parse(source)
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = set()
    for node in ast.walk(tree):
        key = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            how = node.func.attr
            reading = how in ("get", "setdefault", "pop") and _environ(node.func.value)
            key = node.args[0] if reading or how == "getenv" else None
        elif isinstance(node, ast.Subscript) and _environ(node.value):
            key = node.slice if isinstance(node.ctx, ast.Load) else None
        elif isinstance(node, ast.Compare) and any(map(_environ, node.comparators)):
            key = node.left
        if isinstance(key, ast.Name):
            found.add(constants.get(key.id))
        elif isinstance(key, ast.Constant):
            found.add(key.value)
    return {name for name in found if isinstance(name, str)}


def _environ(node: ast.AST) -> bool:
    return "environ" in (getattr(node, "id", ""), getattr(node, "attr", ""))


def used() -> dict[str, list[str]]:
    """Every variable and the modules that read it."""
    found: dict[str, list[str]] = {}
    for path in sorted(REPO.glob("*.py")):
        for name in reads(path.read_text(encoding="utf-8")):
            found.setdefault(name, []).append(path.name)
    return found


def table() -> str:
    """The Markdown table.

    Raises:
        ValueError: a variable is read and not described, or described and not read.
    """
    found = used()
    if odd := set(found) ^ set(DESCRIBED):
        raise ValueError("read but not described, or the opposite: " + ", ".join(sorted(odd)))
    rows = (
        (f"`{name}`", words, ", ".join(f"`{m}`" for m in found[name]))
        for name, words in DESCRIBED.items()
    )
    return _documents.table(("variable", "what it does", "read in"), rows)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    text = _documents.replaced(README.read_text(encoding="utf-8"), "environment", table())
    return _documents.settle({README: text}, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
