"""Git checkouts held at one commit: look at one, fetch one, copy one, move one, put one in place.

Nothing here deletes a file a person made, and a checkout that is not whole never stands where a
whole one is expected: it is made in a temporary folder and renamed, and ``.git`` comes last where
files have to be moved one by one. Standard library only, so that it runs before anything is
installed. What cannot be done raises :class:`Refused` with the reason in a person's words.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

NO_GIT = "git is not installed"
FETCH_LIMIT = 1800  # seconds for one repository, the largest of which is some 60 MB
STALLED = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=60")  # bytes/s, s
MOVING = "ltx23-moving"  # in .git while files are being replaced; holds the commit they go to
# Variables that would point git at another repository, as inside a git hook.
GIT_PLACES = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
)


class Refused(Exception):
    """It cannot be done. ``str(error)`` is the reason, ``detail`` what git printed.

    ``unreachable`` is set when the network, not the repository, was the reason.
    """

    def __init__(self, reason: str, detail: str = "", unreachable: bool = False):
        self.detail, self.unreachable = detail, unreachable
        super().__init__(reason)


# ------------------------------------------------------------------ looking, without git


def git_dir(folder: Path) -> Path | None:
    """Where a checkout's git data lies: its ``.git`` folder, or what a submodule's file names."""
    dot_git = folder / ".git"
    if dot_git.is_dir():
        return dot_git
    try:
        named = re.match(r"gitdir:\s*(.+)", dot_git.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return (folder / named[1].strip()).resolve() if named else None


def branch(folder: Path) -> str | None:
    """The branch a checkout stands on, as ``refs/heads/main``; None for a bare commit."""
    where = git_dir(folder)
    try:
        text = (where / "HEAD").read_text(encoding="utf-8") if where else ""
    except (OSError, UnicodeDecodeError):
        return None
    return text[5:].strip() if text.startswith("ref: ") else None


def head(folder: Path) -> str | None:
    """The commit a checkout stands at, read from its files in microseconds; None for no checkout."""
    where = git_dir(folder)
    if where is None:
        return None
    try:
        reference = branch(folder)
        if reference is None:
            commit = (where / "HEAD").read_text(encoding="utf-8").strip()
            return commit if re.fullmatch("[0-9a-f]{40,64}", commit) else None
        if (where / "commondir").is_file():
            where = where / (where / "commondir").read_text(encoding="utf-8").strip()
        if (where / reference).is_file():
            return (where / reference).read_text(encoding="utf-8").strip()
        packed = (where / "packed-refs").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(rf"^([0-9a-f]{{40,64}}) {re.escape(reference)}$", packed, re.MULTILINE)
    return found[1] if found else None


def is_empty(folder: Path) -> bool:
    """Whether a folder is missing or holds nothing."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


# ------------------------------------------------------------------ git


def git(folder: Path, *arguments: str, limit: float = 300, hold: int | None = None) -> str:
    """Run git in a folder and return what it printed.

    Args:
        limit: seconds.
        hold: a lock's file descriptor that the child keeps, should this process be killed.

    Raises:
        Refused: git is missing, failed, or took longer than ``limit``.
    """
    binary = shutil.which("git")
    if binary is None:
        raise Refused(NO_GIT)
    environment = {k: v for k, v in os.environ.items() if k not in GIT_PLACES}
    environment.update(
        LC_ALL="C",  # its messages are read below
        GIT_TERMINAL_PROMPT="0",
        GIT_OPTIONAL_LOCKS="0",
        GIT_LFS_SKIP_SMUDGE="1",
        # Where .git is broken, git would take the repository around it, which is ours.
        GIT_CEILING_DIRECTORIES=str(folder.resolve().parent),
    )
    # A restored cache or a mounted folder may belong to another user.
    options = ("-c", "safe.directory=*", "-c", "core.longpaths=true", "-c", "advice.detachedHead=0")
    keep = (hold,) if hold is not None and os.name == "posix" else ()
    try:
        done = subprocess.run(
            [binary, *options, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit,
            pass_fds=keep,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"git {arguments[0]} did not end within {limit:g} s", "", True) from None
    except OSError as error:
        raise Refused(f"git does not start: {error.strerror or error}") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise _refusal(said or f"git {arguments[0]} ended with status {done.returncode}")
    return done.stdout.decode("utf-8", "surrogateescape")


def _refusal(said: str) -> Refused:
    last = said.splitlines()[-1]
    last = re.sub(r"^(fatal|error): ", "", last)[:200]

    def about(pattern: str) -> bool:
        return re.search(pattern, said, re.IGNORECASE) is not None

    if about("no space left|disk quota"):
        return Refused("the disk is full", said)
    if about("not our ref|find remote ref|unadvertised object|not send all necessary"):
        return Refused("the repository does not have this commit", said)
    if about(r"repository '?.*'? ?not found|could not read username|authentication failed"):
        return Refused("there is no such repository, or it is private", said)
    if about("does not appear to be a git repository|does not exist"):
        return Refused(f"there is no repository there ({last})", said)
    if about(
        "resolve host|resolve proxy|connect to|timed out|unreachable|refused|unable to access"
    ):
        host = re.search(r"(?:resolve host|resolve proxy): ?(\S+)|https?://([^/:' ]+)", said)
        where = next((name for name in host.groups() if name), "") if host else "the server"
        return Refused(f"{where} cannot be reached", said, True)
    return Refused(f"git says: {last}", said)


def changed(folder: Path) -> tuple[list[str], list[str]]:
    """(missing, modified) tracked files of a checkout, as git sees them.

    Raises:
        Refused: git is missing or cannot read the checkout.
    """
    listing = git(
        folder, "status", "--porcelain", "-z", "--untracked-files=no", "--ignore-submodules=all"
    )
    missing, modified = [], []
    entries = iter(listing.split("\0"))
    for entry in entries:
        if not entry:
            continue
        code, name = entry[:2], entry[3:]
        (missing if code == " D" else modified).append(name)
        if "R" in code or "C" in code:
            next(entries, None)  # a rename lists its old name too
    return missing, modified


# ------------------------------------------------------------------ making one


def fetch(url: str, commit: str, folder: Path) -> None:
    """Make ``folder`` a checkout of one commit, without its history. ``clone`` takes no commit.

    Raises:
        Refused: the network, the repository or the disk would not.
    """
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    git(folder, "config", "core.autocrlf", "false")
    git(folder, "remote", "add", "origin", url)
    _fetch_commit(folder, "origin", commit, shallow=True)
    git(folder, "checkout", "-q", "--detach", commit)


def _fetch_commit(folder: Path, source: str, commit: str, shallow: bool) -> None:
    depth = ("--depth", "1") if shallow else ()
    command = (*STALLED, "fetch", "-q", "--no-tags", "--no-recurse-submodules", *depth)
    try:
        git(folder, *command, source, commit, limit=FETCH_LIMIT)
    except Refused as refusal:
        if not refusal.unreachable or "resolve" in refusal.detail:
            raise
        time.sleep(2)  # one more try: connections to a busy host do break
        git(folder, *command, source, commit, limit=FETCH_LIMIT)


def copy(source: Path, folder: Path) -> None:
    """Copy a checkout: the tracked files that are there, and its git data; nothing untracked.

    A plain ``git clone`` would not do: a snapshot may lack objects that its files do not need.

    Raises:
        Refused: git is missing, or the source is a linked work tree.
    """
    data = git_dir(source)
    if data is None or (data / "commondir").exists():
        raise Refused(f"{source} is a linked work tree")
    names = [name for name in git(source, "ls-files", "-z").split("\0") if name]
    try:
        for name in names:
            if os.path.lexists(source / name) and not (source / name).is_dir():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, folder / name, follow_symlinks=False)
        shutil.copytree(data, folder / ".git", symlinks=True)
    except (OSError, shutil.Error) as error:
        raise Refused(f"{source} cannot be copied: {error}") from error
    if data != source / ".git":  # a submodule's data names the folder it belongs to
        with contextlib.suppress(Refused):
            settings = str(folder / ".git" / "config")
            git(folder.parent, "config", "--file", settings, "--unset", "core.worktree")
    with contextlib.suppress(Refused):  # it also fails where files differ, which is no matter
        git(folder, "update-index", "-q", "--refresh")


# ------------------------------------------------------------------ changing one


def same_repository(folder: Path, url: str, commit: str) -> bool:
    """Whether a checkout is of the repository at ``url``: by a remote's address, or because it has
    the commit, or because it has no commit at all."""

    def plain(address: str) -> str:
        address = re.sub(r"^(\w+://)?([^@/]+@)?", "", address.strip().lower().replace("\\", "/"))
        return address.replace(":", "/").rstrip("/").removesuffix(".git")

    if head(folder) is None:
        return True
    with contextlib.suppress(Refused):
        git(folder, "cat-file", "-e", commit + "^{commit}")
        return True
    with contextlib.suppress(Refused):
        addresses = git(folder, "config", "--get-regexp", r"^remote\..*\.url$").splitlines()
        return any(plain(line.split(" ", 1)[1]) == plain(url) for line in addresses)
    return False


def move(folder: Path, url: str, commit: str, hold: int | None = None) -> None:
    """Move a checkout to another commit of its repository; what stands in its way stays.

    The commit it stood at stays reachable, as ``refs/ltx23/<commit>``. A move that was interrupted
    is completed by calling this again.

    Raises:
        Refused: tracked files were changed, it is another repository, or the commit cannot be had.
    """
    data = git_dir(folder)
    if data is None:
        raise Refused("it is no git checkout")
    marker = data / MOVING
    again = marker.exists()
    if not again:
        if not same_repository(folder, url, commit):
            raise Refused("it is a checkout of another repository")
        modified = changed(folder)[1]
        if modified:
            raise Refused(f"files in it were changed: {', '.join(sorted(modified)[:5])}")
    stood_at = head(folder)
    try:
        git(folder, "cat-file", "-e", commit + "^{commit}")
    except Refused as refusal:
        if str(refusal) == NO_GIT:
            raise
        shallow = stood_at is None or (data / "shallow").exists()
        _fetch_commit(folder, url, commit, shallow)
    if stood_at and not again:
        git(folder, "update-ref", f"refs/ltx23/{stood_at}", stood_at)
    if again:  # the files are between two commits, and the process that held the index is gone
        (data / "index.lock").unlink(missing_ok=True)
        git(folder, "checkout", "-q", "--force", "--detach", commit, hold=hold)
    else:
        marker.write_text(commit, encoding="utf-8")
        try:
            git(folder, "checkout", "-q", "--detach", commit, hold=hold)
        except Refused:
            if not changed(folder)[1]:  # it refused before it touched a file
                marker.unlink()
            raise
    marker.unlink()


def restore(folder: Path, names: list[str]) -> None:
    """Bring back tracked files that are missing, from the checkout's own data.

    Raises:
        Refused: git is missing, or the data lacks them.
    """
    for begin in range(0, len(names), 200):
        git(folder, "checkout", "-q", "--", *names[begin : begin + 200])


def place(new: Path, target: Path) -> None:
    """Put a whole checkout where it belongs: one rename, where nothing is there yet.

    Where a folder already holds files, as models a person put there first, the new files are moved
    in beside them and ``.git``, which makes it a checkout, comes last.

    Raises:
        Refused: a file there differs from the one that would take its name; nothing was moved.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if is_empty(target):
        try:
            if target.is_dir():
                target.rmdir()
            new.rename(target)
            return
        except OSError:  # a mount point can be neither removed nor replaced
            target.mkdir(exist_ok=True)
    clashes = list(_clashes(new, target))
    if clashes:
        names = ", ".join(path.relative_to(target).as_posix() for path in clashes[:5])
        raise Refused(f"{len(clashes)} files there are not this commit's: {names}")
    _fill(new, target)


def _clashes(new: Path, target: Path) -> Iterator[Path]:
    for entry in new.iterdir():
        there = target / entry.name
        if not os.path.lexists(there):
            continue
        if entry.is_dir() and there.is_dir():
            yield from _clashes(entry, there)
        elif not (entry.is_file() and there.is_file() and filecmp.cmp(entry, there, shallow=False)):
            yield there


def _fill(new: Path, target: Path) -> None:
    for entry in sorted(new.iterdir(), key=lambda path: path.name == ".git"):
        there = target / entry.name
        if not os.path.lexists(there):
            shutil.move(entry, there)
        elif entry.is_dir():
            _fill(entry, there)


def remove(folder: Path) -> None:
    """Delete a temporary folder as far as that is possible; what is left is tried again next time."""
    if os.name == "nt":  # git writes its packs read-only
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                path.chmod(stat.S_IWRITE)
    shutil.rmtree(folder, ignore_errors=True)


# ------------------------------------------------------------------ one at a time


@contextlib.contextmanager
def lock(path: Path, waiting: Callable[[], None], limit: float = 3600) -> Iterator[int]:
    """Hold a file's lock; the system frees it when the process dies, so it cannot go stale.

    Args:
        path: the lock file; made if need be and left behind.
        waiting: called once, if another process holds it.
        limit: seconds to wait for that process.

    Raises:
        TimeoutError: the other process still holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ends, told = time.monotonic() + limit, False
    with path.open("a+b") as handle:
        while not _locked(handle.fileno()):
            if not told:
                waiting()
                told = True
            if time.monotonic() > ends:
                raise TimeoutError(f"another process has held {path} for {limit:g} s")
            time.sleep(0.2)
        yield handle.fileno()


def _locked(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:
        import msvcrt

        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network file system without locks: go on without one
        return True
    return True
