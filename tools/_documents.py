"""Generated parts of the documents: a block between two marks, written or compared. Stdlib only.

A block begins with ``<!-- NAME: written by tools/TOOL.py -->`` and ends with ``<!-- /NAME -->``.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    )


def replaced(text: str, name: str, content: str) -> str:
    """The document with the block's content exchanged.

    Raises:
        ValueError: the document has no such block.
    """
    pattern = rf"(<!-- {re.escape(name)}\b[^>]*-->\n).*?(<!-- /{re.escape(name)} -->)"
    new, count = re.subn(pattern, lambda m: f"{m[1]}\n{content}\n\n{m[2]}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{count} blocks named {name}, not one")
    return new


def modules() -> dict[str, set[str]]:
    """Every top-level module and those of ours that it imports, wherever in the file."""
    files = {path.stem: path for path in sorted(REPO.glob("*.py"))}
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        used: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                used |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                used.add(node.module)
        found[name] = (used & set(files)) - {name}
    return found


def settle(contents: Mapping[Path, str], description: str, argv: list[str] | None = None) -> int:
    """The command line of a tool that writes files: writes them, or with ``--check`` compares.

    Returns:
        The exit status: 1 where ``--check`` found a difference.
    """
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="only compare; 1 on a difference")
    given = parser.parse_args(argv)
    status = 0
    for path, content in contents.items():
        same = path.is_file() and path.read_text(encoding="utf-8") == content
        if given.check and not same:
            print(f"{path.relative_to(REPO)} differs: run this tool.", file=sys.stderr)
            status = 1
        elif not same:
            path.write_text(content, encoding="utf-8")
            print(f"{path.relative_to(REPO)} written.")
    return status
