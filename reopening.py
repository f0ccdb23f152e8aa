"""A video made here, a saved request or a link becomes a filled form again.

What comes in is untrusted: it is validated like any request, and the files it names are never looked
for where it says, only among the studio's own staged copies.
"""

from __future__ import annotations

from pathlib import Path

import tags
from modes import MODES
from request import Request

NOWHERE = Path("/nonexistent")  # a file's name below this exists on no machine


def from_file(path: Path) -> tuple[Request, str]:
    """The request an mp4 or a JSON file carries, and a sentence about its files.

    Raises:
        BadInput: it carries none, or one that is not valid.
    """
    found = tags.with_found_files(_unlocated(tags.read_request(path)), path)
    return _told(found)


def from_text(text: str) -> tuple[Request, str]:
    """As :func:`from_file`, from the JSON in a link.

    Raises:
        BadInput: it is not a valid request.
    """
    return _told(_unlocated(Request.from_json(text)))


def _unlocated(request: Request) -> Request:
    """The request with its files' folders forgotten, so that none is read because it was named."""
    names = {name: str(NOWHERE / Path(path).name) for name, path in request.media.items()}
    return request.replace(**names) if names else request


def _told(request: Request) -> tuple[Request, str]:
    lost = [name for name, path in request.media.items() if not Path(path).is_file()]
    if not lost:
        return request, f"The form is filled as for that {MODES[request.mode].title.lower()} video."
    labels = [MODES[request.mode].field(name).label.lower() for name in lost]
    names = [Path(request.media[name]).name[:80] for name in lost]
    files = ", ".join(f"{label} {name!r}" for label, name in zip(labels, names, strict=True))
    return request, f"The form is filled. Please add again: {files}."
