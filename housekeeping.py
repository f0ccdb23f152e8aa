"""Clearing away what runs leave behind, by age and by total size, never what is in use.

Three rules hold everywhere: a file that a run of this process holds stays, a file touched within the
last hour stays whatever the total size, and nothing is removed but files whose names are ours.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import bootstrap
from media import STAGED_NAME
from mediafile import PART

HOUR, DAY, GB = 3600.0, 86400.0, 10**9
FRESH = HOUR  # seconds in which a file is not cleared away for its folder's size
EVERY = 600.0  # seconds between two looks
RUN_DIR = "ltx23-run-"  # a run's temporary folder; the process's id follows
STAGED = re.compile(STAGED_NAME.pattern.replace("png|wav", "png|wav|mp4"))
CLIP = re.compile(r"[0-9a-f]{24}\d*_\d{5}_\.mp4")  # what SaveVideo makes of engine.named's prefix
VIDEO = re.compile(r"[a-z0-9]+-\d+-[0-9a-f]{12}\.mp4")  # what the engine hands over
OWNED = re.compile(rf"(?:{re.escape(PART)}|{RUN_DIR})(\d+)-.*")


@dataclass(frozen=True)
class Rule:
    """What may lie in a folder.

    Attributes:
        folder: where. ``name``: files whose whole name matches are ours, others are never touched.
        age: seconds since a file was last used after which it goes.
        size: bytes all of them together may have; the oldest go first.
        deep: look into folders below, too.
    """

    folder: Path
    name: re.Pattern[str]
    age: float
    size: int
    deep: bool = False


def rules(comfy: Path, outputs: Path) -> tuple[Rule, ...]:
    """The rules of this machine: a Space forgets within a day, a person's own machine keeps their
    videos for good and the copies of what they gave for a month."""
    staged = comfy / "input"
    clips = Rule(comfy / "output" / "studio", CLIP, DAY, 5 * GB)
    if bootstrap.on_spaces():
        videos = Rule(outputs, VIDEO, DAY, 20 * GB, deep=True)
        return Rule(staged, STAGED, DAY, 5 * GB), clips, videos
    return Rule(staged, STAGED, 30 * DAY, 20 * GB), clips


def prune(rule: Rule, held: Iterable[str] = (), now: float | None = None) -> list[Path]:
    """Remove what a rule no longer allows; files that vanish meanwhile are not missed.

    Args:
        held: names of files in use.
        now: seconds since the epoch, as file times are. A clock that was set back makes files look
            new, and they stay; one that leapt ahead makes them look old, and those held stay.

    Returns:
        what was removed.
    """
    now, held, removed = time.time() if now is None else now, frozenset(held), []
    files = sorted(_files(rule), key=lambda entry: entry[1].st_mtime)
    total = sum(stat.st_size for _, stat in files)
    for path, stat in files:
        age = now - stat.st_mtime
        if path.name in held or not (age > rule.age or (total > rule.size and age > FRESH)):
            continue
        try:
            path.unlink()
        except OSError:  # gone already, or not ours to remove: either way nothing to be done
            continue
        removed.append(path)
        total -= stat.st_size
    return removed


def _files(rule: Rule) -> Iterator[tuple[Path, os.stat_result]]:
    for path in rule.folder.rglob("*") if rule.deep else rule.folder.glob("*"):
        try:
            stat = path.lstat()
        except OSError:
            continue
        if rule.name.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            yield path, stat


def prune_leftovers(folders: Iterable[Path], now: float | None = None) -> list[Path]:
    """Remove half-written files and temporary folders of processes that were killed.

    Their names carry the process's id; those of a living process stay for a day.
    """
    now, removed = time.time() if now is None else now, []
    for folder in folders:
        for path in folder.glob(".part-*") if folder.is_dir() else ():
            removed += _leftover(path, now)
    for path in Path(tempfile.gettempdir()).glob(RUN_DIR + "*"):
        removed += _leftover(path, now)
    return removed


def _leftover(path: Path, now: float) -> list[Path]:
    owner = OWNED.fullmatch(path.name)
    try:
        old = now - path.lstat().st_mtime > DAY
        if path.is_symlink() or not (old or (owner and not _alive(int(owner[1])))):
            return []
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError:
        return []
    return [path]


def _alive(process: int) -> bool:
    import psutil

    return process == os.getpid() or psutil.pid_exists(process)


class Keeper:
    """Clears up for one engine, and knows what its runs hold.

    Args:
        comfy: ComfyUI's folder.
        outputs: where the page and the command line put their videos by default.
    """

    def __init__(self, comfy: Path, outputs: Path | None = None):
        self.comfy, self.outputs = comfy, outputs or bootstrap.REPO / "outputs"
        self._held: dict[str, frozenset[str]] = {}
        self._lock = threading.Lock()
        self._looked = float("-inf")

    def hold(self, ident: str, names: Iterable[str]) -> None:
        """A run needs these files until :meth:`release`."""
        with self._lock:
            self._held[ident] = self._held.get(ident, frozenset()) | frozenset(names)

    def release(self, ident: str) -> None:
        """A run has ended."""
        with self._lock:
            self._held.pop(ident, None)

    @property
    def held(self) -> frozenset[str]:
        """Names of all files in use."""
        with self._lock:
            return frozenset().union(*self._held.values())

    def tidy(self, force: bool = False) -> list[Path]:
        """Clear up, unless that was done within the last ten minutes.

        Returns:
            what was removed.
        """
        with self._lock:
            now = time.monotonic()
            if not force and now - self._looked < EVERY:
                return []
            self._looked = now
        removed = []
        for rule in rules(self.comfy, self.outputs):
            removed += prune(rule, self.held)
        return removed + prune_leftovers((self.comfy / "input", self.outputs))
