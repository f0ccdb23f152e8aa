"""The vendor's own converter: the real ComfyUI server with its released front end, on loopback."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bootstrap

DRIVER = Path(__file__).with_name("front_end_driver.py")
PACKAGES = ("comfyui_frontend_package", "playwright")
BOOT_LIMIT = 180  # seconds


def missing() -> list[str]:
    """The development packages that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


@contextlib.contextmanager
def served(comfy: Path, folder: Path) -> Iterator[str]:
    """ComfyUI's page as an URL, for as long as the block lasts.

    Everything it writes goes into ``folder``, an empty one; it has no models and no inputs.
    """
    packs = folder / "custom_nodes"
    packs.mkdir(parents=True)
    for name in bootstrap.packs_allowed():
        (packs / name).symlink_to(comfy / "custom_nodes" / name, target_is_directory=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, str(comfy / "main.py"), "--cpu", "--disable-api-nodes"),
        *("--listen", "127.0.0.1", "--port", str(port)),
        *("--base-directory", str(folder), "--database-url", "sqlite:///:memory:"),
        *("--disable-all-custom-nodes", "--whitelist-custom-nodes", *bootstrap.packs_allowed()),
    ]
    environ = {**os.environ, "MPLCONFIGDIR": str(folder), "HF_HUB_OFFLINE": "1"}
    environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with open(folder / "log.txt", "w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log)
        try:
            _wait(f"http://127.0.0.1:{port}/system_stats", server, folder / "log.txt")
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.terminate()
            server.wait(30)


def _wait(url: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + BOOT_LIMIT
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(f"ComfyUI ended with {server.returncode}: {log.read_text()[-2000:]}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.5)
    raise RuntimeError(f"ComfyUI did not start: {log.read_text()[-2000:]}")


def drive(url: str, chromium: str, **job: Any) -> dict[str, Any]:
    """Do a job in the page; see front_end_driver.py for what there is to do."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file, out = Path(folder) / "job.json", Path(folder) / "out.json"
        job |= {"url": url, "chromium": chromium, "out": str(out), "profile": f"{folder}/profile"}
        file.write_text(json.dumps(job), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(DRIVER), str(file)], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(out.read_text(encoding="utf-8"))
