"""Draw docs/architecture.svg: every module, in the layers of docs/architecture.md, and every import.

    python tools/draw_architecture.py            write it
    python tools/draw_architecture.py --check    exit 1 where it differs

The layers are the rows of the document's table; the arrows are read from the source. An import that
others imply is drawn pale.
"""

from __future__ import annotations

import re
import sys
from html import escape
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))

from tools import _documents  # noqa: E402

PAGE = REPO / "docs" / "architecture.md"
PICTURE = REPO / "docs" / "architecture.svg"
WIDTH, BOX, ROW, BAND = 1240, 26, 52, 34  # pixels: picture, box height, row height, band padding
LEFT = 150  # pixels for the layers' names
INK, PAPER, LINE = "#1d2433", "#ffffff", "#3f6ea8"


def layers() -> list[tuple[str, list[str]]]:
    """The document's table: (layer, its modules from the highest to the lowest), top first."""
    found: dict[str, list[str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\| (\w[^|]*?) \| `(\w+)\.py` \|", line):
            found.setdefault(match[1], []).append(match[2])
    return list(found.items())


def implied(edges: dict[str, set[str]]) -> set[tuple[str, str]]:
    """The edges that a longer way stands for too."""
    reach: dict[str, set[str]] = {}

    def all_below(name: str) -> set[str]:
        if name not in reach:
            reach[name] = set(edges[name]).union(*map(all_below, edges[name]))
        return reach[name]

    return {
        (a, b)
        for a, used in edges.items()
        for b in used
        if any(b in all_below(other) for other in used - {b})
    }


def places(edges: dict[str, set[str]]) -> tuple[dict[str, tuple[float, float]], list, float]:
    """Every module's middle, the bands (name, top, height), and the picture's height."""
    at: dict[str, tuple[float, float]] = {}
    bands, y = [], 20.0
    for layer, names in layers():
        depth: dict[str, int] = {}
        for name in reversed(names):
            depth[name] = max((depth[b] + 1 for b in edges[name] if b in depth), default=0)
        rows = [[n for n in names if depth[n] == d] for d in range(max(depth.values()), -1, -1)]
        height = len(rows) * ROW + BAND - (ROW - BOX)
        for i, row in enumerate(rows):
            step = (WIDTH - LEFT) / len(row)
            shift = (i % 2) * step / 4 if len(row) < 5 else 0
            for j, name in enumerate(row):
                at[name] = (LEFT + step * (j + 0.5) - shift, y + BAND / 2 + i * ROW + BOX / 2)
        bands.append((layer, y, height))
        y += height + 26
    return at, bands, y


def picture() -> str:
    """The SVG."""
    edges = _documents.modules()
    at, bands, height = places(edges)
    pale = implied(edges)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'width="{WIDTH}" height="{height:.0f}" font-family="sans-serif" font-size="13">',
        "<title>The modules and their imports</title>",
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="{PAPER}"/>',
    ]
    for layer, top, tall in bands:
        out.append(
            f'<rect x="8" y="{top:.0f}" width="{WIDTH - 16}" height="{tall:.0f}" rx="8" fill="#eef2f8"/>'
            f'<text x="20" y="{top + tall / 2 + 4:.0f}" fill="{INK}" font-weight="bold">{escape(layer)}</text>'
        )
    for a in sorted(edges):
        for b in sorted(edges[a]):
            (x1, y1), (x2, y2) = at[a], at[b]
            y1, y2 = y1 + BOX / 2, y2 - BOX / 2
            bend = max(16, (y2 - y1) / 2.5)
            opacity, width = (0.1, 0.8) if (a, b) in pale else (0.7, 1.3)
            out.append(
                f'<path data-edge="{a} {b}" d="M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} '
                f'{y2 - bend:.0f} {x2:.0f} {y2:.0f}" fill="none" stroke="{LINE}" '
                f'stroke-width="{width}" opacity="{opacity}"/>'
            )
    for name, (x, y) in at.items():
        wide = 16 + 7.4 * len(name)
        out.append(
            f'<rect x="{x - wide / 2:.0f}" y="{y - BOX / 2:.0f}" width="{wide:.0f}" height="{BOX}" '
            f'rx="5" fill="{PAPER}" stroke="{INK}"/>'
            f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle" fill="{INK}">{name}</text>'
        )
    return "\n".join([*out, "</svg>", ""])


if __name__ == "__main__":
    sys.exit(_documents.settle({PICTURE: picture()}, __doc__ or ""))
