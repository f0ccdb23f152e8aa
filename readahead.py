"""Bringing model files into the system's file cache while something else keeps the processor busy.

ComfyUI maps its model files; what is in the cache already is loaded at the speed of memory. Booting
takes ten seconds or more in which the disk has nothing to do.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

BLOCK = 16 << 20  # bytes at a time; between two, other readers get their turn
SPARE = 8 << 30  # bytes of memory that are left alone

log = logging.getLogger("studio")


def available() -> int:
    """Bytes of memory that can be had without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)


def start(
    paths: Iterable[Path], stop: threading.Event, room: Callable[[], int] = available
) -> threading.Thread:
    """Read files in order on a thread of its own, as long as ``stop`` is not set.

    What does not fit into the memory available, less :data:`SPARE`, is left out: it would push out
    what was read before.
    """
    found = list(paths)
    thread = threading.Thread(target=_read, args=(found, stop, room), name="readahead", daemon=True)
    thread.start()
    return thread


def _read(paths: list[Path], stop: threading.Event, room: Callable[[], int]) -> None:
    buffer, left = bytearray(BLOCK), room() - SPARE
    for path in paths:
        try:
            size = path.stat().st_size
            if size > left:
                continue
            left -= size
            with open(path, "rb", buffering=0) as file:
                while not stop.is_set() and file.readinto(buffer):
                    pass
        except OSError as error:  # it will be said where the file is needed
            log.debug("%s is not read ahead: %s", path.name, error)
        if stop.is_set():
            return
