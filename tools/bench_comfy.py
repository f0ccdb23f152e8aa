"""ComfyUI's own server, main.py, as the bench's yardstick: same weights, same packs, same machine.

It listens on loopback only and keeps everything it writes in a folder of the bench's own.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bootstrap
import comfyhost

CLOCK = Path(__file__).resolve().parent / "bench_clock"
BOOT_LIMIT = 180.0  # seconds
RUN_LIMIT = 600.0  # seconds


def free_port() -> int:
    """A TCP port of 127.0.0.1 nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def child_environment(**more: str) -> dict[str, str]:
    """The environment of every process the bench times: compiled modules come from one cache, so
    that neither side compiles its own anew, and none is written into the folders measured."""
    environment = {**os.environ, **more}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = os.path.join(tempfile.gettempdir(), "bench-bytecode")
    return environment


def base_folder(comfy: Path, folder: Path) -> Path:
    """A base directory for main.py: demo weights, the pinned packs and the demo shim, as links."""
    packs = folder / "custom_nodes"
    packs.mkdir(parents=True, exist_ok=True)
    for name in bootstrap.packs_allowed():
        _link(packs / name, comfy / "custom_nodes" / name)
    _link(packs / comfyhost.SHIM, comfyhost.SHIM_FOLDER / comfyhost.SHIM)
    _link(packs / CLOCK.name, CLOCK)
    _link(folder / "models", bootstrap.demo_dir())
    _link(folder / "input", comfy / "input")  # the files the studio staged
    for name in ("output", "temp", "user"):
        (folder / name).mkdir(exist_ok=True)
    return folder


def _link(link: Path, target: Path) -> None:
    if not link.exists():
        link.symlink_to(target, target_is_directory=True)


def command(comfy: Path, base: Path, port: int, cpu: bool = True) -> list[str]:
    """How main.py is started: the packs the studio loads and no others, and no front end."""
    return [
        *(sys.executable, str(comfy / "main.py"), *(["--cpu"] if cpu else [])),
        *("--listen", "127.0.0.1", "--port", str(port), "--disable-auto-launch"),
        *("--base-directory", str(base), "--database-url", "sqlite:///:memory:"),
        *("--front-end-root", str(bootstrap.REPO / "assets"), "--disable-api-nodes"),
        *("--disable-all-custom-nodes", "--whitelist-custom-nodes"),
        *(*bootstrap.packs_allowed(), comfyhost.SHIM, CLOCK.name),
    ]


@dataclass
class Answer:
    """One run on the server.

    Attributes:
        seconds: from sending it to its last message. ``nodes``: inside the nodes themselves.
        executed: nodes that ran.
        failed: what went wrong, or "".
    """

    seconds: float
    nodes: float
    executed: int
    failed: str = ""

    @property
    def overhead(self) -> float:
        """What is not a node's own time."""
        return self.seconds - self.nodes


class Server:
    """main.py in a process of its own; use it as a context manager.

    Args:
        comfy: ComfyUI's folder.
        base: a folder for everything it writes; see :func:`base_folder`.
    """

    def __init__(self, comfy: Path, base: Path, cpu: bool = True):
        self.comfy, self.base, self.cpu = comfy, base_folder(comfy, base), cpu
        self.port, self.boot_seconds = free_port(), 0.0
        self.process: subprocess.Popen | None = None
        self._loop = asyncio.new_event_loop()
        self._session: Any = None
        self._socket: Any = None
        self.client = uuid.uuid4().hex

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        self.boot_seconds = self.start()
        self._loop.run_until_complete(self._connect())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._disconnect())
        self._loop.close()
        self.stop()

    def start(self) -> float:
        """Start the process; seconds until it answers."""
        checkpoints = self.comfy / "models" / "controlnet_aux"
        environment = child_environment(AUX_ANNOTATOR_CKPTS_PATH=str(checkpoints))
        log = (self.base / "server.log").open("w", encoding="utf-8")
        begun = time.monotonic()
        self.process = subprocess.Popen(
            command(self.comfy, self.base, self.port, self.cpu),
            cwd=self.base,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return time.monotonic() - begun
            except OSError:
                if self.process.poll() is not None or time.monotonic() - begun > BOOT_LIMIT:
                    tail = (self.base / "server.log").read_text(errors="replace")[-1500:]
                    self.stop()
                    raise RuntimeError(f"ComfyUI's server does not start:\n{tail}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End the process."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    async def _connect(self) -> None:
        import aiohttp

        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(
            f"http://{self.address}/ws?clientId={self.client}", max_msg_size=0
        )

    async def _disconnect(self) -> None:
        if self._socket is not None:
            await self._socket.close()
            await self._session.close()

    def run(self, graph: dict[str, Any]) -> Answer:
        """Send a graph and wait for its end."""
        return self._loop.run_until_complete(asyncio.wait_for(self._run(graph), RUN_LIMIT))

    async def _run(self, graph: dict[str, Any]) -> Answer:
        begun, executed, nodes = time.perf_counter(), 0, 0.0
        body = {"prompt": graph, "client_id": self.client}
        async with self._session.post(f"http://{self.address}/prompt", json=body) as reply:
            answer = await reply.json()
            if reply.status != 200:
                return Answer(0.0, 0.0, 0, json.dumps(answer)[:500])
        async for message in self._socket:
            if isinstance(message.data, (bytes, bytearray)):
                continue
            event = json.loads(message.data)
            data = event.get("data", {})
            if data.get("prompt_id") != answer["prompt_id"]:
                continue
            if event["type"] == "executing" and data.get("node"):
                executed += 1
            elif event["type"] == "bench_clock":
                nodes = data["nodes"]
            elif event["type"] == "execution_success":
                return Answer(time.perf_counter() - begun, nodes, executed)
            elif event["type"] in ("execution_error", "execution_interrupted"):
                return Answer(0.0, 0.0, executed, json.dumps(data)[:500])
        return Answer(0.0, 0.0, executed, "the connection was closed")

    def free(self) -> None:
        """Unload the models and forget cached results, as the studio's ``Engine.free``."""
        self._loop.run_until_complete(self._free())

    async def _free(self) -> None:
        body = {"unload_models": True, "free_memory": True}
        async with self._session.post(f"http://{self.address}/free", json=body) as reply:
            await reply.read()
        await asyncio.sleep(0.5)  # its worker thread does it when it next wakes

    def memory(self) -> int:
        """Resident bytes of the process."""
        import psutil

        assert self.process is not None
        return psutil.Process(self.process.pid).memory_info().rss
