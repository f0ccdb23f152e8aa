"""A process under test: ensures the files named on its command line, and prints what happens.

``python weights_driver.py '{"comfy": ..., "files": [{"name", "folder", "repo", "path", "size"}], ...}'``
prints one JSON object a line: each event with its type, then ``{"type": "end", ...}``. With
"no_links" the kernel refuses links, with "batches" (lists of files) there is one ``ensure`` for each.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import no_links

import models
from errors import StudioError


def _say(kind: str, **values) -> None:
    print(json.dumps({"type": kind, **values}), flush=True)


def main(given: dict) -> None:
    """Run one ``ensure`` and report it."""
    if given.get("no_links"):
        no_links.forbid()
    batches = given.get("batches") or [given["files"]]
    cancel = threading.Event()
    if given.get("cancel_after"):
        threading.Timer(given["cancel_after"], cancel.set).start()
    begun = time.monotonic()
    options = {k: given[k] for k in ("workers", "retries", "backoff") if k in given}
    error = None
    try:
        for batch in batches:
            files = [models.ModelFile(**file) for file in batch]
            events = models.ensure(files, Path(given["comfy"]), cancel=cancel, **options)
            for event in events:
                _say(type(event).__name__, **asdict(event))
                if given.get("close_at") and getattr(event, "done", 0) >= given["close_at"]:
                    events.close()
                    break
    except StudioError as caught:
        error = caught
    failed = {"text": str(error), **vars(error)} if error else None
    _say(
        "end",
        seconds=time.monotonic() - begun,
        threads=_threads(),
        hub_imported="huggingface_hub" in sys.modules,
        error=failed and failed | {"category": error.category},
    )


def _threads() -> list[str]:
    """Names of the download threads that still live: ours, and xet's native ones."""
    names = [thread.name for thread in threading.enumerate()]
    for task in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it ended while we looked
            names.append(task.read_text().strip())
    return [name for name in names if name.startswith(("weights", "hf-xet"))]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
