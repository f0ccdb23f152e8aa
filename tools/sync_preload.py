"""Write ``preload_from_hub`` in README.md: what a Space fetches while it is built.

The list follows from the graphs and the registry, so it is written, never edited: the files that the
forms need as they open, one entry a repository, the largest repositories first, within the limits
Hugging Face sets. Only that key of the README's YAML block is touched.

    python tools/sync_preload.py            write it
    python tools/sync_preload.py --check    exit 1 where it differs
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools import _forms

KEY = "preload_from_hub"
ENTRIES = 10  # Hugging Face's limit on entries
BYTES = 150 * 1_000_000_000  # a Space's disk
README = _forms.REPO / "README.md"


def entries(weights: str = "fp8") -> list[str]:
    """The entries, ``repository file,file``; fp8 is what ZeroGPU's default card takes."""
    files = {
        file
        for mode in _forms.MODES.values()
        for preset in mode.presets
        for file in _forms.default_files(mode.key, preset, weights)
    }
    by_repo: dict[str, list] = {}
    for file in sorted(files, key=lambda f: (-f.size, f.path)):
        by_repo.setdefault(file.repo, []).append(file)
    chosen, total = [], 0
    for repo in sorted(by_repo, key=lambda r: (-sum(f.size for f in by_repo[r]), r)):
        size = sum(file.size for file in by_repo[repo])
        if len(chosen) < ENTRIES and total + size <= BYTES:
            chosen.append(f"{repo} {','.join(file.path for file in by_repo[repo])}")
            total += size
    return chosen


def rewrite(text: str, wanted: list[str]) -> str:
    """The README with that list in its YAML block, which is added where there is none.

    Raises:
        ValueError: the YAML block does not end.
    """
    block = [f"{KEY}:", *(f"  - {entry}" for entry in wanted)]
    if not text.startswith("---\n"):
        return "\n".join(["---", *block, "---", "", text])
    head, end, body = text[4:].partition("\n---\n")
    if not end:
        raise ValueError("README.md's YAML block has no closing ---")
    kept: list[str] = []
    position = None
    lines = iter(head.split("\n"))
    line = next(lines, None)
    while line is not None:
        if re.match(rf"{KEY}\s*:", line):
            position = len(kept)
            line = next(lines, None)
            while line is not None and re.match(r"\s+\S|-\s|\s*$", line):
                line = next(lines, None)
            continue
        kept.append(line)
        line = next(lines, None)
    position = len(kept) if position is None else position
    return "---\n" + "\n".join([*kept[:position], *block, *kept[position:]]) + end + body


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="Only compare; exit 1 on a difference."
    )
    parser.add_argument("--weights", choices=("fp8", "bf16"), default="fp8")
    parser.add_argument("--readme", type=Path, default=README)
    given = parser.parse_args(argv)
    if not given.readme.is_file():
        print(f"{given.readme} is missing.", file=sys.stderr)
        return 1
    text = given.readme.read_text(encoding="utf-8")
    new = rewrite(text, entries(given.weights))
    if new == text:
        print(f"{KEY} is up to date.")
        return 0
    if given.check:
        print(f"{KEY} differs: run python tools/sync_preload.py.", file=sys.stderr)
        return 1
    given.readme.write_text(new, encoding="utf-8")
    print(f"{KEY} written: {len(entries(given.weights))} entries.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
