"""Turn a workflow saved in ComfyUI's editor into the API-format graphs the studio runs.

    python tools/extract_modes.py --master FILE.json --out workflows   the six graphs of a master
    python tools/extract_modes.py --check                              do the six agree with it?
    python tools/extract_modes.py --single FILE.json --out GRAPH.json  any one workflow

Nothing is written unless everything succeeds. Node definitions come from the captured
assets/node_schema.json, or with --comfy from the ComfyUI at hand. Exit status: 0 done or equal,
1 different, 2 the workflow cannot be converted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))

import bootstrap  # noqa: E402
import master  # noqa: E402
import schema  # noqa: E402
from errors import StudioError  # noqa: E402
from export import EditorError, from_editor  # noqa: E402

WORKFLOWS = REPO / "workflows"
MASTER = WORKFLOWS / "master.json"


def read(path: Path) -> dict[str, Any]:
    """An editor-format file.

    Raises:
        EditorError: it cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EditorError(f"{path.name} cannot be read: {error}", path.name) from None


def definitions(comfy: Path | None) -> dict[str, dict[str, Any]]:
    """The node definitions: captured, or of the ComfyUI in that folder, which is booted."""
    if comfy is None:
        return schema.load()
    from capture_schema import capture

    titles = {name: node["title"] for name, node in schema.load().items() if "title" in node}
    with tempfile.TemporaryDirectory() as base:
        return capture(comfy.resolve(), Path(base).resolve(), titles)[1]


def put(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.part")
    half.write_text(text, encoding="utf-8")
    half.replace(path)


def extract(source: Path, out: Path, check: bool, known: dict[str, dict[str, Any]]) -> int:
    """Write the six graphs of a master, or with ``check`` say which differ."""
    graphs = master.extract(read(source), known)
    texts = {out / f"{mode}.json": master.dumps(graph) for mode, graph in graphs.items()}
    if not check:
        for path, text in texts.items():
            put(path, text)
        sizes = ", ".join(f"{mode} {len(graph)}" for mode, graph in graphs.items())
        print(f"Wrote six graphs to {out} (nodes: {sizes}).")
        return 0
    different = [
        path.name
        for path, text in texts.items()
        if not path.is_file() or path.read_bytes() != text.encode("utf-8")
    ]
    if different:
        print(f"Not what {source.name} gives: {', '.join(different)}.")
        print(f"Run: python tools/extract_modes.py --master {source} --out {out}")
        return 1
    print(f"All six graphs are what {source.name} gives.")
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--master", type=Path, metavar="FILE", help="a workflow with six groups")
    kind.add_argument("--single", type=Path, metavar="FILE", help="any one workflow")
    parser.add_argument("--out", type=Path, help="folder for --master, file for --single")
    parser.add_argument("--check", action="store_true", help="compare only; write nothing")
    parser.add_argument(
        "--comfy",
        nargs="?",
        type=Path,
        const=bootstrap.comfy_dir(),
        metavar="FOLDER",
        help="take node definitions from this ComfyUI (default: the studio's)",
    )
    options = parser.parse_args(arguments)
    if options.single and not options.out:
        parser.error("--single needs --out GRAPH.json")
    if not (options.single or options.master or options.check):
        parser.error("give --master FILE, --single FILE or --check")
    try:
        known = definitions(options.comfy)
        if options.single:
            graph = from_editor(read(options.single), known)
            put(options.out, master.dumps(graph))
            print(f"Wrote {options.out} ({len(graph)} nodes).")
            return 0
        source = options.master or MASTER
        return extract(source, options.out or WORKFLOWS, options.check, known)
    except StudioError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # with --comfy, packs leave threads behind
