"""Who is here, what is theirs, and whose turn it is.

A visit is one browser tab (Gradio's session). Its files lie in a folder of their own whose name
nobody can guess; nothing of it is reachable from another visit. :class:`Line` hands out the turns.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEEP = 24 * 3600.0  # seconds an ended visit's files stay, where they are not the owner's own

PREVIEW = "input-"  # how the names of input previews begin


class Line:
    """First come, first served: at most ``slots`` tickets have their turn at once."""

    def __init__(self, slots: int = 1):
        self.slots = slots
        self._lock = threading.Lock()
        self._tickets: list[object] = []

    def join(self) -> object:
        """A new ticket at the end of the line; hand it back with :meth:`leave`."""
        ticket = object()
        with self._lock:
            self._tickets.append(ticket)
        return ticket

    def ahead(self, ticket: object) -> int:
        """How many others have to finish first; 0 means it is this ticket's turn."""
        with self._lock:
            return max(0, self._tickets.index(ticket) - self.slots + 1)

    def leave(self, ticket: object) -> None:
        """Give the place back; harmless when done twice."""
        with self._lock:
            if ticket in self._tickets:
                self._tickets.remove(ticket)

    def __len__(self) -> int:
        return len(self._tickets)


@dataclass
class Visit:
    """One tab. ``folder`` holds its videos; ``cancel`` is the running job's switch, if one runs;
    ``progress`` is where its last job stands (a :class:`jobs.Progress`)."""

    folder: Path
    cancel: threading.Event | None = None
    progress: Any = None
    ended: bool = False
    armed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def arm(self) -> None:
        """A job is about to start: from now on :meth:`stop` means that one."""
        with self.lock:
            self._renew()
            self.armed, self.progress = True, None

    def start(self) -> threading.Event:
        """The switch of a new job; a job still running in this tab is told to stop."""
        with self.lock:
            if not self.armed:
                self._renew()
            self.armed = False
            return self.cancel

    def _renew(self) -> None:
        if self.cancel is not None:
            self.cancel.set()
        self.cancel = threading.Event()
        if self.ended:
            self.cancel.set()

    @property
    def stopped(self) -> bool:
        """Whether the last job was told to stop."""
        return self.cancel is not None and self.cancel.is_set()

    def stop(self) -> None:
        """Tell the running job to stop."""
        with self.lock:
            if self.cancel is not None:
                self.cancel.set()

    def new_preview(self) -> Path:
        """Where the next input preview goes; the one before it is of no more use."""
        self.drop_previews()
        return self.folder / f"{PREVIEW}{time.time_ns()}.mp4"

    def drop_previews(self) -> None:
        """Remove this visit's input previews: only videos are kept."""
        for path in self.folder.glob(f"{PREVIEW}*.mp4"):
            with contextlib.suppress(OSError):  # still being sent on a system that locks open files
                path.unlink()


class Visits:
    """All visits of this process, by Gradio's session hash."""

    def __init__(self, root: Path, keep: bool):
        self.root, self.keep = root, keep
        self._lock = threading.Lock()
        self._visits: dict[str, Visit] = {}

    def of(self, session: str | None) -> Visit:
        """The visit of that session; a new one where there is none. None is nobody's: always new."""
        if not session:
            return self._new()
        with self._lock:
            if session not in self._visits:
                self._visits[session] = self._new()
            return self._visits[session]

    def _new(self) -> Visit:
        name = time.strftime("%Y%m%d-%H%M%S-") + secrets.token_urlsafe(18)
        return Visit(self.root / name)

    def end(self, session: str | None) -> None:
        """The tab was closed: stop its job and forget it."""
        with self._lock:
            visit = self._visits.pop(session or "", None)
        if visit is not None:
            visit.ended = True
            visit.stop()
            visit.drop_previews()
            with contextlib.suppress(OSError):  # it holds videos, or was never made
                visit.folder.rmdir()

    def sweep(self, now: float | None = None) -> None:
        """Delete the folders of visits long over, unless this machine keeps them."""
        if self.keep or not self.root.is_dir():
            return
        now = time.time() if now is None else now
        with self._lock:
            live = {visit.folder for visit in self._visits.values()}
        for folder in self.root.iterdir():
            if folder not in live and now - folder.stat().st_mtime > KEEP:
                shutil.rmtree(folder, ignore_errors=True)
