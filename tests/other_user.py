"""Running a Python process as an ordinary user: for root, file permissions do not exist."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent


@lru_cache(maxsize=1)
def _interpreter() -> tuple[str, int, int]:
    """(python, uid, gid) of an interpreter that ``nobody`` may run with this environment's packages."""
    user = pwd.getpwnam("nobody")
    for python in (sys.executable, shutil.which("python3", path="/usr/bin:/usr/local/bin")):
        if not python:
            continue
        try:
            done = subprocess.run(
                [python, "-c", "import huggingface_hub, yaml, models"],
                env={"PYTHONPATH": _path(), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
                user=user.pw_uid,
                group=user.pw_gid,
                extra_groups=[],
                cwd="/",
                capture_output=True,
                timeout=60,
            )
        except OSError:
            continue
        if done.returncode == 0:
            return python, user.pw_uid, user.pw_gid
    return "", user.pw_uid, user.pw_gid


def _path() -> str:
    return os.pathsep.join([sysconfig.get_path("purelib"), str(PROJECT)])


def run(args: list[str], env: dict[str, str]) -> subprocess.CompletedProcess:
    """Run ``python *args`` as somebody who is neither root nor the owner of what root made.

    As an ordinary user already, runs as oneself. Skips the test, saying why, where it cannot.
    """
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": _path(), "PYTHONDONTWRITEBYTECODE": "1", **env}
    if os.geteuid() != 0:
        return subprocess.run(
            [sys.executable, *args], env=env, capture_output=True, text=True, timeout=60
        )
    python, uid, gid = _interpreter()
    if not python:
        pytest.skip("no Python on this machine can be run by the user nobody with our packages")
    return subprocess.run(
        [python, *args],
        env=env,
        user=uid,
        group=gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
