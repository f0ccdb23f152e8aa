"""Weights in the parent's cache, so that a new ZeroGPU worker does not start from nothing.

A worker is a fork: what the parent's executor has loaded, it has loaded too. So the loader nodes of a
graph are run once in the parent, when the first job needs them and before it asks for a GPU.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import backend
import comfyhost
import forkgate
import models
import workflow
from events import Event, Note, Tick

log = logging.getLogger("studio.zerogpu")

# LoRAs stay out: their many combinations would all be kept, and the page cache has them anyway.
LOADERS = {kind for kind, _ in models.LOADERS} - {"LoraLoader", "LoraLoaderModelOnly"}
LOADERS -= {kind for (kind, _), folder in models.LOADERS.items() if folder == models.AUX}
# One warm-up at a time, and what has been loaded: of this process's one executor.
_warming = threading.Lock()
_warmed: set[str] = set()


def warm(host: comfyhost.Host, graph: workflow.Graph, cancel: threading.Event) -> Iterator[Event]:
    """Run the graph's loader nodes in the parent, once: new workers then find them in their cache.

    The weights stay memory-mapped in main memory. A loader that fails here is left to the worker.
    """
    begun = time.monotonic()
    while not _warming.acquire(timeout=backend.TICK):
        if cancel.is_set():
            raise backend.interrupted()
        yield Tick(time.monotonic() - begun)
    try:
        loaders = {
            node_id: node
            for node_id, node in graph.items()
            if node["class_type"] in LOADERS and not workflow.links(node)
        }
        todo = {i: n for i, n in loaders.items() if _key(n) not in _warmed}
        if not todo:
            return
        yield Note("Reading the models into memory, once; this costs no GPU time.")
        thread = threading.Thread(target=forkgate.carried(lambda: _load(host, todo)), name="warm")
        thread.start()
        try:
            while thread.is_alive():
                thread.join(backend.TICK)
                yield Tick(time.monotonic() - begun)
        finally:
            thread.join()  # nobody may fork meanwhile
    finally:
        _warming.release()


def _key(node: Mapping[str, Any]) -> str:
    return f"{node['class_type']} {sorted(node['inputs'].items())}"


def _load(host: comfyhost.Host, loaders: workflow.Graph) -> None:
    with forkgate.GATE, _no_device():
        for node_id, node in loaders.items():
            try:
                host.executor.execute(
                    {node_id: dict(node)}, "warm", {"client_id": comfyhost.CLIENT}, [node_id]
                )
                done = host.executor.success
            except Exception:
                log.exception("A loader failed in the parent")
                done = False
            if not done:
                log.warning("%s is left to the GPU worker", node["class_type"])
            _warmed.add(_key(node))


@contextlib.contextmanager
def _no_device() -> Iterator[None]:
    """Let ComfyUI place weights as if the card were full: in this process it is only emulated."""
    import comfy.model_management as mm

    real = mm.get_free_memory

    def free(dev: Any = None, torch_free_too: bool = False) -> Any:
        if dev is not None and mm.is_device_cpu(dev):
            return real(dev, torch_free_too)
        return (0, 0) if torch_free_too else 0

    mm.get_free_memory = free
    try:
        yield
    finally:
        mm.get_free_memory = real
