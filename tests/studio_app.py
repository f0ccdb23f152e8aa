"""The real studio as a person starts it: ``app.py`` with demo weights in a process of its own."""

from __future__ import annotations

import atexit
import functools
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

import bootstrap

BOOT = 180.0  # seconds; 15 to 25 on two idle cores


@dataclass(frozen=True)
class App:
    """A running studio. ``opened`` is the seconds from the start to the first page served."""

    url: str
    folder: Path
    log: Path
    process: subprocess.Popen
    opened: float

    @property
    def outputs(self) -> Path:
        """Where its visitors' videos lie."""
        return self.folder / "outputs"


def start(**environ: str) -> App:
    """Start one on a free port and wait for its page, not for its engine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="ltx23-studio-"))
    log = folder / "log"
    settings = {
        "LTX23_AIO_OUTPUTS": str(folder / "outputs"),
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
    }
    command = [sys.executable, str(bootstrap.REPO / "app.py"), "--port", str(port)]
    command += ["--weights", "demo", "--no-browser"]
    with open(log, "wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, **settings, **environ}
        )
    atexit.register(process.kill)
    url, began = f"http://127.0.0.1:{port}", time.monotonic()
    while time.monotonic() - began < BOOT:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return App(url, folder, log, process, time.monotonic() - began)
    pytest.fail("The studio did not start:\n" + log.read_text()[-3000:])


@functools.cache
def running() -> App:
    """The one studio all tests of a session share."""
    return start()
