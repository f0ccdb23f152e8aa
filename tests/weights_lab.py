"""What the tests of the weights share: a ComfyUI folder beside a loopback Hub, and driver processes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import COMMIT, FakeHub

import hub_cache
from download_parts import Xet
from registry import ModelFile

DRIVER = Path(__file__).with_name("weights_driver.py")
MB = 1024 * 1024
BIG = random.Random(7).randbytes(12 * MB)
NEEDS_XET = pytest.mark.skipif(
    Xet.make() is None, reason="hf_xet is missing or cannot start in the middle of a file"
)
SMALL = random.Random(8).randbytes(2 * MB)


class Run:
    """One finished driver process: its events, and its last line."""

    def __init__(self, process: subprocess.CompletedProcess):
        lines = [json.loads(line) for line in process.stdout.splitlines()]
        assert lines, process.stderr
        assert lines[-1]["type"] == "end", process.stderr
        self.events, self.end = lines[:-1], lines[-1]
        self.error = self.end["error"]
        self.notes = [e["text"] for e in self.events if e["type"] == "Note"]
        self.downloads = [e for e in self.events if e["type"] == "Download"]


class Studio:
    """A ComfyUI folder and a Hugging Face home below one temporary folder."""

    def __init__(self, folder: Path, hub: FakeHub):
        self.folder, self.hub = folder, hub
        self.comfy, self.home = folder / "comfy", folder / "hf"
        self.files: list[dict] = []

    def wants(self, repo: str, path: str, size: int = 1, folder: str = "vae") -> Path:
        """Add a file to what the driver ensures; returns where ComfyUI will look for it."""
        name = path.rpartition("/")[2]
        self.files.append(
            {"name": name, "folder": folder, "repo": repo, "path": path, "size": size}
        )
        return self.comfy / "models" / folder / name

    def command(self, **options) -> list[str]:
        given = {"comfy": str(self.comfy), "files": self.files, "backoff": 0.01, **options}
        return [str(DRIVER), json.dumps(given)]

    def environ(self, **more: str) -> dict[str, str]:
        return {**self.hub.environ(self.home), "HF_HUB_DISABLE_XET": "1", **more}

    def ensure(self, env: dict[str, str] | None = None, **options) -> Run:
        done = subprocess.run(
            [sys.executable, *self.command(**options)],
            env={**os.environ, **self.environ(**(env or {}))},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Run(done)

    def start(self, env: dict[str, str] | None = None, **options) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, *self.command(**options)],
            env={**os.environ, **self.environ(**(env or {}))},
            stdout=subprocess.PIPE,
            text=True,
        )

    def blobs(self) -> list[str]:
        """Names in all blobs folders that claim to be whole."""
        found = self.home.glob("hub/models--*/blobs/*")
        return [path.name for path in found if not path.name.endswith(".incomplete")]

    def mistakable(self) -> list[str]:
        """Files below comfyui/models, which ComfyUI would offer to load."""
        return [str(p) for p in (self.comfy / "models").rglob("*") if not p.is_dir()]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kill_at(process: subprocess.Popen, share: float) -> None:
    """SIGKILL once the process has shown that share of the bytes as done."""
    for line in process.stdout:
        event = json.loads(line)
        if event["type"] == "Download" and event["done"] >= share * event["total"]:
            break
    process.kill()
    process.wait()
    process.stdout.close()


def safetensors(size: int = 64, fill: int = 1) -> bytes:
    """A whole safetensors file with one tensor of that many bytes."""
    header = json.dumps({"t": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes([fill]) * size


def cached(home: Path, file: ModelFile, data: bytes, commit: str = COMMIT) -> Path:
    """Put a file into a Hugging Face cache as any tool of theirs would."""
    folder = hub_cache.repo_dir(file.repo, home / "hub")
    blob = folder / "blobs" / f"{file.size:064x}"
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    return hub_cache.enter(file.repo, file.path, commit, blob.name, home / "hub")


def empty_machine(folder: Path, monkeypatch) -> Path:
    """ComfyUI's folder, an extra folder and a Hugging Face home, all empty; returns ``folder``."""
    for name in ("HF_HUB_CACHE", "AUX_ANNOTATOR_CKPTS_PATH", "LTX23_AIO_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(folder / "hf"))
    (folder / "comfy/models").mkdir(parents=True)
    (folder / "mine").mkdir()
    return folder
