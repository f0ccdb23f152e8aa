"""One line per run, and whatever went wrong: ``logs/aio.log`` here, stderr on a Space.

No prompt, file name, secret or home folder is ever logged: see :func:`errors.scrub`.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import secrets
import sys
from pathlib import Path

import bootstrap
from errors import scrub
from events import Event, Failed, Finished
from request import Request

FILE_SIZE = 10_000_000  # bytes; then aio.log becomes aio.log.1
FILES_KEPT = 3
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

log = logging.getLogger("studio")


class Formatter(logging.Formatter):
    """Scrubs everything, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text that may be shown to anyone."""
        return scrub(super().format(record))


def setup(
    folder: Path | None = None, level: int = logging.INFO, terminal: bool = False
) -> Path | None:
    """Send the studio's log where it belongs; calling it again changes nothing.

    Args:
        folder: where ``aio.log`` goes; ``logs`` in the repository by default.
        terminal: show it on stderr, too.

    Returns:
        the file, or None where the log goes to stderr: on a Space, and where no file can be written.
    """
    ours = [h for h in log.handlers if isinstance(h.formatter, Formatter)]
    if ours and folder is None:
        return Path(ours[0].baseFilename) if hasattr(ours[0], "baseFilename") else None
    for handler in ours:
        log.removeHandler(handler)
        handler.close()
    handler, path = _handler(folder or bootstrap.REPO / "logs")
    both = [handler, logging.StreamHandler()] if terminal and path else [handler]
    for handler in both:
        handler.setFormatter(Formatter(FORMAT))
        log.addHandler(handler)
    log.setLevel(level)
    log.propagate = False  # ComfyUI's packs reconfigure the root logger
    return path


def _handler(folder: Path) -> tuple[logging.Handler, Path | None]:
    if not bootstrap.on_spaces():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = logging.handlers.RotatingFileHandler(
                folder / "aio.log", maxBytes=FILE_SIZE, backupCount=FILES_KEPT, encoding="utf-8"
            )
            return file, folder / "aio.log"
        except OSError as error:
            print(f"No log is written: {error.strerror}", file=sys.stderr)
    return logging.StreamHandler(sys.stderr), None


def new_id() -> str:
    """A request's id in the log: eight hexadecimal digits."""
    return secrets.token_hex(4)


def ended(ident: str, request: Request, weights: str, final: Event | None, seconds: float) -> None:
    """Write the one line of a run that ended.

    Args:
        ident: :func:`new_id`.
        final: the run's last event; anything but Finished or Failed means its stream was closed.
        seconds: from the request's arrival, waiting included.
    """
    stages = ""
    if isinstance(final, Finished):
        outcome = "finished"
        spent = ", ".join(f"{name} {took:.2f}" for name, took in final.stages)
        stages = f' executed={final.executed} cached={final.cached} stages="{spent}"'
    elif isinstance(final, Failed):
        outcome = final.category
        stages = f" what={json.dumps(final.what[:300])}"
    else:
        outcome = "closed"
    size = f"{request.width}x{request.height}x{request.frames}"
    line = (
        f"run {ident} mode={request.mode} size={size} fps={request.fps} preset={request.preset}"
        f" weights={weights} outcome={outcome} seconds={seconds:.2f}{stages}"
    )
    expected = ("finished", "interrupted", "closed", "bad_input")
    log.log(logging.INFO if outcome in expected else logging.ERROR, "%s", line)
    if isinstance(final, Failed) and final.detail and outcome not in expected:
        log.error("run %s details:\n%s", ident, final.detail)
