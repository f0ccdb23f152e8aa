"""Real git repositories for tests, served from disk as a server would serve them."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

IDENTITY = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=0")


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, as a person would; returns what it printed."""
    done = subprocess.run(
        ["git", *IDENTITY, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass(frozen=True)
class Origin:
    """A repository with two commits on ``main``; ``first`` is no branch's tip."""

    folder: Path
    first: str
    second: str

    @property
    def url(self) -> str:
        """Its address; a ``file://`` one, so that git talks to it as to a server."""
        return self.folder.as_uri()


def make_origin(folder: Path, names: tuple[str, ...]) -> Origin:
    """A repository with the named files, whose content is the name and the number of the commit."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    commits = []
    for number in ("first", "second"):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{name} {number}\n", encoding="utf-8")
        git(folder, "add", "--all", "--force")
        git(folder, "commit", "-q", "-m", number)
        commits.append(git(folder, "rev-parse", "HEAD"))
    return Origin(folder, *commits)


def path_with_git(folder: Path, script: str) -> str:
    """A PATH on which ``git`` is a shell script; in it, ``$REAL`` is the real one."""
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout
    folder.mkdir()
    wrapper = folder / "git"
    wrapper.write_text(f"#!/bin/bash\nREAL={real.strip()}\n{script}\n", encoding="utf-8")
    wrapper.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"
