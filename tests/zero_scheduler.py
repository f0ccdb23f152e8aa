"""A stand-in for ZeroGPU's scheduler on loopback, speaking the HTTP API of ``spaces`` 0.51.3.

It grants GPUs that do not exist, keeps callers waiting, refuses in every way the real one does, and
ends workers as the real one does: at the deadline, and when their release says that they failed.
What it cannot show: memory of a card, and the real scheduler's own policy.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PING = 0.1  # seconds between two pings of a queue's stream


@dataclass
class Grant:
    """A GPU given to one call."""

    token: str
    index: int
    seconds: float
    pid: int = 0
    timer: threading.Timer | None = None
    since: float = field(default_factory=time.monotonic)


@dataclass
class Answer:
    """What the next call of ``/schedule`` gets instead of a GPU at once.

    Attributes:
        status: HTTP status; 429 with ``left`` and ``wait`` is a refusal for the quota.
        queue: seconds in the queue's stream first; None for no stream.
        then: how the stream ends: ``succeeded``, ``failed`` or ``end`` (closed without a word).
        headers: of the answer.
        delay: seconds before anything is answered.
        body: sent as it is, in place of what the real scheduler would say; None for that.
        hang_up: close the connection without any answer.
    """

    status: int = 200
    left: int = 0
    wait: float = 0.0
    queue: float | None = None
    then: str = "succeeded"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    body: bytes | None = None
    hang_up: bool = False


class Scheduler:
    """The stand-in. ``with Scheduler() as scheduler: scheduler.url``.

    Attributes:
        slots: how many GPUs there are.
        keep_warm: whether a worker that was released well may be used again.
        answers: what the next calls of ``/schedule`` get, in this order; then GPUs.
        allows, releases: statuses the next calls of these endpoints get. A refused allow starts
            nothing; a release happens all the same.
        calls: (endpoint, parameters, time) of every call.
        killed: process ids ended here, in order.
        spans: seconds from grant to release of every call that was released, in order.
    """

    def __init__(self, slots: int = 1):
        self.slots, self.keep_warm = slots, True
        self.answers: list[Answer] = []
        self.allows: list[int] = []
        self.releases: list[int] = []
        self.calls: list[tuple[str, dict[str, str], float]] = []
        self.killed: list[int] = []
        self.spans: list[float] = []
        self._lock = threading.RLock()
        self._grants: dict[str, Grant] = {}
        self._workers: dict[int, int] = {}  # GPU -> process that holds it warm
        self._count = 0
        scheduler = self

        class Handler(BaseHTTPRequestHandler):
            """One request; every endpoint is a POST."""

            def do_POST(self) -> None:
                parts = urlsplit(self.path)
                given = {name: values[0] for name, values in parse_qs(parts.query).items()}
                scheduler._serve(self, parts.path, given)

            def log_message(self, *_) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Scheduler:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        with self._lock:
            pids = {grant.pid for grant in self._grants.values()} | set(self._workers.values())
            for grant in self._grants.values():
                if grant.timer:
                    grant.timer.cancel()
        for pid in pids - {0}:
            self._kill(pid)
        self._server.shutdown()
        self._server.server_close()

    def asked(self, endpoint: str) -> list[dict[str, str]]:
        """The parameters of all calls of an endpoint."""
        return [given for name, given, _ in self.calls if name == endpoint]

    @property
    def busy(self) -> int:
        """GPUs in use."""
        return len(self._grants)

    # ------------------------------------------------------------------ the endpoints

    def _serve(self, http: BaseHTTPRequestHandler, path: str, given: dict[str, str]) -> None:
        with self._lock:
            self.calls.append((path, given, time.monotonic()))
        if path == "/schedule":
            self._schedule(http, float(given.get("durationSeconds", 60)))
        elif path == "/allow":
            grant = self._grants.get(given["allowToken"])
            status = self.allows.pop(0) if self.allows else 200 if grant else 404
            if grant is not None and status == 200:
                self._start(grant, int(given["pid"]))
            _reply(http, status)
        elif path == "/release":
            status = self._release(given["allowToken"], given["fail"].lower() == "true")
            _reply(http, self.releases.pop(0) if self.releases else status)
        else:
            _reply(http, 200 if path == "/startup-report" else 404)

    def _schedule(self, http: BaseHTTPRequestHandler, seconds: float) -> None:
        with self._lock:
            answer = self.answers.pop(0) if self.answers else Answer()
            waiting = answer.queue is not None or (answer.status == 200 and not self._free())
        time.sleep(answer.delay)
        if answer.hang_up:
            http.close_connection = True
            return
        if answer.body is not None:
            _reply(http, answer.status, answer.body, answer.headers)
        elif answer.status == 429:
            body = {"left": answer.left, "wait": answer.wait}
            _reply(http, 429, body, answer.headers)
        elif answer.status != 200:
            _reply(http, answer.status, headers=answer.headers)
        elif waiting:
            self._stream(http, answer, seconds)
        else:
            _reply(http, 200, self._grant(seconds), answer.headers)

    def _stream(self, http: BaseHTTPRequestHandler, answer: Answer, seconds: float) -> None:
        """The queue: pings until there is a GPU and the time is over, then one last event."""
        http.send_response(200)
        for name, value in {"Content-Type": "text/event-stream", **answer.headers}.items():
            http.send_header(name, value)
        http.end_headers()
        until = time.monotonic() + (answer.queue or 0.0)
        with contextlib.suppress(OSError):  # whoever waited has gone
            while time.monotonic() < until or (answer.then == "succeeded" and not self._free()):
                http.wfile.write(b"event: ping\n\n")
                http.wfile.flush()
                time.sleep(PING)
            if answer.then == "failed":
                http.wfile.write(b"event: failed\n\n")
            elif answer.then == "succeeded":
                given = json.dumps(self._grant(seconds))
                http.wfile.write(f"event: succeeded\ndata: {given}\n\n".encode())
            http.wfile.flush()

    # ------------------------------------------------------------------ GPUs and their workers

    def _free(self) -> list[int]:
        with self._lock:
            used = {grant.index for grant in self._grants.values()}
            return [index for index in range(self.slots) if index not in used]

    def _grant(self, seconds: float) -> dict[str, object]:
        with self._lock:
            free = self._free()
            index = next((i for i in free if i in self._workers), free[0])
            self._count += 1
            grant = Grant(f"grant-{self._count}", index, seconds)
            self._grants[grant.token] = grant
            pid = self._workers.pop(index, 0)
            idle = bool(pid) and self.keep_warm and _alive(pid)
            if idle:
                self._start(grant, pid)
            elif pid:
                self._kill(pid)
        uuid = f"GPU-{index:08d}-0000-0000-0000-000000000000"
        return {
            "idle": idle,
            "nvidiaIndex": index,
            "nvidiaUUID": uuid,
            "allowToken": grant.token,
        }

    def _start(self, grant: Grant, pid: int) -> None:
        grant.pid = pid
        grant.timer = threading.Timer(grant.seconds, self._overdue, (grant,))
        grant.timer.daemon = True
        grant.timer.start()

    def _overdue(self, grant: Grant) -> None:
        with self._lock:
            if self._grants.pop(grant.token, None) is not None:
                self._kill(grant.pid)

    def _release(self, token: str, fail: bool) -> int:
        with self._lock:
            grant = self._grants.pop(token, None)
            if grant is None:
                return 404
            self.spans.append(time.monotonic() - grant.since)
            if grant.timer:
                grant.timer.cancel()
            if fail:
                self._kill(grant.pid)
            elif grant.pid:
                self._workers[grant.index] = grant.pid
            return 200

    def _kill(self, pid: int) -> None:
        if pid and _alive(pid):
            self.killed.append(pid)
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _reply(
    http: BaseHTTPRequestHandler,
    status: int,
    body: object = None,
    headers: dict[str, str] | None = None,
) -> None:
    data = b"" if body is None else body
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
    http.send_response(status)
    for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
        http.send_header(name, value)
    http.send_header("Content-Length", str(len(data)))
    http.end_headers()
    http.wfile.write(data)
