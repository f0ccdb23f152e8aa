"""The small parts of a download: the flag that stops it, the growing file, its hash, xet's stream.

Used by :mod:`downloads` only. Nothing here knows of repositories or of errors in words.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class Halt:
    """One flag out of two: the caller's ``cancel``, and :meth:`set` when this batch must stop."""

    def __init__(self, cancel: threading.Event | None = None):
        self._cancel, self._stop = cancel, threading.Event()

    def set(self) -> None:
        """Stop this batch, without touching the caller's flag."""
        self._stop.set()

    def is_set(self) -> bool:
        """Whether to stop."""
        return self._stop.is_set() or (self._cancel is not None and self._cancel.is_set())

    def wait(self, seconds: float) -> None:
        """Sleep, at most until the flag is set."""
        until = time.monotonic() + seconds
        while not self.is_set() and (left := until - time.monotonic()) > 0:
            self._stop.wait(min(left, 0.1))


class Halted(Exception):
    """The flag was set; what has been fetched stays for the next attempt."""


def digest_for(etag: str, size: int) -> Any:
    """A hash that the etag can be compared with: SHA-256 for large files, git's own for small."""
    if len(etag) == 64:
        return hashlib.sha256()
    digest = hashlib.sha1(usedforsecurity=False)
    digest.update(f"blob {size}\0".encode())
    return digest


def matches(digest: Any, etag: str) -> bool:
    """Whether the bytes are the promised ones; an etag that is no hash promises nothing."""
    return len(etag) not in (40, 64) or digest.hexdigest() == etag


class Part:
    """The growing file: appended to without buffering, so that a killed process loses nothing."""

    def __init__(self, path: Path, digest: Any, progress: Callable[[int], None]):
        self.stream = path.open("ab", buffering=0)
        self.digest, self.progress = digest, progress
        self.size = os.fstat(self.stream.fileno()).st_size

    def append(self, piece: bytes) -> None:
        """Write and hash the next bytes."""
        view = memoryview(piece)
        while view:
            written = self.stream.write(view)
            self.digest.update(view[:written])
            self.size += written
            view = view[written:]
        self.progress(self.size)

    def restart(self, digest: Any) -> None:
        """Throw away what is here: the server starts at the first byte again."""
        self.stream.truncate(0)
        self.digest, self.size = digest, 0

    def close(self) -> None:
        """Close the file."""
        self.stream.close()


class Xet:
    """Xet storage: the same bytes, from many connections at once. Its streams start anywhere."""

    def __init__(self, module: Any):
        self.module, self.session, self.lock = module, None, threading.Lock()
        self.closed = False

    @classmethod
    def make(cls) -> Xet | None:
        """None where hf_xet is not installed, or too old to start in the middle of a file."""
        try:
            import hf_xet
        except ImportError:
            return None
        able = hasattr(hf_xet, "XetSession") and hasattr(
            hf_xet.XetSession, "new_download_stream_group"
        )
        return cls(hf_xet) if able else None

    def stream(
        self, file_hash: str, size: int, route: str, start: int, headers: dict[str, str]
    ) -> Iterator[bytes]:
        """The file's bytes from ``start`` on."""
        with self.lock:
            if self.closed:
                raise RuntimeError("this batch no longer uses xet")
            if self.session is None:
                self.session = self.module.XetSession()
            session = self.session
        group = session.new_download_stream_group(
            token_refresh_url=route, token_refresh_headers=headers
        )
        info = self.module.XetFileInfo(file_hash, size)
        return iter(group.download_stream(info, start=start))

    def close(self) -> None:
        """End the session and its native threads; a stream being read raises."""
        with self.lock:
            session, self.session, self.closed = self.session, None, True
        if session is not None:
            session.sigint_abort()
