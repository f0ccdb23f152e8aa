"""The Hugging Face cache on disk: where it is, what it holds, how a file enters it, and its mirror.

One room below :mod:`models`, beside :mod:`downloads`. Standard library only, no network, so that it
can run before ``huggingface_hub`` is imported: that package reads its environment once, at import.

Layout, as every tool of Hugging Face reads and writes it::

    <HF_HUB_CACHE>/models--<org>--<name>/blobs/<etag>                the bytes
                                        /snapshots/<commit>/<path>   a link to them
                                        /refs/<branch>               a commit

The mirror exists for Spaces: what ``preload_from_hub`` fetched while the Space was built belongs to
another user, and the running app may not add files beside it. :func:`mirror` lays a second tree over
the same bytes, in folders of our own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
import uuid
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

MIRROR = "hf-cache-rw"  # below the home folder, as the owner's documents name it
SMALL = 1_000_000  # bytes; files outside blobs/ and snapshots/ up to this size are copied


def home(environ: Mapping[str, str] | None = None) -> Path:
    """``HF_HOME``: Hugging Face's folder, by its own rules."""
    environ = os.environ if environ is None else environ
    cache = environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    given = environ.get("HF_HOME") or os.path.join(cache, "huggingface")
    return Path(os.path.expandvars(os.path.expanduser(given)))


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """``HF_HUB_CACHE``: the cache's own folder, by Hugging Face's rules."""
    environ = os.environ if environ is None else environ
    given = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(os.path.expandvars(os.path.expanduser(given))) if given else home(environ) / "hub"


def repo_dir(repo: str, cache: Path) -> Path:
    """The folder of one model repository."""
    return cache / ("models--" + repo.replace("/", "--"))


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def find(repo: str, path: str, cache: Path, revision: str = "main") -> Path | None:
    """The cached file, or None: first what ``revision`` points at, else the newest snapshot with it.

    Older snapshots count because a repository's branch moves on whenever anything in it changes,
    which makes no difference to a file that is already here.
    """
    folder = repo_dir(repo, cache)
    snapshots = folder / "snapshots"
    try:
        commit = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    except OSError:
        commit = ""
    if commit and (snapshots / commit / path).is_file():
        return snapshots / commit / path
    found = [s / path for s in snapshots.glob("*") if (s / path).is_file()]
    return max(found, key=lambda p: p.stat().st_mtime, default=None)


def enter(
    repo: str, path: str, commit: str, etag: str, cache: Path, revision: str = "main"
) -> Path:
    """Make a blob that lies whole at ``blobs/<etag>`` a member of its repository's cache.

    Returns:
        the path in the snapshot: a link to the blob, or the file itself where links do not exist.
    """
    folder = repo_dir(repo, cache)
    blob, pointer = folder / "blobs" / etag, folder / "snapshots" / commit / path
    pointer.parent.mkdir(parents=True, exist_ok=True)
    if blob.is_file() and not (pointer.is_file() and pointer.samefile(blob)):
        pointer.unlink(missing_ok=True)  # missing, a link whose target is gone, or an old copy
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except FileExistsError:
            pass  # another process was quicker
        except OSError:
            os.replace(blob, pointer)  # what huggingface_hub does on a file system without links
    ref = folder / "refs" / revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    write_whole(ref, commit)
    return pointer


def write_whole(path: Path, text: str) -> None:
    """Write a small text file so that a reader sees the old one or the new one, never a part."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8") == text:
            return
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


# ---------------------------------------------------------------------------------- the mirror


@dataclass
class Mirrored:
    """What :func:`mirror` did: files hard-linked, linked symbolically, copied, already there."""

    linked: int = 0
    symlinked: int = 0
    copied: int = 0
    kept: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"Hugging Face cache mirrored in {self.seconds:.1f} s: {self.linked} files hard-linked, "
            f"{self.symlinked} linked, {self.copied} copied, {self.kept} already there."
        )


def prepare(environ: MutableMapping[str, str] | None = None) -> Mirrored | None:
    """On a Space, mirror the preloaded cache and point Hugging Face at the mirror.

    Call it before ``huggingface_hub`` (or gradio, which imports it) is imported. Sets ``HF_HOME``,
    ``HF_HUB_CACHE`` and, where a token file stays behind, ``HF_TOKEN_PATH``. Anywhere else it does
    nothing.

    Returns:
        None where there was nothing to do.

    Raises:
        OSError: the mirror's folder cannot be written.
    """
    environ = os.environ if environ is None else environ
    if not environ.get("SPACE_ID"):
        return None
    source, target = home(environ), Path(environ.get("HOME") or Path.home()) / MIRROR
    if source == target:  # a second call in the same process, or in a child of it
        return None
    done = mirror(cache_dir(environ), target / "hub")
    if "HF_TOKEN_PATH" not in environ and (source / "token").is_file():
        environ["HF_TOKEN_PATH"] = str(source / "token")
    environ["HF_HOME"], environ["HF_HUB_CACHE"] = str(target), str(target / "hub")
    return done


def imported_too_early() -> bool:
    """Whether ``huggingface_hub`` has read its environment already, and would not see a new one."""
    return "huggingface_hub.constants" in sys.modules


def mirror(source: Path, target: Path) -> Mirrored:
    """Lay a writable tree over a read-only cache, without copying its bytes.

    Blobs are hard-linked; where that is not possible (another device, or a kernel that lets nobody
    hard-link other people's files: ``fs.protected_hardlinks``) they become symbolic links. Links in
    snapshots are kept as they are, ``refs/`` is copied byte for byte because Hugging Face's library
    overwrites it, folders are made anew. Unfinished downloads and locks stay behind. Calling it
    again adds what is new and repairs links whose target is gone.

    Args:
        source: a ``hub`` folder; it may be missing, then only ``target`` is made.
        target: the ``hub`` folder of the mirror.

    Raises:
        OSError: the target cannot be written.
    """
    begun, done = time.monotonic(), Mirrored()
    target.mkdir(parents=True, exist_ok=True)
    for folder, folders, names in os.walk(source):
        here = Path(folder)
        inner = here.relative_to(source)
        folders[:] = [name for name in folders if name != ".locks"]
        (target / inner).mkdir(exist_ok=True)
        for name in list(folders):
            if (here / name).is_symlink():  # os.walk lists links to folders here and skips them
                names.append(name)
        for name in names:
            if not name.endswith((".incomplete", ".lock")):
                _place(here / name, target / inner / name, inner.parts, done)
    done.seconds = time.monotonic() - begun
    return done


def _place(source: Path, target: Path, parts: tuple[str, ...], done: Mirrored) -> None:
    """Put one entry of the cache into the mirror."""
    if source.is_symlink():
        text = os.readlink(source)
        if os.path.isabs(text):  # points out of the mirror: still good, and nothing to rewrite
            text = str(source.resolve())
        if target.is_symlink() and os.readlink(target) == text:
            done.kept += 1
            return
        if target.is_file():  # a later download replaced it with its own
            done.kept += 1
            return
        target.unlink(missing_ok=True)
        target.symlink_to(text)
        done.symlinked += 1
        return
    held = "blobs" in parts or "snapshots" in parts or source.stat().st_size > SMALL
    if not held or source.suffix == ".refs":  # what the library writes to in place
        if target.is_file() and target.stat().st_mtime_ns >= source.stat().st_mtime_ns:
            done.kept += 1
            return
        shutil.copyfile(source, target)
        done.copied += 1
        return
    if target.is_file():  # follows a link: one whose target is gone is made again
        done.kept += 1
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
        done.linked += 1
    except OSError:  # EXDEV, EPERM by fs.protected_hardlinks, EMLINK, or no hard links at all
        target.symlink_to(source.resolve())
        done.symlinked += 1
