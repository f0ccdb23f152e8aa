"""One model file from the Hub into the Hugging Face cache, resumably and checked.

The room below :mod:`models` that talks to the network. What ``huggingface_hub`` 2.4.0 with
``hf_xet`` 1.8.0 does about interruptions was measured by counting the bytes a server sent, with the
process killed by SIGKILL at 60 %: the next ``hf_hub_download`` fetched 100 % of the file again, over
HTTP and over xet alike, and left the first attempt's part behind for ever. Each download writes to a
temporary file with a random name, so no later one can find it.

So here a file grows in ``blobs/<etag>.studio.incomplete``, a name that every attempt computes alike.
The next attempt reads that part once for its hash and asks for the rest: over xet where the server
offers it and ``hf_xet`` is installed (its streams start at any byte), else by an HTTP range. A killed
process loses nothing over HTTP; over xet what it held in memory ahead of its place in the file (2.5
GB at most for one file, by xet's own defaults). Only bytes whose SHA-256 is the one the Hub promised
are renamed to ``blobs/<etag>`` and linked from the snapshot, where every other tool finds them.
Names, requests, tokens and errors are the library's own.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hub_cache
from download_parts import Halt, Halted, Part, Xet, digest_for, matches
from errors import WeightsError
from registry import GB, ModelFile

RETRIES = 5  # attempts in a row without one new byte
BACKOFF = 1.0  # seconds before the first retry; doubles each time
LONGEST_WAIT = 60.0  # seconds, also for a server's own Retry-After
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
PIECE = 4 * 1024 * 1024  # bytes read at a time when a part is hashed
SUFFIX = ".studio.incomplete"  # the library's cache tools know the last part of it


@dataclass(frozen=True)
class Remote:
    """What the Hub says of a file. ``size`` in bytes; ``xet_*`` empty where it offers no xet."""

    file: ModelFile
    commit: str
    etag: str
    size: int
    url: str
    xet_hash: str = ""
    xet_route: str = ""


def size_text(count: int) -> str:
    """Bytes as people read them, decimal."""
    return f"{count / GB:.1f} GB" if count >= GB / 10 else f"{count / 1e6:.1f} MB"


class Hub:
    """The Hub, for one batch of downloads. Close it: xet keeps native threads until then.

    Args:
        cache: the cache's ``hub`` folder.
        halt: stops everything that waits or reads.
        retries, backoff: see :data:`RETRIES` and :data:`BACKOFF`.
        note: told what a person should know, one sentence each; called from worker threads.
    """

    def __init__(
        self,
        cache: Path,
        halt: Halt,
        retries: int = RETRIES,
        backoff: float = BACKOFF,
        note: Callable[[str], None] = lambda text: None,
    ):
        # Imported late: a machine that has every file never pays for it (0.3 s).
        from huggingface_hub import constants, errors, get_session, utils

        self.cache, self.halt, self.note = cache, halt, note
        self.retries, self.backoff = retries, backoff
        self.offline, self.endpoint = constants.HF_HUB_OFFLINE, constants.ENDPOINT
        self.timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        self.errors, self.utils, self.session = errors, utils, get_session()
        # httpx in huggingface_hub 1, httpx2 in 2: the client knows which.
        self.transport = importlib.import_module(type(self.session).__module__.split(".")[0])
        self.xet = None if constants.HF_HUB_DISABLE_XET else Xet.make()

    def close(self) -> None:
        """Stop xet's threads. Safe to call from another thread while a download runs."""
        if self.xet:
            self.xet.close()

    # ------------------------------------------------------------------ what the Hub says

    def describe(self, file: ModelFile) -> Remote:
        """Ask the Hub for a file's size and hash; says at once whether this token may have it.

        Raises:
            WeightsError: refused, not found, offline, or unreachable after the retries.
            Halted: the flag was set.
        """
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(file.repo, file.path)
        meta = self._retry(file, lambda: get_hf_file_metadata(url, timeout=self.timeout))
        if not (meta.etag and meta.commit_hash and meta.size):
            raise WeightsError(
                f"{self.endpoint} does not answer as the Hugging Face Hub does",
                f"{file.repo}/{file.path}",
                "Check HF_ENDPOINT and any proxy.",
            )
        pinned = hf_hub_url(file.repo, file.path, revision=meta.commit_hash)
        xet = getattr(meta, "xet_file_data", None)
        return Remote(
            file,
            meta.commit_hash,
            meta.etag,
            meta.size,
            pinned,
            xet.file_hash if xet else "",
            xet.refresh_route if xet else "",
        )

    def _blobs(self, remote: Remote) -> Path:
        return hub_cache.repo_dir(remote.file.repo, self.cache) / "blobs"

    def have(self, remote: Remote) -> int:
        """Bytes of the file that need not be fetched any more."""
        with contextlib.suppress(OSError):
            if (self._blobs(remote) / remote.etag).stat().st_size == remote.size:
                return remote.size
        with contextlib.suppress(OSError):
            return min((self._blobs(remote) / (remote.etag + SUFFIX)).stat().st_size, remote.size)
        return 0

    def check_disk(self, remotes: list[Remote], copies: int = 0) -> None:
        """Compare what is still to come with the room there is.

        Args:
            copies: bytes that will be copied as well, on a file system without links.

        Raises:
            WeightsError: it does not fit (both figures), or the cache cannot be written.
        """
        want = sum(r.size - self.have(r) for r in remotes) + copies
        for remote in remotes:
            try:
                self._blobs(remote).mkdir(parents=True, exist_ok=True)
                if not os.access(self._blobs(remote), os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, "not writable")
            except OSError as error:
                raise self._disk_error(error, remote) from None
        free = shutil.disk_usage(self.cache).free
        if want > free:
            raise disk_full(remotes[0].file, want, free, self.cache)

    # ------------------------------------------------------------------ the bytes

    def fetch(self, remote: Remote, progress: Callable[[int], None], replace: bool = False) -> Path:
        """Fetch the file, or the rest of it, check it and enter it into the cache.

        Args:
            progress: told how many bytes of the file are here; called from this thread.
            replace: the cache's own copy is known to be damaged; fetch it again.

        Returns:
            the file's path in the cache.

        Raises:
            WeightsError: it cannot be had; nothing that looks like the whole file is left behind.
            Halted: the flag was set; the part stays.
        """
        blob = self._blobs(remote) / remote.etag
        part = blob.with_name(blob.name + SUFFIX)
        try:
            blob.parent.mkdir(parents=True, exist_ok=True)
            with self._locked(remote, part, progress):
                if replace or not blob.is_file() or blob.stat().st_size != remote.size:
                    self._fill(remote, part, progress)
                    os.replace(part, blob)
                return hub_cache.enter(
                    remote.file.repo, remote.file.path, remote.commit, remote.etag, self.cache
                )
        except OSError as error:
            raise self._disk_error(error, remote) from error

    @contextlib.contextmanager
    def _locked(self, remote: Remote, part: Path, progress: Callable[[int], None]) -> Iterator:
        """Hold the library's own lock on this blob: one process fetches it, others watch it grow."""
        import filelock

        folder = self.cache / ".locks" / hub_cache.repo_dir(remote.file.repo, self.cache).name
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    lock = self.utils.WeakFileLock(folder / f"{remote.etag}.lock", timeout=0.3)
                    stack.enter_context(lock)
                    break
                except filelock.Timeout:
                    if self.halt.is_set():
                        raise Halted from None
                    progress(part.stat().st_size if part.exists() else 0)
            yield

    def _fill(self, remote: Remote, part: Path, progress: Callable[[int], None]) -> None:
        """Bring the part to the file's size with the right hash; once more from nothing if not."""
        if part.exists() and part.stat().st_size > remote.size:
            part.unlink()
        resumed = part.exists() and part.stat().st_size > 0
        while True:
            digest = self._hash_part(part, remote, progress)
            state = Part(part, digest, progress)
            try:
                self._retry(remote.file, lambda s=state: self._receive(remote, s), state)
                whole = state.size == remote.size and matches(state.digest, remote.etag)
            finally:
                state.close()
            if whole:
                return
            got = state.size
            part.unlink(missing_ok=True)
            if not resumed:
                raise WeightsError(
                    f"The bytes of {remote.file.name} are not those {remote.file.repo} promises: "
                    f"{got:,} of {remote.size:,} bytes arrived and the hash differs",
                    f"{remote.file.repo}/{remote.file.path}",
                    "A proxy or mirror may alter them; check HF_ENDPOINT, then run again.",
                )
            self.note(f"The part of {remote.file.name} on disk was damaged: starting it again.")
            resumed = False

    def _hash_part(self, part: Path, remote: Remote, progress: Callable[[int], None]) -> Any:
        """The hash of what is here already."""
        digest = digest_for(remote.etag, remote.size)
        if not part.exists():
            return digest
        size = part.stat().st_size
        if size > GB:
            self.note(
                f"Checking the {size_text(size)} of {remote.file.name} that are already here."
            )
        with part.open("rb") as stream:
            while piece := stream.read(PIECE):
                digest.update(piece)
                if self.halt.is_set():
                    raise Halted
        progress(size)
        return digest

    def _receive(self, remote: Remote, state: Part) -> None:
        """Append what is missing, over xet or HTTP; a transport's own errors leave this function."""
        if self.xet and remote.xet_hash and state.size < remote.size:
            try:
                headers = self.utils.build_hf_headers()
                asked = remote.xet_hash, remote.size, remote.xet_route
                for piece in self.xet.stream(*asked, state.size, headers):
                    state.append(piece)
                    if self.halt.is_set():
                        raise Halted
                if state.size >= remote.size:
                    return
            except (ConnectionError, RuntimeError, TimeoutError, ValueError, OSError) as error:
                if self.halt.is_set():
                    raise Halted from None
                if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                    raise
            # Whatever the reason, the same bytes are there by plain HTTP.
            self.note(f"xet gave up on {remote.file.name}: going on over HTTP.")
            self.xet_failed(remote)
        if state.size < remote.size:
            self._receive_http(remote, state)

    def xet_failed(self, remote: Remote) -> None:
        """Use HTTP for the rest of this batch."""
        self.xet, gone = None, self.xet
        if gone:
            gone.close()

    def _receive_http(self, remote: Remote, state: Part) -> None:
        headers = self.utils.build_hf_headers()
        headers["Accept-Encoding"] = "identity"
        if state.size:
            headers["Range"] = f"bytes={state.size}-"
        with self.session.stream(
            "GET", remote.url, headers=headers, timeout=self.timeout
        ) as answer:
            if answer.status_code >= 400:
                answer.read()
            self.utils.hf_raise_for_status(answer)
            if state.size and answer.status_code == 200:  # the server ignored the range
                state.restart(digest_for(remote.etag, remote.size))
            for piece in answer.iter_raw():
                state.append(piece)
                if self.halt.is_set():
                    raise Halted
                if state.size > remote.size:
                    return  # more than promised: the hash will say so
        if state.size < remote.size:
            raise ConnectionError("the connection closed early")

    # ------------------------------------------------------------------ errors

    def _retry(self, file: ModelFile, attempt: Callable[[], Any], state: Part | None = None) -> Any:
        """Call ``attempt`` until it succeeds, is refused, or fails too often without progress."""
        failures, reached = 0, state.size if state else 0
        while True:
            if self.halt.is_set():
                raise Halted
            try:
                return attempt()
            except (self.errors.HfHubHTTPError, self.transport.HTTPError, ConnectionError) as error:
                refusal = self._refusal(error, file)
                if refusal:
                    raise refusal from error
                if state and state.size > reached:
                    failures, reached = 0, state.size
                failures += 1
                if failures > self.retries:
                    raise self._gave_up(error, file) from error
                self.halt.wait(min(self._pause(error, failures), LONGEST_WAIT))

    def _pause(self, error: Exception, failures: int) -> float:
        """Seconds to wait: the server's own wish where it states one, else doubling."""
        answer = getattr(error, "response", None)
        wish = answer.headers.get("Retry-After", "") if answer is not None else ""
        return float(wish) if wish.isdigit() else self.backoff * 2 ** (failures - 1)

    def _refusal(self, error: Exception, file: ModelFile) -> WeightsError | None:
        """The error that trying again will not cure, in words; None where it might."""
        hub, where = self.errors, f"{file.repo}/{file.path}"
        page = f"{self.endpoint}/{file.repo}"
        if isinstance(error, hub.OfflineModeIsEnabled):
            return WeightsError(
                f"{file.name} is not on this machine, and HF_HUB_OFFLINE forbids fetching it",
                where,
                f"Unset HF_HUB_OFFLINE, or put the file ({size_text(file.size)}) into "
                f"comfyui/models/{file.place} or a folder named by LTX23_AIO_MODELS.",
            )
        if isinstance(error, hub.GatedRepoError):
            return WeightsError(
                f"{file.repo} is gated, and this machine's token may not read it",
                where,
                f"Accept its terms at {page}, then set HF_TOKEN to a token of that account.",
            )
        if isinstance(error, (hub.RepositoryNotFoundError, hub.DisabledRepoError)):
            return WeightsError(
                f"There is no repository {file.repo}, or it is private",
                where,
                f"Open {page}; if it exists for you, set HF_TOKEN to a token that may read it.",
            )
        if isinstance(error, (hub.EntryNotFoundError, hub.RevisionNotFoundError)):
            return WeightsError(
                f"{file.repo} has no file {file.path} any more",
                where,
                f"See {page}/tree/main, and correct the path in registry.py.",
            )
        code = _status(error)
        if code in (401, 403):
            return WeightsError(
                f"{file.repo} refuses this machine's token (HTTP {code})",
                where,
                "Set HF_TOKEN to a valid token with read access, or unset it.",
            )
        if code and code not in TRANSIENT:
            return WeightsError(
                f"The server answered HTTP {code} for {file.name}", where, f"Try {page}."
            )
        return None

    def _gave_up(self, error: Exception, file: ModelFile) -> WeightsError:
        code = _status(error)
        tried = f"{self.retries + 1} times"
        what = (
            f"The server answered HTTP {code}, {tried}"
            if code
            else f"{self.endpoint} could not be reached, {tried}"
        )
        return WeightsError(
            f"{file.name} could not be fetched. {what}",
            f"{file.repo}/{file.path}",
            "Check the connection and run again: it goes on where it stopped.",
            detail=f"{type(error).__name__}: {error}",
        )

    def _disk_error(self, error: OSError, remote: Remote) -> WeightsError:
        where = f"{remote.file.repo}/{remote.file.path}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            want = remote.size - self.have(remote)
            return disk_full(remote.file, want, shutil.disk_usage(self.cache).free, self.cache)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return WeightsError(
                f"The Hugging Face cache {self.cache} cannot be written, for {remote.file.name}",
                where,
                "Set HF_HOME to a folder you may write to.",
            )
        return WeightsError(
            f"{remote.file.name} cannot be written: {error.strerror or error}",
            where,
            f"Check the disk of {self.cache}.",
        )


_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)


def disk_full(file: ModelFile, want: int, free: int, folder: Path) -> WeightsError:
    """The error that states both figures, in bytes of ``folder``'s disk."""
    return WeightsError(
        f"The disk is too small: {size_text(want)} are still to come and {size_text(free)} are free at {folder}",
        f"{file.repo}/{file.path}",
        "Free some space, or set HF_HOME to a folder on a larger disk.",
    )


def _status(error: Exception) -> int:
    return getattr(getattr(error, "response", None), "status_code", 0) or 0
