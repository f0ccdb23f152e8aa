"""A loopback HTTP server that speaks the Hugging Face Hub's protocol, with faults on request.

What it speaks: ``/resolve/`` with the Hub's metadata headers and a redirect to a "CDN" on another
host name, byte ranges, 401 / 403 / 404 with the Hub's error codes, 429, 5xx, and the xet token,
reconstruction and data end points. It counts every byte it sends, which is how the tests know what
was fetched twice.

The server runs in threads of the test process; the clients under test are real ones in processes of
their own, pointed here by ``HF_ENDPOINT``.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "1" * 40
XET_CHUNK = 64 * 1024  # bytes of file per xet chunk; the format allows up to 128 KiB
XET_BLOCK = 32  # chunks per xorb
XET_HEADER = 8  # bytes before each chunk in a xorb


@dataclass
class Faults:
    """What goes wrong with one file.

    Attributes:
        rate: bytes per second; 0 is as fast as it goes.
        cut_after: the connection closes once so many bytes of a response were sent; 0 never.
        cut_times: how many responses are cut before one is served whole.
        status: (code, how many data requests get it); -1 times is for ever.
        head_status: the same for metadata requests.
        wrong: serve other bytes than the hash promises.
        no_ranges: answer 200 with the whole file whatever the Range header asks.
        gated: 401 without a token, 403 with one that may not.
        claimed_size: bytes the metadata speaks of; 0 is the truth.
        xet: offer the file through xet as well.
        xet_status: (code, how many xet data requests get it).
    """

    rate: float = 0
    cut_after: int = 0
    cut_times: int = 0
    status: tuple[int, int] = (0, 0)
    head_status: tuple[int, int] = (0, 0)
    wrong: bool = False
    no_ranges: bool = False
    gated: bool = False
    claimed_size: int = 0
    xet: bool = False
    xet_status: tuple[int, int] = (0, 0)


@dataclass
class Stored:
    """One file of a repository."""

    data: bytes
    faults: Faults = field(default_factory=Faults)
    sent: int = 0
    xet_sent: int = 0

    def __post_init__(self):
        self.sha256 = hashlib.sha256(self.data).hexdigest()
        self.xet_hash = hashlib.sha256(b"xet" + self.data).hexdigest()

    def take(self, name: str) -> int:
        """The status code this request fails with, or 0; counts the failure down."""
        code, times = getattr(self.faults, name)
        if not code or times == 0:
            return 0
        setattr(self.faults, name, (code, times - 1))
        return code


class FakeHub:
    """``with FakeHub() as hub: hub.add("org/repo", "a.bin", data)``; clients use ``hub.environ``.

    Attributes:
        requests: (method, path) of everything asked, in order.
        most_at_once: how many data responses were under way at the same time, at most.
        authorizations: (path, whether it came with a token) of the same.
    """

    token = "hf_letmein"  # not a secret: this server's own

    def __init__(self):
        self.files: dict[tuple[str, str], Stored] = {}
        self.requests: list[tuple[str, str]] = []
        self.authorizations: list[tuple[str, bool]] = []
        self.lock = threading.Lock()
        self.at_once = self.most_at_once = 0
        hub = self

        class Handler(_Handler):
            server_version = "FakeHub"

            def __init__(self, *args):
                self.hub = hub
                super().__init__(*args)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.server.server_address[1]

    @property
    def endpoint(self) -> str:
        """The Hub's address; its "CDN" goes by another host name, as in reality."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def cdn(self) -> str:
        """Where data is served from."""
        return f"http://localhost:{self.port}"

    def environ(self, home) -> dict[str, str]:
        """Environment variables that make a Hugging Face client use this server and that home."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_XET_TELEMETRY_ENABLED": "0",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def add(self, repo: str, path: str, data: bytes, **faults) -> Stored:
        """Store a file; keyword arguments are :class:`Faults`."""
        stored = self.files[repo, path] = Stored(data, Faults(**faults))
        return stored

    def sent(self) -> int:
        """Bytes of file data sent so far, over HTTP and xet."""
        return sum(s.sent + s.xet_sent for s in self.files.values())

    def __enter__(self) -> FakeHub:
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *args):
        """Silence."""

    def do_HEAD(self):
        self._route()

    def do_GET(self):
        self._route()

    def _route(self):
        path = urlsplit(self.path).path
        with self.hub.lock:
            self.hub.requests.append((self.command, self.path))
            self.hub.authorizations.append((path, "Authorization" in self.headers))
        for pattern, handler in (
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
            (r"/cdn/([0-9a-f]{64})", self._cdn),
            (r"/api/models/([^/]+/[^/]+)/xet-read-token/(.+)", self._xet_token),
            (r"/cas/v1/reconstructions/([0-9a-f]{64})", self._xet_plan),
            (r"/xorb/([0-9a-f]{64})/(\d+)", self._xet_data),
        ):
            match = re.fullmatch(pattern, path)
            if match:
                try:
                    return handler(*match.groups())
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                    return None
        return self._answer(404, {"X-Error-Code": "RepoNotFound"})

    def _answer(self, code: int, headers: dict | None = None, body: bytes = b""):
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, str(value))
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # ------------------------------------------------------------------ the Hub

    def _resolve(self, repo: str, revision: str, path: str):
        repos = {r for r, _ in self.hub.files}
        if repo not in repos:
            return self._answer(401, {"X-Error-Code": "RepoNotFound"})
        stored = self.hub.files.get((repo, path))
        if stored is None:
            return self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        allowed = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if stored.faults.gated and not allowed:
            code = 403 if self.headers.get("Authorization") else 401
            return self._answer(code, {"X-Error-Code": "GatedRepo"})
        code = stored.take("head_status")
        if code:
            return self._answer(code)
        headers = {
            "Location": f"{self.hub.cdn}/cdn/{stored.sha256}?Expires={time.time_ns()}",
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{stored.sha256}"',
            "X-Linked-Size": stored.faults.claimed_size or len(stored.data),
            "ETag": '"deadbeef"',
        }
        if stored.faults.xet:
            headers["X-Xet-Hash"] = stored.xet_hash
            refresh = f"{self.hub.endpoint}/api/models/{repo}/xet-read-token/{COMMIT}"
            headers["Link"] = f'<{refresh}>; rel="xet-auth"'
        return self._answer(302, headers)

    def _cdn(self, sha256: str):
        stored = next(s for s in self.hub.files.values() if s.sha256 == sha256)
        code = stored.take("status")
        if code:
            return self._answer(code, {"Retry-After": "0"} if code == 429 else None)
        data = bytes(len(stored.data)) if stored.faults.wrong else stored.data
        return self._send(stored, data, "sent", allow_range=not stored.faults.no_ranges)

    def _span(self, size: int) -> tuple[int, int] | None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not match:
            return None
        return int(match[1]), min(int(match[2]) + 1 if match[2] else size, size)

    def _send(self, stored: Stored, data: bytes, counter: str, allow_range: bool = True):
        span = self._span(len(data)) if allow_range else None
        start, end = span or (0, len(data))
        if start >= len(data) > 0:
            return self._answer(416, {"Content-Range": f"bytes */{len(data)}"})
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", '"of-the-cdn"')
        if span:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return None
        with self.hub.lock:
            self.hub.at_once += 1
            self.hub.most_at_once = max(self.hub.most_at_once, self.hub.at_once)
        try:
            self._stream(stored, data[start:end], counter)
        finally:
            with self.hub.lock:
                self.hub.at_once -= 1
        return None

    def _stream(self, stored: Stored, data: bytes, counter: str):
        faults, cut = stored.faults, 0
        if faults.cut_after and faults.cut_times:
            faults.cut_times -= 1
            cut = faults.cut_after
        # Few bytes in flight, or the counter runs ahead of what a slow client has received.
        piece = 16 * 1024 if faults.rate else 256 * 1024
        begun = time.monotonic()
        for position in range(0, len(data), piece):
            block = data[position : position + piece]
            if cut and position + len(block) > cut:
                self.close_connection = True
                return
            if faults.rate:
                time.sleep(max(0.0, begun + position / faults.rate - time.monotonic()))
            self.wfile.write(block)
            with self.hub.lock:
                setattr(stored, counter, getattr(stored, counter) + len(block))

    # ------------------------------------------------------------------ xet

    def _by_xet(self, xet_hash: str) -> Stored:
        return next(s for s in self.hub.files.values() if s.xet_hash == xet_hash)

    def _xet_token(self, repo: str, revision: str):
        url, until = f"{self.hub.endpoint}/cas", int(time.time()) + 3600
        headers = {
            "X-Xet-Cas-Url": url,
            "X-Xet-Access-Token": "xet",
            "X-Xet-Token-Expiration": until,
            "Content-Type": "application/json",
        }
        body = {"casUrl": url, "accessToken": "xet", "exp": until}
        self._answer(200, headers, json.dumps(body).encode())

    def _xet_plan(self, xet_hash: str):
        """Which chunks make up a range of the file, and where they are; xorb n has XET_BLOCK chunks."""
        stored = self._by_xet(xet_hash)
        size = len(stored.data)
        start, end = self._span(size) or (0, size)
        if start >= size:
            return self._answer(416)
        first, last = start // XET_CHUNK, -(-end // XET_CHUNK)
        terms, fetch = [], {}
        for block in range(first // XET_BLOCK, -(-last // XET_BLOCK)):
            low = max(first, block * XET_BLOCK) - block * XET_BLOCK
            high = min(last, (block + 1) * XET_BLOCK) - block * XET_BLOCK
            base = block * XET_BLOCK * XET_CHUNK
            length = min(base + high * XET_CHUNK, size) - (base + low * XET_CHUNK)
            name = hashlib.sha256(f"{xet_hash}{block}".encode()).hexdigest()
            span = {"start": low, "end": high}
            terms.append({"hash": name, "unpacked_length": length, "range": span})
            stride = XET_CHUNK + XET_HEADER
            at = {
                "start": low * stride,
                "end": low * stride + length + (high - low) * XET_HEADER - 1,
            }
            url = f"{self.hub.cdn}/xorb/{xet_hash}/{block}?start={low}"
            fetch[name] = [{"range": span, "url": url, "url_range": at}]
        offset = start - first * XET_CHUNK
        plan = {"offset_into_first_range": offset, "terms": terms, "fetch_info": fetch}
        return self._answer(200, {"Content-Type": "application/json"}, json.dumps(plan).encode())

    def _xet_data(self, xet_hash: str, block: str):
        stored = self._by_xet(xet_hash)
        code = stored.take("xet_status")
        if code:
            return self._answer(code)
        start = int(block) * XET_BLOCK * XET_CHUNK
        xorb = bytearray()
        data = bytes(len(stored.data)) if stored.faults.wrong else stored.data
        for at in range(start, min(start + XET_BLOCK * XET_CHUNK, len(data)), XET_CHUNK):
            chunk = data[at : at + XET_CHUNK]
            size = len(chunk).to_bytes(3, "little")
            xorb += b"\0" + size + b"\0" + size + chunk  # version, packed, scheme "none", unpacked
        return self._send(stored, bytes(xorb), "xet_sent")
